//! A policy in a few lines: who can start a chain and with what, how much there is, who has which role.

use crate::domain::agent::AgentName;
use crate::domain::policy::{AgentPolicy, EnforcementScope, OwnGrant, Policy, QuarantineAfter, Requirement};

/// Names that the text shows of a list. The serialised form has all.
const SHOWN: usize = 20;

/// What a policy amounts to. `Display` is for people, `Serialize` for programs; lists are sorted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// SHA-256 of the file, lower-case hex.
    pub digest: String,
    /// Hops allowed in a chain.
    pub max_delegation_depth: u8,
    /// Entries of `delegation_rules`.
    pub rules: usize,
    /// Agents that are named anywhere.
    pub agents: usize,
    /// Entries of `grants`; absent if the file has no `grants`.
    pub grants: Option<usize>,
    /// What has to hold beside: entries of `conditions`.
    pub conditions: Vec<Required>,
    /// Entries of `communication_rules`; absent if the file has no such rules, and calls are not checked.
    pub communication_rules: Option<usize>,
    /// Who can start a chain, and with what.
    pub chain_starters: Vec<ChainStarter>,
    /// Who may revoke anything.
    pub administrators: Vec<String>,
    /// Who may watch everything.
    pub auditors: Vec<String>,
    /// Who may state which agent it authenticated.
    pub enforcement_points: Vec<EnforcementPoint>,
    /// Who is under the kill switch.
    pub quarantined: Vec<String>,
    /// After what others are put there without a person; absent if nobody is.
    pub quarantine_after: Option<QuarantineAfter>,
    /// What is listed for searches; absent if nothing is.
    pub entities: Option<EntityCounts>,
}

/// How much is listed for searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EntityCounts {
    /// Agents: all that are named anywhere.
    pub subjects: usize,
    /// Resources.
    pub resources: usize,
    /// Actions.
    pub actions: usize,
}

/// An agent that can start a chain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChainStarter {
    /// Its name.
    pub agent: String,
    /// What it has authority for.
    pub authority: Vec<Authority>,
    /// To whom it may delegate.
    pub can_delegate_to: Vec<String>,
}

/// Each of these capabilities on each of these resources.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Authority {
    /// Capabilities.
    pub capabilities: Vec<String>,
    /// Resource patterns.
    pub resources: Vec<String>,
    /// What has to hold when it is used, on one line and cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// What has to hold for each of these capabilities on each of these resources.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Required {
    /// Capabilities; absent means any.
    pub capabilities: Option<Vec<String>>,
    /// Resource patterns; absent means any.
    pub resources: Option<Vec<String>>,
    /// The condition, on one line and cut.
    pub require: String,
}

/// An enforcement point and its limits.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EnforcementPoint {
    /// Its name.
    pub agent: String,
    /// Destinations other than itself that it guards.
    pub destinations: Vec<String>,
    /// The agents that it may state; absent means any.
    pub agents: Option<Vec<String>>,
}

/// Sums up a policy.
#[must_use]
pub fn summary(policy: &Policy) -> Summary {
    let mut agents: Vec<(&AgentName, &AgentPolicy)> = policy.agents.iter().collect();
    agents.sort_unstable_by_key(|(name, _)| *name);
    let with = |has: fn(&AgentPolicy) -> bool| -> Vec<String> {
        agents.iter().filter(|(_, agent)| has(agent)).map(|(name, _)| name.to_string()).collect()
    };
    let starters = agents.iter().filter(|(_, agent)| agent.starts_chains);
    let points = agents.iter().filter_map(|(name, agent)| Some((name, agent.roles.enforcement_point.as_ref()?)));
    Summary {
        digest: policy.id.digest.to_string(),
        max_delegation_depth: policy.max_delegation_depth,
        rules: agents.iter().filter(|(_, agent)| agent.rule.is_some()).count(),
        agents: agents.len(),
        grants: policy.has_grants.then(|| agents.iter().map(|(_, agent)| agent.grants.len()).sum()),
        conditions: policy.conditions.iter().map(required).collect(),
        communication_rules: policy.communication_rules.as_ref().map(Vec::len),
        chain_starters: starters.map(|(name, agent)| chain_starter(name, agent, policy.has_grants)).collect(),
        administrators: with(|agent| agent.roles.administrator),
        auditors: with(|agent| agent.roles.auditor),
        enforcement_points: points.map(|(name, scope)| enforcement_point(name, scope)).collect(),
        quarantined: with(|agent| agent.quarantined),
        quarantine_after: policy.quarantine_after,
        entities: entity_counts(policy),
    }
}

