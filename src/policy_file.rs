//! Reads, checks and watches the policy; the last good one stays.
//!
//! A policy file is one JSON object ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259), nothing looser). It is
//! read whole and strictly: [`compile`] either gives a [`Policy`] in which nothing is wrong any more, or a
//! [`PolicyError`] that shows each error at its place. Nothing in a file is ever accepted and then ignored.

mod build;
mod check;
mod conditions;
mod diagnostics;
mod directory;
mod document;
mod draft;
mod entities;
mod file;
mod principal;
mod reading;
mod reload;
mod sections;
mod status;
mod summary;

use std::sync::Arc;

use crate::domain::agent::AgentName;
use crate::domain::policy::{Policy, PolicyId};

pub use diagnostics::{Diagnostic, MOST_SHOWN, Place, PolicyError, Severity};
pub use file::{LoadError, PolicyFile, ReadError};
pub use reload::{DEFAULT_POLL, ReloadError, Reloaded, Reloader, Watcher};
pub use status::Status;
pub use summary::{Authority, ChainStarter, EnforcementPoint, EntityCounts, Summary, summary};

/// SHA-256 of the bytes as lower-case hex. Handed in: this room computes no hashes.
pub type Digest = fn(&[u8]) -> String;

/// Roles that the configuration gives, added to those of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraRoles {
    /// May revoke anything, reinstate, and use the admin service.
    pub administrators: Vec<AgentName>,
    /// May watch every decision.
    pub auditors: Vec<AgentName>,
    /// May state any agent; where the file has an entry for one, the file's counts.
    pub enforcement_points: Vec<AgentName>,
}

/// A policy file that was found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What it says.
    pub policy: Policy,
    /// What somebody should look at, at most [`MOST_SHOWN`] places in the file and a few about the whole.
    pub warnings: Vec<Diagnostic>,
    /// The bytes it was compiled from.
    pub source: Arc<[u8]>,
}

