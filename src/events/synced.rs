//! `sync = "each"`: an answer waits until its event is on the disk.

use std::time::Duration;

use super::queue::AuditUnavailable;
use super::{Durability, Events};
use crate::domain::limits;

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
    pub async fn recorded(&self, sequence: u64, within: Duration) -> Result<(), AuditUnavailable> {
        let Some(synced) = &self.shared.synced else { return Ok(()) };
        let mut synced = synced.subscribe();
        // Without this it would sleep on for a moment, as it does where nobody waits.
        self.running.wake();
        let within = within.min(limits::AUDIT_STALL);
        let waited = tokio::time::timeout(within, synced.wait_for(|last| *last >= sequence)).await;
        if matches!(waited, Ok(Ok(_))) {
            return Ok(());
        }
        let queue = &self.shared.queue;
        queue.count_failure();
        Err(queue.health().err().unwrap_or(AuditUnavailable::Stalled))
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
        for (within, least) in [(Duration::from_millis(30), 30), (Duration::from_mins(1), 500), (Duration::ZERO, 0)] {
            let begun = tokio::time::Instant::now();
            assert_eq!(trial.events.recorded(number, within).await, Err(AuditUnavailable::Stalled));
            let waited = begun.elapsed().as_millis();
            assert!((least..least + 300).contains(&waited), "{within:?}: {waited} ms");
        }
        assert_eq!(trial.events.numbers().audit_failures, 3);
        let unsynced = Trial::unwritten(64);
        let number = unsynced.allow("agent-a");
        assert_eq!(unsynced.events.recorded(number, Duration::ZERO).await, Ok(()), "nothing is waited for");
    }
}
