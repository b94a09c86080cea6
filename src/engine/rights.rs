//! Who may ask: an agent that policy knows and that is not under quarantine, while the policy is fresh; and for what only
//! some may, auditors and administrators.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Engine;
use crate::domain::caller::Caller;
use crate::domain::chain::quarantined;
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;

impl Engine {
    /// Whether the policy file could not be read and found valid for too long.
    #[must_use]
    pub fn is_policy_stale(&self, now: Timestamp) -> bool {
        let valid_at = Timestamp::from_nanos(self.policy_valid_at.load(Ordering::Relaxed));
        self.max_policy_age.is_some_and(|limit| now.since(valid_at) > limit)
    }

    /// Whether the agent is under the kill switch, by an administrator, by Remit itself or by the file.
    #[must_use]
    pub fn is_quarantined(&self, policy: &Policy, name: &str) -> bool {
        policy.is_quarantined(name)
            || self.state.standing(|standing| standing.is_quarantined(name))
            || self.owed.has(name)
    }

    pub(super) fn none_quarantined<'a>(
        &self,
        policy: &Policy,
        mut chain: impl Iterator<Item = &'a str>,
    ) -> Result<(), Denial> {
        match chain.find(|agent| self.is_quarantined(policy, agent)) {
            Some(agent) => Err(quarantined(agent)),
            None => Ok(()),
        }
    }

    /// Every agent under the kill switch, and who put it there: `api`, `automatic`, `file`.
    #[must_use]
    pub fn quarantines(&self, policy: &Policy) -> BTreeMap<String, Vec<&'static str>> {
        let mut sources = BTreeMap::<String, Vec<&'static str>>::new();
        self.state.standing(|standing| {
            for (name, by) in standing.quarantined() {
                sources.entry(name.to_string()).or_default().extend(by.names());
            }
        });
        for (name, _) in policy.agents.iter().filter(|(_, entry)| entry.quarantined) {
            sources.entry(name.to_string()).or_default().push("file");
        }
        sources
    }

    /// Whether the caller may watch every decision.
    ///
    /// # Errors
    /// Why not.
    pub fn may_audit(&self, policy: &Policy, caller: &Caller) -> Result<(), Denial> {
        let name = caller.agent().as_str();
        let is_auditor = caller.is_privileged() && policy.is_auditor(name);
        let may = is_auditor || is_administrator(policy, caller);
        self.in_role(policy, caller, may, "only auditors and administrators may watch: list the caller in auditors")
    }

    /// Whether the caller may use the admin service.
    ///
    /// # Errors
    /// Why not.
    pub fn may_administer(&self, policy: &Policy, caller: &Caller) -> Result<(), Denial> {
        let may = is_administrator(policy, caller);
        self.in_role(policy, caller, may, "only administrators may ask this: list the caller in administrators")
    }

    /// A stale policy doesn't keep operators from looking what is wrong with it.
    fn in_role(&self, policy: &Policy, caller: &Caller, has_role: bool, message: &'static str) -> Result<(), Denial> {
        let name = caller.agent().as_str();
        if self.is_quarantined(policy, name) {
            return Err(quarantined(name));
        }
        if !has_role {
            return Err(Denial::new(Reason::CallerNotAuthorized, message));
        }
        Ok(())
    }

    /// The agent is known, not quarantined, and the policy is fresh.
    pub(super) fn in_good_standing(&self, policy: &Policy, agent: &str, now: Timestamp) -> Result<(), Denial> {
        self.is_known_and_free(policy, agent)?;
        if self.is_policy_stale(now) {
            let message = "the policy file could not be read and found valid for too long: see the service's log";
            return Err(Denial::new(Reason::PolicyStale, message));
        }
        Ok(())
    }

    /// The agent is known and not quarantined. Ending and looking need no fresh policy.
    pub(super) fn is_known_and_free(&self, policy: &Policy, agent: &str) -> Result<(), Denial> {
        if policy.agent(agent).is_none() {
            return Err(unknown_caller(agent));
        }
        if self.is_quarantined(policy, agent) {
            return Err(quarantined(agent));
        }
        Ok(())
    }
}

/// Whether the caller is an administrator, by evidence that may hold the role.
pub(super) fn is_administrator(policy: &Policy, caller: &Caller) -> bool {
    caller.is_privileged() && policy.is_administrator(caller.agent().as_str())
}

/// An agent that somebody named, who is known: it may be told a name that is near.
pub(super) fn no_such_agent(policy: &Policy, name: &str) -> Denial {
    let meant = policy.closest_agent(name).map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
    Denial::new(Reason::AgentUnknown, format!("policy names no agent {name}{meant}"))
}

/// A caller that policy doesn't know. It is told no names.
fn unknown_caller(name: &str) -> Denial {
    let message = format!(
        "policy names no agent {name}: list a service that decides for agents it authenticated in enforcement_points, and give an agent a rule or name it where it is delegated to"
    );
    Denial::new(Reason::AgentUnknown, message)
}
