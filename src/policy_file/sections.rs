//! The file's sections, one reader each.

use jsonc_parser::ast::{Object, Value};

use super::diagnostics::{finding, quoted};
use super::document::span;
use super::draft::{At, Draft, GrantDraft, PointDraft, RuleDraft};
use super::principal;
use super::reading::{Keys, Path, Reader};
use crate::domain::agent::AgentName;
use crate::domain::limits::{
    CHAIN_HOPS, METHOD_BYTES, QUARANTINE_AGENTS, QUARANTINE_ATTEMPTS, QUARANTINE_WINDOW_SECONDS, TTL_SECONDS,
};
use crate::domain::policy::{CommunicationRule, DEFAULT_DELEGATE_RATE, QuarantineAfter, RateLimit, TokenRules};
use crate::domain::resource::Pattern;

const DEFAULT_DEPTH: u8 = 2;
/// Agents that `quarantine_after` takes in a window.
const DEFAULT_QUARANTINE_AGENTS: u64 = 3;

const POLICY: Keys = Keys {
    known: &[
        "max_delegation_depth",
        "delegation_rules",
        "token",
        "grants",
        "conditions",
        "communication_rules",
        "enforcement_points",
        "administrators",
        "auditors",
        "quarantined",
        "quarantine_after",
        "rate_limits",
        "principals",
        "entities",
    ],
};
const RULE: Keys =
    Keys { known: &["can_delegate_to", "max_capability_set", "max_resources", "trusted_pairs", "rate_limit"] };
const TOKEN: Keys =
    Keys { known: &["default_ttl_seconds", "max_ttl_seconds", "default_max_uses", "max_uses_trusted_pair"] };
const GRANT: Keys = Keys { known: &["agent", "capabilities", "resources", "when"] };
const COMMUNICATION: Keys = Keys { known: &["from", "to", "methods", "paths"] };
const POINT: Keys = Keys { known: &["agent", "destinations", "agents"] };
const RATE_LIMITS: Keys = Keys { known: &["authorize"] };
const QUARANTINE_AFTER: Keys =
    Keys { known: &["escalation_attempts", "reuse_attempts", "window_seconds", "max_agents"] };
const RATE: Keys = Keys { known: &["per_second", "burst"] };

/// A side of a call.
enum Side {
    Any,
    Agent(AgentName),
}

impl Side {
    /// As communication rules have it: none means any.
    fn agent(self) -> Option<AgentName> {
        match self {
            Self::Any => None,
            Self::Agent(agent) => Some(agent),
        }
    }
}

