//! What a token says, claim by claim (RFC 7519 §4.1, RFC 9068 §2.2). A claim of another kind than it has to be
//! refuses the token; none is taken for absent.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::compact::Kind;
use super::terms::Terms;
use super::{TokenType, VerifiedJwt};
use crate::domain::limits::{CLOCK_SKEW_SECONDS, JSON_INTEGER};
use crate::domain::time::Timestamp;

/// `sub`, `jti`, the agent's name and the client, in bytes; OIDC's own bound is 255.
const TEXT_BYTES: usize = 256;
/// `scope`, in bytes.
const SCOPE_BYTES: usize = 4096;
/// Entries of `aud`.
const AUDIENCES: usize = 32;
/// The claims that are carried on, as JSON, in bytes: they travel in a header beside a token.
const CARRIED_BYTES: usize = 2048;
/// Claims that only ID tokens have (OIDC Core §2, §3.3.2.11).
const ID_TOKEN_CLAIMS: [&str; 4] = ["nonce", "at_hash", "c_hash", "s_hash"];
/// What some issuers call a token in its claims: Keycloak's `typ`, Cognito's `token_use`.
const KIND_CLAIMS: [&str; 2] = ["typ", "token_use"];

type Claims = Map<String, Value>;

/// What a token is wanted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'c> {
    /// Evidence of who asks, for this service.
    Access,
    /// What somebody told this client about a user.
    IdToken(&'c str),
}

/// What the claims say, if they are whole, current and for the right reader.
pub(super) fn read(
    mut claims: Claims,
    kind: Kind,
    wanted: Wanted<'_>,
    terms: &Terms,
    now: Timestamp,
) -> Result<VerifiedJwt, &'static str> {
    if claims.get("iss").and_then(Value::as_str) != Some(&*terms.issuer) {
        return Err("the JWT's iss is not its issuer");
    }
    check_kind(&claims, kind, wanted)?;
    let audiences = audiences(&claims)?;
    check_audience(&audiences, &claims, wanted, terms)?;
    let (issued_at, expires_at) = times(&claims, terms, now)?;
    let subject = text(&claims, "sub", TEXT_BYTES, "the JWT's sub is not a text of 1 to 256 bytes")?;
    let jti = text(&claims, "jti", TEXT_BYTES, "the JWT's jti is not a text of 1 to 256 bytes")?;
    let client = client(&claims)?;
    if kind == Kind::AccessToken && (jti.is_none() || client.is_none()) {
        return Err("the JWT is an at+jwt without jti or client_id");
    }
    Ok(VerifiedJwt {
        issuer: Arc::clone(&terms.issuer),
        subject: subject.ok_or("the JWT has no sub")?.into(),
        agent: agent(&claims, terms)?.map(Box::from),
        privileged: terms.privileged,
        expires_at,
        verified_at: now,
        token_type: match wanted {
            Wanted::Access => TokenType::Access,
            Wanted::IdToken(_) => TokenType::Id,
        },
        issued_at,
        jti: jti.map(Box::from),
        client: client.map(Box::from),
        scope: scope(&claims)?.map(Box::from),
        claims: Arc::new(carried(&claims, terms)?),
        actor: object(&mut claims, "act", "the JWT's act is no object")?,
        may_act: object(&mut claims, "may_act", "the JWT's may_act is no object")?,
        audiences,
    })
}

/// Tells ID tokens, access tokens and other things apart where the header's `typ` leaves it open. An ID token's
/// audience is a client and not this service, which is the first guard; these marks are the second.
fn check_kind(claims: &Claims, kind: Kind, wanted: Wanted<'_>) -> Result<(), &'static str> {
    // A token that is bound to a key or certificate is no bearer token (RFC 8705 §3, RFC 9449 §7.1).
    if claims.contains_key("cnf") {
        return Err("the JWT is bound to a key (cnf) and can't be taken as a bearer token");
    }
    // Security events and logout tokens (RFC 8417 §2.2, OIDC Back-Channel Logout §2.4).
    if claims.contains_key("events") {
        return Err("the JWT is a security event");
    }
    let is_called = |names: &[&str]| {
        let called = KIND_CLAIMS.iter().filter_map(|claim| claims.get(*claim)?.as_str());
        called.into_iter().any(|called| names.iter().any(|name| called.eq_ignore_ascii_case(name)))
    };
    if is_called(&["refresh", "offline", "logout"]) {
        return Err("the JWT is no access token and no ID token");
    }
    match (wanted, kind) {
        (Wanted::Access, Kind::AccessToken) => Ok(()),
        (Wanted::Access, Kind::Unsaid) => {
            let is_marked = ID_TOKEN_CLAIMS.iter().any(|claim| claims.contains_key(*claim));
            if is_marked || is_called(&["id"]) { Err("the JWT is an ID token") } else { Ok(()) }
        }
        (Wanted::IdToken(_), Kind::AccessToken) => Err("the JWT is an access token"),
        (Wanted::IdToken(_), Kind::Unsaid) => {
            if is_called(&["bearer", "access"]) {
                Err("the JWT is an access token")
            } else {
                Ok(())
            }
        }
    }
}

fn audiences(claims: &Claims) -> Result<Vec<Box<str>>, &'static str> {
    let wrong = "the JWT's aud is not a text or a list of at most 32 texts";
    match claims.get("aud").ok_or("the JWT has no aud")? {
        Value::String(audience) => Ok(vec![audience.as_str().into()]),
        Value::Array(audiences) if audiences.len() <= AUDIENCES => {
            audiences.iter().map(|audience| audience.as_str().map(Box::from).ok_or(wrong)).collect()
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(wrong),
    }
}

fn check_audience(
    audiences: &[Box<str>],
    claims: &Claims,
    wanted: Wanted<'_>,
    terms: &Terms,
) -> Result<(), &'static str> {
    match wanted {
        Wanted::Access if audiences.iter().any(|audience| terms.audiences.contains(audience)) => Ok(()),
        Wanted::Access => Err("the JWT is not for this audience"),
        Wanted::IdToken(client) if !audiences.iter().any(|audience| **audience == *client) => {
            Err("the ID token is not for this client")
        }
        // OIDC Core §3.1.3.7, 4 and 5.
        Wanted::IdToken(client) => match claims.get("azp") {
            None if audiences.len() > 1 => {
                Err("the ID token is for several and does not say which client it was issued to")
            }
            Some(azp) if azp.as_str() != Some(client) => Err("the ID token was issued to another client"),
            None | Some(_) => Ok(()),
        },
    }
}

