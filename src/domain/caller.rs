//! Who is asking, and how Remit knows.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::agent::AgentName;
use super::time::Timestamp;

/// How an identity was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityMethod {
    /// A client certificate's DNS name or common name.
    Mtls,
    /// A client certificate's SPIFFE ID.
    Spiffe,
    /// A JWT of a configured issuer.
    Jwt,
    /// An API key.
    ApiKey,
    /// An identity that Remit signed before.
    Forwarded,
    /// An enforcement point stated it.
    EnforcementPoint,
    /// The caller said so and nothing more.
    SelfAsserted,
}

impl IdentityMethod {
    /// Every one of them.
    pub const ALL: [Self; 7] = [
        Self::Mtls,
        Self::Spiffe,
        Self::Jwt,
        Self::ApiKey,
        Self::Forwarded,
        Self::EnforcementPoint,
        Self::SelfAsserted,
    ];

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// The name in events and the command line, e.g. `SPIFFE`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "MTLS",
            Self::Spiffe => "SPIFFE",
            Self::Jwt => "JWT",
            Self::ApiKey => "API_KEY",
            Self::Forwarded => "FORWARDED",
            Self::EnforcementPoint => "ENFORCEMENT_POINT",
            Self::SelfAsserted => "SELF_ASSERTED",
        }
    }
}

/// Who somebody is, and how Remit knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedIdentity {
    /// The agent's name in policy.
    pub agent: AgentName,
    /// The subject as the evidence says it.
    pub subject: Arc<str>,
    /// The kind of evidence.
    pub method: IdentityMethod,
    /// Who vouches for it: a certificate's issuer, a JWT's `iss`, `remit:api-key`; empty where nobody does.
    pub issuer: Arc<str>,
    /// The configured subset of the evidence's claims.
    pub claims: Arc<Map<String, Value>>,
    /// When the evidence was verified.
    pub verified_at: Timestamp,
}

impl VerifiedIdentity {
    /// True if nobody but the caller says so.
    #[must_use]
    pub fn is_self_asserted(&self) -> bool {
        self.method == IdentityMethod::SelfAsserted
    }
}

/// An authenticated caller. Only the identity room makes one; the engine receives it.
#[derive(Clone, Debug)]
pub struct Caller {
    identity: Arc<VerifiedIdentity>,
    privileged: bool,
}

impl Caller {
    /// A caller with this identity. `privileged`: evidence of this kind may hold the roles of
    /// administrator, auditor and enforcement point.
    #[must_use]
    pub fn new(identity: Arc<VerifiedIdentity>, privileged: bool) -> Self {
        Self { identity, privileged }
    }

    /// The agent's name.
    #[must_use]
    pub fn agent(&self) -> &AgentName {
        &self.identity.agent
    }

    /// Who it is, and how Remit knows.
    #[must_use]
    pub fn identity(&self) -> &Arc<VerifiedIdentity> {
        &self.identity
    }

    /// Whether its evidence may hold a role.
    #[must_use]
    pub fn is_privileged(&self) -> bool {
        self.privileged
    }
}
