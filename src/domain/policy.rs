//! The policy in force, in the form that decisions look things up in.
//!
//! The policy file's room reads and checks the file and builds this; nothing here can be wrong any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::agent::AgentName;
use super::capability::{Capability, Use};
use super::condition::Condition;
use super::entities::Entities;
use super::limits;
use super::names::{NameMap, NameSet};
use super::resource::{Pattern, Resource};

/// Which policy answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyId {
    /// Counts the policies this process has put in force, from 1.
    pub revision: u64,
    /// SHA-256 of the file's bytes, lower-case hex.
    pub digest: Arc<str>,
}

/// A bucket that refills: so many a second, so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second in the long run, at least 1.
    pub per_second: u32,
    /// Requests at once, at least 1.
    pub burst: u32,
}

/// For Delegate, where a rule doesn't say.
pub const DEFAULT_DELEGATE_RATE: RateLimit = RateLimit { per_second: 1000, burst: 2000 };

/// When the kill switch is pulled without a person: so many attempts of one agent within a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QuarantineAfter {
    /// Attempts to use or pass on more than was given, at least 1.
    pub escalation_attempts: u32,
    /// Attempts to use a token that has no use left, at least 1.
    pub reuse_attempts: u32,
    /// How long an attempt counts, at least 1.
    pub window_seconds: u64,
    /// Agents that are taken within a window; further ones are only reported. 0: all are.
    pub max_agents: u32,
}

impl std::fmt::Display for QuarantineAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { escalation_attempts, reuse_attempts, window_seconds, max_agents } = self;
        let attempts = format!("{escalation_attempts} escalation or {reuse_attempts} reuse attempts");
        match max_agents {
            0 => write!(f, "{attempts} within {window_seconds} s are reported, and nobody is quarantined for them"),
            most => write!(
                f,
                "an agent is quarantined after {attempts} within {window_seconds} s, at most {most} agents in that time"
            ),
        }
    }
}

/// What tokens may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// Lifetime of a token for which none is asked.
    pub default_ttl_seconds: u64,
    /// The longest lifetime, at most 3600.
    pub max_ttl_seconds: u64,
    /// Uses of a token for which none are asked.
    pub default_max_uses: u32,
    /// The most uses between trusted pairs.
    pub max_uses_trusted_pair: u32,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self { default_ttl_seconds: 300, max_ttl_seconds: 300, default_max_uses: 1, max_uses_trusted_pair: 5 }
    }
}

/// An agent's entry in `delegation_rules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// To whom it may delegate.
    pub can_delegate_to: NameSet<AgentName>,
    /// The most it may hold or pass on.
    pub capabilities: NameSet<Capability>,
    /// The most it may hold or pass on.
    pub resources: Vec<Pattern<'static>>,
    /// Targets that may get more than one use.
    pub trusted_pairs: NameSet<AgentName>,
    /// For Delegate.
    pub rate_limit: RateLimit,
}

/// The most that an agent may hold or pass on, or might once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSet {
    /// Its `max_capability_set`.
    pub capabilities: NameSet<Capability>,
    /// Its `max_resources`.
    pub resources: Vec<Pattern<'static>>,
}

/// What policies before the one in force let an agent have.
#[derive(Clone, Debug, Default)]
pub struct Formerly {
    /// Its own sets, as far as they are remembered.
    pub own_sets: Arc<[OwnSet]>,
    /// The most hops that any of them allowed.
    pub max_depth: u8,
}

/// Authority that an agent has of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnGrant {
    /// At least one.
    pub capabilities: NameSet<Capability>,
    /// At least one.
    pub resources: Vec<Pattern<'static>>,
    /// What has to hold where it is used; to delegate from it, nothing has to.
    pub when: Option<Condition>,
}

impl OwnGrant {
    /// Whether it gives this capability on all that is wanted.
    #[must_use]
    pub fn covers(&self, capability: &str, wanted: &Pattern<'_>) -> bool {
        self.capabilities.contains(capability) && self.resources.iter().any(|pattern| pattern.contains(wanted))
    }

    /// Whether it gives this capability on some of what is wanted.
    fn touches(&self, capability: &str, wanted: &Pattern<'_>) -> bool {
        self.capabilities.contains(capability) && self.resources.iter().any(|pattern| pattern.overlaps(wanted))
    }
}

/// A rule of `communication_rules`: who may call whom, how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommunicationRule {
    /// The calling agent; none means any.
    pub from: Option<AgentName>,
    /// The called agent; none means any.
    pub to: Option<AgentName>,
    /// HTTP methods; none means any.
    pub methods: Option<Vec<Box<str>>>,
    /// Patterns of paths; none means any.
    pub paths: Option<Vec<Pattern<'static>>>,
}

/// An entry of `conditions`: what has to hold where it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Capabilities that it is about; none means any.
    pub capabilities: Option<NameSet<Capability>>,
    /// Patterns of resources that it is about; none means any.
    pub resources: Option<Vec<Pattern<'static>>>,
    /// What has to hold.
    pub require: Condition,
}

