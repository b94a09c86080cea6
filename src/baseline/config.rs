//! The settings of what is learnt.

use serde::{Deserialize, Serialize};

/// `[detection]`: what is noticed and denies nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it is learnt what each agent usually does, and told what it never did before. Default false.
    pub baseline: bool,
    /// For how long an agent is learnt before anything about it is told, and after which what is new is usual. 1 to
    /// 2,592,000 (30 days); default 86,400.
    pub learn_seconds: u64,
    /// A minute with more requests than so many times the most of a minute lately is told, at least 2. Default 10.
    pub rate_factor: u32,
    /// A minute with fewer requests is never told, at least 1. Default 100.
    pub rate_minimum: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { baseline: false, learn_seconds: 86_400, rate_factor: 10, rate_minimum: 100 }
    }
}

/// Why the settings are not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    key: &'static str,
    wanted: &'static str,
    found: u64,
}

impl std::fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[detection] {} is {} and has to be {}", self.key, self.found, self.wanted)
    }
}

impl std::error::Error for InvalidConfig {}

impl Config {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// Names the first key that is out of its range, and the range.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let invalid = |key, wanted, found| Err(InvalidConfig { key, wanted, found });
        if !(1..=2_592_000).contains(&self.learn_seconds) {
            return invalid("learn_seconds", "1 to 2592000", self.learn_seconds);
        }
        if self.rate_factor < 2 {
            return invalid("rate_factor", "at least 2", u64::from(self.rate_factor));
        }
        if self.rate_minimum == 0 {
            return invalid("rate_minimum", "at least 1", 0);
        }
        Ok(())
    }
}
