//! The name of an action, and its use.

use std::borrow::Borrow;
use std::sync::Arc;

use super::agent::{InvalidName, check_name};
use super::limits::CAPABILITY_BYTES;
use super::resource::Resource;

/// A capability's name, e.g. `kubectl_apply`: 1 to 128 printable ASCII characters without space, quotes
/// or backslash. Compared byte for byte; there are no wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(Arc<str>);

impl Capability {
    /// The capability, if the text is one.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// Whether the text is a capability's name.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn check(text: &str) -> Result<(), InvalidName> {
        check_name(text, CAPABILITY_BYTES)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Capability {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an agent wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// The name of the action.
    pub capability: &'a str,
    /// What it is done to.
    pub resource: Resource<'a>,
}
