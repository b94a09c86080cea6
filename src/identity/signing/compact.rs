//! The compact form of a signed JWT (RFC 7515 §7.1), read strictly: what Remit didn't write itself is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::json;

/// A JWT travels in a header; header lists are capped at 16 KiB.
pub(super) const JWT_BYTES: usize = 8 * 1024;
/// Seventeen agents of a chain nest in `act`, and some of what is around them.
const LEVELS: usize = 24;

/// A JWT whose signature nobody has looked at yet.
pub(super) struct Compact<'a> {
    /// What is signed.
    pub(super) message: &'a str,
    /// Base64url.
    pub(super) signature: &'a str,
    payload: &'a str,
    header: Map<String, Value>,
}

impl<'a> Compact<'a> {
    /// Takes the text apart.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > JWT_BYTES {
            return Err("the JWT is too long");
        }
        let (message, signature) = text.rsplit_once('.').ok_or("the JWT has not three parts")?;
        let (header, payload) = message.split_once('.').ok_or("the JWT has not three parts")?;
        if payload.contains('.') {
            return Err("the JWT has not three parts");
        }
        Ok(Self { message, signature, payload, header: object(header)? })
    }

    /// `alg`, `typ` and `kid`: all that a header may have. `crit`, `jwk`, `jku`, `b64` and the like are refused with the
    /// rest.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub(super) fn header(&self) -> Result<Header<'_>, &'static str> {
        let member = |name| self.header.get(name).and_then(Value::as_str);
        match (self.header.len(), member("alg"), member("typ"), member("kid")) {
            (3, Some(algorithm), Some(typ), Some(key)) => Ok(Header { algorithm, typ, key }),
            _ => Err("the JWT's header is not of the form that Remit writes"),
        }
    }

    /// What the JWT says.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, &'static str> {
        object(self.payload)
    }
}

/// What a header says.
pub(super) struct Header<'a> {
    pub(super) algorithm: &'a str,
    pub(super) typ: &'a str,
    pub(super) key: &'a str,
}

/// A part of a JWT.
pub(super) fn part(object: &Map<String, Value>) -> Option<String> {
    serde_json::to_vec(object).ok().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

fn object(part: &str) -> Result<Map<String, Value>, &'static str> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part of the JWT is no base64url")?;
    json::parse_object(&bytes, LEVELS).map_err(|_| "a part of the JWT is no strict JSON object")
}
