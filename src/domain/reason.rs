//! Why a decision is what it is: one closed list, the same at every door.

use std::borrow::Cow;
use std::time::Duration;

macro_rules! reasons {
    ($($variant:ident = $name:literal: $doc:literal,)*) => {
        /// Why a decision is what it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $doc] $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in events, metrics, HTTP and the command line, e.g. `TOKEN_EXPIRED`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence about it that is the same for everybody, and tells nothing of the policy.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }

            /// The reason of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    Allowed = "ALLOWED": "Every check passed.",
    RequestMalformed = "REQUEST_MALFORMED": "A field is missing, too long or not of its form.",
    TokenRequired = "TOKEN_REQUIRED": "The agent has no authority of its own and showed no token.",
    TokenMalformed = "TOKEN_MALFORMED": "The token is not of the form of a token.",
    TokenSealInvalid = "TOKEN_SEAL_INVALID": "No live key made the token's seal.",
    TokenExpired = "TOKEN_EXPIRED": "The token's time is over.",
    TokenNotYetValid = "TOKEN_NOT_YET_VALID": "The token was made in the future.",
    TokenLifetimeTooLong = "TOKEN_LIFETIME_TOO_LONG": "The token lives longer than policy lets any token live.",
    TokenWrongHolder = "TOKEN_WRONG_HOLDER": "Somebody else's token.",
    TokenWrongAudience = "TOKEN_WRONG_AUDIENCE": "The token is not for use here.",
    TokenRevoked = "TOKEN_REVOKED": "The token, one above it, or an agent of its chain was revoked.",
    TokenFenced = "TOKEN_FENCED": "The ledger in force does not hold the token.",
    TokenUsesExhausted = "TOKEN_USES_EXHAUSTED": "Every use is spent.",
    TokenNotDelegatable = "TOKEN_NOT_DELEGATABLE": "The holder may use it, and not hand it on.",
    CapabilityNotGranted = "CAPABILITY_NOT_GRANTED": "The capability is beyond the token or an agent's own set.",
    ResourceNotGranted = "RESOURCE_NOT_GRANTED": "The resource is beyond the token or an agent's own set.",
    ResourceNotCanonical = "RESOURCE_NOT_CANONICAL": "The resource is not written in its one canonical form.",
    AgentUnknown = "AGENT_UNKNOWN": "Policy names no such agent.",
    AgentQuarantined = "AGENT_QUARANTINED": "An agent is under the kill switch.",
    IdentitySelfAsserted = "IDENTITY_SELF_ASSERTED": "Nobody but the caller says who it is.",
    IdentityUnmapped = "IDENTITY_UNMAPPED": "The identity is verified and belongs to no agent.",
    CallerNotEnforcementPoint = "CALLER_NOT_ENFORCEMENT_POINT": "The caller may not speak for this agent or destination.",
    CallerNotAuthorized = "CALLER_NOT_AUTHORIZED": "The caller may not ask this.",
    CommunicationNotAllowed = "COMMUNICATION_NOT_ALLOWED": "No rule lets the one agent call the other.",
    DelegationNotAllowed = "DELEGATION_NOT_ALLOWED": "Policy lets the one agent not delegate to the other, or not start a chain.",
    DelegationDepthExceeded = "DELEGATION_DEPTH_EXCEEDED": "The chain has more hops than policy or the token allow.",
    DelegationCycle = "DELEGATION_CYCLE": "The target is the caller or already in the chain.",
    DelegationWidens = "DELEGATION_WIDENS": "The child would be wider than its parent.",
    UsesNotAllowed = "USES_NOT_ALLOWED": "More uses than the pair, the limit or the parent allow.",
    LifetimeNotAllowed = "LIFETIME_NOT_ALLOWED": "A longer life than policy or the parent allow.",
    ConditionNotMet = "CONDITION_NOT_MET": "A condition of the policy does not hold.",
    RateLimited = "RATE_LIMITED": "Too many requests; the answer says when to come back.",
    CapacityExhausted = "CAPACITY_EXHAUSTED": "The ledger is full.",
    PolicyStale = "POLICY_STALE": "The policy file could not be read for too long.",
    StateUnavailable = "STATE_UNAVAILABLE": "The store can't be asked.",
    AuditUnavailable = "AUDIT_UNAVAILABLE": "The decision can't be recorded.",
    DeadlineExceeded = "DEADLINE_EXCEEDED": "No time is left to answer.",
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Never [`Reason::Allowed`].
    reason: Reason,
    message: Cow<'static, str>,
    failed_hop: Option<Box<str>>,
    retry_after: Option<Duration>,
}

impl Denial {
    /// A refusal for this reason, with a message that says what to do and is safe to show to the caller.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(reason != Reason::Allowed, "a denial can't be allowed");
        let reason = if reason == Reason::Allowed { Reason::RequestMalformed } else { reason };
        Self { reason, message: message.into(), failed_hop: None, retry_after: None }
    }

    /// The same refusal, naming the agent of the chain that failed.
    #[must_use]
    pub fn at_hop(mut self, agent: &str) -> Self {
        self.failed_hop = Some(agent.into());
        self
    }

    /// The same refusal, saying when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What to do about it.
    #[must_use]
    pub fn message(&self) -> &Cow<'static, str> {
        &self.message
    }

    /// The first agent of the chain that failed.
    #[must_use]
    pub fn failed_hop(&self) -> Option<&str> {
        self.failed_hop.as_deref()
    }

    /// When to come back, for [`Reason::RateLimited`].
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The same in whole milliseconds, at least 1.
    #[must_use]
    pub fn wait_millis(&self) -> Option<u64> {
        let millis = |wait: Duration| u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
        self.wait().map(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::ALL.len(), 37);
        assert_eq!(Reason::from_name("REASON_ALLOWED"), None);
    }
}
