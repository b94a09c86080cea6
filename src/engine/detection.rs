//! Detection that acts: an agent that goes on attempting what it may not is put under quarantine without a person.
//!
//! It must not be turned against innocents. An attempt counts by who saw it ([`crate::state::attempts`]); an
//! administrator is never taken, and no more agents than the policy says.

use std::sync::Arc;

use super::Engine;
use super::recording::outcome_of;
use crate::domain::caller::{IdentityMethod, VerifiedIdentity};
use crate::domain::policy::{Policy, QuarantineAfter};
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::events::{Brief, Event, Long, MessageType, Outcome, Share};
use crate::state::attempts::{Attempt, Counted, Pull, SeenBy};
use crate::state::standing::QuarantineSource;

/// An attempt that was just refused.
#[derive(Clone, Copy)]
pub(super) struct Suspect<'a> {
    pub(super) agent: &'a str,
    pub(super) attempt: Attempt,
    /// None: nobody whose word counts.
    pub(super) seen_by: Option<SeenBy<'a>>,
}

impl Engine {
    /// Counts an attempt. If it is enough, the agent is under quarantine when this returns.
    pub(super) async fn suspect(&self, policy: &Policy, suspect: Suspect<'_>, now: Timestamp) {
        let Suspect { agent, attempt, seen_by } = suspect;
        let (Some(after), Some(seen_by)) = (policy.quarantine_after, seen_by) else { return };
        let Some(name) = policy.name(agent) else { return };
        if policy.is_administrator(agent) || self.is_quarantined(policy, agent) {
            return;
        }
        match self.attempts.note(&name.shared(), attempt, seen_by, after, now) {
            Counted::Noted => {}
            Counted::Enough(pull) => self.pull(policy, pull, after).await,
            Counted::Withheld => self.withhold(policy, name.shared(), attempt, after),
        }
    }

    async fn pull(&self, policy: &Policy, pull: Pull<'_>, after: QuarantineAfter) {
        let now = self.clock.now();
        let (agent, what) = (Arc::clone(pull.agent()), told(pull.attempt(), after));
        let taken = self.state.quarantine(&agent, QuarantineSource::Automatic, now).await;
        let in_force = taken.is_ok();
        let outcome = match taken {
            Ok(_) => self.revocations_settled().await,
            Err(refused) => Err(refused.denial()),
        };
        if in_force {
            pull.done();
            self.tally.automatic_quarantine();
            tracing::warn!(target: "detection", agent = %agent, "quarantined: {what}");
        }
        if let Err(denial) = &outcome {
            tracing::error!(target: "detection", agent = %agent, in_force, "quarantine after {what}: {}", denial.message());
        }
        let event = self.quarantine_event(policy, agent, &format!("automatic: {what}"), outcome.err().as_ref());
        if in_force { self.record_done(event).await } else { self.events.deny(event) }
    }

    fn withhold(&self, policy: &Policy, agent: Arc<str>, attempt: Attempt, after: QuarantineAfter) {
        let QuarantineAfter { max_agents, window_seconds, .. } = after;
        let what = told(attempt, after);
        self.tally.quarantine_withheld();
        tracing::warn!(target: "detection", agent = %agent, max_agents, "not quarantined: {what}");
        let message = format!(
            "{agent} is not quarantined, though it made {what}: max_agents in quarantine_after lets {max_agents} agents be taken in {window_seconds} s; look at it, and give `remit revoke --agent {agent} --quarantine`"
        );
        let denial = Denial::new(Reason::RateLimited, message);
        let event = self.quarantine_event(policy, agent, &format!("withheld: {what}"), Some(&denial));
        // Not held together with others of this second: each names another agent.
        if let Some(place) = self.events.try_reserve(Share::Denial) {
            place.commit(event);
        }
    }

    /// Remit itself pulled the switch, or would have.
    fn quarantine_event(&self, policy: &Policy, agent: Arc<str>, note: &str, denial: Option<&Denial>) -> Event {
        let reason = denial.map_or(Reason::Allowed, Denial::reason);
        let outcome = denial.map_or(Outcome::Accepted, |denial| outcome_of(denial.reason()));
        let now = self.clock.now();
        let mut event = Event::new(MessageType::Quarantine, outcome, reason, self.events.decision_id(), now);
        event.message = denial.map(|denial| Long::from(denial.message().clone())).unwrap_or_default();
        event.target = Brief::copied(&agent);
        event.to_agent = agent;
        event.note = Brief::copied(note);
        event.policy = Some(policy.id.clone());
        event
    }
}

/// Who saw what a caller did in its own name: its connection, or nobody. A name is nobody's word, and what was handed
/// on may come from whoever handed it.
pub(super) fn on_its_own(caller: &VerifiedIdentity) -> Option<SeenBy<'_>> {
    match caller.method {
        IdentityMethod::Mtls | IdentityMethod::Spiffe | IdentityMethod::Jwt | IdentityMethod::ApiKey => {
            Some(SeenBy::Remit)
        }
        IdentityMethod::Forwarded | IdentityMethod::EnforcementPoint | IdentityMethod::SelfAsserted => None,
    }
}

fn told(attempt: Attempt, after: QuarantineAfter) -> String {
    let QuarantineAfter { escalation_attempts, reuse_attempts, window_seconds, .. } = after;
    let (count, kind) = match attempt {
        Attempt::Escalation => (escalation_attempts, "escalation"),
        Attempt::Reuse => (reuse_attempts, "reuse"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {kind} attempt{plural} in {window_seconds} s")
}
