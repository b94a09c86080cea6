//! Load, check, compile, watch; the last good one stays.
//!
//! A policy file is one JSON object ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259), nothing looser). It is
//! read whole and strictly: [`compile`] either gives a [`Policy`] in which nothing is wrong any more, or a
//! [`PolicyError`] that shows each error at its place. Nothing in a file is ever accepted and then ignored.

mod build;
mod check;
mod diagnostics;
mod document;
mod draft;
mod principal;
mod reading;
mod sections;

use std::sync::Arc;

use crate::domain::agent::AgentName;
use crate::domain::policy::{Policy, PolicyId};

pub use diagnostics::{Diagnostic, MOST_SHOWN, Place, PolicyError, Severity};

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
    /// What somebody should look at, at most [`MOST_SHOWN`].
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
    use super::*;

    fn compiled(text: &str) -> Result<Compiled, PolicyError> {
        compile("policy.json", text.as_bytes(), &ExtraRoles::default(), |_| "digest".to_owned(), 1)
    }

    #[test]
    fn the_example_loads_as_it_stands() {
        let policy = compiled(include_str!("../examples/policy.json")).unwrap().policy;
        assert_eq!(policy.max_delegation_depth, 2);
        assert_eq!(policy.agents.len(), 5);
        let starters: Vec<_> = policy.agents.iter().filter(|(_, agent)| agent.starts_chains).collect();
        assert_eq!(starters.len(), 1);
        assert_eq!(starters[0].0.as_str(), "agent-coordinator");
    }
}
