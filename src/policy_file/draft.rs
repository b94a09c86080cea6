//! The file's content as the words of the domain, each with its place, before the parts are held against each other.

use serde_json::{Map, Value};

use super::diagnostics::Span;
use crate::domain::agent::AgentName;
use crate::domain::capability::Capability;
use crate::domain::condition::Condition;
use crate::domain::policy::{CommunicationRule, QuarantineAfter, RateLimit, Requirement, TokenRules};
use crate::domain::resource::Pattern;

/// Something and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// What the file says.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) max_delegation_depth: u8,
    pub(super) rules: Vec<(At<AgentName>, RuleDraft)>,
    pub(super) token: TokenRules,
    pub(super) grants: Option<At<Vec<GrantDraft>>>,
    pub(super) conditions: Vec<Requirement>,
    pub(super) communication_rules: Option<Vec<CommunicationRule>>,
    pub(super) enforcement_points: Vec<PointDraft>,
    pub(super) administrators: Vec<At<AgentName>>,
    pub(super) auditors: Vec<At<AgentName>>,
    pub(super) quarantined: Vec<At<AgentName>>,
    pub(super) authorize_rate: Option<RateLimit>,
    pub(super) quarantine_after: Option<QuarantineAfter>,
    pub(super) principals: Vec<(Box<str>, AgentName)>,
    pub(super) entities: EntitiesDraft,
}

/// An entry of `delegation_rules`.
#[derive(Debug)]
pub(super) struct RuleDraft {
    pub(super) can_delegate_to: Vec<At<AgentName>>,
    pub(super) capabilities: Vec<At<Capability>>,
    pub(super) resources: Vec<At<Pattern<'static>>>,
    pub(super) trusted_pairs: Vec<At<AgentName>>,
    pub(super) rate_limit: RateLimit,
}

/// An entry of `grants`.
#[derive(Debug)]
pub(super) struct GrantDraft {
    pub(super) span: Span,
    pub(super) agent: At<AgentName>,
    pub(super) capabilities: Vec<At<Capability>>,
    pub(super) resources: Vec<At<Pattern<'static>>>,
    pub(super) when: Option<Condition>,
}

/// An entry of `enforcement_points`.
#[derive(Debug)]
pub(super) struct PointDraft {
    pub(super) agent: At<AgentName>,
    pub(super) destinations: Vec<At<AgentName>>,
    pub(super) agents: Option<Vec<At<AgentName>>>,
}

/// The section `entities`.
#[derive(Debug, Default)]
pub(super) struct EntitiesDraft {
    pub(super) subjects: Vec<EntityDraft<AgentName>>,
    pub(super) resources: Vec<EntityDraft<Box<str>>>,
    pub(super) actions: Vec<At<Capability>>,
}

/// An agent or a whole resource, and what is known of it.
#[derive(Debug)]
pub(super) struct EntityDraft<T> {
    pub(super) name: At<T>,
    pub(super) properties: Map<String, Value>,
}