fn entity_counts(policy: &Policy) -> Option<EntityCounts> {
    let (resources, actions) = (policy.entities.resource_count(), policy.entities.actions().len());
    let counts = EntityCounts { subjects: policy.agents.len(), resources, actions };
    (resources > 0 || actions > 0).then_some(counts)
}

fn chain_starter(name: &AgentName, agent: &AgentPolicy, has_grants: bool) -> ChainStarter {
    let by_rule = agent.rule.as_ref().filter(|_| !has_grants).map(|rule| Authority {
        capabilities: sorted(&rule.capabilities),
        resources: sorted(&rule.resources),
        when: None,
    });
    let by_grant = agent.grants.iter().map(|OwnGrant { capabilities, resources, when }| Authority {
        capabilities: sorted(capabilities),
        resources: sorted(resources),
        when: when.as_ref().map(|when| when.expression.shown()),
    });
    ChainStarter {
        agent: name.to_string(),
        authority: by_rule.into_iter().chain(by_grant).collect(),
        can_delegate_to: agent.rule.as_ref().map(|rule| sorted(&rule.can_delegate_to)).unwrap_or_default(),
    }
}

fn required(requirement: &Requirement) -> Required {
    let Requirement { capabilities, resources, require } = requirement;
    Required {
        capabilities: capabilities.as_ref().map(sorted),
        resources: resources.as_ref().map(sorted),
        require: require.expression.shown(),
    }
}

fn enforcement_point(name: &AgentName, scope: &EnforcementScope) -> EnforcementPoint {
    EnforcementPoint {
        agent: name.to_string(),
        destinations: sorted(&scope.destinations),
        agents: scope.agents.as_ref().map(sorted),
    }
}

fn sorted<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    names.sort_unstable();
    names
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rules, agents, max_delegation_depth, .. } = self;
        writeln!(f, "{rules} rules, {agents} agents, chains of at most {max_delegation_depth} hops")?;
        match self.grants {
            Some(grants) => writeln!(f, "{grants} grants: only agents with grants have authority of their own")?,
            None => writeln!(f, "no grants: authority of its own has an agent with a rule that no rule delegates to")?,
        }
        match self.communication_rules {
            Some(rules) => writeln!(f, "{rules} communication rules: a call that none covers is denied")?,
            None => writeln!(f, "no communication rules: who calls whom is not checked")?,
        }
        self.write_conditions(f)?;
        self.write_starters(f)?;
        writeln!(f, "administrators: {}", listed(&self.administrators))?;
        writeln!(f, "auditors: {}", listed(&self.auditors))?;
        let points: Vec<String> = self.enforcement_points.iter().map(ToString::to_string).collect();
        writeln!(f, "enforcement points: {}", listed(&points))?;
        write!(f, "quarantined: {}", listed(&self.quarantined))?;
        if let Some(after) = &self.quarantine_after {
            write!(f, "\n{after}")?;
        }
        let Some(EntityCounts { subjects, resources, actions }) = self.entities else { return Ok(()) };
        write!(f, "\nsearches range over {subjects} agents, {resources} resources, {actions} actions")
    }
}

impl Summary {
    fn write_conditions(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.conditions.is_empty() {
            return Ok(());
        }
        writeln!(f, "every condition that matches must hold:")?;
        for Required { capabilities, resources, require } in self.conditions.iter().take(SHOWN) {
            let any =
                |names: &Option<Vec<String>>| names.as_ref().map_or_else(|| "any".to_owned(), |names| listed(names));
            writeln!(f, "  for {} on {}: {}", any(capabilities), any(resources), require)?;
        }
        match self.conditions.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more conditions"),
        }
    }

    fn write_starters(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.chain_starters.is_empty() {
            return writeln!(f, "nobody can start a chain");
        }
        writeln!(f, "can start a chain:")?;
        for starter in self.chain_starters.iter().take(SHOWN) {
            write!(f, "{starter}")?;
        }
        match self.chain_starters.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more agents"),
        }
    }
}

impl std::fmt::Display for ChainStarter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "  {}", self.agent)?;
        for Authority { capabilities, resources, when } in self.authority.iter().take(SHOWN) {
            write!(f, "    with {} on {}", listed(capabilities), listed(resources))?;
            match when {
                Some(when) => writeln!(f, " when {when}")?,
                None => writeln!(f)?,
            }
        }
        let more = self.authority.len().saturating_sub(SHOWN);
        if more > 0 {
            writeln!(f, "    and by {more} more grants")?;
        }
        writeln!(f, "    delegates to {}", listed(&self.can_delegate_to))
    }
}

