//! `sync = "each"`: an answer waits until its event is on the disk.

use std::time::Duration;

use super::queue::AuditUnavailable;
use super::{Durability, Events};
use crate::domain::limits;

/// Why what was committed is not known to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInTime {
    /// The log is not well: nothing can be recorded.
    Unavailable(AuditUnavailable),
    /// Whoever asked waits for less than [`limits::AUDIT_STALL`], and this was over. The log is well.
    Deadline,
}

impl Events {
    /// What has to be on the disk before it is answered.
    #[must_use]
    pub fn durability(&self) -> Durability {
        if self.shared.synced.is_some() { Durability::Each } else { Durability::None }
    }

    /// Waits until the event of this number, which was committed, is as durable as it has to be: with `sync = "none"`
    /// not at all, else until it is synced, for this long and at most [`limits::AUDIT_STALL`]. All who wait are
    /// served by one sync.
    ///
    /// # Errors
    /// It was not in this time. It may be later: the log can have an ALLOW that was never given, and never lacks one.
    pub async fn recorded(&self, sequence: u64, within: Duration) -> Result<(), NotInTime> {
        let Some(synced) = &self.shared.synced else { return Ok(()) };
        let mut synced = synced.subscribe();
        // Without this it would sleep on for a moment, as it does where nobody waits.
        self.running.wake();
        let patience = within.min(limits::AUDIT_STALL);
        let waited = tokio::time::timeout(patience, synced.wait_for(|last| *last >= sequence)).await;
        if matches!(waited, Ok(Ok(_))) {
            return Ok(());
        }
        let queue = &self.shared.queue;
        let trouble = queue.health().err();
        if trouble.is_none() && within < limits::AUDIT_STALL {
            // That somebody is in a hurry says nothing of the log, and nobody is to be woken for it.
            return Err(NotInTime::Deadline);
        }
        queue.count_failure();
        Err(NotInTime::Unavailable(trouble.unwrap_or(AuditUnavailable::Stalled)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{Trial, small};
    use super::*;
    use crate::events::AuditConfig;

    fn each(folder: &std::path::Path) -> Trial {
        let file = Some(folder.join("audit.jsonl"));
        Trial::new(&AuditConfig { file, sync: Durability::Each, ..AuditConfig::default() }, &small(64))
    }

    #[tokio::test]
    async fn an_answer_waits_until_it_is_synced_and_one_sync_serves_all() {
        let folder = tempfile::tempdir().unwrap();
        let mut trial = each(folder.path());
        let numbers: Vec<u64> = (0..20).map(|_| trial.allow("agent-a")).collect();
        let Trial { events, recorder, .. } = &mut trial;
        let waiting = numbers.iter().map(|number| events.recorded(*number, Duration::from_secs(5)));
        let all = async {
            for wait in waiting {
                wait.await.unwrap();
            }
        };
        let turn = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            recorder.turn();
        };
        let begun = tokio::time::Instant::now();
        tokio::join!(all, turn);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        let text = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 20);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_request_or_half_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let trial = each(folder.path());
        let number = trial.allow("agent-a");
        let stalled = NotInTime::Unavailable(AuditUnavailable::Stalled);
        for (within, least, why) in [
            (Duration::from_millis(30), 30, NotInTime::Deadline),
            (Duration::ZERO, 0, NotInTime::Deadline),
            (Duration::from_mins(1), 500, stalled),
            (Duration::from_millis(500), 500, stalled),
        ] {
            let begun = tokio::time::Instant::now();
            assert_eq!(trial.events.recorded(number, within).await, Err(why));
            let waited = begun.elapsed().as_millis();
            assert!((least..least + 300).contains(&waited), "{within:?}: {waited} ms");
        }
        assert_eq!(trial.events.numbers().audit_failures, 2, "a client in a hurry is no failure of the log");
        trial.pass(limits::AUDIT_STALL);
        assert_eq!(trial.events.recorded(number, Duration::ZERO).await, Err(stalled), "nor does it hide one");
        assert_eq!(trial.events.numbers().audit_failures, 3);
        let unsynced = Trial::unwritten(64);
        let number = unsynced.allow("agent-a");
        assert_eq!(unsynced.events.recorded(number, Duration::ZERO).await, Ok(()), "nothing is waited for");
    }
}
