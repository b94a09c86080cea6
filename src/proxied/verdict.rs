//! The answer to a proxy: the request passes, with these headers, or is refused, with this status. There is no third one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::headers::{Headers, TOKEN_HEADER};
use crate::domain::reason::{Denial, Reason};
use crate::engine::Decision;
use crate::events::DecisionId;
use crate::identity::{FORWARDED_HEADER, SELF_ASSERTED_HEADER};

/// Names the decision.
const DECISION_HEADER: &str = "x-remit-decision-id";
/// The agents from whom the authority comes to the one that acts, with a space between.
const CHAIN_HEADER: &str = "x-remit-chain";
/// What a client can't set, whatever it sends: removed if it is not set here.
pub const OUR_HEADERS: [&str; 5] =
    [TOKEN_HEADER, FORWARDED_HEADER, SELF_ASSERTED_HEADER, DECISION_HEADER, CHAIN_HEADER];
/// By these a client that Envoy takes for an internal one has its request sent again, or sent longer, than was decided
/// about, or tells the service of another path. They go no further.
const ENVOYS_ORDERS: [&str; 15] = [
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-method",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
];

/// The answer. It has no `Debug`: it may hold a signed identity.
pub enum Verdict {
    /// The request passes.
    Passed(Passed),
    /// It does not.
    Refused(Refused),
}

/// A request that passes. It has no `Debug`: it may hold a signed identity.
pub struct Passed {
    set: Vec<(&'static str, String)>,
    remove: Vec<String>,
    told: Map<String, Value>,
}

/// A request that does not pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    status: Status,
    body: String,
    retry_after: Option<Duration>,
    told: Map<String, Value>,
}

/// The HTTP status of a refusal. None of them is a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 401: nobody is known to have sent it.
    Unauthorized,
    /// 403: no.
    Forbidden,
    /// 429: not now.
    TooManyRequests,
    /// 503: it can't be decided.
    Unavailable,
}

impl Status {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::TooManyRequests => 429,
            Self::Unavailable => 503,
        }
    }
}

impl Verdict {
    /// The verdict that a decision is, for a request with these headers. `forwarded`: the sender's signed identity.
    pub(super) fn of(decision: &Decision, headers: &Headers<'_>, forwarded: Option<String>) -> Self {
        match &decision.outcome {
            Ok(()) if decision.dry_run => {
                let denial = Denial::new(Reason::RequestMalformed, "a decision for trial lets nothing pass");
                Self::refused(&denial, decision.id)
            }
            Ok(()) => Self::Passed(Passed::of(decision, headers, forwarded)),
            Err(denial) => Self::Refused(Refused::of(denial, decision.id, told(decision, Some(denial)))),
        }
    }

