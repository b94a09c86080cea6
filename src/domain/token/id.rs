//! What tokens are told apart by: an id that is shown, and a part of the seal that is not.

use faster_hex::{CheckCase, hex_decode_array_with_case};

/// A token's id: 128 bits, written as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 16]);

impl TokenId {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex_decode_array_with_case(text.as_bytes(), CheckCase::Lower).ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = [0; 32];
        match faster_hex::hex_encode(&self.0, &mut text) {
            Ok(text) => f.write_str(text),
            Err(_) => Err(std::fmt::Error),
        }
    }
}

/// What the ledger knows a token's seal by: 128 bits of it. It is never shown.
/// The same id under another seal is another token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealTag([u8; 16]);

impl std::fmt::Debug for SealTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealTag(withheld)")
    }
}

impl SealTag {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