impl Reader<'_> {
    /// Reads the whole file. What is wrong is in the findings, and stands in the draft as its default.
    pub(super) fn draft(&mut self, root: &Object<'_>) -> Draft {
        let top = Path::ROOT;
        self.check_keys(&top, root, &POLICY);
        let value = |key: &str| root.get(key).map(|property| &property.value);
        Draft {
            max_delegation_depth: value("max_delegation_depth")
                .and_then(|value| self.depth(&top.key("max_delegation_depth"), value))
                .unwrap_or(DEFAULT_DEPTH),
            rules: value("delegation_rules").map(|value| self.rules(&top, value)).unwrap_or_default(),
            token: value("token").map(|value| self.token(&top.key("token"), value)).unwrap_or_default(),
            grants: value("grants").map(|value| At { value: self.grants(&top, value), span: span(value) }),
            conditions: value("conditions").map(|value| self.conditions(&top, value)).unwrap_or_default(),
            communication_rules: value("communication_rules").map(|value| self.communication_rules(&top, value)),
            enforcement_points: value("enforcement_points").map(|value| self.points(&top, value)).unwrap_or_default(),
            administrators: self.roles(&top, root, "administrators"),
            auditors: self.roles(&top, root, "auditors"),
            quarantined: self.roles(&top, root, "quarantined"),
            authorize_rate: value("rate_limits").and_then(|value| self.rate_limits(&top.key("rate_limits"), value)),
            quarantine_after: value("quarantine_after")
                .and_then(|value| self.quarantine_after(&top.key("quarantine_after"), value)),
            principals: value("principals").map(|value| self.principals(&top, value)).unwrap_or_default(),
            entities: value("entities").map(|value| self.entities(&top.key("entities"), value)).unwrap_or_default(),
        }
    }

    fn depth(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<u8> {
        let most = u64::try_from(CHAIN_HOPS).unwrap_or_default();
        let depth = self.integer(path, value, 1..=most)?;
        u8::try_from(depth).ok()
    }

    fn roles(&mut self, top: &Path<'_>, root: &Object<'_>, key: &str) -> Vec<At<AgentName>> {
        root.get(key).map(|property| self.agents(&top.key(key), &property.value)).unwrap_or_default()
    }

    fn rules(&mut self, top: &Path<'_>, value: &Value<'_>) -> Vec<(At<AgentName>, RuleDraft)> {
        let path = top.key("delegation_rules");
        let mut rules = Vec::new();
        for entry in self.map(&path, value) {
            let name = entry.name.as_str();
            let path = path.key(name);
            let agent = self.agent_name(&path, name, span(&entry.name));
            let object = self.object(&path, &entry.value, &RULE);
            // A bad name must not hide what else is wrong with the rule.
            let rule = object.map(|object| self.rule(&path, name, object));
            rules.extend(agent.zip(rule));
        }
        rules
    }

    fn rule(&mut self, path: &Path<'_>, agent: &str, rule: &Object<'_>) -> RuleDraft {
        let value = |key: &str| rule.get(key).map(|property| &property.value);
        let mut agents = |key: &str| value(key).map(|value| self.agents(&path.key(key), value)).unwrap_or_default();
        let (can_delegate_to, trusted_pairs) = (agents("can_delegate_to"), agents("trusted_pairs"));
        if let Some(itself) = can_delegate_to.iter().find(|target| target.value.as_str() == agent) {
            self.refuse(itself.span.clone(), &path.key("can_delegate_to"), "an agent can't delegate to itself");
        }
        RuleDraft {
            can_delegate_to,
            capabilities: value("max_capability_set")
                .map(|value| self.capabilities(&path.key("max_capability_set"), value))
                .unwrap_or_default(),
            resources: value("max_resources").map_or_else(
                || vec![At { value: Pattern::everything(), span: span(rule) }],
                |value| self.patterns(&path.key("max_resources"), value),
            ),
            trusted_pairs,
            rate_limit: value("rate_limit")
                .and_then(|value| self.rate(&path.key("rate_limit"), value))
                .unwrap_or(DEFAULT_DELEGATE_RATE),
        }
    }

    fn rate(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<RateLimit> {
        let rate = self.object(path, value, &RATE)?;
        let per_second = self.required(path, rate, "per_second");
        let burst = self.required(path, rate, "burst");
        let per_second = per_second.and_then(|value| self.count(&path.key("per_second"), value));
        let burst = burst.and_then(|value| self.count(&path.key("burst"), value));
        Some(RateLimit { per_second: per_second?, burst: burst? })
    }

    fn rate_limits(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<RateLimit> {
        let limits = self.object(path, value, &RATE_LIMITS)?;
        let authorize = limits.get("authorize")?;
        self.rate(&path.key("authorize"), &authorize.value)
    }

    fn quarantine_after(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<QuarantineAfter> {
        let after = self.object(path, value, &QUARANTINE_AFTER)?;
        let mut number = |key: &str, most: u64| {
            let value = self.required(path, after, key)?;
            self.integer(&path.key(key), value, 1..=most)
        };
        let attempts = u64::from(QUARANTINE_ATTEMPTS);
        let escalations = number("escalation_attempts", attempts);
        let reuses = number("reuse_attempts", attempts);
        let window_seconds = number("window_seconds", QUARANTINE_WINDOW_SECONDS);
        let max_agents = match after.get("max_agents") {
            Some(agents) => self.integer(&path.key("max_agents"), &agents.value, 0..=u64::from(QUARANTINE_AGENTS)),
            None => Some(DEFAULT_QUARANTINE_AGENTS),
        };
        Some(QuarantineAfter {
            escalation_attempts: u32::try_from(escalations?).ok()?,
            reuse_attempts: u32::try_from(reuses?).ok()?,
            window_seconds: window_seconds?,
            max_agents: u32::try_from(max_agents?).ok()?,
        })
    }

    fn count(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<u32> {
        let count = self.integer(path, value, 1..=u64::from(u32::MAX))?;
        u32::try_from(count).ok()
    }

    fn token(&mut self, path: &Path<'_>, value: &Value<'_>) -> TokenRules {
        let defaults = TokenRules::default();
        let Some(token) = self.object(path, value, &TOKEN) else { return defaults };
        let value = |key: &str| token.get(key).map(|property| &property.value);
        let mut seconds = |key: &str| self.integer(&path.key(key), value(key)?, 1..=TTL_SECONDS);
        let (default_ttl, max_ttl) = (seconds("default_ttl_seconds"), seconds("max_ttl_seconds"));
        let mut uses = |key: &str| self.count(&path.key(key), value(key)?);
        let (default_uses, max_uses) = (uses("default_max_uses"), uses("max_uses_trusted_pair"));

        let max_ttl_seconds = max_ttl.unwrap_or(defaults.max_ttl_seconds);
        let max_uses_trusted_pair = max_uses.unwrap_or(defaults.max_uses_trusted_pair);
        let mut above = |key: &str, limit_key: &str, limit: u64| {
            if let Some(value) = value(key) {
                let what = format!("it is more than `{limit_key}`, which is {limit}");
                self.refuse(span(value), &path.key(key), what);
            }
        };
        if default_ttl.is_some_and(|default| default > max_ttl_seconds) {
            above("default_ttl_seconds", "max_ttl_seconds", max_ttl_seconds);
        }
        if default_uses.is_some_and(|default| default > max_uses_trusted_pair) {
            above("default_max_uses", "max_uses_trusted_pair", u64::from(max_uses_trusted_pair));
        }
        TokenRules {
            // A smaller maximum alone is a wish for a smaller default too.
            default_ttl_seconds: default_ttl.unwrap_or(defaults.default_ttl_seconds.min(max_ttl_seconds)),
            max_ttl_seconds,
            default_max_uses: default_uses.unwrap_or(defaults.default_max_uses),
            max_uses_trusted_pair,
        }
    }

    fn grants(&mut self, top: &Path<'_>, value: &Value<'_>) -> Vec<GrantDraft> {
        self.list(&top.key("grants"), value, "a list of grants", |reader, path, value| {
            let grant = reader.object(path, value, &GRANT)?;
            let agent = reader.required(path, grant, "agent");
            let capabilities = reader.required(path, grant, "capabilities");
            let resources = reader.required(path, grant, "resources");
            let agent = agent.and_then(|value| reader.agent(&path.key("agent"), value));
            let capabilities = capabilities.map(|value| reader.capabilities(&path.key("capabilities"), value));
            let resources = resources.map(|value| reader.patterns(&path.key("resources"), value));
            let when = match grant.get("when") {
                // A grant whose condition can't be read is none, rather than one without a condition.
                Some(when) => Some(reader.condition(&path.key("when"), &when.value)?),
                None => None,
            };
            let (agent, capabilities, resources) = (agent?, capabilities?, resources?);
            Some(GrantDraft { agent, capabilities, resources, when, span: span(grant) })
        })
    }

    fn communication_rules(&mut self, top: &Path<'_>, value: &Value<'_>) -> Vec<CommunicationRule> {
        self.list(&top.key("communication_rules"), value, "a list of communication rules", |reader, path, value| {
            let rule = reader.object(path, value, &COMMUNICATION)?;
            let (from, to) = (reader.required(path, rule, "from"), reader.required(path, rule, "to"));
            let from = from.and_then(|value| reader.side(&path.key("from"), value));
            let to = to.and_then(|value| reader.side(&path.key("to"), value));
            let methods = rule
                .get("methods")
                .map(|list| reader.list(&path.key("methods"), &list.value, "a list of HTTP methods", Self::method));
            let paths = rule.get("paths").map(|list| reader.paths(&path.key("paths"), &list.value));
            Some(CommunicationRule { from: from?.agent(), to: to?.agent(), methods, paths })
        })
    }

    fn side(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<Side> {
        match self.text(path, value, "an agent's name or \"*\"")? {
            "*" => Some(Side::Any),
            name => Some(Side::Agent(self.agent_name(path, name, span(value))?.value)),
        }
    }

    fn method(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<Box<str>> {
        let text = self.text(path, value, "an HTTP method")?;
        let of_method = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if text.is_empty() || text.len() > METHOD_BYTES || !text.bytes().all(of_method) {
            let upper = text.to_ascii_uppercase();
            let what = if text != upper && upper.bytes().all(of_method) {
                format!("methods are in upper case: write {}", quoted(&upper))
            } else {
                format!("{} is not an HTTP method; leave `methods` out for any", quoted(text))
            };
            self.refuse(span(value), path, what);
            return None;
        }
        Some(text.into())
    }

    fn paths(&mut self, path: &Path<'_>, value: &Value<'_>) -> Vec<Pattern<'static>> {
        let patterns = self.patterns(path, value);
        for pattern in &patterns {
            let text = pattern.value.as_str();
            if text != "*" && !text.starts_with('/') {
                let what = || finding(format!("{path}: {} covers no path: paths begin with /", quoted(text)));
                self.findings.warning_with(pattern.span.clone(), what);
            }
        }
        patterns.into_iter().map(|pattern| pattern.value).collect()
    }

    fn points(&mut self, top: &Path<'_>, value: &Value<'_>) -> Vec<PointDraft> {
        self.list(&top.key("enforcement_points"), value, "a list of enforcement points", |reader, path, value| {
            if let Value::StringLit(_) = value {
                let agent = reader.agent(path, value)?;
                return Some(PointDraft { agent, destinations: Vec::new(), agents: None });
            }
            let point = reader.object(path, value, &POINT)?;
            let agent = reader.required(path, point, "agent");
            let agent = agent.and_then(|value| reader.agent(&path.key("agent"), value));
            let mut agents = |key: &str| point.get(key).map(|list| reader.agents(&path.key(key), &list.value));
            let (destinations, agents) = (agents("destinations").unwrap_or_default(), agents("agents"));
            Some(PointDraft { agent: agent?, destinations, agents })
        })
    }

    fn principals(&mut self, top: &Path<'_>, value: &Value<'_>) -> Vec<(Box<str>, AgentName)> {
        let path = top.key("principals");
        let mut principals = Vec::new();
        for entry in self.map(&path, value) {
            let identity = entry.name.as_str();
            let checked = principal::check(identity);
            if let Err(invalid) = &checked {
                let what = format!("{} is not a typed identity: {invalid}", quoted(identity));
                self.refuse(span(&entry.name), &path, what);
            }
            let agent = self.agent(&path.key(identity), &entry.value);
            principals.extend(agent.filter(|_| checked.is_ok()).map(|agent| (identity.into(), agent.value)));
        }
        principals
    }
}

#[cfg(test)]
mod tests {
    use crate::policy_file::diagnostics::cases::{Case, are_shown_at_their_place};

    const BAD: &[Case] = &[
        (
            "{\"max_delegation_depth\": «0»}",
            "`max_delegation_depth`: expected a whole number from 1 to 16, found `0`",
            "",
        ),
        ("{\"max_delegation_depth\": «17»}", "from 1 to 16, found `17`", ""),
        ("{\"max_delegation_depth\": «-1»}", "from 1 to 16, found `-1`", ""),
        ("{\"max_delegation_depth\": «2.0»}", "found `2.0`", ""),
        ("{\"max_delegation_depth\": «2e0»}", "found `2e0`", ""),
        ("{\"max_delegation_depth\": «\"2\"»}", "expected a whole number from 1 to 16, found a string", ""),
        ("{\"max_delegation_depth\": «null»}", "found null", ""),
        (
            "{\"token\": {\"max_ttl_seconds\": «3601»}}",
            "`token.max_ttl_seconds`: expected a whole number from 1 to 3600",
            "",
        ),
        ("{\"token\": {\"default_ttl_seconds\": «600»}}", "more than `max_ttl_seconds`, which is 300", ""),
        ("{\"token\": {\"default_max_uses\": «6»}}", "more than `max_uses_trusted_pair`, which is 5", ""),
        ("{\"token\": {\"default_max_uses\": «0»}}", "from 1 to 4294967295", ""),
        ("{\"token\": {\"max_uses_trusted_pair\": «4294967296»}}", "from 1 to 4294967295", ""),
        (
            "{\"token\": {\"max_uses_trusted_pair\": «99999999999999999999999999»}}",
            "found `99999999999999999999999999`",
            "",
        ),
        (
            "{\"rate_limits\": {\"authorize\": {\"per_second\": «0», \"burst\": 1}}}",
            "`rate_limits.authorize.per_second`",
            "",
        ),
        (
            "{\"rate_limits\": {\"authorize\": «{»\"per_second\": 1}}}",
            "`rate_limits.authorize`: `burst` is missing",
            "",
        ),
        (
            "{\"quarantine_after\": «{»\"escalation_attempts\": 3, \"window_seconds\": 60}}",
            "`quarantine_after`: `reuse_attempts` is missing",
            "",
        ),
        (
            "{\"quarantine_after\": {\"escalation_attempts\": «0», \"reuse_attempts\": 3, \"window_seconds\": 60}}",
            "`quarantine_after.escalation_attempts`: expected a whole number from 1 to 1000, found `0`",
            "",
        ),
        (
            "{\"quarantine_after\": {\"escalation_attempts\": 3, \"reuse_attempts\": 3, \"window_seconds\": «86401»}}",
            "`quarantine_after.window_seconds`: expected a whole number from 1 to 86400, found `86401`",
            "",
        ),
        (
            "{\"quarantine_after\": {\"escalation_attempts\": 3, \"reuse_attempts\": 3, \"window_seconds\": 60, \"max_agents\": «-1»}}",
            "`quarantine_after.max_agents`: expected a whole number from 0 to 10000, found `-1`",
            "",
        ),
        (
            "{\"quarantine_after\": {\"escalation_attempts\": 3, \"reuse_attempts\": 3, \"window_seconds\": 60, «\"max_agent\"»: 3}}",
            "unknown key `quarantine_after.max_agent`",
            "did you mean `max_agents`?",
        ),
        ("{\"quarantine_after\": «3»}", "expected an object with `escalation_attempts`", ""),
        (
            "{\"delegation_rules\": {\"a\": {\"rate_limit\": «5»}}}",
            "expected an object with `per_second`, `burst`, found a number",
            "",
        ),
        ("{\"delegation_rules\": «[]»}", "`delegation_rules`: expected an object, found an array", ""),
        (
            "{\"delegation_rules\": {\"a\": «true»}}",
            "`delegation_rules.a`: expected an object with `can_delegate_to`",
            "",
        ),
        (
            "{\"delegation_rules\": {\"a\": {\"can_delegate_to\": «\"b\"»}}}",
            "expected a list of agents' names, found a string",
            "",
        ),
        (
            "{\"delegation_rules\": {\"a\": {\"can_delegate_to\": [«1»]}}}",
            "`delegation_rules.a.can_delegate_to[0]`: expected an agent's name, found a number",
            "",
        ),
        ("{\"quarantined\": «null»}", "expected a list of agents' names, found null", ""),
        ("{\"grants\": «{}»}", "expected a list of grants, found an object", ""),
        ("{\"principals\": «[]»}", "`principals`: expected an object", ""),
        ("{\"principals\": {\"dns:a\": «[]»}}", "`principals.dns:a`: expected an agent's name", ""),
        ("{\"delegation_rules\": {«\"agent a\"»: {}}}", "`agent a` is not an agent's name", ""),
        ("{\"delegation_rules\": {«\"\"»: {}}}", "can't be empty", ""),
        ("{\"auditors\": [\"ok\",\n  «\"b\\\"d\"»]}", "`auditors[1]`", ""),
        ("{\"delegation_rules\": {\"a\": {\"max_capability_set\": [«\"read file\"»]}}}", "is not a capability", ""),
        (
            "{\"delegation_rules\": {\"a\": {\"max_resources\": [\"/ok\", «\"/data/rep*\"»]}}}",
            "`delegation_rules.a.max_resources[1]`: `/data/rep*` is not a resource pattern: the * at byte 9",
            "/data/reports/*",
        ),
        ("{\"delegation_rules\": {\"a\": {\"max_resources\": [«\"/data/../x\"»]}}}", "a . or .. segment", ""),
        ("{\"delegation_rules\": {\"a\": {\"max_resources\": [«\"/data/\"»]}}}", "an empty segment", ""),
        (
            "{\"delegation_rules\": {\"agent-a\": {\"can_delegate_to\": [\"b\", «\"agent-a\"»]}}}",
            "an agent can't delegate to itself",
            "",
        ),
        ("{\"grants\": [«{»\"agent\": \"a\", \"capabilities\": [\"c\"]}]}", "`grants[0]`: `resources` is missing", ""),
        (
            "{\"communication_rules\": [{\"from\": \"a\", \"to\": \"*\", \"methods\": [«\"post\"»]}]}",
            "methods are in upper case: write `POST`",
            "",
        ),
        (
            "{\"communication_rules\": [{\"from\": \"a\", \"to\": \"*\", \"methods\": [«\"*\"»]}]}",
            "leave `methods` out for any",
            "",
        ),
        (
            "{\"communication_rules\": [{\"from\": \"a\", \"to\": \"*\", \"paths\": [«\"/v1/../x\"»]}]}",
            "not a resource pattern",
            "",
        ),
        ("{\"communication_rules\": [«{»\"from\": \"a\"}]}", "`communication_rules[0]`: `to` is missing", ""),
        (
            "{\"enforcement_points\": [\"gate\", {\"agent\": «\"gate\"»}]}",
            "`gate` is an enforcement point already",
            "one entry",
        ),
        ("{\"enforcement_points\": [«7»]}", "`enforcement_points[0]`: expected an object with `agent`", ""),
    ];

    #[test]
    fn what_a_section_may_not_have_is_refused() {
        are_shown_at_their_place(BAD);
    }
}
