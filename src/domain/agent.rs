//! The name of an agent.

use std::borrow::Borrow;
use std::sync::Arc;

use super::limits::AGENT_NAME_BYTES;

/// An agent's name in policy: 1 to 256 printable ASCII characters without space, quotes or backslash.
/// Names are compared byte for byte. Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(Arc<str>);

/// Why a text is not an agent's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidName {
    /// It has no characters.
    Empty,
    /// It has more than this many bytes.
    TooLong {
        /// The most it may have.
        limit: usize,
    },
    /// The byte at this offset is not a printable ASCII character, or is a space, quote or backslash.
    Character {
        /// Where, from 0.
        offset: usize,
    },
}

impl std::fmt::Display for InvalidName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("a name can't be empty"),
            Self::TooLong { limit } => write!(f, "a name has at most {limit} bytes"),
            Self::Character { offset } => write!(
                f,
                "the character at byte {offset} can't be in a name: printable ASCII without space, quotes and backslash"
            ),
        }
    }
}

impl std::error::Error for InvalidName {}

/// Checks what agents' and capabilities' names have in common.
pub(super) fn check_name(text: &str, limit: usize) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > limit {
        return Err(InvalidName::TooLong { limit });
    }
    let bad = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'\'' | b'\\');
    // Nearly all are good: a fold without early exit looks at many bytes at a time.
    if !text.bytes().fold(false, |any, byte| any | bad(byte)) {
        return Ok(());
    }
    match text.bytes().position(bad) {
        Some(offset) => Err(InvalidName::Character { offset }),
        None => Ok(()),
    }
}

impl AgentName {
    /// The name, if the text is one.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        check_name(text, AGENT_NAME_BYTES)?;
        Ok(Self(text.into()))
    }

    /// Whether the text is an agent's name.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn check(text: &str) -> Result<(), InvalidName> {
        check_name(text, AGENT_NAME_BYTES)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Borrow<str> for AgentName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for AgentName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for AgentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_certificates_and_policies_use() {
        for good in ["agent-deployer", "a", "svc_reports.prod", "spiffe://x/y", "user@host"] {
            assert!(AgentName::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn refuses_what_could_be_read_two_ways() {
        let long = "a".repeat(257);
        for bad in ["", " a", "a b", "a\"", "a'b", "a\\b", "a\0", "ä", "a\n", long.as_str()] {
            assert!(AgentName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
