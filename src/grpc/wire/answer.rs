//! The engine's answers as messages.

use super::{Malformed, facts};
use crate::api as pb;
use crate::domain::caller::{IdentityMethod, VerifiedIdentity};
use crate::domain::policy::PolicyId;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::engine::{Decision, Delegated, Delegation, Introspected, Introspection};
use crate::events::DecisionId;

pub(in crate::grpc) fn authorize_response(decision: Decision) -> pb::AuthorizeResponse {
    let Decision { outcome, id, agent, chain, on_behalf_of: _, token, policy, dry_run } = decision;
    let (decision, reason, message, failed_hop) = match &outcome {
        Ok(()) => (pb::Decision::Allow, Reason::Allowed, String::new(), ""),
        Err(denial) => {
            let hop = denial.failed_hop().unwrap_or_default();
            (pb::Decision::Deny, denial.reason(), denial.message().to_string(), hop)
        }
    };
    pb::AuthorizeResponse {
        decision: decision.into(),
        reason: self::reason(reason).into(),
        message,
        decision_id: id.to_string(),
        agent: agent.map(identity),
        token_id: token.map(|token| token.id.to_string()).unwrap_or_default(),
        delegation_chain: chain.iter().map(ToString::to_string).collect(),
        failed_hop: failed_hop.to_owned(),
        remaining_uses: token.and_then(|token| token.left).map_or(0, u64::from),
        expires_at: token.map(|token| timestamp(token.expires_at)),
        policy_revision: policy.revision,
        policy_digest: policy.digest.to_string(),
        dry_run,
        // Whoever has the keys fills it in.
        forwarded_identity: String::new(),
    }
}

/// A question of a batch that is not of its form, refused in its place.
pub(in crate::grpc) fn malformed_response(
    malformed: &Malformed,
    id: DecisionId,
    policy: &PolicyId,
    dry_run: bool,
) -> pb::AuthorizeResponse {
    pb::AuthorizeResponse {
        decision: pb::Decision::Deny.into(),
        reason: pb::Reason::RequestMalformed.into(),
        message: malformed.to_string(),
        decision_id: id.to_string(),
        policy_revision: policy.revision,
        policy_digest: policy.digest.to_string(),
        dry_run,
        ..pb::AuthorizeResponse::default()
    }
}

pub(in crate::grpc) fn delegate_response(delegation: Delegation) -> Result<pb::DelegateResponse, Denial> {
    let Delegation { outcome, id: decision_id, policy } = delegation;
    let Delegated { token, id, expires_at, chain, capabilities, resources, max_uses, parent_left, on_behalf_of: _ } =
        outcome?;
    Ok(pb::DelegateResponse {
        token,
        token_id: id.to_string(),
        expires_at: Some(timestamp(expires_at)),
        depth: u64::try_from(chain.len().saturating_sub(1)).unwrap_or(u64::MAX),
        delegation_chain: chain.iter().map(ToString::to_string).collect(),
        capabilities,
        resources,
        max_uses: u64::from(max_uses),
        parent_remaining_uses: parent_left.map(u64::from),
        decision_id: decision_id.to_string(),
        policy_revision: policy.revision,
        policy_digest: policy.digest.to_string(),
    })
}

pub(in crate::grpc) fn refusal(denial: &Denial) -> pb::Refusal {
    pb::Refusal { reason: reason(denial.reason()).into(), message: denial.message().to_string() }
}

/// A wish of a batch that is not of its form, refused in its place.
pub(in crate::grpc) fn malformed_refusal(malformed: &Malformed) -> pb::Refusal {
    pb::Refusal { reason: pb::Reason::RequestMalformed.into(), message: malformed.to_string() }
}

pub(in crate::grpc) fn introspect_response(introspection: Introspection) -> pb::IntrospectResponse {
    let Introspection { active, token } = introspection;
    let (why, message) = match &active {
        Ok(()) => (Reason::Allowed, String::new()),
        Err(denial) => (denial.reason(), denial.message().to_string()),
    };
    let verdict = pb::IntrospectResponse {
        active: active.is_ok(),
        reason: reason(why).into(),
        message,
        ..pb::IntrospectResponse::default()
    };
    match token {
        Some(token) => described(verdict, token),
        None => verdict,
    }
}