/// Compiles a policy file. `name` is the file's name in messages; `revision` becomes part of the policy's id.
///
/// # Errors
/// All that is wrong with the file, up to [`MOST_SHOWN`] errors with their places.
pub fn compile(
    name: &str,
    bytes: &[u8],
    roles: &ExtraRoles,
    digest: Digest,
    revision: u64,
) -> Result<Compiled, PolicyError> {
    let (root, findings) = document::parse(bytes, diagnostics::Findings::new(name, bytes))?;
    let mut reader = reading::Reader::new(findings);
    let draft = reader.draft(&root);
    let mut findings = reader.findings;
    // Between parts of which one could not be read, anything could look wrong.
    if findings.is_clean() {
        check::check(&draft, roles, &mut findings);
    }
    let mut warnings = findings.into_result()?;
    let policy = build::build(draft, roles, PolicyId { revision, digest: digest(bytes).into() });
    if !policy.agents.values().any(|agent| agent.starts_chains) {
        warnings.push(diagnostics::nobody_starts(name, policy.has_grants));
    }
    Ok(Compiled { policy, warnings, source: bytes.into() })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::diagnostics::cases::compiled;
    use super::*;

    fn policy(text: &str) -> Policy {
        compiled(text).unwrap().policy
    }

    fn starters(policy: &Policy) -> Vec<&str> {
        let mut names: Vec<&str> =
            policy.agents.iter().filter(|(_, agent)| agent.starts_chains).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn warnings(text: &str) -> Vec<String> {
        compiled(text).unwrap().warnings.into_iter().map(|warning| warning.message).collect()
    }

    const EXAMPLE: &str = include_str!("../examples/policy.json");

    #[test]
    fn the_example_loads_as_it_stands() {
        let policy = policy(EXAMPLE);
        assert_eq!(policy.max_delegation_depth, 2);
        assert_eq!(policy.agents.len(), 5);
        assert_eq!(starters(&policy), ["agent-coordinator"]);
        assert!(policy.agent("agent-writer").unwrap().rule.is_none());
        assert!(policy.may_delegate("agent-deployer", "agent-validator"));
        let analyst = policy.agent("agent-analyst").unwrap().rule.as_ref().unwrap();
        assert!(analyst.can_delegate_to.is_empty());
        assert_eq!(analyst.resources, [crate::domain::resource::Pattern::everything()]);
        assert_eq!(analyst.rate_limit, crate::domain::policy::DEFAULT_DELEGATE_RATE);
    }

    #[test]
    fn the_smallest_policy_allows_nothing() {
        let policy = policy("{}");
        assert!(policy.agents.is_empty() && !policy.has_grants && policy.communication_rules.is_none());
        assert_eq!(policy.token, crate::domain::policy::TokenRules::default());
        assert_eq!(policy.max_delegation_depth, 2);
    }

    #[test]
    fn a_condition_is_on_what_its_patterns_overlap() {
        let policy = policy(
            r#"{"conditions": [{"capabilities": ["pay"], "resources": ["db:a", "prod/x/*"], "require": "true"}],
            "grants": [{"agent": "a", "capabilities": ["get"], "resources": ["dev/x"], "when": "true"},
                       {"agent": "b", "capabilities": ["get"], "resources": ["dev/*"], "when": "true"},
                       {"agent": "b", "capabilities": ["get"], "resources": ["dev/y"]}]}"#,
        );
        for (root, capability, pattern, is_on) in [
            ("a", "pay", "prod/x/y", true),
            ("a", "pay", "prod/*", true),
            ("a", "pay", "*", true),
            ("a", "pay", "db:a", true),
            ("a", "pay", "db:b", false),
            ("a", "put", "*", false),
            ("a", "get", "dev/*", true),
            ("a", "get", "dev/y", false),
            ("b", "get", "dev/y", false),
            ("b", "get", "dev/*", true),
            ("c", "get", "dev/*", false),
        ] {
            let patterns = [crate::domain::resource::Pattern::parse(pattern).unwrap()];
            let condition = policy.condition_on(root, ["other", capability], &patterns);
            assert_eq!(condition.is_some(), is_on, "{root} {capability} {pattern}");
        }
    }

    #[test]
    fn size_and_nesting_are_bounded() {
        let deep = format!("{{\"x\": {}{}}}", "[".repeat(4_000_000), "]".repeat(4_000_000));
        assert!(compiled(&deep).unwrap_err().to_string().contains("nested deeper than 32"));
        let large = format!("{{\"x\": \"{}\"}}", "a".repeat(8 * 1024 * 1024));
        assert!(compiled(&large).unwrap_err().to_string().contains("more than the 8388608"));
        let many = format!("{{\"x\": [0{}]}}", ",0".repeat(1_000_001));
        assert!(compiled(&many).unwrap_err().to_string().contains("more than 1000000 values"));
    }

    #[test]
    fn without_grants_only_agents_nobody_delegates_to_start_chains() {
        let text = r#"{"delegation_rules": {"a": {"can_delegate_to": ["b"]}, "b": {"can_delegate_to": ["c"]},
            "d": {}}, "administrators": ["x"]}"#;
        assert_eq!(starters(&policy(text)), ["a", "d"]);
        let ring = r#"{"delegation_rules": {"a": {"can_delegate_to": ["b"]}, "b": {"can_delegate_to": ["a"]}}}"#;
        assert!(starters(&policy(ring)).is_empty());
        assert!(warnings(ring).contains(&"nobody can start a chain".to_owned()));
    }

    #[test]
    fn with_grants_exactly_their_agents_start_chains() {
        let text = r#"{"delegation_rules": {"a": {"can_delegate_to": ["b"]}, "b": {"max_capability_set": ["c"]}},
            "grants": [{"agent": "b", "capabilities": ["c"], "resources": ["*"]},
                       {"agent": "free", "capabilities": ["anything"], "resources": ["/x"]},
                       {"agent": "none", "capabilities": [], "resources": ["*"]}]}"#;
        let policy = policy(text);
        assert!(policy.has_grants);
        assert_eq!(starters(&policy), ["b", "free"]);
        assert!(policy.agent("none").unwrap().grants.is_empty());
        assert!(warnings(text).iter().any(|warning| warning.contains("gives `none` nothing")));
        assert!(
            warnings(r#"{"delegation_rules": {"a": {}}, "grants": []}"#)
                .contains(&"nobody can start a chain".to_owned())
        );
    }

    #[test]
    fn whoever_is_named_anywhere_is_known() {
        let agents = |names: &[&str]| names.iter().map(|name| AgentName::parse(name).unwrap()).collect();
        let extra = ExtraRoles {
            administrators: agents(&["x1"]),
            auditors: agents(&["x2"]),
            enforcement_points: agents(&["x3"]),
        };
        let text = r#"{"delegation_rules": {"r": {"can_delegate_to": ["t"], "trusted_pairs": ["p"]}},
            "grants": [{"agent": "g", "capabilities": ["c"], "resources": ["*"]}],
            "communication_rules": [{"from": "f", "to": "o", "methods": [], "paths": ["/v1/*"]}, {"from": "*", "to": "*"}],
            "enforcement_points": ["e", {"agent": "e2", "destinations": ["d"], "agents": ["s"]}],
            "administrators": ["ad"], "auditors": ["au"], "quarantined": ["q"], "principals": {"cn:n n": "pr"},
            "rate_limits": {"authorize": {"per_second": 7, "burst": 8}},
            "quarantine_after": {"escalation_attempts": 2, "reuse_attempts": 5, "window_seconds": 60}}"#;
        let policy = compile("p", text.as_bytes(), &extra, |_| "d".to_owned(), 9).unwrap().policy;
        let mut names: Vec<&str> = policy.agents.keys().map(AgentName::as_str).collect();
        names.sort_unstable();
        let mut wanted =
            vec!["r", "t", "p", "g", "f", "o", "e", "e2", "d", "s", "ad", "au", "q", "pr", "x1", "x2", "x3"];
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        assert!(policy.is_administrator("ad") && policy.is_administrator("x1") && policy.is_auditor("x2"));
        assert!(policy.is_quarantined("q") && !policy.is_quarantined("r"));
        assert_eq!(policy.enforcement_point("e").unwrap().agents, None);
        assert_eq!(policy.enforcement_point("e2").unwrap().agents.as_ref().unwrap().len(), 1);
        assert_eq!(policy.principals["cn:n n"].as_str(), "pr");
        assert_eq!(policy.id, PolicyId { revision: 9, digest: "d".into() });
        let rules = policy.communication_rules.unwrap();
        assert_eq!((rules[0].methods.as_deref(), rules[1].methods.as_deref()), (Some(&[][..]), None));
        assert_eq!((rules[1].from.as_ref(), rules[1].paths.as_ref()), (None, None));
        assert_eq!(policy.authorize_rate.unwrap().burst, 8);
        let after = crate::domain::policy::QuarantineAfter {
            escalation_attempts: 2,
            reuse_attempts: 5,
            window_seconds: 60,
            max_agents: 3,
        };
        assert_eq!(policy.quarantine_after, Some(after));
    }

    #[test]
    fn the_files_enforcement_point_counts_before_the_configurations() {
        let gate = vec![AgentName::parse("gate").unwrap()];
        let extra = ExtraRoles { enforcement_points: gate, ..ExtraRoles::default() };
        let text = br#"{"enforcement_points": [{"agent": "gate", "agents": []}]}"#;
        let compiled = compile("p", text, &extra, |_| String::new(), 1).unwrap();
        assert!(compiled.policy.enforcement_point("gate").unwrap().agents.as_ref().unwrap().is_empty());
        assert!(compiled.warnings.iter().any(|warning| warning.message.contains("the configuration has `gate`")));
    }

    #[test]
    fn what_looks_wrong_is_a_warning() {
        let text = r#"{"delegation_rules": {"agent-deployer": {"can_delegate_to": ["agent-a", "agent-a"],
            "trusted_pairs": ["agent-b"]}}, "quarantined": ["agent-deploier", "stranger"],
            "communication_rules": [{"from": "*", "to": "*", "paths": ["v1/x"]}]}"#;
        let compiled = compiled(text).unwrap();
        let all: String = compiled.warnings.iter().map(ToString::to_string).collect();
        for wanted in [
            "`delegation_rules.agent-deployer.can_delegate_to`: `agent-a` is listed twice",
            "`agent-b` is a trusted pair, but `agent-deployer` can't delegate to it",
            "did you mean `agent-a`?",
            "`agent-deploier` is quarantined, but nothing else mentions it",
            "did you mean `agent-deployer`?",
            "`stranger` is quarantined",
            "`v1/x` covers no path",
            "no administrators",
            "no auditors",
        ] {
            assert!(all.contains(wanted), "{wanted}: {all}");
        }
        assert!(compiled.policy.is_quarantined("agent-deploier"));
    }

    #[test]
    fn a_smaller_maximum_lifetime_lowers_the_default() {
        let token = policy(r#"{"token": {"max_ttl_seconds": 60}}"#).token;
        assert_eq!((token.default_ttl_seconds, token.max_ttl_seconds), (60, 60));
        let token = policy(r#"{"token": {"max_ttl_seconds": 3600}}"#).token;
        assert_eq!((token.default_ttl_seconds, token.max_ttl_seconds), (300, 3600));
    }

    #[test]
    fn a_large_policy_takes_no_more_than_its_size_asks() {
        let mut rules = String::new();
        for number in 0..90_000 {
            let next = u32::saturating_add(number, 1);
            writeln!(
                rules,
                "\"agent-{number}\":{{\"can_delegate_to\":[\"agent-{next}\"],\"max_capability_set\":[\"c{number}\"]}},"
            )
            .unwrap();
        }
        let text = format!("{{\"delegation_rules\":{{{rules}\"last\":{{}}}}}}");
        assert!(text.len() < crate::domain::limits::POLICY_BYTES);
        let started = tokio::time::Instant::now();
        let compiled = compiled(&text).unwrap();
        // Unoptimised and beside other tests; quadratic work would take hours.
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
        assert_eq!(compiled.policy.agents.len(), 90_002);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_mutation_makes_it_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..24, prop::sample::select(FRAGMENTS.to_vec())), 1..8)
        ) {
            let mut bytes = RICH.as_bytes().to_vec();
            for (at, length, fragment) in edits {
                let start = at.index(bytes.len().saturating_add(1));
                let end = start.saturating_add(length).min(bytes.len());
                bytes.splice(start..end, fragment.iter().copied());
            }
            match compile("p", &bytes, &ExtraRoles::default(), |_| String::new(), 1) {
                Ok(compiled) => {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
                    for warning in &compiled.warnings {
                        prop_assert!(!warning.render(true).is_empty());
                    }
                    prop_assert!(!summary(&compiled.policy).to_string().is_empty());
                }
                Err(error) => prop_assert!(error.count() > 0 && !error.render(true).is_empty()),
            }
        }
    }

    const FRAGMENTS: &[&[u8]] = &[
        b"",
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"\0",
        b"\n",
        b"\r\n",
        b"\xff",
        b"\xc3",
        "ä".as_bytes(),
        b"*",
        b"/",
        b"..",
        b"-1",
        b"1e999",
        b"null",
        b"true",
        b"\"agents\"",
        b"\"a\":{}",
        b" ",
        b"0",
    ];

    const RICH: &str = r#"{
  "max_delegation_depth": 3,
  "delegation_rules": {
    "a": {"can_delegate_to": ["b"], "max_capability_set": ["c", "d"], "max_resources": ["/x/*", "db:*"],
      "trusted_pairs": ["b"], "rate_limit": {"per_second": 5, "burst": 10}}
  },
  "token": {"default_ttl_seconds": 60, "max_ttl_seconds": 600, "default_max_uses": 1, "max_uses_trusted_pair": 9},
  "grants": [{"agent": "a", "capabilities": ["c"], "resources": ["/x/y"], "when": "context.n == 1"}],
  "conditions": [{"capabilities": ["c"], "resources": ["/x/*"], "require": "claims.team in ['a', 'b'] && depth < 3"}],
  "communication_rules": [{"from": "a", "to": "*", "methods": ["POST"], "paths": ["/v1/delegate"]}],
  "enforcement_points": ["gate", {"agent": "mesh", "destinations": ["db"], "agents": ["a"]}],
  "administrators": ["ops"], "auditors": ["eye"], "quarantined": ["z"],
  "rate_limits": {"authorize": {"per_second": 100, "burst": 200}},
  "principals": {"spiffe://d/a": "a", "dns:a.example": "a", "cn:a": "a", "jwt:https://i#a": "a", "api-key:k1": "a"},
  "entities": {"subjects": [{"type": "user", "id": "u", "properties": {"n": [1, {"x": null}]}}],
    "resources": [{"type": "db", "id": "x"}], "actions": ["c"]}
}"#;
}
