//! SHA-256 of what is not a key (FIPS 180-4): a policy file, a line of the audit log, a credential that is remembered.
//! And keyed (HMAC, RFC 2104) where nobody may find out by trying what a digest was made of.

use std::fmt;

use faster_hex::{CheckCase, hex_decode_array_with_case};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The length of a digest, in bytes.
const BYTES: usize = 32;

/// A SHA-256 digest. It shows itself as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest([u8; BYTES]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of these bytes, one after the other.
    #[must_use]
    pub fn of_all<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let hasher = parts.into_iter().fold(Sha256::new(), Sha256::chain_update);
        Self(hasher.finalize().into())
    }

    /// A digest as it shows itself: 64 lower-case hex digits, and nothing else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        hex_decode_array_with_case(text.as_bytes(), CheckCase::Lower).ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }
}

/// Makes digests that only whoever has the key can make. It has no `Debug`: it holds the key.
#[derive(Clone)]
pub struct Keyed(Hmac<Sha256>);

impl Keyed {
    /// With this key, which is random.
    #[must_use]
    pub fn new(key: [u8; BYTES]) -> Self {
        Self(Hmac::new(&block(key).into()))
    }

    /// HMAC-SHA-256 of these bytes.
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> Digest {
        let mut mac = self.0.clone();
        mac.update(bytes);
        Digest(mac.finalize().into_bytes().into())
    }
}

/// The key as RFC 2104 wants it: filled up with zeros to a block of SHA-256.
fn block(key: [u8; BYTES]) -> [u8; 64] {
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = from;
    }
    block
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&faster_hex::hex_string(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The digest of these bytes as text.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's own example.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn it_is_sha_256_and_reads_back() {
        assert_eq!(sha256_hex(b"abc"), ABC);
        assert_eq!(Digest::of_all([&b"a"[..], b"", b"bc"]), Digest::of(b"abc"));
        assert_eq!(Digest::from_hex(ABC), Some(Digest::of(b"abc")));
        for bad in ["", ABC.trim_start_matches("ba"), &ABC.to_uppercase(), &format!("{ABC}0"), &ABC.replace('b', "g")] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn keyed_it_is_hmac() {
        // RFC 4231, test case 2: a shorter key is the same as one with zeros behind it.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(Keyed::new(key).of(b"what do ya want for nothing?").to_string(), wanted);
        assert_ne!(Keyed::new([1; 32]).of(b"a"), Keyed::new([2; 32]).of(b"a"));
    }
}
