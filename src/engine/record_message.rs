//! `RecordMessage`: what one agent answered another, told by a service that stood between them.
//!
//! It gives nothing to anybody, so it asks little: may the caller speak for that agent, and is there room in the log?
//! An agent under quarantine may still be recorded: what it goes on saying is evidence.

use super::event::event;
use super::guarantees::{rate_limited, unrecordable};
use super::rights::no_such_agent;
use super::tally::Verb;
use super::{Beginning, Engine, shared_name};
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::events::{Brief, Long, MessageType, Place};

/// An agent's answer to another.
#[derive(Clone, Copy, Debug)]
pub struct AgentMessage<'a> {
    /// The agent that answers.
    pub from: &'a str,
    /// The agent that is answered.
    pub to: &'a str,
    /// The token under which the work was done, if any.
    pub token_id: Option<TokenId>,
    /// The caller's own correlation id; empty for none.
    pub task: &'a str,
    /// What was answered; empty to record that and not what.
    pub text: &'a str,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
}

impl Engine {
    /// Records a message; its number in this process's stream.
    ///
    /// # Errors
    /// The caller may not, or it can't be recorded.
    pub async fn record_message(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        message: &AgentMessage<'_>,
    ) -> Result<u64, Denial> {
        let policy = &beginning.in_force.policy;
        let now = self.clock.now();
        let place = match self.may_record(policy, caller, message, now) {
            Ok(()) => self.place_for(message.deadline).await,
            Err(denial) => Err(denial),
        };
        let mut event = event(MessageType::Response, &place, self.events.decision_id(), policy, caller, now);
        event.from_agent = shared_name(policy, message.from);
        event.to_agent = shared_name(policy, message.to);
        event.chain = vec![event.from_agent.clone()];
        event.token_id = message.token_id;
        event.task = Brief::copied(message.task);
        event.trace = beginning.trace();
        let mut event = self.timed(event);
        let recorded = match place {
            Ok(place) => {
                // Of a message that is refused no word is kept: the log is not for those who may not write to it.
                event.message = Long::copied(message.text);
                let sequence = place.commit(event);
                self.recorded(sequence, message.deadline).await.map(|()| sequence)
            }
            Err(denial) => {
                self.events.deny(event);
                Err(denial)
            }
        };
        let reason = recorded.as_ref().map_or_else(Denial::reason, |_| Reason::Allowed);
        self.tally.decided(Verb::RecordMessage, reason, self.clock.now().since(now));
        recorded
    }

    /// A place in the log. The state has no part in it: a store that is out of reach keeps no evidence away.
    async fn place_for(&self, deadline: Timestamp) -> Result<Place<'_>, Denial> {
        self.in_time(deadline)?;
        self.events.reserve().await.map_err(unrecordable)
    }

    fn may_record(
        &self,
        policy: &Policy,
        caller: &Caller,
        message: &AgentMessage<'_>,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let AgentMessage { from, to, .. } = *message;
        let asker = caller.agent().as_str();
        self.is_known_and_free(policy, asker)?;
        let refused = |why: String| Err(Denial::new(Reason::CallerNotEnforcementPoint, why));
        let Some(scope) = policy.enforcement_point(asker) else {
            return refused(format!("{asker} may not record messages of agents: list it in enforcement_points"));
        };
        if !caller.is_privileged() {
            let why = "may not record messages by this kind of evidence: connect with a client certificate";
            return refused(format!("{asker} {why}"));
        }
        if from != asker && scope.agents.as_ref().is_some_and(|agents| !agents.contains(from)) {
            return refused(format!("{asker}'s entry in enforcement_points does not list the agent {from}"));
        }
        for name in [from, to] {
            if policy.agent(name).is_none() {
                return Err(no_such_agent(policy, name));
            }
        }
        let Some(limit) = policy.authorize_rate else { return Ok(()) };
        self.authorize_rate.take(asker, from, limit, now).map_err(rate_limited)
    }
}
