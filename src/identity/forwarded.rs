//! Identities that Remit signed, so that an agent behind a gateway or a queue knows its caller.
//!
//! What is signed was verified here first, for one receiver and a minute at most. The receiver verifies it with any JWT
//! library and the published keys, or asks Remit.

mod claims;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jwt_type::JwtType;
use super::signing::{LONGEST_LIFE, Published, Signer, SigningFiles, SigningKeyError, Unsigned};
use crate::domain::caller::VerifiedIdentity;
use crate::domain::time::Timestamp;

/// `[identity.forward]`: what Remit signs with. Without a signing key it signs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A PEM file with a private key, Ed25519 or P-256, in PKCS#8; closed to others. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PathBuf>,
    /// Who Remit is in what it signs, a URL; also the audience of what is meant for Remit itself. Required
    /// beside a signing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// How long a forwarded identity is good, 1 to 60. Default 60.
    pub ttl_seconds: u64,
    /// PEM files with further keys, public or private, that are published and don't sign. None by default.
    pub also_published: Vec<PathBuf>,
    /// How long others may keep the list of published keys, 1 to 3600. A new key signs only after that. Default 60.
    pub jwks_cache_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            signing_key: None,
            issuer: None,
            ttl_seconds: LONGEST_LIFE.as_secs(),
            also_published: Vec::new(),
            jwks_cache_seconds: 60,
        }
    }
}

/// Signs and verifies forwarded identities. Without a signing key it does neither.
#[derive(Default)]
pub struct Forwarding(Option<Forwarder>);

struct Forwarder {
    signer: Signer,
    issuer: Arc<str>,
    ttl: Duration,
}

/// What is told about somebody, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'a> {
    /// Who it is.
    pub identity: &'a VerifiedIdentity,
    /// The one receiver: an agent's name in policy, or [`Forwarding::issuer`].
    pub audience: &'a str,
    /// The delegation chain, from its root to the agent that acts; empty or one agent for none.
    pub chain: &'a [Arc<str>],
    /// The user behind the chain, where one is.
    pub on_behalf_of: Option<&'a str>,
    /// Names this JWT (`jti`): a decision's id.
    pub id: &'a str,
}

impl Forwarding {
    /// Signs as this configuration says.
    ///
    /// # Errors
    /// A key file that can't be used.
    pub fn new(config: &Config, now: Timestamp) -> Result<Self, SigningKeyError> {
        let Config { signing_key, issuer, ttl_seconds, also_published, jwks_cache_seconds } = config;
        let (Some(signing_key), Some(issuer)) = (signing_key, issuer) else { return Ok(Self(None)) };
        let files = SigningFiles {
            signing_key: signing_key.clone(),
            also_published: also_published.clone(),
            cache: Duration::from_secs(*jwks_cache_seconds),
        };
        let ttl = Duration::from_secs(*ttl_seconds).min(LONGEST_LIFE);
        Ok(Self(Some(Forwarder { signer: Signer::new(files, now)?, issuer: issuer.as_str().into(), ttl })))
    }

    /// Reads the key files again; whether a new signing key was announced. A file that can't be used changes nothing.
    ///
    /// # Errors
    /// A key file that can't be used.
    pub fn reload(&self, now: Timestamp) -> Result<bool, SigningKeyError> {
        self.0.as_ref().map_or(Ok(false), |forwarder| forwarder.signer.reload(now))
    }

    /// What signs, for other JWTs of Remit's; none without a signing key.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.0.as_ref().map(|forwarder| &forwarder.signer)
    }

    /// Who Remit is in what it signs; none without a signing key.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.as_ref().map(|forwarder| forwarder.issuer.as_ref())
    }

    /// A JWT of this type with these claims, and with who signs (`iss`) and when (`iat`). It has no end.
    ///
    /// # Errors
    /// There is no key, or the JWT would be too long.
    pub fn attest(&self, typ: JwtType, mut claims: Map<String, Value>, now: Timestamp) -> Result<String, Unsigned> {
        let Forwarder { signer, issuer, .. } = self.0.as_ref().ok_or(Unsigned::NoKey)?;
        claims.insert("iss".to_owned(), issuer.as_ref().into());
        claims.insert("iat".to_owned(), now.seconds().into());
        signer.sign(typ, &claims, now)
    }

    /// The published keys; none without a signing key.
    #[must_use]
    pub fn published(&self, now: Timestamp) -> Option<Published> {
        self.signer().map(|signer| signer.published(now))
    }

    /// A JWT that tells the audience who it is.
    ///
    /// # Errors
    /// There is no key, nobody verified who it is, or the JWT would be too long.
    pub fn sign(&self, introduction: &Introduction<'_>, now: Timestamp) -> Result<String, Unsigned> {
        let Forwarder { signer, issuer, ttl } = self.0.as_ref().ok_or(Unsigned::NoKey)?;
        if introduction.identity.is_self_asserted() {
            return Err(Unsigned::SelfAsserted);
        }
        signer.sign(JwtType::ForwardedIdentity, &claims::write(introduction, issuer, now, *ttl), now)
    }

    /// Who it is that this names, if Remit signed it for Remit itself and it is current.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub fn verify(&self, text: &str, now: Timestamp) -> Result<VerifiedIdentity, &'static str> {
        let issuer = self.issuer().ok_or("no signing key is configured")?;
        self.verify_for(issuer, text, now)
    }

    /// Whether it says no more than who somebody is by its own evidence: no chain, no user, no other's word for it.
    ///
    /// # Errors
    /// What is wrong with it, or what more it says: for the log alone.
    pub fn verify_own(&self, text: &str, now: Timestamp) -> Result<(), &'static str> {
        let Forwarder { signer, .. } = self.0.as_ref().ok_or("no signing key is configured")?;
        claims::check_own(&signer.open(JwtType::ForwardedIdentity, text, now)?)
    }

    /// The same for another receiver: an agent's name in policy.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub fn verify_for(&self, audience: &str, text: &str, now: Timestamp) -> Result<VerifiedIdentity, &'static str> {
        let Forwarder { signer, issuer, .. } = self.0.as_ref().ok_or("no signing key is configured")?;
        let told = signer.open(JwtType::ForwardedIdentity, text, now)?;
        claims::read(&told, issuer, audience, now)
    }
}

#[cfg(test)]
mod tests;
