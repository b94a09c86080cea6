//! The settings of the audit log and of the event stream.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::invalid_config::InvalidConfig;
use super::mask::Rules;

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
    /// What has to be on the disk before it is answered. Default `none`.
    pub sync: Durability,
    /// Texts of events that nobody may read: each is written as `masked:` and a keyed digest, and so shown and exported.
    /// Names of events' keys; `resource=/patients/*` and `http_path=…` mask only what lies within. Default: none.
    pub mask: Vec<String>,
}

/// What has to be on the disk before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: what was answered in the last moments before a power loss may be missing from the log. A crash of the
    /// process may cost the events of a few milliseconds.
    #[default]
    None,
    /// Each ALLOW, and each Delegate and Revoke that was done: all that waits is written and synced at once.
    Each,
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
            sync: Durability::None,
            mask: Vec::new(),
        }
    }
}

impl AuditConfig {
    /// Whether the settings go together. Whether the file can be synced shows when it is opened.
    ///
    /// # Errors
    /// Says what doesn't, and what to write.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        Rules::parse(&self.mask)?;
        if self.sync == Durability::None {
            return Ok(());
        }
        let invalid = |why: &str| Err(InvalidConfig(format!("[audit] sync is \"each\", and {why}")));
        if self.on_failure == OnFailure::Count {
            return invalid(
                "on_failure is \"count\", which gives what is not recorded: write on_failure = \"deny\", or sync = \"none\"",
            );
        }
        match &self.file {
            None => invalid("no file is named that could be synced: write file = \"audit.jsonl\" beside it"),
            Some(file) if file.as_os_str() == "-" => {
                invalid("standard output can't be synced: write file = \"audit.jsonl\", or sync = \"none\"")
            }
            Some(_) => Ok(()),
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

impl EventsConfig {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// Names the first key that is out of its range, and the range.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let found = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let invalid = |key: &str, wanted: &str, found: u64| {
            Err(InvalidConfig(format!("[events] {key} is {found} and has to be {wanted}")))
        };
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
