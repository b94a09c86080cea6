//! Files with secrets: read whole, within a bound, and only where nobody else reads or writes them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

const READABLE_BY_OTHERS: u32 = 0o004;
const READABLE_BY_GROUP: u32 = 0o040;
const WRITABLE_BY_ANYBODY_ELSE: u32 = 0o022;

/// Why a file with a secret is not used.
#[derive(Debug)]
pub enum ClosedFileError {
    /// It can't be read.
    Unreadable(PathBuf, std::io::Error),
    /// It is not a plain file.
    NotAFile(PathBuf),
    /// Others than the owner can read or write it; its mode.
    Exposed(PathBuf, u32),
    /// It has more bytes than this.
    Long(PathBuf, usize),
}

impl std::fmt::Display for ClosedFileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "the key file {} can't be read: {error}", path.display()),
            Self::NotAFile(path) => write!(f, "the key file {} is not a plain file", path.display()),
            Self::Exposed(path, mode) => write!(
                f,
                "the key file {} has mode {mode:04o}, so that others can read or write it: chmod 600 it, or 640 if its group is this process's own",
                path.display()
            ),
            Self::Long(path, limit) => write!(f, "the key file {} has more than {limit} bytes", path.display()),
        }
    }
}

impl std::error::Error for ClosedFileError {}

/// The bytes of a file that is closed to others, at most so many.
///
/// # Errors
/// The file can't be read, is open to others, or is too long.
pub fn read_closed(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, ClosedFileError> {
    let unreadable = |error| ClosedFileError::Unreadable(path.to_owned(), error);
    let before = std::fs::metadata(path).map_err(unreadable)?;
    if !before.is_file() {
        return Err(ClosedFileError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    closed(path, &metadata)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit.saturating_add(1)));
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > limit {
        return Err(ClosedFileError::Long(path.to_owned(), limit));
    }
    Ok(bytes)
}

/// Readable by the owner, and by the group if it is the process's own (Kubernetes' `fsGroup`); nobody else writes.
fn closed(path: &Path, metadata: &std::fs::Metadata) -> Result<(), ClosedFileError> {
    let mode = metadata.mode() & 0o7777;
    let by_strangers = mode & READABLE_BY_GROUP != 0 && !is_own_group(metadata.gid());
    if mode & (READABLE_BY_OTHERS | WRITABLE_BY_ANYBODY_ELSE) != 0 || by_strangers {
        return Err(ClosedFileError::Exposed(path.to_owned(), mode));
    }
    Ok(())
}

fn is_own_group(group: u32) -> bool {
    let supplementary = rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == group || supplementary.iter().any(|own| own.as_raw() == group)
}
