//! The settings of the audit log and of the event stream.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[audit]`: where decisions are recorded, and what holds when they can't be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// The audit file, one JSON object a line. `-` writes to standard output. None: events are numbered and
    /// streamed, and written nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A file that would grow beyond this many bytes is renamed and a new one begun. 0: never.
    /// Default 104,857,600.
    pub rotate_bytes: u64,
    /// How many renamed files are kept; the oldest goes first. 0 (the default): all.
    pub keep: usize,
    /// Where a signing key is configured, a signed checkpoint follows on so many events. 0: not by number.
    /// Default 1000.
    pub checkpoint_events: u64,
    /// The same when the oldest event since the last checkpoint is so old, in seconds. 0: not by time. Default 60.
    pub checkpoint_seconds: u64,
    /// What happens to an answer that can't be recorded. Default `deny`.
    pub on_failure: OnFailure,
}

/// What happens to an answer that can't be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is not given.
    #[default]
    Deny,
    /// It is given, and the failure is counted. Decisions can then be missing from the log; their numbers
    /// show how many.
    Count,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            file: None,
            rotate_bytes: 100 * 1024 * 1024,
            keep: 0,
            checkpoint_events: 1000,
            checkpoint_seconds: 60,
            on_failure: OnFailure::Deny,
        }
    }
}

/// `[events]`: what is kept for those who watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Events kept in memory, and with them how many may wait to be written: half as many answers, a quarter
    /// as many denials. 64 to 4,194,304; default 65,536. An event takes about one KiB.
    pub ring: usize,
    /// Events that a subscriber takes from the ring at once, at least 1. Default 256.
    pub subscriber_buffer: usize,
    /// Subscribers at a time. Default 64.
    pub max_subscribers: usize,
    /// A subscriber to whom nothing was sent for so long gets a heartbeat, at least 1. Default 10.
    pub heartbeat_seconds: u64,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { ring: 65_536, subscriber_buffer: 256, max_subscribers: 64, heartbeat_seconds: 10 }
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
        write!(f, "[events] {} is {} and has to be {}", self.key, self.found, self.wanted)
    }
}

impl std::error::Error for InvalidConfig {}

impl EventsConfig {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// Names the first key that is out of its range, and the range.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let found = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let invalid = |key, wanted, found| Err(InvalidConfig { key, wanted, found });
        if !(64..=4_194_304).contains(&self.ring) {
            return invalid("ring", "64 to 4194304", found(self.ring));
        }
        if !(1..=self.ring).contains(&self.subscriber_buffer) {
            return invalid("subscriber_buffer", "1 to the size of the ring", found(self.subscriber_buffer));
        }
        if !(1..=3600).contains(&self.heartbeat_seconds) {
            return invalid("heartbeat_seconds", "1 to 3600", self.heartbeat_seconds);
        }
        Ok(())
    }

    pub(super) fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }
}