fn described(verdict: pb::IntrospectResponse, token: Introspected) -> pb::IntrospectResponse {
    let at = |seconds: u64| (seconds > 0).then(|| timestamp(Timestamp::from_seconds(seconds)));
    let mut from_holder = token.chain.iter().rev();
    let holder = from_holder.next().cloned().unwrap_or_default();
    let issuer = from_holder.next().cloned().unwrap_or_default();
    let root = token.ancestors.first().copied().or(token.id);
    pb::IntrospectResponse {
        token_id: token.id.map(|id| id.to_string()).unwrap_or_default(),
        issuer,
        holder,
        capabilities: token.capabilities,
        resources: token.resources,
        max_uses: u64::from(token.max_uses),
        remaining_uses: u64::from(token.left),
        issued_at: at(token.issued_at),
        expires_at: at(token.expires_at),
        delegatable: token.delegatable,
        depth: u64::try_from(token.chain.len().saturating_sub(1)).unwrap_or(u64::MAX),
        delegation_chain: token.chain,
        max_depth: token.max_depth.map(u64::from).unwrap_or_default(),
        root_id: root.map(|id| id.to_string()).unwrap_or_default(),
        ancestor_ids: token.ancestors.iter().map(ToString::to_string).collect(),
        audience: token.audience,
        on_behalf_of: token.on_behalf_of.unwrap_or_default(),
        task: token.task.unwrap_or_default(),
        root_capabilities: token.root_capabilities,
        foreign: token.is_foreign,
        ..verdict
    }
}

pub(in crate::grpc) fn identity_response(verified: VerifiedIdentity) -> pb::VerifyIdentityResponse {
    pb::VerifyIdentityResponse { identity: Some(identity(verified)) }
}

fn identity(identity: VerifiedIdentity) -> pb::VerifiedIdentity {
    let is_self_asserted = identity.is_self_asserted();
    let VerifiedIdentity { agent, subject, method, issuer, claims, verified_at } = identity;
    pb::VerifiedIdentity {
        agent: agent.to_string(),
        subject: subject.to_string(),
        method: self::method(method).into(),
        issuer: issuer.to_string(),
        claims: (!claims.is_empty()).then(|| facts::structure(&claims)),
        is_self_asserted,
        verified_at: Some(timestamp(verified_at)),
    }
}

pub(in crate::grpc) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(at.seconds()).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.subsecond_nanos()).unwrap_or_default(),
    }
}

pub(super) fn method(method: IdentityMethod) -> pb::IdentityMethod {
    match method {
        IdentityMethod::Mtls => pb::IdentityMethod::Mtls,
        IdentityMethod::Spiffe => pb::IdentityMethod::Spiffe,
        IdentityMethod::Jwt => pb::IdentityMethod::Jwt,
        IdentityMethod::ApiKey => pb::IdentityMethod::ApiKey,
        IdentityMethod::Forwarded => pb::IdentityMethod::Forwarded,
        IdentityMethod::EnforcementPoint => pb::IdentityMethod::EnforcementPoint,
        IdentityMethod::SelfAsserted => pb::IdentityMethod::SelfAsserted,
    }
}

/// The wire's number of a reason: its place in the closed list, which both sides keep in one order.
pub(super) fn reason(reason: Reason) -> pb::Reason {
    let place = Reason::ALL.iter().position(|known| *known == reason);
    let number = place.and_then(|place| i32::try_from(place).ok()).and_then(|place| place.checked_add(1));
    number.and_then(|number| pb::Reason::try_from(number).ok()).unwrap_or(pb::Reason::Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_the_same_names_on_the_wire() {
        for known in Reason::ALL {
            assert_eq!(reason(*known).as_str_name(), format!("REASON_{known}"));
        }
    }
}