impl Requirement {
    /// Whether it is about this use; a call that needs no capability is matched by no list but `*` for resources.
    #[must_use]
    pub fn matches(&self, wanted: Option<Use<'_>>) -> bool {
        let capability = |listed: &NameSet<Capability>| wanted.is_some_and(|wanted| listed.contains(wanted.capability));
        let resource = |listed: &Vec<Pattern<'_>>| {
            listed.iter().any(|pattern| match wanted {
                Some(wanted) => pattern.covers(wanted.resource),
                None => pattern.as_str() == "*",
            })
        };
        self.capabilities.as_ref().is_none_or(capability) && self.resources.as_ref().is_none_or(resource)
    }

    /// Whether it is about any use of the capability on something within the pattern.
    fn touches(&self, capability: &str, wanted: &Pattern<'_>) -> bool {
        let about = |listed: &Vec<Pattern<'_>>| listed.iter().any(|pattern| pattern.overlaps(wanted));
        self.capabilities.as_ref().is_none_or(|listed| listed.contains(capability))
            && self.resources.as_ref().is_none_or(about)
    }
}

/// For whom an enforcement point may speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnforcementScope {
    /// Destinations other than itself that it guards.
    pub destinations: NameSet<AgentName>,
    /// The agents that it may state; none means any.
    pub agents: Option<NameSet<AgentName>>,
}

/// What an agent may ask of Remit beside its own business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// May revoke anything, reinstate, and use the admin service.
    pub administrator: bool,
    /// May watch every decision.
    pub auditor: bool,
    /// May state which agent it authenticated.
    pub enforcement_point: Option<EnforcementScope>,
}

/// All that policy says of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentPolicy {
    /// Its entry in `delegation_rules`.
    pub rule: Option<Rule>,
    /// Its entries in `grants`.
    pub grants: Vec<OwnGrant>,
    /// It may start a chain.
    pub starts_chains: bool,
    /// What it may ask of Remit beside its own business.
    pub roles: Roles,
    /// Under the kill switch by the file.
    pub quarantined: bool,
}

/// Why an agent's own set does not have what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// The capability is not in the set.
    Capability,
    /// The resource is not in the set.
    Resource,
}

impl AgentPolicy {
    /// Whether the agent may hold and pass on this. An agent without a rule may hold what it is given.
    ///
    /// # Errors
    /// Says which of the two it may not.
    pub fn may_hold(&self, capability: &str, wanted: &Pattern<'_>) -> Result<(), Beyond> {
        let Some(rule) = &self.rule else { return Ok(()) };
        if !rule.capabilities.contains(capability) {
            return Err(Beyond::Capability);
        }
        if !rule.resources.iter().any(|pattern| pattern.contains(wanted)) {
            return Err(Beyond::Resource);
        }
        Ok(())
    }

    /// Whether the agent has this authority of its own, by `grants`.
    ///
    /// # Errors
    /// Says which of the two no grant has.
    pub fn is_granted(&self, capability: &str, wanted: &Pattern<'_>) -> Result<(), Beyond> {
        if self.grants.iter().any(|grant| grant.covers(capability, wanted)) {
            return Ok(());
        }
        let knows_it = self.grants.iter().any(|grant| grant.capabilities.contains(capability));
        Err(if knows_it { Beyond::Resource } else { Beyond::Capability })
    }
}

/// A request between agents, as communication rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The calling agent.
    pub from: &'a str,
    /// The called agent.
    pub to: &'a str,
    /// The HTTP method.
    pub method: &'a str,
    /// The HTTP path, canonical as a resource is; none for `/` alone, which is no resource.
    pub path: Option<Resource<'a>>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which one this is.
    pub id: PolicyId,
    /// Hops allowed in a chain.
    pub max_delegation_depth: u8,
    /// What tokens may be.
    pub token: TokenRules,
    /// Every agent that policy or configuration names.
    pub agents: NameMap<AgentName, AgentPolicy>,
    /// Whether `grants` is there: then only agents with grants start chains.
    pub has_grants: bool,
    /// Whether any of them has a `when`.
    pub has_when: bool,
    /// What has to hold beside; every one that matches.
    pub conditions: Vec<Requirement>,
    /// Absent: calls between agents are not checked when they are mapped to a capability.
    pub communication_rules: Option<Vec<CommunicationRule>>,
    /// For Authorize, by caller and agent.
    pub authorize_rate: Option<RateLimit>,
    /// When the kill switch is pulled without a person; none: never.
    pub quarantine_after: Option<QuarantineAfter>,
    /// Typed identities (`spiffe://…`, `dns:…`, `cn:…`) and the agents they are.
    pub principals: BTreeMap<Box<str>, AgentName>,
    /// What searches range over, and what is known of each.
    pub entities: Entities,
}

