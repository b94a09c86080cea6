//! What strangers send, changed at random, without end: nothing panics or takes long, and what is accepted means one thing.
//!
//! Each target has a corpus, `tests/fuzz/corpus/NAME.txt`: a case a line, bytes that are not plain ASCII as `\xNN`. Every case
//! runs every time; then come random changes of them, with words of its language (`NAME.words`). No coverage guides them, but what
//! is accepted is changed further.
//! `REMIT_FUZZ_EXECUTIONS` sets how many changes of each (a few thousand), `REMIT_SEED` which ones (1). A failure tells its
//! input as a line for the corpus.

#![expect(clippy::arithmetic_side_effects, reason = "the sums of these tests are small")]

#[cfg(test)]
#[path = "fuzz/campaign.rs"]
mod campaign;
#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;
#[cfg(test)]
#[path = "fuzz/identities.rs"]
mod identities;
#[cfg(test)]
#[path = "fuzz/mutator.rs"]
mod mutator;
#[cfg(test)]
#[path = "fuzz/policies.rs"]
mod policies;
#[cfg(test)]
#[path = "fuzz/proxies.rs"]
mod proxies;
#[cfg(test)]
#[path = "fuzz/texts.rs"]
mod texts;
#[cfg(test)]
#[path = "fuzz/tokens.rs"]
mod tokens;
