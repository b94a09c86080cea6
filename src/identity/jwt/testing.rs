//! An issuer for tests: it signs whatever it is told to.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use super::{Algorithm, Audience, Config, Issuers};
use crate::domain::time::Timestamp;

pub(super) const ISSUER: &str = "https://idp.example";
pub(super) const US: &str = "https://remit.example";
/// The moment of most tests, in seconds.
pub(super) const NOW: u64 = 1_795_297_399;

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

pub(super) fn now() -> Timestamp {
    at(NOW)
}

/// The JWT crate reads no Ed25519 key of PKCS #8 version 1, which is what rcgen makes.
#[derive(Clone)]
enum Secret {
    Ed25519(Arc<KeyPair>),
    Other(EncodingKey),
}

pub(super) struct Signer {
    key: Secret,
    pub(super) algorithm: Algorithm,
    pub(super) id: &'static str,
}

/// The key that most tests sign with.
pub(super) static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new(Algorithm::EdDsa, "key-1"));

impl Signer {
    pub(super) fn new(algorithm: Algorithm, id: &'static str) -> Self {
        let pair = |kind| KeyPair::generate_for(kind).unwrap();
        let key = match algorithm {
            Algorithm::EdDsa => {
                return Self { key: Secret::Ed25519(Arc::new(pair(&rcgen::PKCS_ED25519))), algorithm, id };
            }
            Algorithm::Rs256 | Algorithm::Ps256 => {
                EncodingKey::from_rsa_pem(pair(&rcgen::PKCS_RSA_SHA256).serialize_pem().as_bytes()).unwrap()
            }
            Algorithm::Es256 => EncodingKey::from_ec_der(&pair(&rcgen::PKCS_ECDSA_P256_SHA256).serialize_der()),
            Algorithm::Es384 => EncodingKey::from_ec_der(&pair(&rcgen::PKCS_ECDSA_P384_SHA384).serialize_der()),
        };
        Self { key: Secret::Other(key), algorithm, id }
    }

    /// The same key, for another algorithm and under another name.
    pub(super) fn also(&self, algorithm: Algorithm, id: &'static str) -> Self {
        Self { key: self.key.clone(), algorithm, id }
    }

    fn foreign_algorithm(&self) -> jsonwebtoken::Algorithm {
        self.algorithm.name().parse().unwrap()
    }

    /// The public key.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Secret::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": URL_SAFE_NO_PAD.encode(pair.der_bytes())})
            }
            Secret::Other(key) => {
                serde_json::to_value(Jwk::from_encoding_key(key, self.foreign_algorithm()).unwrap()).unwrap()
            }
        };
        jwk["kid"] = self.id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub(super) fn header(&self) -> Value {
        json!({"alg": self.algorithm.name(), "kid": self.id, "typ": "JWT"})
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_under(&self.header(), claims)
    }

    pub(super) fn sign_under(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub(super) fn sign_text(&self, header: &str, claims: &str) -> String {
        self.sign_parts(&format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
    }

    pub(super) fn sign_parts(&self, parts: &str) -> String {
        let signature = match &self.key {
            Secret::Ed25519(pair) => URL_SAFE_NO_PAD.encode(pair.sign(parts.as_bytes()).unwrap()),
            Secret::Other(key) => jsonwebtoken::crypto::sign(parts.as_bytes(), key, self.foreign_algorithm()).unwrap(),
        };
        format!("{parts}.{signature}")
    }
}

/// Claims that nothing is wrong with.
pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "user-7", "aud": US, "iat": NOW - 10, "exp": NOW + 290,
        "agent": "agent-deployer", "groups": ["ops"],
    })
}

/// The claims with some of them replaced; `null` takes one away.
pub(super) fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
    }
    claims
}

pub(super) fn config() -> Config {
    Config {
        issuer: ISSUER.to_owned(),
        audience: Audience(vec![US.to_owned(), "remit".to_owned()]),
        jwks_uri: Some("https://idp.example/keys".to_owned()),
        agent_claim: Some("agent".to_owned()),
        forward_claims: vec!["groups".to_owned()],
        ..Config::default()
    }
}

pub(super) fn key_set(keys: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({"keys": keys})).unwrap()
}

/// One issuer with these keys.
pub(super) fn issuers_with(config: Config, signers: &[&Signer]) -> Issuers {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    let issuers = Issuers::new(&[config]).unwrap();
    issuers.install(ISSUER, &key_set(&keys), now()).unwrap();
    issuers
}

/// One issuer with [`SIGNER`]'s key.
pub(super) fn issuers() -> Issuers {
    issuers_with(config(), &[&SIGNER])
}
