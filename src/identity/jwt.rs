//! JWTs of configured issuers: bearer evidence (RFC 9068, RFC 8725).
//!
//! Verification is synchronous and waits for nothing: it uses the keys that are at hand. A [`Refresher`] an issuer
//! fetches them in the background; a token whose key is not known asks it for newer ones, and is refused.

mod assertion;
mod claims;
mod compact;
mod config;
mod fetch;
mod issuer;
mod keys;
mod refresh;
mod roca;
mod schedule;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use serde_json::{Map, Value};

pub use assertion::{ClientConfig, ClientKeysError, Clients};
pub use config::{Algorithm, Audience, Config, Discovery};
pub use fetch::{Client, FetchError};
pub use keys::InvalidKeySet;
pub use refresh::Refresher;
pub use terms::{InvalidIssuer, check};

use crate::digest::Digest;
use crate::domain::time::Timestamp;
use crate::json;
use claims::Wanted;
use compact::{Compact, LEVELS};
use issuer::Issuer;

/// How long a verified token is remembered.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Verified tokens that are remembered, none larger than a token.
const REMEMBERED_TOKENS: u64 = 4096;

/// The issuers whose JWTs are evidence. Without one, no JWT is. Clones share everything.
#[derive(Clone, Default)]
pub struct Issuers(Option<Arc<Known>>);

struct Known {
    issuers: BTreeMap<Arc<str>, Arc<Issuer>>,
    /// Changes with every change of a key set, so that nothing is remembered that rests on keys of before.
    revision: AtomicU64,
    /// By SHA-256 of the token and revision.
    verified: Cache<(Digest, u64), Remembered>,
}

#[derive(Clone)]
struct Remembered {
    jwt: Arc<VerifiedJwt>,
    until: Timestamp,
}

/// What a JWT says that one of the issuers signed, and that is current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedJwt {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: Arc<str>,
    /// The value of the claim that names the agent, where it is there.
    pub agent: Option<Box<str>>,
    /// The claims that the issuer's configuration carries on.
    pub claims: Arc<Map<String, Value>>,
    /// Whether this issuer's word is enough for a role.
    pub privileged: bool,
    /// `exp`, in seconds.
    pub expires_at: u64,
    /// When it was verified.
    pub verified_at: Timestamp,
    /// What it was verified as.
    pub token_type: TokenType,
    /// `aud`.
    pub audiences: Vec<Box<str>>,
    /// `iat`, in seconds.
    pub issued_at: u64,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// `client_id`, or `azp`: who was issued the token.
    pub client: Option<Box<str>>,
    /// `scope`, as it stands.
    pub scope: Option<Box<str>>,
    /// `act`, an object: who acts for the subject (RFC 8693 §4.1).
    pub actor: Option<Value>,
    /// `may_act`, an object: who may act for the subject (RFC 8693 §4.4).
    pub may_act: Option<Value>,
}

/// What a JWT is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// An access token, for this service.
    Access,
    /// An ID token, for one of the issuer's clients.
    Id,
}

/// How an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerStatus {
    /// `iss`.
    pub issuer: Arc<str>,
    /// When its keys were last fetched.
    pub refreshed_at: Option<Timestamp>,
    /// What wants attention, for people.
    pub trouble: Option<String>,
}

impl Issuers {
    /// These issuers, none of whose keys are known yet.
    ///
    /// # Errors
    /// The first that can't be configured so, and what to write.
    pub fn new(configs: &[Config]) -> Result<Self, InvalidIssuer> {
        if configs.is_empty() {
            return Ok(Self::default());
        }
        let issuers = terms::all(configs)?.into_iter().map(Issuer::new);
        Ok(Self(Some(Arc::new(Known {
            issuers: issuers.map(|issuer| (Arc::clone(issuer.name()), Arc::new(issuer))).collect(),
            revision: AtomicU64::new(0),
            verified: Cache::builder().max_capacity(REMEMBERED_TOKENS).time_to_live(REMEMBERED).build(),
        }))))
    }

