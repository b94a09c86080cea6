//! Signed checkpoints: lines of the log that a key vouches for, and with them for every line before.
//!
//! A chain alone shows every change but one: whoever may write the file can write all of it anew. Nobody can do that up
//! to a checkpoint without the key that signed it. Who signs is handed in; the recorder's thread does it, and never a
//! decision.

use std::time::Duration;

use serde_json::{Map, Value};

use super::config::AuditConfig;
use crate::digest::Digest;
use crate::domain::time::Timestamp;

/// Signs what a checkpoint says, as it is at this moment: a JWT, or why there is none.
pub type Sign = Box<dyn Fn(&Checkpoint, Timestamp) -> Result<String, String> + Send + Sync>;

/// What a checkpoint says: where it stands. The signature covers it, and through `previous` every line before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The stream of the line that it stands in.
    pub stream_id: String,
    /// The line's number.
    pub sequence: u64,
    /// `prev_hash`: the digest of the line before.
    pub previous: Digest,
    /// Events since the checkpoint before, or since the process began.
    pub events: u64,
}

impl Checkpoint {
    /// The claims `stream_id`, `sequence`, `prev_hash` and `events`. Who signs adds who it is, and when.
    #[must_use]
    pub fn claims(&self) -> Map<String, Value> {
        let Self { stream_id, sequence, previous, events } = self;
        let claims: [(&str, Value); 4] = [
            ("stream_id", stream_id.as_str().into()),
            ("sequence", (*sequence).into()),
            ("prev_hash", previous.to_string().into()),
            ("events", (*events).into()),
        ];
        claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What these claims say; none if one is missing or not of its form.
    #[must_use]
    pub fn read(claims: &Map<String, Value>) -> Option<Self> {
        Some(Self {
            stream_id: claims.get("stream_id")?.as_str()?.to_owned(),
            sequence: claims.get("sequence")?.as_u64()?,
            previous: Digest::from_hex(claims.get("prev_hash")?.as_str()?)?,
            events: claims.get("events")?.as_u64()?,
        })
    }
}

/// Knows when the next checkpoint is due, and has it signed.
pub(super) struct Notary {
    sign: Sign,
    every_events: u64,
    every: Duration,
    /// Events since the last checkpoint, and when the first of them was written.
    uncovered: u64,
    since: Timestamp,
    /// The stream has its first checkpoint, or could not get it.
    has_begun: bool,
}

impl Notary {
    /// None where the settings want no checkpoints.
    pub(super) fn new(config: &AuditConfig, sign: Sign) -> Option<Self> {
        // Zero is "not by this".
        let unless_zero = |number: u64| if number == 0 { u64::MAX } else { number };
        let AuditConfig { checkpoint_events, checkpoint_seconds, .. } = *config;
        let is_wanted = checkpoint_events > 0 || checkpoint_seconds > 0;
        is_wanted.then(|| Self {
            sign,
            every_events: unless_zero(checkpoint_events),
            every: Duration::from_secs(unless_zero(checkpoint_seconds)),
            uncovered: 0,
            since: Timestamp::default(),
            has_begun: false,
        })
    }

    /// An event was put into the chain.
    pub(super) fn count(&mut self, now: Timestamp) {
        if self.uncovered == 0 {
            self.since = now;
        }
        self.uncovered = self.uncovered.saturating_add(1);
    }

    /// Whether enough was written, or the oldest of it is old enough, or it is the first: a stream in which nobody signed
    /// is taken for a forged one, also where its process was killed early.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let is_old = || !self.has_begun || now.since(self.since) >= self.every;
        self.uncovered >= self.every_events || self.has_uncovered() && is_old()
    }

    /// Whether anything was written since the last checkpoint.
    pub(super) const fn has_uncovered(&self) -> bool {
        self.uncovered > 0
    }

    /// The signature of the checkpoint at this place: it covers all that was counted.
    pub(super) fn sign(
        &mut self,
        stream_id: &str,
        sequence: u64,
        previous: Digest,
        now: Timestamp,
    ) -> Result<String, String> {
        let events = std::mem::take(&mut self.uncovered);
        self.has_begun = true;
        (self.sign)(&Checkpoint { stream_id: stream_id.to_owned(), sequence, previous, events }, now)
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
