//! Keys that Remit published and somebody kept: what it signed can be checked long after, without Remit.

use serde_json::{Map, Value};

use super::key::PublicKey;
use super::open;
use crate::identity::jwt_type::JwtType;
use crate::json;

/// A set as Remit publishes it has some ten keys; several sets may have been joined.
const KEYS: usize = 64;
/// The set, its list and a key.
const LEVELS: usize = 4;

/// Published keys from a file. The keeper vouches for them.
#[derive(Default)]
pub struct KeptKeys(Vec<PublicKey>);

/// Why a text is no set of published keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKeys {
    /// It is not a JWK set.
    NotASet,
    /// It has more keys than anybody publishes.
    TooMany,
    /// None of its keys is of a kind that Remit signs with.
    Unsuitable,
}

impl std::fmt::Display for InvalidKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotASet => f.write_str("it is no JWK set: keep what /.well-known/jwks.json answers"),
            Self::TooMany => write!(f, "it has more than {KEYS} keys"),
            Self::Unsuitable => f.write_str("it has no Ed25519 or P-256 key"),
        }
    }
}

impl std::error::Error for InvalidKeys {}

impl KeptKeys {
    /// Adds the keys of a JWK set (RFC 7517 §5). Keys of other kinds are passed over.
    ///
    /// # Errors
    /// It is no set, or has none of Remit's keys.
    pub fn add(&mut self, text: &[u8]) -> Result<(), InvalidKeys> {
        let set = json::parse_object(text, LEVELS).map_err(|_| InvalidKeys::NotASet)?;
        let documents = set.get("keys").and_then(Value::as_array).ok_or(InvalidKeys::NotASet)?;
        if documents.len() > KEYS {
            return Err(InvalidKeys::TooMany);
        }
        let before = self.0.len();
        self.0.extend(documents.iter().filter_map(PublicKey::from_document));
        if self.0.len() == before { Err(InvalidKeys::Unsuitable) } else { Ok(()) }
    }

    /// What a JWT says that is of this type and that one of these keys signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(&self, typ: JwtType, text: &str) -> Result<Map<String, Value>, &'static str> {
        open(typ, text, self.0.iter())
    }
}
