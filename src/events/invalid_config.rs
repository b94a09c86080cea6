//! What is wrong with a setting, in words that say what to write.

/// Why the settings are not usable, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig(pub(super) String);

impl std::fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidConfig {}