/// `iat` and `exp`, in seconds. `exp` has no leeway: what is over is over.
fn times(claims: &Claims, terms: &Terms, now: Timestamp) -> Result<(u64, u64), &'static str> {
    let issued_at = seconds(claims, "iat", "the JWT's iat is not in whole seconds")?.ok_or("the JWT has no iat")?;
    let expires_at = seconds(claims, "exp", "the JWT's exp is not in whole seconds")?.ok_or("the JWT has no exp")?;
    let not_before = seconds(claims, "nbf", "the JWT's nbf is not in whole seconds")?.unwrap_or(0);
    let soon = now.seconds().saturating_add(CLOCK_SKEW_SECONDS);
    if expires_at <= now.seconds() {
        return Err("the JWT is expired");
    }
    if not_before > soon {
        return Err("the JWT is not valid yet");
    }
    if issued_at > soon {
        return Err("the JWT was issued in the future");
    }
    match expires_at.checked_sub(issued_at) {
        None | Some(0) => Err("the JWT expires before it was issued"),
        Some(lifetime) if lifetime > terms.max_lifetime_seconds => {
            Err("the JWT lives longer than max_lifetime_seconds")
        }
        Some(_) => Ok((issued_at, expires_at)),
    }
}

fn seconds(claims: &Claims, name: &str, wrong: &'static str) -> Result<Option<u64>, &'static str> {
    let whole = |value: &Value| value.as_u64().filter(|seconds| *seconds < JSON_INTEGER).ok_or(wrong);
    claims.get(name).map(whole).transpose()
}

/// Who was issued the token: `client_id` (RFC 9068 §2.2) or `azp` (OIDC Core §2).
fn client(claims: &Claims) -> Result<Option<&str>, &'static str> {
    let read = |name| text(claims, name, TEXT_BYTES, "the JWT's client_id or azp is not a text of 1 to 256 bytes");
    Ok(read("client_id")?.or(read("azp")?))
}

/// `scope`; some issuers write an empty one for none.
fn scope(claims: &Claims) -> Result<Option<&str>, &'static str> {
    if claims.get("scope").and_then(Value::as_str) == Some("") {
        return Ok(None);
    }
    text(claims, "scope", SCOPE_BYTES, "the JWT's scope is not a text of at most 4096 bytes")
}

fn agent<'c>(claims: &'c Claims, terms: &Terms) -> Result<Option<&'c str>, &'static str> {
    let Some(name) = &terms.agent_claim else { return Ok(None) };
    text(claims, name, TEXT_BYTES, "the JWT's claim of the agent is not a text of 1 to 256 bytes")
}

fn carried(claims: &Claims, terms: &Terms) -> Result<Claims, &'static str> {
    let names = terms.forward_claims.iter();
    let carried: Claims =
        names.filter_map(|name| claims.get(&**name).map(|value| (name.to_string(), value.clone()))).collect();
    let size = serde_json::to_vec(&carried).map_or(usize::MAX, |text| text.len());
    if size > CARRIED_BYTES {
        return Err("the JWT's claims that are carried on are over 2 KiB");
    }
    Ok(carried)
}

/// A text that is not empty, not too long, and free of control characters, if it is there.
fn text<'c>(
    claims: &'c Claims,
    name: &str,
    bytes: usize,
    wrong: &'static str,
) -> Result<Option<&'c str>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=bytes).contains(&text.len()) && !text.chars().any(char::is_control) => {
            Ok(Some(text))
        }
        Some(_) => Err(wrong),
    }
}

fn object(claims: &mut Claims, name: &str, wrong: &'static str) -> Result<Option<Value>, &'static str> {
    match claims.remove(name) {
        None => Ok(None),
        Some(value) if value.is_object() => Ok(Some(value)),
        Some(_) => Err(wrong),
    }
}
