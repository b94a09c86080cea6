//! `VerifyIdentity`: whom is this evidence of? It was verified before; here is who may be told.

use super::Engine;
use crate::domain::agent::AgentName;
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};

impl Engine {
    /// The caller may ask at all.
    ///
    /// # Errors
    /// It is unknown or under quarantine.
    pub fn may_ask(&self, policy: &Policy, caller: &Caller) -> Result<(), Denial> {
        self.is_known_and_free(policy, caller.agent().as_str())
    }

    /// The caller may be told that evidence is of this agent (none: of nobody that policy knows): of its own anybody
    /// may, of another's an enforcement point, where its entry lists that agent.
    ///
    /// # Errors
    /// It may not.
    pub fn may_be_told(&self, policy: &Policy, caller: &Caller, agent: Option<&AgentName>) -> Result<(), Denial> {
        let asker = caller.agent();
        if agent == Some(asker) {
            return Ok(());
        }
        let refused = |message: String| Err(Denial::new(Reason::CallerNotEnforcementPoint, message));
        let scope = policy.enforcement_point(asker.as_str()).filter(|_| caller.is_privileged());
        let Some(scope) = scope else {
            return refused(format!(
                "the evidence is not of {asker}: to ask about agents it authenticates, list it in enforcement_points"
            ));
        };
        match (&scope.agents, agent) {
            (Some(agents), Some(agent)) if !agents.contains(agent) => {
                refused(format!("{asker}'s entry in enforcement_points does not list the agent {agent}"))
            }
            _ => Ok(()),
        }
    }
}
