//! The compact form of a JWS (RFC 7515 §7.1), read so strictly that a token has one spelling.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::config::Algorithm;
use crate::json;

/// A token's text, in bytes: the longest that a header list of 16 KiB has room for beside the rest.
pub(super) const TOKEN_BYTES: usize = 8 * 1024;
/// Levels of objects and lists in header and claims.
pub(super) const LEVELS: usize = 16;
/// A key's name, in bytes: thumbprints and URLs fit.
pub(super) const KEY_ID_BYTES: usize = 256;

/// A token taken apart. Nobody has looked at its signature yet.
pub(super) struct Compact<'t> {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    /// What is signed: the first two parts and the dot between.
    pub(super) signed: &'t str,
    pub(super) signature: Vec<u8>,
}

/// What a header says that matters here. Keys and addresses in it are never looked at.
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    /// `kid`: whatever it says, it only picks one of the issuer's own keys.
    pub(super) key_id: Option<Box<str>>,
    pub(super) kind: Kind,
}

/// What the header's `typ` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, or `JWT`.
    Unsaid,
    /// `at+jwt` (RFC 9068 §2.1).
    AccessToken,
}

/// Takes a token apart: three parts, base64url without padding and stray bits, a header whose every demand is met.
pub(super) fn parse(token: &str) -> Result<Compact<'_>, &'static str> {
    if token.len() > TOKEN_BYTES {
        return Err("the JWT is over 8 KiB");
    }
    let (signed, signature) = token.rsplit_once('.').ok_or("the JWT has not three parts")?;
    let (header, payload) = signed.split_once('.').ok_or("the JWT has not three parts")?;
    if payload.contains('.') {
        return Err("the JWT has not three parts");
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part of the JWT is not strict base64url");
    let header = json::parse_object(&decode(header)?, LEVELS).map_err(|_| "the JWT's header is not strict JSON")?;
    Ok(Compact { header: Header::read(&header)?, payload: decode(payload)?, signed, signature: decode(signature)? })
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, &'static str> {
        // Whatever is critical is not understood here (RFC 7515 §4.1.11); `b64` and `zip` change what is signed.
        if ["crit", "b64", "zip"].iter().any(|name| header.contains_key(*name)) {
            return Err("the JWT's header demands what is not done here");
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if (1..=KEY_ID_BYTES).contains(&id.len()) => Some(id.as_str().into()),
            Some(_) => return Err("the JWT's kid is not a text of at most 256 bytes"),
        };
        Ok(Self { algorithm: algorithm.ok_or("the JWT's algorithm is not taken")?, key_id, kind: kind(header)? })
    }
}

/// `typ` tells access tokens from everything else that is signed (RFC 8725 §3.11): what Remit itself signs, logout
/// tokens, security events.
fn kind(header: &Map<String, Value>) -> Result<Kind, &'static str> {
    let is = |text: &str, kind: &str| text.eq_ignore_ascii_case(kind);
    match header.get("typ") {
        None => Ok(Kind::Unsaid),
        Some(Value::String(typ)) if is(typ, "JWT") => Ok(Kind::Unsaid),
        Some(Value::String(typ)) if is(typ, "at+jwt") || is(typ, "application/at+jwt") => Ok(Kind::AccessToken),
        Some(_) => Err("the JWT's typ is not that of an access token"),
    }
}
