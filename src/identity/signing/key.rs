//! Keys for signing JWTs: Ed25519 or P-256, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{EllipticCurve, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, crypto};
use serde_json::Value;
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use crate::keyring::{ClosedFileError, read_closed};

/// A PEM file with one key has some hundred bytes.
const FILE_BYTES: usize = 16 * 1024;
/// What stands before the seed of an Ed25519 key in PKCS#8 of version 1 (RFC 8410 §7).
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A key that signs. It has no `Debug`, and is wiped when dropped.
pub(super) struct SigningKey {
    secret: EncodingKey,
    public: PublicKey,
}

/// The public half of a key.
#[derive(Clone)]
pub(super) struct PublicKey {
    id: Arc<str>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// As it is published, with no private member.
    document: Value,
}

/// Why a signing key can't be used.
#[derive(Debug)]
pub enum SigningKeyError {
    /// The file can't be read, or others can.
    File(ClosedFileError),
    /// The file has no key of a kind that signs.
    Unsuitable(PathBuf),
    /// The file has a public key, and signing needs the private one.
    Public(PathBuf),
}

impl std::fmt::Display for SigningKeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MAKE: &str = "make one with `openssl genpkey -algorithm ed25519 -out forward.key`";
        match self {
            Self::File(error) => write!(f, "{error}"),
            Self::Unsuitable(path) => {
                write!(f, "{} has no Ed25519 or P-256 key in PEM (PKCS#8): {MAKE}", path.display())
            }
            Self::Public(path) => {
                write!(f, "{} has a public key, and signing needs a private one: {MAKE}", path.display())
            }
        }
    }
}

impl std::error::Error for SigningKeyError {}

impl SigningKey {
    /// The private key in this file, which nobody else may read.
    ///
    /// # Errors
    /// The file can't be read, others can read it, or it has no such key.
    pub(super) fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let bytes = read_closed(path, FILE_BYTES).map_err(SigningKeyError::File)?;
        match Pem::parse(&bytes) {
            Some(Pem::Private(der)) => Self::from_der(&der),
            Some(Pem::Public) => return Err(SigningKeyError::Public(path.to_owned())),
            None => None,
        }
        .ok_or_else(|| SigningKeyError::Unsuitable(path.to_owned()))
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let (secret, algorithm) = match ed25519(der) {
            Some(der) => (EncodingKey::from_ed_der(&der), Algorithm::EdDSA),
            None => (EncodingKey::from_ec_der(der), Algorithm::ES256),
        };
        let public = PublicKey::new(Jwk::from_encoding_key(&secret, algorithm).ok()?, algorithm)?;
        Some(Self { secret, public })
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of these bytes, base64url.
    pub(super) fn sign(&self, message: &str) -> Option<String> {
        crypto::sign(message.as_bytes(), &self.secret, self.public.algorithm).ok()
    }
}

impl PublicKey {
    /// The public key in this file, or the public half of the private one.
    ///
    /// # Errors
    /// The file can't be read, others can read a private key in it, or it has no such key.
    pub(super) fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let unreadable = |error| SigningKeyError::File(ClosedFileError::Unreadable(path.to_owned(), error));
        let bytes = match read_closed(path, FILE_BYTES) {
            Ok(bytes) => bytes,
            // A public key may be open to all.
            Err(ClosedFileError::Exposed(..)) => Zeroizing::new(std::fs::read(path).map_err(unreadable)?),
            Err(error) => return Err(SigningKeyError::File(error)),
        };
        let public = match Pem::parse(&bytes) {
            Some(Pem::Private(_)) => return SigningKey::read(path).map(|key| key.public),
            Some(Pem::Public) => Self::from_pem(&bytes),
            None => None,
        };
        public.ok_or_else(|| SigningKeyError::Unsuitable(path.to_owned()))
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let (key, algorithm) = match DecodingKey::from_ed_pem(pem) {
            Ok(key) => (key, Algorithm::EdDSA),
            Err(_) => (DecodingKey::from_ec_pem(pem).ok()?, Algorithm::ES256),
        };
        Self::new(Jwk::from_decoding_key(&key, Some(algorithm)).ok()?, algorithm)
    }

    /// The key of a published JWK; none if it is of another kind. Its id is its thumbprint, whatever the JWK says.
    pub(super) fn from_document(document: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(document.clone()).ok()?;
        Self::new(jwk.clone(), Algorithm::EdDSA).or_else(|| Self::new(jwk, Algorithm::ES256))
    }

    fn new(mut jwk: Jwk, algorithm: Algorithm) -> Option<Self> {
        use jsonwebtoken::jwk::AlgorithmParameters as Parameters;
        let is_suitable = if algorithm == Algorithm::EdDSA {
            matches!(&jwk.algorithm, Parameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519)
        } else {
            matches!(&jwk.algorithm, Parameters::EllipticCurve(key) if key.curve == EllipticCurve::P256)
        };
        if !is_suitable {
            return None;
        }
        // RFC 7638: the same key has the same id everywhere, and two keys never share one.
        let id = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: id.into(), algorithm, key, document: serde_json::to_value(&jwk).ok()? })
    }

    /// Its name: the RFC 7638 thumbprint.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// As a header names its algorithm: the only one that this key is for.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.key.family() {
            AlgorithmFamily::Ed => "EdDSA",
            AlgorithmFamily::Ec => "ES256",
            AlgorithmFamily::Hmac | AlgorithmFamily::Rsa => "",
        }
    }

    /// The JWK (RFC 7517), public members alone.
    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    /// Whether this base64url signature of the message is of this key.
    pub(super) fn has_signed(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

/// What a PEM file has.
enum Pem {
    /// PKCS#8.
    Private(Zeroizing<Vec<u8>>),
    Public,
}

impl Pem {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (_, pem) = parse_x509_pem(bytes).ok()?;
        let contents = Zeroizing::new(pem.contents);
        match pem.label.as_str() {
            "PRIVATE KEY" => Some(Self::Private(contents)),
            "PUBLIC KEY" => Some(Self::Public),
            _ => None,
        }
    }
}

/// A PEM file with an Ed25519 key, from its PKCS#8: in version 1, which every library reads.
#[must_use]
pub fn ed25519_pem(der: &[u8]) -> Option<Zeroizing<String>> {
    let text = Zeroizing::new(STANDARD.encode(ed25519(der)?));
    Some(Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *text)))
}

/// An Ed25519 key in version 1 of PKCS#8. Version 2 (RFC 5958) has the public key after the same seed.
fn ed25519(der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let begins_alike = der.get(2..4) == ED25519.get(2..4) && der.get(5..16) == ED25519.get(5..16);
    let seed = der.get(16..48).filter(|_| begins_alike)?;
    Some(Zeroizing::new([ED25519.as_slice(), seed].concat()))
}
