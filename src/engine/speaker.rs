//! Who acts: the caller itself, or the agent that an enforcement point authenticated.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::detection::on_its_own;
use crate::domain::agent::AgentName;
use crate::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::state::attempts::SeenBy;

/// The agent that acts, and how that is known.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Its name.
    pub agent: AgentName,
    caller: Arc<VerifiedIdentity>,
    is_stated: bool,
    /// What was shown for the agent beside the caller's word.
    evidence: Option<VerifiedIdentity>,
}

impl Speaker {
    /// Who acts when this caller asks: an enforcement point must name the agent, any other caller names itself or nobody.
    /// Evidence has to be of that agent.
    pub(super) fn of(
        policy: &Policy,
        caller: &Caller,
        named: Option<&str>,
        evidence: Option<Result<&VerifiedIdentity, &Denial>>,
    ) -> Result<Self, Denial> {
        let speaker = Self::stated(policy, caller, named)?;
        let Some(evidence) = evidence.transpose().map_err(Denial::clone)? else { return Ok(speaker) };
        if evidence.agent != speaker.agent {
            let message = format!("agent_credential is evidence of {} and not of {}", evidence.agent, speaker.agent);
            return Err(Denial::new(Reason::RequestMalformed, message));
        }
        Ok(Self { evidence: Some(evidence.clone()), ..speaker })
    }

    fn stated(policy: &Policy, caller: &Caller, named: Option<&str>) -> Result<Self, Denial> {
        let by_caller = |agent: &AgentName, is_stated| Self {
            agent: agent.clone(),
            caller: Arc::clone(caller.identity()),
            is_stated,
            evidence: None,
        };
        let itself = || by_caller(caller.agent(), false);
        let listed = policy.enforcement_point(caller.agent().as_str());
        match (listed, named) {
            (None, None) => Ok(itself()),
            (_, Some(name)) if name == caller.agent().as_str() => Ok(itself()),
            (Some(_), Some(name)) if !caller.is_privileged() => {
                let message = format!(
                    "{} may not say that {name} acts by this kind of evidence: connect with a client certificate",
                    caller.agent()
                );
                Err(Denial::new(Reason::CallerNotEnforcementPoint, message))
            }
            (None, Some(name)) => {
                let message = format!(
                    "{} may not say that {name} acts: to decide for agents it authenticated, list it in enforcement_points",
                    caller.agent()
                );
                Err(Denial::new(Reason::CallerNotEnforcementPoint, message))
            }
            (Some(_), None) => {
                // A failed login must never be answered as the service.
                let message = "agent is empty: an enforcement point names the agent that it authenticated, even itself";
                Err(Denial::new(Reason::RequestMalformed, message))
            }
            (Some(scope), Some(name)) => {
                if scope.agents.as_ref().is_some_and(|agents| !agents.contains(name)) {
                    let message =
                        format!("{}'s entry in enforcement_points does not list the agent {name}", caller.agent());
                    return Err(Denial::new(Reason::CallerNotEnforcementPoint, message));
                }
                let Some(agent) = policy.name(name) else { return Err(super::rights::no_such_agent(policy, name)) };
                Ok(by_caller(agent, true))
            }
        }
    }

    /// The destination of the request: the caller, or one for which its entry in `enforcement_points` speaks.
    pub(super) fn destination<'a>(
        policy: &Policy,
        caller: &'a Caller,
        named: Option<&'a str>,
    ) -> Result<&'a str, Denial> {
        let own = caller.agent().as_str();
        let Some(name) = named.filter(|name| *name != own) else { return Ok(own) };
        let scope = policy.enforcement_point(own).filter(|_| caller.is_privileged());
        if scope.is_some_and(|scope| scope.destinations.contains(name)) {
            return Ok(name);
        }
        let message = format!(
            "{own} may not speak for the destination {name}: list it in the destinations of its enforcement_points entry"
        );
        Err(Denial::new(Reason::CallerNotEnforcementPoint, message))
    }

    /// What was shown for the agent beside the caller's word.
    #[must_use]
    pub fn evidence(&self) -> Option<&VerifiedIdentity> {
        self.evidence.as_ref()
    }

    /// Who saw what the agent did; none where nobody but a name says who is there.
    pub(super) fn seen_by(&self) -> Option<SeenBy<'_>> {
        if self.is_stated {
            let is_known = !self.caller.is_self_asserted();
            return is_known.then(|| SeenBy::EnforcementPoint(self.caller.agent.as_str()));
        }
        on_its_own(&self.caller)
    }

    /// The claims of the agent's own evidence; none where somebody else stated it and showed none.
    pub(super) fn claims(&self) -> Option<&Map<String, Value>> {
        let own = (!self.is_stated).then_some(self.caller.as_ref());
        self.evidence.as_ref().or(own).map(|identity| identity.claims.as_ref())
    }

    /// The agent's identity as the answer shows it.
    #[must_use]
    pub fn identity(&self, now: Timestamp) -> VerifiedIdentity {
        if let Some(evidence) = &self.evidence {
            return evidence.clone();
        }
        if !self.is_stated {
            return VerifiedIdentity::clone(&self.caller);
        }
        VerifiedIdentity {
            agent: self.agent.clone(),
            subject: self.agent.shared(),
            method: IdentityMethod::EnforcementPoint,
            issuer: self.caller.agent.shared(),
            claims: Arc::default(),
            verified_at: now,
        }
    }
}
