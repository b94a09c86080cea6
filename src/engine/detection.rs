//! Detection that acts: an agent that goes on attempting what it may not is put under quarantine without a person.
//!
//! It must not be turned against innocents. An attempt counts by who saw it ([`crate::state::attempts`]); an
//! administrator is never taken, and no more agents than the policy says.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::event::outcome_of;
use crate::domain::caller::{IdentityMethod, VerifiedIdentity};
use crate::domain::policy::{Policy, QuarantineAfter};
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::events::{Brief, Event, Long, MessageType, Outcome, Place, Share};
use crate::keyring::VerifiedToken;
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

    /// Notes uses of a token that were spent or handed on, and that whoever was `seen_by` gets an answer for.
    pub(super) fn note_answered(
        &self,
        policy: &Policy,
        token: &VerifiedToken<'_>,
        uses: u32,
        seen_by: Option<SeenBy<'_>>,
        now: Timestamp,
    ) {
        if policy.quarantine_after.is_some() {
            self.answered.note(token.id(), uses, seen_by == Some(SeenBy::Remit), now);
        }
    }

    /// Whether to ask for a use that is gone speaks against the holder: somebody had each of them; and where the holder
    /// asks on its own connection, it had them there itself. An answer that was dropped, and what an enforcement point
    /// spent, don't.
    pub(super) fn speaks_against_holder(&self, token: &VerifiedToken<'_>, seen_by: Option<SeenBy<'_>>) -> bool {
        let (id, uses) = (token.id(), token.claims().max_uses);
        match seen_by {
            Some(SeenBy::Remit) => self.answered.has_all_of_holder(id, uses),
            Some(SeenBy::EnforcementPoint(_)) => self.answered.has_all(id, uses),
            None => false,
        }
    }

    /// Whether this process has answered for so long that what is asked beyond its policies goes on from no earlier
    /// process's: the window, and as long as a token may live. Policies of before a start are not known, and the file may
    /// have been made tighter meanwhile.
    pub(super) fn knows_former_rules(&self, policy: &Policy, now: Timestamp) -> bool {
        let window = policy.quarantine_after.map_or(0, |after| after.window_seconds);
        let unknown_for = Duration::from_secs(window.max(policy.token.max_ttl_seconds));
        now.since(self.began_at) >= unknown_for
    }

    async fn pull(&self, policy: &Policy, pull: Pull<'_>, after: QuarantineAfter) {
        let now = self.clock.now();
        // Nothing is waited for before it is in force: whose request this is may go away at any moment.
        let place = self.events.try_reserve(Share::Answer);
        let (agent, what) = (Arc::clone(pull.agent()), told(pull.attempt(), after));
        let note = format!("automatic: {what}");
        let unconfirmed = Denial::new(Reason::StateUnavailable, UNCONFIRMED);
        let mut record =
            Record { place, event: Some(self.quarantine_event(policy, Arc::clone(&agent), &note, Some(&unconfirmed))) };
        if let Err(refused) = self.state.quarantine(&agent, QuarantineSource::Automatic, now).await {
            let denial = refused.denial();
            record.event = None;
            if self.is_quarantined(policy, &agent) {
                pull.done();
                self.tally.automatic_quarantine();
                tracing::error!(target: "detection", agent = %agent, "quarantined: {what}: {}", denial.message());
            } else {
                tracing::error!(target: "detection", agent = %agent, "not quarantined after {what}: {}", denial.message());
            }
            return self.events.deny(self.quarantine_event(policy, agent, &note, Some(&denial)));
        }
        pull.done();
        self.tally.automatic_quarantine();
        tracing::warn!(target: "detection", agent = %agent, "quarantined: {what}");
        let done = self.quarantine_event(policy, Arc::clone(&agent), &note, None);
        record.event = Some(done);
        if record.place.is_none() {
            record.place = self.events.reserve().await.ok();
        }
        if let Err(denial) = self.revocations_settled().await {
            tracing::error!(target: "detection", agent = %agent, "its quarantine: {}", denial.message());
            record.event = Some(self.quarantine_event(policy, agent, &note, Some(&denial)));
        }
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

/// What is recorded where nobody waits for the store's word any more.
const UNCONFIRMED: &str = "it is in force on this node, and whose request this was went away before the store confirmed it: it is told until it does";

/// An event that is recorded in any case: also when whoever waits for the answer goes away meanwhile.
struct Record<'e> {
    place: Option<Place<'e>>,
    event: Option<Event>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        match (self.place.take(), self.event.take()) {
            (Some(place), Some(event)) => {
                place.commit(event);
            }
            (None, Some(_)) => tracing::error!(target: "audit", "a quarantine could not be recorded"),
            (_, None) => {}
        }
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
