//! What one event says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::chain::Links;
use super::text::{Brief, Long};
use crate::domain::caller::IdentityMethod;
use crate::domain::policy::PolicyId;
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::domain::trace::TraceContext;

macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $type {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The one of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

names! {
    /// What kind of event it is: `message_type`.
    MessageType {
        /// An agent asked to pass authority on.
        Delegate = "delegate",
        /// An agent's answer to another.
        Response = "response",
        /// An agent asked whether it may.
        CapabilityRequest = "capability_request",
        /// Tokens were revoked.
        Revoke = "revoke",
        /// A quarantine was lifted.
        Reinstate = "reinstate",
        /// A policy was put in force, or one was refused.
        Policy = "policy",
        /// The kill switch was pulled.
        Quarantine = "quarantine",
        /// A key vouches for the log up to this line.
        Checkpoint = "checkpoint",
    }
}

names! {
    /// How it ended: `result`.
    Outcome {
        /// It was refused.
        Denied = "denied",
        /// It was allowed.
        Accepted = "accepted",
        /// It could not be decided.
        Error = "error",
    }
}

/// Names one decision: 16 bytes, shown as 32 lower-case hex digits. The first half is the process's, which
/// is also its `stream_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecisionId([u8; 16]);

impl DecisionId {
    /// From its text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for DecisionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Makes the ids of a process's decisions.
#[derive(Debug)]
pub(super) struct DecisionIds {
    process: u64,
    next: AtomicU64,
}

impl DecisionIds {
    pub(super) const fn new(process: u64) -> Self {
        Self { process, next: AtomicU64::new(1) }
    }

    pub(super) fn next(&self) -> DecisionId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        DecisionId(((u128::from(self.process) << 64) | u128::from(count)).to_be_bytes())
    }
}

/// One event. Names of agents are shared with the policy; all other text is bounded by its type.
/// What is empty is left out of the line, except for the ten keys that every line has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub(super) sequence: u64,
    pub(super) repeated: u64,
    pub(super) links: Option<Links>,
    pub(super) checkpoint: Option<Arc<str>>,
    /// When it was decided.
    pub at: Timestamp,
    /// What kind of event it is.
    pub message_type: MessageType,
    /// How it ended: `result`.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// Which decision it was.
    pub decision_id: DecisionId,
    /// The agent that acts.
    pub from_agent: Arc<str>,
    /// The enforcement point, the target of a delegation, or the agent itself.
    pub to_agent: Arc<str>,
    /// `delegation_chain`: from the root to the holder; only the agent if it acts without a token.
    pub chain: Vec<Arc<str>>,
    /// `capabilities_used`.
    pub capabilities: Vec<Brief>,
    /// The token that was used or made.
    pub token_id: Option<TokenId>,
    /// For people: what to do about it.
    pub message: Long,
    /// The agent that asked.
    pub caller: Arc<str>,
    /// How Remit knows who that is.
    pub identity_method: Option<IdentityMethod>,
    /// Who vouches for the caller.
    pub issuer: Arc<str>,
    /// Nobody but the caller says who it is.
    pub is_self_asserted: bool,
    /// What it is done to.
    pub resource: Long,
    /// Of a call between agents.
    pub http_method: Brief,
    /// Of a call between agents.
    pub http_path: Long,
    /// Of the token, after this use.
    pub remaining_uses: Option<u32>,
    /// What a revocation or a quarantine was aimed at; of a delegation from a token, that token's id.
    pub target: Brief,
    /// What a person attached.
    pub note: Brief,
    /// On whose behalf, `type:id`.
    pub obo: Brief,
    /// The policy that answered.
    pub policy: Option<PolicyId>,
    /// The caller's own id of the request.
    pub request_id: Brief,
    /// The caller's own correlation id, carried by the token.
    pub task: Brief,
    /// The trace that the request belongs to: its id is `trace_id`.
    pub trace: Option<TraceContext>,
    /// How long the decision took, from [`Event::at`] on. No line tells it.
    pub took: Duration,
    /// Nothing was spent, and nobody may act on it.
    pub dry_run: bool,
}

impl Event {
    /// An event with nothing but this; the other fields are empty.
    #[must_use]
    pub fn new(
        message_type: MessageType,
        outcome: Outcome,
        reason: Reason,
        decision_id: DecisionId,
        at: Timestamp,
    ) -> Self {
        Self {
            sequence: 0,
            repeated: 0,
            links: None,
            checkpoint: None,
            at,
            message_type,
            outcome,
            reason,
            decision_id,
            from_agent: Arc::default(),
            to_agent: Arc::default(),
            chain: Vec::new(),
            capabilities: Vec::new(),
            token_id: None,
            message: Long::default(),
            caller: Arc::default(),
            identity_method: None,
            issuer: Arc::default(),
            is_self_asserted: false,
            resource: Long::default(),
            http_method: Brief::default(),
            http_path: Long::default(),
            remaining_uses: None,
            target: Brief::default(),
            note: Brief::default(),
            obo: Brief::default(),
            policy: None,
            request_id: Brief::default(),
            task: Brief::default(),
            trace: None,
            took: Duration::ZERO,
            dry_run: false,
        }
    }

    /// Its number in the stream, from 1; 0 until it is committed.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// For repeated denials: how many this event stands for. 0 for an event that stands for itself.
    #[must_use]
    pub const fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Its place in the audit log's chain; none until it is written, and where no log is.
    #[must_use]
    pub const fn links(&self) -> Option<Links> {
        self.links
    }

    /// Of a checkpoint: the JWT that signs its place in the chain.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&str> {
        self.checkpoint.as_deref()
    }

    /// `delegation_depth`: hops of the chain.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.chain.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for kind in MessageType::ALL {
            assert_eq!(MessageType::from_name(kind.as_str()), Some(*kind));
        }
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_name(outcome.as_str()), Some(*outcome));
        }
    }

    #[test]
    fn decision_ids_begin_with_the_process() {
        let ids = DecisionIds::new(0x0123_4567_89ab_cdef);
        assert_eq!(ids.next().to_string(), "0123456789abcdef0000000000000001");
        assert_eq!(ids.next().to_string(), "0123456789abcdef0000000000000002");
    }
}
