//! What every event of a verb says: how it ended, who asked, under which policy. What it was about, each verb adds.

use std::sync::Arc;

use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::events::{DecisionId, Event, Long, MessageType, Outcome};

/// An event with these.
pub(super) fn event<T>(
    kind: MessageType,
    outcome: &Result<T, Denial>,
    id: DecisionId,
    policy: &Policy,
    caller: &Caller,
    now: Timestamp,
) -> Event {
    let (reason, message) = match outcome {
        Ok(_) => (Reason::Allowed, Long::default()),
        Err(denial) => (denial.reason(), Long::from(denial.message().clone())),
    };
    let mut event = Event::new(kind, outcome_of(reason), reason, id, now);
    event.message = message;
    let identity = caller.identity();
    event.caller = identity.agent.shared();
    event.identity_method = Some(identity.method);
    event.issuer = Arc::clone(&identity.issuer);
    event.is_self_asserted = identity.is_self_asserted();
    event.policy = Some(policy.id.clone());
    event
}

/// Whether Remit could not decide, for now or about what it was asked.
#[must_use]
pub fn is_undecided(denial: &Denial) -> bool {
    outcome_of(denial.reason()) == Outcome::Error
}

/// `error` where Remit could not decide, `denied` where it decided.
pub(super) fn outcome_of(reason: Reason) -> Outcome {
    let undecided = matches!(
        reason,
        Reason::RequestMalformed
            | Reason::PolicyStale
            | Reason::CapacityExhausted
            | Reason::StateUnavailable
            | Reason::AuditUnavailable
            | Reason::DeadlineExceeded
    );
    match (reason == Reason::Allowed, undecided) {
        (true, _) => Outcome::Accepted,
        (false, true) => Outcome::Error,
        (false, false) => Outcome::Denied,
    }
}
