//! Who the client is (RFC 6749 §2.3): by certificate (RFC 8705), API key, a JWT of its own, or an assertion that it
//! signed (RFC 7523), and by exactly one of them.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::OAuth;
use super::form::Form;
use super::refusal::{Error, Refusal};
use super::request::Asked;
use crate::domain::limits;
use crate::door::Visit;
use crate::identity::{API_KEY_HEADER, FORWARDED_HEADER, Unidentified};
use crate::transport::Standing;

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Lets a client in.
///
/// # Errors
/// `invalid_client`: it is nobody; `invalid_request`: it shows more than one kind of evidence.
pub(super) fn enter(oauth: &OAuth, asked: &Asked) -> Result<Visit, Refusal> {
    let Asked { peer, headers, form } = asked;
    only_one(asked)?;
    let visit = if has_assertion(form) {
        by_assertion(oauth, headers, form)?
    } else {
        oauth.door.enter(peer.as_ref(), headers, limits::REQUEST_DEADLINE)?
    };
    match form.one("client_id") {
        Some(id) if id != visit.caller.agent().as_str() => {
            Err(Refusal::new(Error::InvalidClient, "client_id is not the agent that the client is"))
        }
        _ => Ok(visit),
    }
}

fn has_assertion(form: &Form) -> bool {
    form.one("client_assertion").is_some() || form.one("client_assertion_type").is_some()
}

fn only_one(asked: &Asked) -> Result<(), Refusal> {
    let Asked { peer, headers, form } = asked;
    if headers.contains_key(FORWARDED_HEADER) {
        return Err(Refusal::new(
            Error::InvalidClient,
            "x-remit-identity says who asked somebody else, not who the client is",
        ));
    }
    if form.one("client_secret").is_some() {
        return Err(Refusal::new(
            Error::InvalidClient,
            "client secrets are not taken: use a certificate, an API key or private_key_jwt",
        ));
    }
    let shown = [
        peer.as_ref().is_some_and(|peer| peer.standing() != Standing::Anonymous),
        headers.contains_key(AUTHORIZATION),
        headers.contains_key(API_KEY_HEADER),
        has_assertion(form),
    ];
    if shown.iter().filter(|is_shown| **is_shown).count() > 1 {
        return Err(Refusal::new(
            Error::InvalidRequest,
            "the client authenticates in more than one way: use one (RFC 6749 §2.3)",
        ));
    }
    Ok(())
}

fn by_assertion(oauth: &OAuth, headers: &HeaderMap, form: &Form) -> Result<Visit, Refusal> {
    let (Some(ASSERTION_TYPE), Some(assertion)) = (form.one("client_assertion_type"), form.one("client_assertion"))
    else {
        let why = "client_assertion and a client_assertion_type of jwt-bearer belong together";
        return Err(Refusal::new(Error::InvalidClient, why));
    };
    let audiences = oauth.audiences();
    let visit = oauth.door.enter_by(limits::REQUEST_DEADLINE, headers, |policy, now| {
        let caller = oauth.door.identity().identify_client(assertion, &audiences, &policy.policy, now);
        caller.inspect_err(|nobody| {
            oauth.door.engine().tally().unauthenticated(nobody.method());
            if let Unidentified::Unauthenticated(why) = nobody {
                tracing::debug!(target: "identity", why, "refused");
            }
        })
    });
    visit.map_err(Refusal::from)
}
