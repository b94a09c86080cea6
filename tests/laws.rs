//! The laws, held against the real engine: an independent oracle answers beside it, and threads race on it.
//!
//! `REMIT_CASES` sets how many random histories are told (2,000), `REMIT_SEED` which ones (1).

#![expect(unreachable_pub, reason = "a test has no outside")]
#![expect(clippy::arithmetic_side_effects, reason = "the sums of these tests are small")]

#[cfg(test)]
#[path = "laws/families.rs"]
mod families;
#[cfg(test)]
#[path = "laws/generate.rs"]
mod generate;
#[cfg(test)]
#[path = "laws/histories.rs"]
mod histories;
#[cfg(test)]
mod model;
#[cfg(test)]
#[path = "laws/patterns.rs"]
mod patterns;
#[cfg(test)]
#[path = "laws/races.rs"]
mod races;
#[cfg(test)]
#[path = "laws/single.rs"]
mod single;
#[cfg(test)]
#[path = "laws/story.rs"]
mod story;
#[cfg(test)]
#[path = "laws/words.rs"]
mod words;
#[cfg(test)]
#[path = "laws/world.rs"]
mod world;
