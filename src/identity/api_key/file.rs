//! The file of API keys' digests, read whole or not at all.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::KnownKey;
use crate::digest::Digest;
use crate::domain::agent::AgentName;
use crate::domain::limits;

/// Keys in one file. Each agent has one or two; more agents than this have certificates.
const KEYS: usize = 10_000;
/// The longest line is an id, an agent's name and a digest.
const FILE_BYTES: usize = 4 * 1024 * 1024;
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// A line of the file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    pub(super) key: KnownKey,
}

/// Why a file of API keys is not used.
#[derive(Debug)]
pub enum ApiKeyFileError {
    /// It can't be read.
    Unreadable(PathBuf, std::io::Error),
    /// Everybody may write it; its mode.
    Exposed(PathBuf, u32),
    /// It has too many bytes or keys.
    TooLong(PathBuf),
    /// The line of this number is not of its form, and why.
    Line(PathBuf, usize, LineError),
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It has not three words.
    Words,
    /// The id is too long or has control characters.
    Id,
    /// The agent's name is none.
    Agent(String),
    /// The digest is no SHA-256 in lower-case hexadecimal.
    Digest,
    /// The id stands in an earlier line.
    IdTwice,
    /// The digest stands in an earlier line.
    KeyTwice,
}

impl std::fmt::Display for LineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Words => f.write_str("write `id agent sha256`, as `remit api-key new` prints it"),
            Self::Id => write!(f, "the id has at most {} printable ASCII characters", limits::CAPABILITY_BYTES),
            Self::Agent(why) => write!(f, "the second word is no agent's name: {why}"),
            Self::Digest => f.write_str(
                "the third word has to be the key's SHA-256, 64 lower-case hexadecimal digits: `remit api-key new` prints it"
            ),
            Self::IdTwice => f.write_str("the id stands in an earlier line: give each key an id of its own"),
            Self::KeyTwice => f.write_str("the key stands in an earlier line: make each agent a key of its own"),
        }
    }
}

impl std::fmt::Display for ApiKeyFileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "the file of API keys {} can't be read: {error}; put a line of `remit api-key new` in it",
                path.display()
            ),
            Self::Exposed(path, mode) => write!(
                f,
                "the file of API keys {} has mode {mode:04o}, so that everybody can add a key: chmod 644 it",
                path.display()
            ),
            Self::TooLong(path) => write!(
                f,
                "the file of API keys {} has more than {KEYS} keys or {FILE_BYTES} bytes: give agents certificates",
                path.display()
            ),
            Self::Line(path, number, why) => write!(f, "{}, line {number}: {why}", path.display()),
        }
    }
}

impl std::error::Error for ApiKeyFileError {}

/// The line that makes this key known.
#[must_use]
pub fn line_for(id: &str, agent: &AgentName, key: &str) -> String {
    format!("{id} {agent} {}", Digest::of(key.as_bytes()))
}

/// Every entry of the file, in the order of digests.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ApiKeyFileError> {
    let unreadable = |error| ApiKeyFileError::Unreadable(path.to_owned(), error);
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(ApiKeyFileError::Exposed(path.to_owned(), mode));
    }
    let mut text = String::new();
    let bound = u64::try_from(FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > FILE_BYTES {
        return Err(ApiKeyFileError::TooLong(path.to_owned()));
    }
    let mut entries = Vec::new();
    let (mut ids, mut digests) = (HashSet::new(), HashSet::new());
    for (index, line) in text.lines().enumerate() {
        let bad = |why| ApiKeyFileError::Line(path.to_owned(), index.saturating_add(1), why);
        let Some(entry) = parse(line).map_err(bad)? else { continue };
        if entries.len() == KEYS {
            return Err(ApiKeyFileError::TooLong(path.to_owned()));
        }
        if !ids.insert(Arc::clone(&entry.key.id)) {
            return Err(bad(LineError::IdTwice));
        }
        if !digests.insert(entry.digest) {
            return Err(bad(LineError::KeyTwice));
        }
        entries.push(entry);
    }
    entries.sort_unstable_by_key(|entry| entry.digest);
    Ok(entries)
}

/// The entry of a line; none for an empty line or a comment.
fn parse(line: &str) -> Result<Option<Entry>, LineError> {
    let text = line.split_once('#').map_or(line, |(before, _)| before).trim();
    if text.is_empty() {
        return Ok(None);
    }
    let mut words = text.split_ascii_whitespace();
    let (Some(id), Some(agent), Some(digest), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(LineError::Words);
    };
    if !is_key_id(id) {
        return Err(LineError::Id);
    }
    let agent = AgentName::parse(agent).map_err(|why| LineError::Agent(why.to_string()))?;
    let digest = Digest::from_hex(digest).ok_or(LineError::Digest)?;
    Ok(Some(Entry { digest, key: KnownKey { id: id.into(), agent } }))
}

/// Whether a text may name a key.
#[must_use]
pub fn is_key_id(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    (1..=limits::CAPABILITY_BYTES).contains(&text.len()) && text.bytes().all(is_good)
}
