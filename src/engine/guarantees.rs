//! What has to hold before an answer is given, whatever the verb: there is time for it and room to record it, and what was
//! done and recorded is as durable as the configuration wants it.

use std::time::Duration;

use super::Engine;
use crate::domain::limits;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::events::{AuditUnavailable, Durability, Event, NotInTime, Place, Share};

/// A place in the audit queue, and what the ledger answered.
pub(super) struct Allowed<'e> {
    pub(super) place: Place<'e>,
    pub(super) left: Option<u32>,
}

impl Engine {
    /// There is time to answer before this deadline, now.
    ///
    /// # Errors
    /// There is less than [`limits::DEADLINE_MARGIN`].
    pub fn in_time(&self, deadline: Timestamp) -> Result<(), Denial> {
        if deadline.since(self.clock.now()) >= limits::DEADLINE_MARGIN {
            return Ok(());
        }
        let message = "no time is left to answer, so nothing is spent: call with a longer deadline";
        Err(Denial::new(Reason::DeadlineExceeded, message))
    }

    /// There is time to answer, and a place for the event. The clock is read here: what was checked before took time.
    /// Where the place had to be waited for, or the state is a copy of a store's, `still` says whether what was found out before holds.
    pub(super) async fn ready_to_record(
        &self,
        deadline: Timestamp,
        still: impl Fn() -> Result<(), Denial>,
    ) -> Result<Place<'_>, Denial> {
        self.in_time(deadline)?;
        self.state.accepts().map_err(|refused| refused.denial())?;
        if !self.state.is_local() {
            // The copy may have been stale when it was looked at, and have become fresh since.
            still()?;
        }
        if let Some(place) = self.events.try_reserve(Share::Answer) {
            return Ok(place);
        }
        let waited = self.events.reserve().await;
        let place = waited.map_err(unrecordable)?;
        self.in_time(deadline)?;
        still()?;
        Ok(place)
    }

    /// What was spent or minted is durable where it has to be, and can still be recorded after the wait for that, which
    /// ends with the request's time. What was spent stays spent.
    pub(super) async fn uses_settled(&self, deadline: Timestamp) -> Result<(), Denial> {
        if !self.state.writes_each_use() {
            return Ok(());
        }
        self.state.uses_settled(wait_for_disk(deadline, self.clock.now())).await.map_err(|refused| refused.denial())?;
        self.events.has_room().map_err(unrecordable)
    }

    /// Whether an answer waits for nothing: not for the state's disk or store, and not for the audit log's disk. What waits
    /// is better asked together than one after the other.
    #[must_use]
    pub fn answers_at_once(&self) -> bool {
        self.state.answers_at_once() && self.events.durability() == Durability::None
    }

    /// What was committed under this number is on the disk, where `[audit] sync` wants that before the answer. The wait
    /// ends with the request's time. What was spent stays spent.
    pub(super) async fn recorded(&self, sequence: u64, deadline: Timestamp) -> Result<(), Denial> {
        if self.events.durability() == Durability::None {
            return Ok(());
        }
        let within = deadline.since(self.clock.now());
        self.events.recorded(sequence, within).await.map_err(|why| match why {
            NotInTime::Unavailable(_) => unsynced(),
            NotInTime::Deadline => too_late_for_disk(),
        })
    }

    /// The same for what is done and stays done.
    pub(super) async fn record_done_in_time(&self, place: Option<Place<'_>>, event: Event) -> Result<(), Denial> {
        let kind = event.message_type.as_str();
        let is_recorded = match place {
            Some(place) => self.events.recorded(place.commit(event), limits::AUDIT_STALL).await.is_ok(),
            None => false,
        };
        if is_recorded {
            return Ok(());
        }
        tracing::error!(target: "audit", kind, "done, and could not be recorded in time");
        match self.events.durability() {
            Durability::None => Ok(()),
            Durability::Each => Err(done_and_unsynced()),
        }
    }

    /// What was revoked is durable where it has to be. It is in force in any case.
    pub(super) async fn revocations_settled(&self) -> Result<(), Denial> {
        self.state.revocations_settled(limits::STATE_WAIT).await.map_err(|refused| refused.denial())
    }

    /// Records what was done. A revocation is not undone because it can't be recorded; the failure is counted.
    pub(super) async fn record_done(&self, event: Event) {
        if let Ok(place) = self.events.reserve().await {
            place.commit(event);
        } else {
            tracing::error!(target: "audit", kind = event.message_type.as_str(), "could not be recorded");
        }
    }
}

pub(super) fn unrecordable(why: AuditUnavailable) -> Denial {
    Denial::new(Reason::AuditUnavailable, why.to_string())
}

fn unsynced() -> Denial {
    let message = "the decision could not be brought to the audit log's disk in time, so it is not given, and a use that it cost stays spent: see the service's log about [audit]";
    Denial::new(Reason::AuditUnavailable, message)
}

fn too_late_for_disk() -> Denial {
    let message = "the request's time was over before the decision was on the audit log's disk, so it is not given, and a use that it cost stays spent: ask with a longer deadline";
    Denial::new(Reason::DeadlineExceeded, message)
}

fn done_and_unsynced() -> Denial {
    let message = "it is done and in force, and could not be brought to the audit log's disk in time: see the service's log about [audit]";
    Denial::new(Reason::AuditUnavailable, message)
}

/// How long an answer waits for the disk: nobody is there any more when its deadline is over.
fn wait_for_disk(deadline: Timestamp, now: Timestamp) -> Duration {
    deadline.since(now).min(limits::STATE_WAIT)
}

pub(super) fn rate_limited(wait: Duration) -> Denial {
    let message = format!("too many requests: come back in {} ms", wait.as_millis().max(1));
    Denial::new(Reason::RateLimited, message).retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_waits_for_the_disk_no_longer_than_its_caller_does() {
        let now = Timestamp::from_seconds(1000);
        let left = |left| wait_for_disk(now.after(left), now);
        assert_eq!(left(Duration::from_millis(40)), Duration::from_millis(40));
        assert_eq!(left(Duration::from_secs(50)), limits::STATE_WAIT);
        assert_eq!(wait_for_disk(now, now.after(Duration::from_secs(1))), Duration::ZERO);
    }
}
