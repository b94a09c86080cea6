//! An issuer's keys, from a JWK set (RFC 7517 §5). Each key is good for exactly one algorithm.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;
use serde_json::{Map, Value};

use super::compact::{Compact, KEY_ID_BYTES, LEVELS};
use super::config::Algorithm;
use super::roca;
use crate::json;

/// Keys in one set. Issuers have a handful.
const KEYS: usize = 64;
/// Keys that are tried for a token that names none: each costs some 50 µs.
const TRIES: usize = 4;
/// An RSA modulus, in bits: RFC 7518 §3.3, and what the cryptography below takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// An RSA exponent, in bytes; the cryptography below takes 33 bits.
const RSA_EXPONENT_BYTES: usize = 4;
/// Members that only a private or a secret key has (RFC 7518 §6).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// An issuer's keys that can verify.
pub(super) struct KeySet(Vec<Key>);

/// A public key, and the one algorithm that it is for.
struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    public: DecodingKey,
}

/// Why a text is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidKeySet(&'static str);

impl InvalidKeySet {
    /// Nobody's keys.
    pub(super) const NO_ISSUER: Self = Self("no such issuer is configured");
}

impl std::fmt::Display for InvalidKeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidKeySet {}

/// Why no key verifies a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    /// The set has no such key: a newer one may.
    NoSuchKey,
    /// There is a key, and the signature is not its.
    Forged(&'static str),
}

impl KeySet {
    /// Reads a set. Keys of other kinds and uses, private and weak ones are passed over; two keys of one name refuse
    /// the set, because nobody could say which is meant.
    ///
    /// # Errors
    /// What makes it no set.
    pub(super) fn parse(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, InvalidKeySet> {
        let set = json::parse_object(text, LEVELS).map_err(|_| InvalidKeySet("the key set is not strict JSON"))?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err(InvalidKeySet("the key set has no list of keys"));
        };
        if keys.len() > KEYS {
            return Err(InvalidKeySet("the key set has more than 64 keys"));
        }
        let keys: Option<Vec<_>> = keys.iter().map(Value::as_object).collect();
        let keys = keys.ok_or(InvalidKeySet("a key of the set is no object"))?;
        let mut seen = BTreeSet::new();
        if keys.iter().filter_map(|key| key.get("kid")?.as_str()).any(|id| !seen.insert(id)) {
            return Err(InvalidKeySet("two keys of the set have the same kid"));
        }
        Ok(Self(keys.into_iter().filter_map(|key| Key::read(key, algorithms)).collect()))
    }

    /// How many keys can verify.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the issuer signed the token.
    pub(super) fn verify(&self, token: &Compact<'_>) -> Result<(), Unverified> {
        let algorithm = token.header.algorithm;
        let Some(id) = &token.header.key_id else { return self.verify_by_any(token) };
        let key = self.0.iter().find(|key| key.id.as_ref() == Some(id)).ok_or(Unverified::NoSuchKey)?;
        if key.algorithm != algorithm {
            return Err(Unverified::Forged("the JWT's algorithm is not that of its key"));
        }
        if !key.verifies(token) {
            return Err(Unverified::Forged("the JWT's signature is not its key's"));
        }
        Ok(())
    }

    fn verify_by_any(&self, token: &Compact<'_>) -> Result<(), Unverified> {
        let algorithm = token.header.algorithm;
        let fitting: Vec<&Key> = self.0.iter().filter(|key| key.algorithm == algorithm).collect();
        if fitting.len() > TRIES {
            return Err(Unverified::Forged("the JWT names no key, and its issuer has many"));
        }
        if fitting.into_iter().any(|key| key.verifies(token)) { Ok(()) } else { Err(Unverified::NoSuchKey) }
    }
}

impl Key {
    /// The key, if it is public, for signatures, whole, strong, and for an algorithm that is taken.
    fn read(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Option<Self> {
        if SECRET_MEMBERS.iter().any(|member| jwk.contains_key(*member)) || !is_for_signatures(jwk) {
            return None;
        }
        let id = match jwk.get("kid") {
            None => None,
            Some(id) => Some(id.as_str().filter(|id| (1..=KEY_ID_BYTES).contains(&id.len()))?.into()),
        };
        let (algorithm, public) = match jwk.get("kty")?.as_str()? {
            "RSA" => (rsa_algorithm(jwk, algorithms)?, rsa(jwk)?),
            "EC" => curve(jwk)?,
            "OKP" if text(jwk, "crv")? == "Ed25519" => {
                (Algorithm::EdDsa, DecodingKey::from_ed_der(&bytes(jwk, "x", 32)?))
            }
            _ => return None,
        };
        let is_its_own = jwk.get("alg").is_none_or(|name| name.as_str() == Some(algorithm.name()));
        (is_its_own && algorithms.contains(&algorithm)).then_some(Self { id, algorithm, public })
    }

    fn verifies(&self, token: &Compact<'_>) -> bool {
        let algorithm = match self.algorithm {
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        };
        // Named here, so that nothing depends on which provider the process has installed.
        let verifier = (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&algorithm, &self.public);
        verifier.is_ok_and(|verifier| verifier.verify(token.signed.as_bytes(), &token.signature).is_ok())
    }
}

/// `use` and `key_ops`, where they are there (RFC 7517 §4.2, §4.3).
fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let is_verify = |operation: &Value| operation.as_str() == Some("verify");
    let operations = |value: &Value| value.as_array().is_some_and(|operations| operations.iter().any(is_verify));
    jwk.get("use").is_none_or(|purpose| purpose.as_str() == Some("sig")) && jwk.get("key_ops").is_none_or(operations)
}

/// An RSA key could sign in two ways and is good for one: the one it names, else the first of RS256 and PS256 that is
/// taken from this issuer.
fn rsa_algorithm(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Option<Algorithm> {
    match jwk.get("alg") {
        Some(name) => Algorithm::named(name.as_str()?),
        None => [Algorithm::Rs256, Algorithm::Ps256].into_iter().find(|algorithm| algorithms.contains(algorithm)),
    }
    .filter(|algorithm| matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256))
}

fn rsa(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    let (modulus, exponent) = (number(jwk, "n")?, number(jwk, "e")?);
    let leading = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    let bits = modulus.len().saturating_mul(8).saturating_sub(leading);
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    let is_exponent = exponent.len() <= RSA_EXPONENT_BYTES && is_odd(&exponent) && exponent != [1];
    if !RSA_BITS.contains(&bits) || !is_odd(&modulus) || !is_exponent || roca::is_weak(&modulus) {
        return None;
    }
    Some(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

/// Whether the point is on the curve shows when it verifies: one beside it verifies nothing.
fn curve(jwk: &Map<String, Value>) -> Option<(Algorithm, DecodingKey)> {
    let (algorithm, size) = match text(jwk, "crv")? {
        "P-256" => (Algorithm::Es256, 32),
        "P-384" => (Algorithm::Es384, 48),
        _ => return None,
    };
    // An uncompressed point (SEC 1 §2.3.3).
    let point = [[4].as_slice(), &bytes(jwk, "x", size)?, &bytes(jwk, "y", size)?].concat();
    Some((algorithm, DecodingKey::from_ec_der(&point)))
}

fn text<'k>(jwk: &'k Map<String, Value>, name: &str) -> Option<&'k str> {
    jwk.get(name)?.as_str()
}

fn bytes(jwk: &Map<String, Value>, name: &str, size: usize) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok().filter(|bytes| bytes.len() == size)
}

/// A number without the leading zeros that some write.
fn number(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok()?;
    Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}
