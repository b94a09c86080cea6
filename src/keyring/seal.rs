//! The envelope: a payload, a dot, a seal.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use faster_hex::{CheckCase, hex_decode_array_with_case};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::domain::limits;
use crate::domain::reason::{Denial, Reason};
use crate::domain::token::{Claims, SealTag, TokenId};

/// The fastest engine of this machine, for base64url with padding; non-zero trailing bits are refused.
static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::url_safe(PAD));

const SEAL_BYTES: usize = 32;

/// An HMAC-SHA-256 key, ready for use. It has no `Debug`, and its state is wiped when it is dropped.
pub struct Key {
    keyed: Hmac<Sha256>,
    id: Box<str>,
    foreign: bool,
}

/// The state of a keyed hash is as good as the key. It is two states of SHA-256, which are wiped when they are dropped.
const _: fn() = || {
    fn is_wiped<T: zeroize::ZeroizeOnDrop>() {}
    is_wiped::<Sha256>();
};

impl Key {
    /// A key of these bytes, at least 32; `foreign`: other issuers hold it too.
    #[must_use]
    pub fn new(bytes: &[u8], foreign: bool) -> Option<Self> {
        if bytes.len() < limits::KEY_BYTES {
            return None;
        }
        let keyed = Hmac::<Sha256>::new_from_slice(bytes).ok()?;
        // The id is a MAC over a fixed text, so that it says nothing about the key.
        let mac = keyed.clone().chain_update(b"remit key id").finalize().into_bytes();
        let id = faster_hex::hex_string(mac.get(..4)?);
        Some(Self { keyed, id: id.into(), foreign })
    }

    /// The key's id: eight hex digits, for people to read.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals a payload.
    pub(crate) fn seal(&self, payload: &str) -> (String, SealTag) {
        let seal: [u8; SEAL_BYTES] = self.keyed.clone().chain_update(payload).finalize().into_bytes().into();
        let mut token = BASE64.encode(payload);
        token.push('.');
        token.push_str(&faster_hex::hex_string(&seal));
        (token, tag_of(&seal))
    }

    pub(super) fn sealed(&self, token: &UnverifiedToken<'_>) -> bool {
        self.keyed.clone().chain_update(token.payload).verify_slice(&token.seal).is_ok()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let tag = |key: &Self| key.keyed.clone().chain_update(b"remit key comparison").finalize().into_bytes();
        self.foreign == other.foreign && bool::from(tag(self).as_slice().ct_eq(tag(other).as_slice()))
    }
}

impl Eq for Key {}

/// What the ledger keeps of a seal: its first half, which never leaves the ledger.
fn tag_of(seal: &[u8; SEAL_BYTES]) -> SealTag {
    SealTag::from_bytes(first_half(seal))
}

/// The id of a token that has none. Ids are shown, so it is made from the seal's digest and not from the seal.
fn derived_id(seal: &[u8; SEAL_BYTES]) -> TokenId {
    TokenId::from_bytes(first_half(&Sha256::digest(seal).into()))
}

fn first_half(bytes: &[u8; SEAL_BYTES]) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(bytes) {
        *to = *from;
    }
    half
}

/// A token whose shape is right and of which nothing else is known.
pub(super) struct UnverifiedToken<'b> {
    payload: &'b [u8],
    seal: [u8; SEAL_BYTES],
}

impl<'b> UnverifiedToken<'b> {
    pub(super) fn parse(token: &str, buffer: &'b mut Vec<u8>) -> Result<Self, Denial> {
        if token.len() > limits::TOKEN_BYTES {
            let message = format!("a token has at most {} bytes and this has {}", limits::TOKEN_BYTES, token.len());
            return Err(malformed(message));
        }
        let (payload, seal) = token.split_once('.').ok_or_else(|| malformed("a token is payload, dot, seal"))?;
        let seal = hex(seal).ok_or_else(|| malformed("the seal is not 64 lower-case hex digits"))?;
        buffer.clear();
        let decoded = BASE64.decode_vec(payload, buffer);
        if payload.is_empty() || decoded.is_err() {
            return Err(malformed("the payload is not base64url with padding"));
        }
        Ok(Self { payload: buffer, seal })
    }

    /// Reads the claims, after the key has vouched for the payload.
    pub(super) fn read(self, key: &Key) -> Result<VerifiedToken<'b>, Denial> {
        let text = std::str::from_utf8(self.payload).map_err(|_| malformed("its payload is not UTF-8"))?;
        let claims = Claims::parse(text).map_err(|invalid| malformed(format!("the token can't be read: {invalid}")))?;
        if claims.is_foreign() && !key.foreign {
            return Err(malformed(
                "the token has no jti, so another issuer made it, and its key is not marked foreign = true",
            ));
        }
        let tag = tag_of(&self.seal);
        let id = claims.id.unwrap_or_else(|| derived_id(&self.seal));
        Ok(VerifiedToken { claims, id, tag })
    }
}

fn hex(text: &str) -> Option<[u8; SEAL_BYTES]> {
    hex_decode_array_with_case(text.as_bytes(), CheckCase::Lower).ok()
}

fn malformed(message: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(Reason::TokenMalformed, message)
}

/// A token that one of our keys sealed. There is no other way to make one.
pub struct VerifiedToken<'b> {
    claims: Claims<'b>,
    id: TokenId,
    tag: SealTag,
}

impl<'b> VerifiedToken<'b> {
    /// What it says.
    #[must_use]
    pub fn claims(&self) -> &Claims<'b> {
        &self.claims
    }

    /// Its id: `jti`, or for a foreign token one derived from its seal.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The id of its chain's root; its own if it is one.
    #[must_use]
    pub fn root(&self) -> TokenId {
        self.claims.ancestors.first().copied().unwrap_or(self.id)
    }

    /// What the ledger knows its seal by.
    #[must_use]
    pub fn tag(&self) -> SealTag {
        self.tag
    }
}
