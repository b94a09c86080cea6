//! API keys, known by their digests.
//!
//! The file has one line a key, `id agent sha256`, with comments after `#`. It holds no secret: a key has at least 32
//! random bytes, and nobody finds it by its digest.

mod file;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use file::{ApiKeyFileError, LineError, is_key_id, line_for};

use crate::digest::Digest;
use crate::domain::agent::AgentName;
use file::Entry;

/// A header with more is no key.
const KEY_BYTES: usize = 512;

/// The keys that are evidence. Without a file of them, none is.
#[derive(Default)]
pub struct ApiKeys(Option<FromFile>);

struct FromFile {
    path: PathBuf,
    entries: ArcSwap<Vec<Entry>>,
}

/// A key that the file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its name, which is no secret.
    pub id: Arc<str>,
    /// Whose it is.
    pub agent: AgentName,
}

/// The text of a key of these random digits. Scanners for leaked secrets know it by what it begins with.
#[must_use]
pub fn new_key(random: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("remit_{random}"))
}

impl ApiKeys {
    /// The keys whose digests this file has.
    ///
    /// # Errors
    /// The file can't be read, others can write it, or a line is not of its form.
    pub fn read(path: PathBuf) -> Result<Self, ApiKeyFileError> {
        let entries = ArcSwap::from_pointee(file::read(&path)?);
        Ok(Self(Some(FromFile { path, entries })))
    }

    /// Reads the file again; whether it says something else. A file that is not good changes nothing.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn reload(&self) -> Result<bool, ApiKeyFileError> {
        let Some(FromFile { path, entries }) = &self.0 else { return Ok(false) };
        let read = file::read(path)?;
        let changed = read != **entries.load();
        entries.store(Arc::new(read));
        Ok(changed)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |file| file.entries.load().len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of this key, compared in constant time.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<KnownKey> {
        let FromFile { entries, .. } = self.0.as_ref()?;
        if key.is_empty() || key.len() > KEY_BYTES {
            return None;
        }
        let digest = Digest::of(key.as_bytes());
        let entries = entries.load();
        // The first bytes of a digest choose the few entries to compare with: they tell nothing about a key.
        let start = entries.partition_point(|entry| prefix(&entry.digest) < prefix(&digest));
        let near = entries.iter().skip(start).take_while(|entry| prefix(&entry.digest) == prefix(&digest));
        let mut found = None;
        for entry in near {
            if bool::from(entry.digest.bytes().ct_eq(digest.bytes())) {
                found = Some(entry);
            }
        }
        found.map(|entry| entry.key.clone())
    }
}

fn prefix(digest: &Digest) -> Option<&[u8; 2]> {
    digest.bytes().first_chunk()
}

#[cfg(test)]
mod tests;