    /// Whether no issuer is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What the token says, if one of the issuers signed it for this service and it is current. Waits for nothing.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<VerifiedJwt>, &'static str> {
        let known = self.0.as_ref().ok_or("no issuer is configured")?;
        if token.len() > compact::TOKEN_BYTES {
            return Err("the JWT is over 8 KiB");
        }
        // Read before the keys: what is verified while they change is remembered under the old revision.
        let key = (Digest::of(token.as_bytes()), known.revision.load(Ordering::Acquire));
        if let Some(remembered) = known.verified.get(&key)
            && now < remembered.until
        {
            return Ok(remembered.jwt);
        }
        let (jwt, until) = known.verify(token, Wanted::Access, now)?;
        let jwt = Arc::new(jwt);
        known.verified.insert(key, Remembered { jwt: Arc::clone(&jwt), until });
        Ok(jwt)
    }

    /// What an ID token says that one of the issuers gave this client and that is current; only of issuers whose
    /// configuration says `id_tokens = true`. It is no evidence of who asks. Waits for nothing.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub fn verify_id_token(
        &self,
        token: &str,
        client_audience: &str,
        now: Timestamp,
    ) -> Result<Arc<VerifiedJwt>, &'static str> {
        let known = self.0.as_ref().ok_or("no issuer is configured")?;
        known.verify(token, Wanted::IdToken(client_audience), now).map(|(jwt, _)| Arc::new(jwt))
    }

    /// Changes whenever a key set changes.
    #[must_use]
    pub fn trust_revision(&self) -> u64 {
        self.0.as_ref().map_or(0, |known| known.revision.load(Ordering::Acquire))
    }

    /// Puts an issuer's keys in force, as if they had just been fetched.
    ///
    /// # Errors
    /// The text is no JWK set, or there is no such issuer.
    pub fn install(&self, issuer: &str, key_set: &[u8], now: Timestamp) -> Result<(), InvalidKeySet> {
        let known = self.0.as_ref().ok_or(InvalidKeySet::NO_ISSUER)?;
        let issuer = known.issuers.get(issuer).ok_or(InvalidKeySet::NO_ISSUER)?;
        known.install(issuer, key_set, now).map(|_| ())
    }

    /// How each issuer's keys are.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Vec<IssuerStatus> {
        self.0.iter().flat_map(|known| known.issuers.values()).map(|issuer| issuer.status(now)).collect()
    }
}

impl Known {
    fn verify(
        &self,
        token: &str,
        wanted: Wanted<'_>,
        now: Timestamp,
    ) -> Result<(VerifiedJwt, Timestamp), &'static str> {
        let compact = compact::parse(token)?;
        let claims = read_claims(&compact)?;
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or("the JWT's iss is not a text")?;
        let issuer = self.issuers.get(issuer).ok_or("the JWT's issuer is not configured")?;
        if matches!(wanted, Wanted::IdToken(_)) && !issuer.terms.id_tokens {
            return Err("ID tokens of this issuer are not taken");
        }
        let keys_until = issuer.verify(&compact, now)?;
        let jwt = claims::read(claims, compact.header.kind, wanted, &issuer.terms, now)?;
        let until = now.after(REMEMBERED).min(Timestamp::from_seconds(jwt.expires_at)).min(keys_until);
        Ok((jwt, until))
    }

    /// Whether they are others than before.
    fn install(&self, issuer: &Issuer, key_set: &[u8], now: Timestamp) -> Result<bool, InvalidKeySet> {
        let is_new = issuer.install(key_set, now)?;
        if is_new {
            self.revision.fetch_add(1, Ordering::AcqRel);
        }
        Ok(is_new)
    }
}

/// The claims, read before the signature is verified because `iss` says whose it is. Nothing else is used before.
fn read_claims(token: &Compact<'_>) -> Result<Map<String, Value>, &'static str> {
    json::parse_object(&token.payload, LEVELS).map_err(|_| "the JWT's claims are not strict JSON")
}

#[cfg(test)]
mod caller_tests;
#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod trust_tests;
#[cfg(test)]
mod verify_tests;
#[cfg(test)]
mod wycheproof_tests;
