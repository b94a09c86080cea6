//! A policy is put in force, and what comes with it: agents that the file has under quarantine lose their tokens, what agents
//! might do before is remembered, and all of it is recorded.

use std::sync::Arc;

use super::{Engine, InForce};
use crate::domain::agent::AgentName;
use crate::domain::policy::AgentPolicy;
use crate::domain::reason::{Denial, Reason};
use crate::events::{Brief, Event, MessageType, Outcome};
use crate::state::Refused;

impl Engine {
    /// Ends the tokens of an earlier process whose agents the policy file has under quarantine: they may have been put
    /// there while nothing ran. To be called before anything is answered.
    ///
    /// # Errors
    /// That could not be made durable.
    pub async fn take_over(&self) -> Result<(), Denial> {
        if !self.state.is_restored() {
            return Ok(());
        }
        self.enter_quarantines(|_| false).await;
        self.revocations_settled().await
    }

    /// Records the policy that the engine began with, and the quarantines in it.
    pub async fn record_start(&self) {
        let in_force = self.policy();
        let quarantined = in_force.policy.agents.iter().filter(|(_, agent)| agent.quarantined);
        self.record_policy(quarantined.map(|(name, _)| name.clone()).collect()).await;
    }

    /// Puts a policy in force, and records it. Entering quarantine by the file also ends the agent's tokens.
    pub async fn install(&self, policy: InForce) {
        self.tally.know(policy.policy.agents.keys());
        self.tally.max_depth(policy.policy.max_delegation_depth);
        // Before it is in force: no request may meet it without.
        self.former.replaced(&self.policy.load().policy, &policy.policy);
        let before = self.policy.swap(Arc::new(policy));
        let entered = self.enter_quarantines(|name| before.policy.is_quarantined(name)).await;
        if let Err(denial) = self.revocations_settled().await {
            tracing::error!(target: "state", "the policy file's quarantines: {}", denial.message());
        }
        self.record_policy(entered).await;
    }

    /// Ends the tokens of every agent that the file has newly put under quarantine; these are returned.
    async fn enter_quarantines(&self, was_quarantined: impl Fn(&str) -> bool) -> Vec<AgentName> {
        let policy = self.policy();
        let entering =
            |(name, agent): &(&AgentName, &AgentPolicy)| agent.quarantined && !was_quarantined(name.as_str());
        let entered = policy.policy.agents.iter().filter(entering).map(|(name, _)| name.clone()).collect::<Vec<_>>();
        for name in &entered {
            if let Err(refused) = self.end_tokens_of(name).await {
                self.owed.add(name.clone());
                tracing::warn!(target: "state", agent = %name, "its tokens can't be ended yet: {}", refused.denial().message());
            }
        }
        entered
    }

    async fn end_tokens_of(&self, name: &AgentName) -> Result<(), Refused> {
        let now = self.clock.now();
        match self.state.revoke_agent(name.as_str(), now).await {
            // No room to remember one agent: ending everything is the safe way to end its tokens.
            Err(Refused::Full { .. }) => self.state.revoke_all(now).await.map(|_| ()),
            ended => ended.map(|_| ()),
        }
    }

    pub(super) async fn pay_what_is_owed(&self) {
        for name in self.owed.list() {
            if self.end_tokens_of(&name).await.is_ok() {
                self.owed.paid(&name);
                tracing::info!(target: "state", agent = %name, "its tokens are ended, as the policy file asked");
            }
        }
    }

    /// One event for the policy, and one for each agent that it put under quarantine.
    async fn record_policy(&self, entered: Vec<AgentName>) {
        let in_force = self.policy();
        let now = self.clock.now();
        let event = |kind, target: &str| {
            let mut event = Event::new(kind, Outcome::Accepted, Reason::Allowed, self.events.decision_id(), now);
            event.target = Brief::copied(target);
            event.policy = Some(in_force.policy.id.clone());
            event
        };
        self.record_done(event(MessageType::Policy, &in_force.policy.id.digest)).await;
        for name in entered {
            let mut event = event(MessageType::Quarantine, name.as_str());
            event.to_agent = name.shared();
            event.note = Brief::copied("by the policy file");
            self.record_done(event).await;
        }
    }
}
