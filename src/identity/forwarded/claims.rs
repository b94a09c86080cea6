//! What a forwarded identity says.
//!
//! | claim | |
//! |---|---|
//! | `iss`, `aud` | Remit; the one receiver |
//! | `iat`, `exp`, `jti` | at most 60 s apart; a name of its own |
//! | `sub`, `idp` | the subject as the evidence says it, and who vouched for the evidence |
//! | `agent`, `method` | the agent's name in policy, and the kind of evidence, e.g. `JWT` |
//! | `verified_at` | when the evidence was verified, in seconds |
//! | `claims` | the evidence's claims that are carried on, where there are any |
//! | `act` | the delegation chain, the agent that acts outermost (RFC 8693 §4.1), where there is one |
//! | `obo` | the user behind the chain, where there is one |
//! | `is_self_asserted` | `false`, always: what nobody verified is never signed |

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Introduction;
use crate::domain::agent::AgentName;
use crate::domain::caller::{IdentityMethod, VerifiedIdentity};
use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::identity::signing::LONGEST_LIFE;

/// What is told about this identity.
pub(super) fn write(
    introduction: &Introduction<'_>,
    issuer: &str,
    now: Timestamp,
    ttl: Duration,
) -> Map<String, Value> {
    let Introduction { identity, audience, chain, on_behalf_of, id } = *introduction;
    let VerifiedIdentity { agent, subject, method, issuer: idp, claims, verified_at } = identity;
    let mut told = Map::new();
    let mut tell = |name: &str, value: Value| told.insert(name.to_owned(), value);
    tell("iss", issuer.into());
    tell("aud", audience.into());
    tell("iat", now.seconds().into());
    tell("exp", now.seconds().saturating_add(ttl.as_secs()).into());
    tell("jti", id.into());
    tell("sub", subject.as_ref().into());
    tell("idp", idp.as_ref().into());
    tell("agent", agent.as_str().into());
    tell("method", method.as_str().into());
    tell("verified_at", verified_at.seconds().into());
    tell("is_self_asserted", false.into());
    if !claims.is_empty() {
        tell("claims", Value::Object(Map::clone(claims)));
    }
    if let Some(act) = act(chain) {
        tell("act", act);
    }
    if let Some(user) = on_behalf_of {
        tell("obo", user.into());
    }
    told
}

/// The chain with the agent that acts outermost. One agent alone is no delegation.
fn act(chain: &[Arc<str>]) -> Option<Value> {
    if chain.len() < 2 {
        return None;
    }
    chain.iter().fold(None, |earlier, agent| {
        Some(match earlier {
            None => json!({ "sub": agent.as_ref() }),
            Some(earlier) => json!({ "sub": agent.as_ref(), "act": earlier }),
        })
    })
}

/// Who it is that these claims name, if they are of this issuer for this audience and current.
pub(super) fn read(
    told: &Map<String, Value>,
    issuer: &str,
    audience: &str,
    now: Timestamp,
) -> Result<VerifiedIdentity, &'static str> {
    let text = |name: &str| told.get(name).and_then(Value::as_str);
    let is = |name: &str, wanted: &str| text(name) == Some(wanted);
    if !is("iss", issuer) {
        return Err("the forwarded identity is of another issuer");
    }
    if !is("aud", audience) {
        return Err("the forwarded identity is for another receiver");
    }
    check_times(told, now)?;
    if text("jti").is_none_or(str::is_empty) {
        return Err("the forwarded identity has no jti");
    }
    if told.get("is_self_asserted") != Some(&Value::Bool(false)) {
        return Err("the forwarded identity does not say that it was verified");
    }
    let claims = match told.get("claims") {
        None => Map::new(),
        Some(Value::Object(claims)) => claims.clone(),
        Some(_) => return Err("the forwarded identity's claims are no object"),
    };
    let agent = text("agent").and_then(|name| AgentName::parse(name).ok());
    let verified_at = seconds(told, "verified_at").map(Timestamp::from_seconds);
    match (agent, text("sub"), text("idp"), text("method").filter(|method| is_evidence(method)), verified_at) {
        (Some(agent), Some(subject), Some(idp), Some(_), Some(verified_at)) => Ok(VerifiedIdentity {
            agent,
            subject: subject.into(),
            method: IdentityMethod::Forwarded,
            issuer: idp.into(),
            claims: Arc::new(claims),
            verified_at,
        }),
        _ => Err("the forwarded identity lacks agent, sub, idp, method or verified_at"),
    }
}

/// Whether nothing is told but who it is, by its own evidence.
pub(super) fn check_own(told: &Map<String, Value>) -> Result<(), &'static str> {
    if told.contains_key("act") || told.contains_key("obo") {
        return Err("the forwarded identity tells of a chain or a user, and is no evidence of a caller");
    }
    if told.get("method").and_then(Value::as_str) == Some(IdentityMethod::EnforcementPoint.as_str()) {
        return Err("the forwarded identity rests on an enforcement point's word, and is no evidence of a caller");
    }
    Ok(())
}

fn check_times(told: &Map<String, Value>, now: Timestamp) -> Result<(), &'static str> {
    let (Some(issued), Some(expires)) = (seconds(told, "iat"), seconds(told, "exp")) else {
        return Err("the forwarded identity has no iat or exp in whole seconds");
    };
    let latest = now.seconds().saturating_add(limits::CLOCK_SKEW_SECONDS);
    let begins = match told.get("nbf") {
        None => issued,
        Some(_) => seconds(told, "nbf").ok_or("the forwarded identity's nbf is no whole second")?.max(issued),
    };
    if begins > latest {
        return Err("the forwarded identity is not good yet");
    }
    if expires <= now.seconds() {
        return Err("the forwarded identity has expired");
    }
    match expires.checked_sub(issued) {
        Some(life) if life <= LONGEST_LIFE.as_secs() => Ok(()),
        _ => Err("the forwarded identity lives too long"),
    }
}

/// A whole number of seconds that every reader of JSON agrees on.
fn seconds(told: &Map<String, Value>, name: &str) -> Option<u64> {
    told.get(name)?.as_u64().filter(|seconds| *seconds < limits::JSON_INTEGER)
}

/// The kinds of evidence that are signed.
fn is_evidence(method: &str) -> bool {
    use IdentityMethod as Method;
    [Method::Mtls, Method::Spiffe, Method::Jwt, Method::ApiKey, Method::Forwarded, Method::EnforcementPoint]
        .iter()
        .any(|known| known.as_str() == method)
}