impl Policy {
    /// What policy says of this agent; none if it names no such agent.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&AgentPolicy> {
        self.agents.get(name)
    }

    /// The agent's shared name, if policy knows it.
    #[must_use]
    pub fn name(&self, name: &str) -> Option<&AgentName> {
        self.agents.get_key_value(name).map(|(name, _)| name)
    }

    /// Whether the agent may revoke anything.
    #[must_use]
    pub fn is_administrator(&self, name: &str) -> bool {
        self.agent(name).is_some_and(|agent| agent.roles.administrator)
    }

    /// Whether the agent may watch everything.
    #[must_use]
    pub fn is_auditor(&self, name: &str) -> bool {
        self.agent(name).is_some_and(|agent| agent.roles.auditor)
    }

    /// For whom the agent may speak; none if it is no enforcement point.
    #[must_use]
    pub fn enforcement_point(&self, name: &str) -> Option<&EnforcementScope> {
        self.agent(name)?.roles.enforcement_point.as_ref()
    }

    /// Whether the file has the agent under the kill switch.
    #[must_use]
    pub fn is_quarantined(&self, name: &str) -> bool {
        self.agent(name).is_some_and(|agent| agent.quarantined)
    }

    /// Whether `from` may delegate to `to`.
    #[must_use]
    pub fn may_delegate(&self, from: &str, to: &str) -> bool {
        self.rule(from).is_some_and(|rule| rule.can_delegate_to.contains(to))
    }

    /// Whether `to` may get more than one use from `from`.
    #[must_use]
    pub fn is_trusted_pair(&self, from: &str, to: &str) -> bool {
        self.rule(from).is_some_and(|rule| rule.trusted_pairs.contains(to))
    }

    /// The most uses a token from `from` to `to` may have.
    #[must_use]
    pub fn max_uses(&self, from: &str, to: &str) -> u32 {
        if self.is_trusted_pair(from, to) { self.token.max_uses_trusted_pair } else { 1 }
    }

    /// The agent's limit for Delegate.
    #[must_use]
    pub fn delegate_rate(&self, name: &str) -> RateLimit {
        self.rule(name).map_or(DEFAULT_DELEGATE_RATE, |rule| rule.rate_limit)
    }

    /// Whether the rules let this call pass; none if there are no rules.
    #[must_use]
    pub fn may_call(&self, call: &Call<'_>) -> Option<bool> {
        let rules = self.communication_rules.as_ref()?;
        Some(rules.iter().any(|rule| rule.covers(call)))
    }

    /// A condition that would be asked at some use of one of the capabilities within one of the patterns, on a chain
    /// that `root` began; none if none could.
    #[must_use]
    pub fn condition_on<'c>(
        &self,
        root: &str,
        capabilities: impl IntoIterator<Item = &'c str>,
        patterns: &[Pattern<'_>],
    ) -> Option<&Condition> {
        capabilities
            .into_iter()
            .find_map(|capability| patterns.iter().find_map(|wanted| self.condition_within(root, capability, wanted)))
    }

    fn condition_within(&self, root: &str, capability: &str, wanted: &Pattern<'_>) -> Option<&Condition> {
        let required = self.conditions.iter().find(|requirement| requirement.touches(capability, wanted));
        required.map(|requirement| &requirement.require).or_else(|| {
            let grants = self.agent(root).map(|entry| entry.grants.as_slice()).unwrap_or_default();
            // A grant that covers all of it and asks for nothing is enough, whatever others ask for.
            let is_free = grants.iter().any(|grant| grant.when.is_none() && grant.covers(capability, wanted));
            let mut touching = grants.iter().filter(|grant| !is_free && grant.touches(capability, wanted));
            touching.find_map(|grant| grant.when.as_ref())
        })
    }

    /// The known agent whose name is closest to `name`, if one is close enough to be meant.
    #[must_use]
    pub fn closest_agent(&self, name: &str) -> Option<&AgentName> {
        // A wrong name must not cost more than a right one: long lists and long names get no suggestion.
        if self.agents.len() > limits::SUGGESTION_AGENTS || name.len() > limits::SUGGESTION_BYTES {
            return None;
        }
        let near = |known: &&AgentName| known.as_str().len().abs_diff(name.len()) <= 2;
        self.agents
            .keys()
            .filter(near)
            .map(|known| (strsim::osa_distance(known.as_str(), name), known))
            .filter(|(distance, _)| *distance <= 2)
            .min()
            .map(|(_, known)| known)
    }

    fn rule(&self, name: &str) -> Option<&Rule> {
        self.agent(name)?.rule.as_ref()
    }
}

impl CommunicationRule {
    fn covers(&self, call: &Call<'_>) -> bool {
        let is = |wanted: &Option<AgentName>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted.as_str() == name);
        let method = |methods: &Vec<Box<str>>| methods.iter().any(|method| method.as_ref() == call.method);
        let path = |paths: &Vec<Pattern<'_>>| {
            paths.iter().any(|pattern| match call.path {
                Some(path) => pattern.covers(path),
                None => pattern.as_str() == "*",
            })
        };
        is(&self.from, call.from)
            && is(&self.to, call.to)
            && self.methods.as_ref().is_none_or(method)
            && self.paths.as_ref().is_none_or(path)
    }
}
