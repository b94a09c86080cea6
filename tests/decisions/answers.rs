//! Answers as JSON, so that a case can want any part of one.

use remit::domain::reason::Denial;
use remit::domain::time::Timestamp;
use remit::engine::{Decision, Delegation, Introspection, NotReinstated, Revoked};
use serde_json::{Map, Value, json};

use crate::harness::seal::payload;

pub(crate) fn decision(decision: &Decision, now: Timestamp) -> Value {
    let mut answer = outcome(decision.outcome.as_ref().err());
    let agent = decision.agent.as_ref();
    let token = decision.token;
    let more = json!({
        "decision_id": decision.id.to_string(),
        "agent": agent.map(|agent| agent.agent.as_str()),
        "subject": agent.map(|agent| &*agent.subject),
        "identity": agent.map(|agent| agent.method.as_str()),
        "issuer": agent.map(|agent| &*agent.issuer),
        "is_self_asserted": agent.map(remit::domain::caller::VerifiedIdentity::is_self_asserted),
        "chain": decision.chain.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "depth": decision.chain.len().saturating_sub(1),
        "token_id": token.map(|token| token.id.to_string()),
        "left": token.and_then(|token| token.left),
        "expires_at": token.map(|token| token.expires_at.seconds()),
        "expired": token.map(|token| token.expires_at <= now),
        "dry_run": decision.dry_run,
        "revision": decision.policy.revision,
        "digest": &*decision.policy.digest,
    });
    add(&mut answer, more);
    answer
}

pub(crate) fn delegation(delegation: &Delegation) -> Value {
    let mut answer = outcome(delegation.outcome.as_ref().err());
    add(
        &mut answer,
        json!({
            "decision_id": delegation.id.to_string(),
            "revision": delegation.policy.revision,
            "digest": &*delegation.policy.digest,
        }),
    );
    if let Ok(delegated) = &delegation.outcome {
        let more = json!({
            "token_id": delegated.id.to_string(),
            "expires_at": delegated.expires_at.seconds(),
            "chain": delegated.chain.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
            "depth": delegated.chain.len().saturating_sub(1),
            "capabilities": delegated.capabilities,
            "resources": delegated.resources,
            "max_uses": delegated.max_uses,
            "parent_left": delegated.parent_left,
            "claims": serde_json::from_slice::<Value>(&payload(&delegated.token)).unwrap(),
        });
        add(&mut answer, more);
    }
    answer
}

pub(crate) fn revoked(revoked: &Result<Revoked, Denial>) -> Value {
    let mut answer = outcome(revoked.as_ref().err());
    if let Ok(revoked) = revoked {
        add(&mut answer, json!({"revoked_at": revoked.at.seconds(), "number": revoked.state_revision}));
    }
    answer
}

pub(crate) fn reinstated(reinstated: &Result<u64, NotReinstated>) -> Value {
    match reinstated {
        Ok(number) => json!({"reason": "ALLOWED", "number": number}),
        Err(NotReinstated::Denied(denial)) => outcome(Some(denial)),
        Err(NotReinstated::ByFile(denial)) => {
            let mut answer = outcome(Some(denial));
            add(&mut answer, json!({"status": "FAILED_PRECONDITION"}));
            answer
        }
    }
}

/// `reason` is that of the question, `inactive` that of the token: null for one that is good.
pub(crate) fn introspection(introspection: &Result<Introspection, Denial>) -> Value {
    let looked = match introspection {
        Err(denial) => return outcome(Some(denial)),
        Ok(looked) => looked,
    };
    let mut answer = outcome(None);
    let inactive = looked.active.as_ref().err();
    add(
        &mut answer,
        json!({
            "inactive": inactive.map(|denial| denial.reason().as_str()),
            "why": inactive.map(remit::domain::reason::Denial::message),
        }),
    );
    if let Some(token) = &looked.token {
        let more = json!({
            "token_id": token.id.map(|id| id.to_string()),
            "chain": token.chain,
            "capabilities": token.capabilities,
            "resources": token.resources,
            "max_uses": token.max_uses,
            "left": token.left,
            "issued_at": token.issued_at,
            "expires_at": token.expires_at,
            "delegatable": token.delegatable,
            "max_depth": token.max_depth,
            "ancestors": token.ancestors,
            "audience": token.audience,
            "obo": token.on_behalf_of,
            "task": token.task,
            "root_capabilities": token.root_capabilities,
            "is_foreign": token.is_foreign,
        });
        add(&mut answer, more);
    }
    answer
}

fn outcome(denial: Option<&Denial>) -> Value {
    let Some(denial) = denial else { return json!({"reason": "ALLOWED"}) };
    json!({
        "reason": denial.reason().as_str(),
        "message": denial.message(),
        "failed_hop": denial.failed_hop(),
        "wait_ms": denial.wait().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
    })
}

fn add(answer: &mut Value, more: Value) {
    let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) else { return };
    answer.extend::<Map<String, Value>>(more);
}
