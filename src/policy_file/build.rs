//! From the checked draft to the policy in the form that decisions look things up in.

use std::collections::HashSet;

use super::ExtraRoles;
use super::check::mentioned;
use super::draft::{At, Draft, EntitiesDraft, EntityDraft, GrantDraft, PointDraft, RuleDraft};
use crate::domain::agent::AgentName;
use crate::domain::entities::{Entities, Listed};
use crate::domain::names::NameMap;
use crate::domain::policy::{AgentPolicy, EnforcementScope, OwnGrant, Policy, PolicyId, Roles, Rule};

/// The policy that the draft describes. Every agent that is named anywhere has an entry.
pub(super) fn build(draft: Draft, extra: &ExtraRoles, id: PolicyId) -> Policy {
    let quarantined = draft.quarantined.iter().map(|agent| &agent.value);
    let named = mentioned(&draft, extra).chain(quarantined);
    let mut agents: NameMap<AgentName, AgentPolicy> =
        named.map(|agent| (agent.clone(), AgentPolicy::default())).collect();
    let has_grants = draft.grants.is_some();
    let targets: HashSet<AgentName> = draft
        .rules
        .iter()
        .flat_map(|(_, rule)| rule.can_delegate_to.iter().map(|target| target.value.clone()))
        .collect();

    for agent in &draft.quarantined {
        agents.entry(agent.value.clone()).or_default().quarantined = true;
    }
    add_roles(&mut agents, &draft, extra);
    for point in draft.enforcement_points {
        let (agent, scope) = scope(point);
        agents.entry(agent).or_default().roles.enforcement_point = Some(scope);
    }
    for (agent, rule) in draft.rules {
        let starts_chains = !has_grants && !targets.contains(&agent.value);
        let entry = agents.entry(agent.value).or_default();
        entry.rule = Some(compiled_rule(rule));
        entry.starts_chains = starts_chains;
    }
    for grant in draft.grants.into_iter().flat_map(|grants| grants.value) {
        add_grant(&mut agents, grant);
    }

    let entities = Entities::new(agents.keys(), listed(draft.entities));
    let has_when = agents.values().any(|agent| agent.grants.iter().any(|grant| grant.when.is_some()));
    Policy {
        id,
        max_delegation_depth: draft.max_delegation_depth,
        token: draft.token,
        agents,
        has_grants,
        has_when,
        conditions: draft.conditions,
        communication_rules: draft.communication_rules,
        authorize_rate: draft.authorize_rate,
        quarantine_after: draft.quarantine_after,
        principals: draft.principals.into_iter().collect(),
        entities,
    }
}

/// The file's and the configuration's roles. Enforcement points of the file come later, and where both name
/// one, the file's entry counts: it may be narrower.
fn add_roles(agents: &mut NameMap<AgentName, AgentPolicy>, draft: &Draft, extra: &ExtraRoles) {
    let mut add = |agent: &AgentName, role: fn(&mut Roles)| role(&mut agents.entry(agent.clone()).or_default().roles);
    for agent in draft.administrators.iter().map(|agent| &agent.value).chain(&extra.administrators) {
        add(agent, |roles| roles.administrator = true);
    }
    for agent in draft.auditors.iter().map(|agent| &agent.value).chain(&extra.auditors) {
        add(agent, |roles| roles.auditor = true);
    }
    for agent in &extra.enforcement_points {
        add(agent, |roles| roles.enforcement_point = Some(EnforcementScope::default()));
    }
}

fn scope(point: PointDraft) -> (AgentName, EnforcementScope) {
    let PointDraft { agent, destinations, agents } = point;
    (agent.value, EnforcementScope { destinations: values(destinations), agents: agents.map(values) })
}

fn compiled_rule(rule: RuleDraft) -> Rule {
    let RuleDraft { can_delegate_to, capabilities, resources, trusted_pairs, rate_limit } = rule;
    Rule {
        can_delegate_to: values(can_delegate_to),
        capabilities: values(capabilities),
        resources: values(resources),
        trusted_pairs: values(trusted_pairs),
        rate_limit,
    }
}

/// A grant of nothing is no authority, and its agent starts no chains by it.
fn add_grant(agents: &mut NameMap<AgentName, AgentPolicy>, grant: GrantDraft) {
    let GrantDraft { span: _, agent, capabilities, resources, when } = grant;
    if capabilities.is_empty() || resources.is_empty() {
        return;
    }
    let entry = agents.entry(agent.value).or_default();
    entry.grants.push(OwnGrant { capabilities: values(capabilities), resources: values(resources), when });
    entry.starts_chains = true;
}

fn listed(draft: EntitiesDraft) -> Listed {
    let EntitiesDraft { subjects, resources, actions } = draft;
    Listed { subjects: known(subjects), resources: known(resources), actions: values(actions) }
}

fn known<T>(entities: Vec<EntityDraft<T>>) -> Vec<(T, serde_json::Map<String, serde_json::Value>)> {
    entities.into_iter().map(|EntityDraft { name, properties }| (name.value, properties)).collect()
}

fn values<T, C: FromIterator<T>>(list: Vec<At<T>>) -> C {
    list.into_iter().map(|item| item.value).collect()
}
