//! The shared store's protocol, searched for what breaks it: every order of a few steps of nodes, stores and clocks.
//!
//! A model beside `src/state/valkey` that shares no code with it: `scripts` says what each script does, `steps` what may
//! happen, `laws` what must never, `scopes` how much of it is tried together. With a rule of the protocol switched off a
//! law has to break, and the fewest steps to that are printed.
//!
//! `REMIT_MODEL_MORE=1` tries the larger bounds: minutes, and some gigabytes of memory.

#![expect(unreachable_pub, reason = "a test has no outside")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::struct_excessive_bools,
    reason = "the numbers of a model are small, and each rule is on or off"
)]

#[cfg(test)]
#[path = "store_model/alike.rs"]
mod alike;
#[cfg(test)]
#[path = "store_model/faults.rs"]
mod faults;
#[cfg(test)]
#[path = "store_model/laws.rs"]
mod laws;
#[cfg(test)]
#[path = "store_model/needed.rs"]
mod needed;
#[cfg(test)]
#[path = "store_model/requests.rs"]
mod requests;
#[cfg(test)]
#[path = "store_model/rules.rs"]
mod rules;
#[cfg(test)]
#[path = "store_model/scopes.rs"]
mod scopes;
#[cfg(test)]
#[path = "store_model/scripts.rs"]
mod scripts;
#[cfg(test)]
#[path = "store_model/search.rs"]
mod search;
#[cfg(test)]
#[path = "store_model/state.rs"]
mod state;
#[cfg(test)]
#[path = "store_model/steps.rs"]
mod steps;