impl std::fmt::Display for EnforcementPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.agent)?;
        if !self.destinations.is_empty() {
            write!(f, " for {}", self.destinations.join(" and "))?;
        }
        match self.agents.as_deref() {
            None => Ok(()),
            Some([]) => f.write_str(" (may state no agent)"),
            Some(agents) => write!(f, " (may state only {})", agents.join(" and ")),
        }
    }
}

/// The names with commas, the first ones of many.
fn listed(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 if names.is_empty() => "none".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy_file::{ExtraRoles, compile};

    fn of(text: &str) -> Summary {
        let compiled = compile("policy.json", text.as_bytes(), &ExtraRoles::default(), |_| "digest".to_owned(), 1);
        summary(&compiled.unwrap().policy)
    }

    #[test]
    fn says_who_can_start_a_chain_and_with_what() {
        let text = of(include_str!("../../examples/policy.json")).to_string();
        assert_eq!(
            text,
            "3 rules, 5 agents, chains of at most 2 hops\n\
             no grants: authority of its own has an agent with a rule that no rule delegates to\n\
             no communication rules: who calls whom is not checked\n\
             can start a chain:\n  \
               agent-coordinator\n    \
                 with kubectl_apply, kubectl_get, query_database, read_file, write_file on *\n    \
                 delegates to agent-analyst, agent-deployer, agent-writer\n\
             administrators: none\n\
             auditors: none\n\
             enforcement points: none\n\
             quarantined: none"
        );
    }

    #[test]
    fn says_what_has_to_hold_and_where() {
        let summary = of(r#"{"conditions": [{"require": "depth < 2"},
            {"capabilities": ["b", "a"], "resources": ["/x/*"], "require": "context.amount <= 100 &&\n  has(context.ticket)"}],
            "grants": [{"agent": "a", "capabilities": ["c"], "resources": ["*"], "when": "agent == 'a'"}]}"#);
        let text = summary.to_string();
        assert!(
            text.contains(
                "every condition that matches must hold:\n  \
                 for any on any: depth < 2\n  \
                 for a, b on /x/*: context.amount <= 100 &&\\n  has(context.ticket)\n"
            ),
            "{text}"
        );
        assert!(text.contains("    with c on * when agent == 'a'\n"), "{text}");
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(
            json["conditions"][0],
            serde_json::json!({"capabilities": null, "resources": null, "require": "depth < 2"})
        );
        assert_eq!(json["chain_starters"][0]["authority"][0]["when"], "agent == 'a'");
    }

    #[test]
    fn says_which_agents_have_roles() {
        let summary = of(r#"{"administrators": ["ops"], "auditors": ["eye"], "quarantined": ["bad"], "grants": [],
            "enforcement_points": ["gate", {"agent": "mesh", "destinations": ["db"], "agents": ["a", "b"]}]}"#);
        let text = summary.to_string();
        assert!(text.contains("nobody can start a chain\nadministrators: ops\nauditors: eye\n"), "{text}");
        assert!(text.contains("enforcement points: gate, mesh for db (may state only a and b)\n"), "{text}");
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["quarantined"][0], "bad");
        assert_eq!(json["enforcement_points"][1]["agents"][1], "b");
        assert_eq!(json["grants"], 0);
        assert_eq!(json["quarantine_after"], serde_json::Value::Null);
    }

    #[test]
    fn says_after_what_the_kill_switch_is_pulled() {
        let file = |agents: &str| {
            of(&format!(
                r#"{{"quarantine_after": {{"escalation_attempts": 3, "reuse_attempts": 10, "window_seconds": 60{agents}}}}}"#
            ))
        };
        let text = file("").to_string();
        let wanted = "\nan agent is quarantined after 3 escalation or 10 reuse attempts within 60 s, at most 3 agents in that time";
        assert!(text.ends_with(wanted), "{text}");
        let reported = file(r#", "max_agents": 0"#);
        assert!(reported.to_string().ends_with("within 60 s are reported, and nobody is quarantined for them"));
        let json = serde_json::to_value(&reported).unwrap();
        let after = &json["quarantine_after"];
        assert_eq!((&after["escalation_attempts"], &after["max_agents"]), (&3.into(), &0.into()));
    }
}