    /// A refusal before anything was decided.
    pub(super) fn refused(denial: &Denial, id: DecisionId) -> Self {
        let told = [
            ("decision", json!("DENY")),
            ("reason", json!(denial.reason().as_str())),
            ("message", json!(denial.message())),
            ("decision_id", json!(id.to_string())),
        ];
        Self::Refused(Refused::of(denial, id, told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
    }
}

impl Passed {
    fn of(decision: &Decision, headers: &Headers<'_>, forwarded: Option<String>) -> Self {
        let agent = decision.agent.as_ref().map(|agent| agent.agent.to_string());
        let chain = decision.chain.iter().map(Arc::as_ref).collect::<Vec<&str>>().join(" ");
        let set = [
            agent.map(|agent| (SELF_ASSERTED_HEADER, agent)),
            Some((DECISION_HEADER, decision.id.to_string())),
            Some((CHAIN_HEADER, chain)).filter(|(_, chain)| !chain.is_empty()),
            forwarded.map(|identity| (FORWARDED_HEADER, identity)),
        ];
        let set = set.into_iter().flatten().collect::<Vec<_>>();
        let is_set = |name: &str| set.iter().any(|(known, _)| *known == name);
        let mut remove = OUR_HEADERS
            .into_iter()
            .chain(ENVOYS_ORDERS)
            .chain(headers.ours())
            .filter(|name| !is_set(name))
            .map(str::to_owned)
            .collect::<Vec<_>>();
        remove.sort_unstable();
        remove.dedup();
        Self { set, remove, told: told(decision, None) }
    }

    /// Headers that the request goes on with, in place of the client's.
    #[must_use]
    pub fn set(&self) -> &[(&'static str, String)] {
        &self.set
    }

    /// Headers that the request does not go on with.
    #[must_use]
    pub fn remove(&self) -> &[String] {
        &self.remove
    }

    /// The decision, for the proxy's logs and further filters.
    #[must_use]
    pub fn told(&self) -> &Map<String, Value> {
        &self.told
    }
}

impl Refused {
    /// The body goes to the proxy's client, so it has the reason's own sentence: the denial's may show what policy says,
    /// and stands in what the proxy itself is told.
    fn of(denial: &Denial, id: DecisionId, told: Map<String, Value>) -> Self {
        let body = json!({
            "reason": denial.reason().as_str(),
            "message": denial.reason().sentence(),
            "decision_id": id.to_string(),
        });
        Self { status: status(denial.reason()), body: body.to_string(), retry_after: denial.wait(), told }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// JSON: reason, message, `decision_id`.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Whole seconds to wait, where waiting helps.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// The decision, for the proxy's logs and further filters.
    #[must_use]
    pub fn told(&self) -> &Map<String, Value> {
        &self.told
    }
}

fn told(decision: &Decision, denial: Option<&Denial>) -> Map<String, Value> {
    let (verdict, reason) = denial.map_or(("ALLOW", Reason::Allowed), |denial| ("DENY", denial.reason()));
    let chain = decision.chain.iter().map(|agent| Value::from(agent.as_ref())).collect::<Vec<_>>();
    let told = json!({
        "decision": verdict,
        "reason": reason.as_str(),
        "message": denial.map(|denial| denial.message().as_ref()).unwrap_or_default(),
        "decision_id": decision.id.to_string(),
        "agent": decision.agent.as_ref().map(|agent| agent.agent.as_str()).unwrap_or_default(),
        "chain": chain,
        "token_id": decision.token.map(|token| token.id.to_string()).unwrap_or_default(),
        "policy_revision": decision.policy.revision,
        "policy_digest": decision.policy.digest.as_ref(),
    });
    match told {
        Value::Object(told) => told,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn status(reason: Reason) -> Status {
    match reason {
        Reason::IdentitySelfAsserted => Status::Unauthorized,
        Reason::RateLimited => Status::TooManyRequests,
        Reason::CapacityExhausted
        | Reason::PolicyStale
        | Reason::StateUnavailable
        | Reason::AuditUnavailable
        | Reason::DeadlineExceeded => Status::Unavailable,
        // `Allowed` is no refusal; whoever gets here with it gets a no.
        Reason::Allowed
        | Reason::RequestMalformed
        | Reason::TokenRequired
        | Reason::TokenMalformed
        | Reason::TokenSealInvalid
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::TokenLifetimeTooLong
        | Reason::TokenWrongHolder
        | Reason::TokenWrongAudience
        | Reason::TokenRevoked
        | Reason::TokenFenced
        | Reason::TokenUsesExhausted
        | Reason::TokenNotDelegatable
        | Reason::CapabilityNotGranted
        | Reason::ResourceNotGranted
        | Reason::ResourceNotCanonical
        | Reason::AgentUnknown
        | Reason::AgentQuarantined
        | Reason::IdentityUnmapped
        | Reason::CallerNotEnforcementPoint
        | Reason::CallerNotAuthorized
        | Reason::CommunicationNotAllowed
        | Reason::DelegationNotAllowed
        | Reason::DelegationDepthExceeded
        | Reason::DelegationCycle
        | Reason::DelegationWidens
        | Reason::UsesNotAllowed
        | Reason::LifetimeNotAllowed
        | Reason::ConditionNotMet => Status::Forbidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c02_no_reason_is_answered_with_a_success() {
        for reason in Reason::ALL {
            assert!([401, 403, 429, 503].contains(&status(*reason).code()), "{reason}");
        }
    }
}
