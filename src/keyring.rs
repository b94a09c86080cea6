//! Seals and opens tokens; the only room that knows a key.
//!
//! A token's text is `base64url(payload) "." hex(HMAC-SHA-256(key, payload))`, base64url with padding (RFC 4648 §5) and
//! 64 lower-case hex digits (RFC 2104), so that other issuers can make it and other services check it: `docs/tokens.md`. A keyring has one to four keys: the first seals, all open.

mod closed_file;
mod file;
mod seal;

pub use closed_file::{ClosedFileError, read_closed};
pub use file::{KeyFile, KeyFileError, KeyFiles};
pub use seal::{Key, VerifiedToken};

use crate::domain::limits;
use crate::domain::reason::{Denial, Reason};
use crate::domain::token::{Claims, SealTag};
use seal::UnverifiedToken;

/// One to four keys.
#[derive(PartialEq, Eq)]
pub struct Keyring {
    first: Key,
    others: Vec<Key>,
}

impl Keyring {
    /// A keyring of these keys; the first seals.
    ///
    /// # Errors
    /// There are none, more than four, or one twice.
    pub fn new(keys: Vec<Key>) -> Result<Self, InvalidKeyring> {
        let count = keys.len();
        if count > limits::KEYS {
            return Err(InvalidKeyring::TooMany(count));
        }
        for (index, key) in keys.iter().enumerate() {
            if keys.iter().take(index).any(|before| before.id() == key.id()) {
                return Err(InvalidKeyring::Twice(key.id().to_owned()));
            }
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(InvalidKeyring::Empty)?;
        Ok(Self { first, others: keys.collect() })
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.others.len().saturating_add(1)
    }

    /// Never: a keyring has at least one key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The ids of its keys, the sealing one first. For people to read.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys().map(Key::id)
    }

    /// The token that says this, and the seal by which the ledger knows it.
    ///
    /// # Errors
    /// `REQUEST_MALFORMED` with its size if the text would be longer than a token may be.
    pub fn seal<'a>(&'a self, mut claims: Claims<'a>) -> Result<(String, SealTag), Denial> {
        claims.key_id = Some(self.first.id().into());
        let (token, tag) = self.first.seal(&claims.to_payload());
        if token.len() > limits::TOKEN_BYTES {
            let message = format!(
                "the token would have {} bytes and the limit is {}: ask for fewer capabilities or resources",
                token.len(),
                limits::TOKEN_BYTES
            );
            return Err(Denial::new(Reason::RequestMalformed, message));
        }
        Ok((token, tag))
    }

    /// Opens a token: its shape, then its seal over the bytes as they were received, then what it says: the cheapest first, and
    /// nothing of it is parsed that no key has sealed. Each key is tried, in constant time; `kid` chooses none. `buffer` receives the payload that the claims borrow from. Times are not checked here.
    ///
    /// # Errors
    /// `TOKEN_MALFORMED` or `TOKEN_SEAL_INVALID`; neither quotes the token.
    pub fn open<'b>(&self, token: &str, buffer: &'b mut Vec<u8>) -> Result<VerifiedToken<'b>, Denial> {
        let unverified = UnverifiedToken::parse(token, buffer)?;
        let key = self.keys().find(|key| key.sealed(&unverified)).ok_or_else(|| {
            let message = "no key of this service made the token's seal: it was altered, or its key was withdrawn";
            Denial::new(Reason::TokenSealInvalid, message)
        })?;
        unverified.read(key)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// Why keys don't make a keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidKeyring {
    /// There is no key.
    Empty,
    /// There are more than four.
    TooMany(usize),
    /// The key of this id is there twice.
    Twice(String),
}

impl std::fmt::Display for InvalidKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no key: make one with `remit keygen` and name its file in [[key]]"),
            Self::TooMany(count) => write!(f, "there are {count} keys and a keyring has at most {}", limits::KEYS),
            Self::Twice(id) => write!(f, "the key {id} is there twice: remove one of its [[key]] entries"),
        }
    }
}

impl std::error::Error for InvalidKeyring {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::token::TokenId;

    fn claims() -> Claims<'static> {
        let mut claims = Claims::parse(
            r#"{"cap":["read_file"],"delegatable":false,"exp":1300,"iat":1000,"iss":"a","max_uses":1,"res":["/x/*"],"sub":"b"}"#,
        )
        .unwrap();
        claims.id = Some(TokenId::from_bytes([1; 16]));
        claims
    }

    fn key(byte: u8) -> Key {
        Key::new(&[byte; 32], false).unwrap()
    }

    fn open(keyring: &Keyring, token: &str) -> Result<TokenId, Reason> {
        let mut buffer = Vec::new();
        keyring.open(token, &mut buffer).map(|token| token.id()).map_err(|denial| denial.reason())
    }

    #[test]
    fn opens_what_any_of_its_keys_sealed() {
        let (token, _) = Keyring::new(vec![key(1)]).unwrap().seal(claims()).unwrap();
        let rotated = Keyring::new(vec![key(2), key(1)]).unwrap();
        assert_eq!(open(&rotated, &token), Ok(TokenId::from_bytes([1; 16])));
        let dropped = Keyring::new(vec![key(2)]).unwrap();
        assert_eq!(open(&dropped, &token), Err(Reason::TokenSealInvalid));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let keyring = Keyring::new(vec![key(1)]).unwrap();
        let (token, _) = keyring.seal(claims()).unwrap();
        for index in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[index] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(open(&keyring, &text).is_err(), "bit {bit} of byte {index}");
                }
            }
        }
    }

    #[test]
    fn framing_is_exact() {
        let keyring = Keyring::new(vec![key(1)]).unwrap();
        let (token, _) = keyring.seal(claims()).unwrap();
        let (payload, seal) = token.split_once('.').unwrap();
        let upper = seal.to_uppercase();
        let unpadded = payload.trim_end_matches('=');
        let long = "A".repeat(5000);
        for bad in [
            String::new(),
            ".".into(),
            payload.into(),
            format!("{payload}.{seal}."),
            format!(".{seal}"),
            format!("{payload}."),
            format!("{payload}.{upper}"),
            format!("{payload}.{}", seal.split_at(1).1),
            format!("{payload}.{seal}0"),
            format!(" {token}"),
            format!("{token}\n"),
            format!("{long}.{seal}"),
        ] {
            assert_eq!(open(&keyring, &bad), Err(Reason::TokenMalformed), "{bad}");
        }
        if unpadded != payload {
            assert_eq!(open(&keyring, &format!("{unpadded}.{seal}")), Err(Reason::TokenMalformed));
        }
    }

    #[test]
    fn a_token_of_another_issuer_needs_a_key_that_says_so() {
        let mut foreign = claims();
        foreign.id = None;
        let payload = foreign.to_payload();
        let (token, _) = key(1).seal(&payload);
        let own = Keyring::new(vec![key(1)]).unwrap();
        assert_eq!(open(&own, &token), Err(Reason::TokenMalformed));
        let shared = Keyring::new(vec![Key::new(&[1; 32], true).unwrap()]).unwrap();
        let id = open(&shared, &token).unwrap();
        assert_eq!(open(&shared, &token), Ok(id), "the same token has the same id");
    }

    #[test]
    fn a_keyring_has_one_to_four_different_keys() {
        assert_eq!(Keyring::new(vec![]).err(), Some(InvalidKeyring::Empty));
        assert!(Keyring::new(vec![key(1), key(1)]).is_err());
        assert!(Keyring::new((0..5).map(key).collect()).is_err());
        assert!(Key::new(&[0; 31], false).is_none());
    }
}
