//! How much of a test is done, by settings of the environment, and the line that says what was counted.

use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::Value;

/// A whole number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Which random choices: the same for the same number.
pub(crate) fn seed() -> u64 {
    setting("REMIT_SEED", 1)
}

/// How many random questions a test asks at each door.
pub(crate) fn questions() -> u64 {
    setting("REMIT_QUESTIONS", 2000)
}

/// Runs so many random cases, the same ones for the same seed.
pub(crate) fn runner(cases: u64) -> TestRunner {
    let cases = u32::try_from(cases).unwrap();
    let rng_seed = RngSeed::Fixed(seed());
    TestRunner::new(Config { cases, rng_seed, failure_persistence: None, ..Config::default() })
}

/// One line for whoever collects figures: `ASSURE {"what": …, …}`, in this order.
pub(crate) fn assure(what: &str, figures: &[(&str, Value)]) {
    let whole = [("what", Value::from(what))].into_iter().chain(figures.iter().cloned());
    let members: Vec<String> = whole.map(|(name, value)| format!("{}: {value}", Value::from(name))).collect();
    println!("ASSURE {{{}}}", members.join(", "));
}
