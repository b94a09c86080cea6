//! API keys, known by their digests.

use std::sync::Arc;

use crate::domain::agent::AgentName;

/// The keys that are evidence. Without a file of them, none is.
#[derive(Default)]
pub struct ApiKeys;

/// A key that the file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its name, which is no secret.
    pub id: Arc<str>,
    /// Whose it is.
    pub agent: AgentName,
}

impl ApiKeys {
    /// The entry of this key, compared in constant time.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<KnownKey> {
        let _ = key;
        None
    }
}
