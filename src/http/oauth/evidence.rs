//! The subject's and the actor's tokens, verified by the kind that they are said to be of (RFC 8693 §2.1, §3).

use std::sync::Arc;

use serde_json::Value;

use super::OAuth;
use super::exchange::{Actor, Subject, SubjectJwt, acted_for};
use super::form::Form;
use super::refusal::{Error, Refusal};
use super::token_type::{ACCESS_TOKEN, CAPABILITY, ID_TOKEN, IDENTITY, JWT};
use crate::domain::caller::Caller;
use crate::domain::time::Timestamp;
use crate::door::Visit;
use crate::identity::jwt::VerifiedJwt;
use crate::identity::jwt_type::JwtType;
use crate::identity::{Evidence, Shown, Unidentified};

/// The subject token.
///
/// # Errors
/// `invalid_request`: it is missing, or not acceptable.
pub(super) fn subject<'f>(
    oauth: &OAuth,
    form: &'f Form,
    visit: &Visit,
    now: Timestamp,
) -> Result<Subject<'f>, Refusal> {
    let token = form.required("subject_token")?;
    let issuers = &oauth.door.identity().sources().issuers;
    match form.required("subject_token_type")? {
        CAPABILITY => Ok(Subject::Capability(token)),
        JWT | ACCESS_TOKEN => {
            let jwt = issuers.verify(token, now).map_err(|why| not_good("subject_token", why))?;
            // With `act` it is no agent's own evidence: who acts for it is what counts.
            let is_own = jwt.actor.is_none();
            let agent = is_own.then(|| bearer(oauth, token, visit, now)).transpose();
            let agent = agent.map_err(|why| not_good("subject_token", why))?.flatten();
            Ok(Subject::Jwt(said(&jwt, agent)))
        }
        ID_TOKEN => {
            let client = visit.caller.agent().as_str();
            let jwt = issuers.verify_id_token(token, client, now).map_err(|why| not_good("subject_token", why))?;
            // An ID token tells who a user is; it gives nobody authority.
            Ok(Subject::Jwt(said(&jwt, None)))
        }
        _ => Err(Refusal::new(Error::InvalidRequest, "subject_token_type is none that is taken: see docs/oauth.md")),
    }
}

/// The actor token, if there is one.
///
/// # Errors
/// `invalid_request`: it is not acceptable, or it and its type are not there together.
pub(super) fn actor(oauth: &OAuth, form: &Form, visit: &Visit, now: Timestamp) -> Result<Option<Actor>, Refusal> {
    let (token, kind) = match (form.one("actor_token"), form.one("actor_token_type")) {
        (None, None) => return Ok(None),
        (Some(token), Some(kind)) => (token, kind),
        (None, Some(_)) | (Some(_), None) => {
            let why = "actor_token and actor_token_type stand together or not at all (RFC 8693 §2.1)";
            return Err(Refusal::new(Error::InvalidRequest, why));
        }
    };
    match kind {
        JWT | ACCESS_TOKEN => by_jwt(oauth, token, visit, now).map(Some),
        IDENTITY => forwarded(oauth, token, visit, now).map(Some),
        _ => Err(Refusal::new(Error::InvalidRequest, "actor_token_type is none that is taken: see docs/oauth.md")),
    }
}

fn by_jwt(oauth: &OAuth, token: &str, visit: &Visit, now: Timestamp) -> Result<Actor, Refusal> {
    let issuers = &oauth.door.identity().sources().issuers;
    let jwt = issuers.verify(token, now).map_err(|why| not_good("actor_token", why))?;
    if jwt.actor.is_some() {
        return Err(acted_for());
    }
    let agent = bearer(oauth, token, visit, now).map_err(|why| not_good("actor_token", why))?;
    let agent =
        agent.ok_or_else(|| Refusal::new(Error::InvalidRequest, "actor_token is of nobody that is an agent"))?;
    let identity = Arc::clone(agent.identity());
    Ok(Actor { identity, has_act: false, expires_at: jwt.expires_at })
}

/// What Remit signed for the client, who was asked by this agent, or for Remit itself.
fn forwarded(oauth: &OAuth, token: &str, visit: &Visit, now: Timestamp) -> Result<Actor, Refusal> {
    let identity = oauth.door.identity();
    let signer = identity.sources().forwarding.signer();
    let signer = signer.ok_or_else(|| not_good("actor_token", "no signing key is configured"))?;
    let told = signer.open(JwtType::ForwardedIdentity, token, now).map_err(|why| not_good("actor_token", why))?;
    let expires_at = told.get("exp").and_then(Value::as_u64);
    let expires_at = expires_at.ok_or_else(|| not_good("actor_token", "the forwarded identity has no exp"))?;
    let verify = |shown| identity.verify(shown, visit.policy(), now);
    let to_client = verify(Shown::ForwardedTo(visit.caller.agent().as_str(), token));
    let identity = to_client.or_else(|_| verify(Shown::Forwarded(token)));
    let identity = identity.map_err(|_| not_good("actor_token", "the forwarded identity is not for the client"))?;
    Ok(Actor { identity, has_act: told.contains_key("act"), expires_at })
}

/// The agent that the token is evidence of, and none if it is good evidence of nobody that is one.
fn bearer(oauth: &OAuth, token: &str, visit: &Visit, now: Timestamp) -> Result<Option<Caller>, &'static str> {
    let evidence = Evidence { bearer: Some(token), ..Evidence::default() };
    match oauth.door.identity().identify(evidence, visit.policy(), now) {
        Ok(caller) => Ok(Some(caller)),
        Err(Unidentified::Unmapped(_)) => Ok(None),
        Err(Unidentified::Unauthenticated(why)) => Err(why),
        Err(Unidentified::SelfAsserted(_)) => Err("it is a name and no evidence"),
    }
}

fn said(jwt: &VerifiedJwt, agent: Option<Caller>) -> SubjectJwt {
    SubjectJwt {
        issuer: jwt.issuer.clone(),
        subject: jwt.subject.clone(),
        agent,
        act: jwt.actor.clone(),
        may_act: jwt.may_act.clone(),
        expires_at: jwt.expires_at,
        names_user: ![&jwt.agent, &jwt.client].into_iter().flatten().any(|name| **name == *jwt.subject),
    }
}

/// One error for everything that can be wrong with a token; what it is stands in the log alone (RFC 8725 §3).
fn not_good(which: &'static str, why: &'static str) -> Refusal {
    tracing::info!(target: "oauth", token = which, why, "not accepted");
    Refusal::new(Error::InvalidRequest, format!("{which} is not acceptable"))
}
