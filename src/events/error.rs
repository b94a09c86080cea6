//! Why events can't be recorded from the start, or were not to the end.

use super::invalid_config::InvalidConfig;
use super::log::LogError;

/// Why events can't be recorded from the start.
#[derive(Debug)]
pub enum StartError {
    /// A setting is out of its range.
    Config(InvalidConfig),
    /// The audit file can't be used.
    Log(LogError),
    /// The recorder's thread can't be started.
    Thread(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(invalid) => write!(f, "{invalid}"),
            Self::Log(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "the audit log's thread can't be started: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Events that were not written before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// How many.
    pub events: usize,
}

impl std::fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events could not be written to the audit log in time", self.events)
    }
}

impl std::error::Error for Unrecorded {}
