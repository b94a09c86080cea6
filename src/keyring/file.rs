//! Keys from files, one key a file, as Vault Agent, the CSI driver or a Kubernetes Secret mount them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{InvalidKeyring, Key, Keyring};
use crate::domain::limits;

const READABLE_BY_OTHERS: u32 = 0o004;
const READABLE_BY_GROUP: u32 = 0o040;
const WRITABLE_BY_ANYBODY_ELSE: u32 = 0o022;

/// A file with one key: its bytes without a final newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Where it is.
    pub path: PathBuf,
    /// Other issuers hold this key too.
    pub foreign: bool,
}

/// The files of a keyring; the first one's key seals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles(pub Vec<KeyFile>);

/// Why a keyring could not be read from its files.
#[derive(Debug)]
pub enum KeyFileError {
    /// The file can't be read.
    Unreadable(PathBuf, std::io::Error),
    /// The file is not a plain file.
    NotAFile(PathBuf),
    /// Others than the owner can read or write the file; its mode.
    Exposed(PathBuf, u32),
    /// The key has fewer than 32 bytes.
    Short(PathBuf, usize),
    /// The file is far too long for a key.
    Long(PathBuf),
    /// The keys don't make a keyring.
    Keyring(InvalidKeyring),
}

impl std::fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "the key file {} can't be read: {error}; make one with `remit keygen`", path.display())
            }
            Self::NotAFile(path) => write!(f, "the key file {} is not a plain file", path.display()),
            Self::Exposed(path, mode) => write!(
                f,
                "the key file {} has mode {mode:04o}, so that others can read or write it: chmod 600 it, or 640 if its group is this process's own",
                path.display()
            ),
            Self::Short(path, bytes) => write!(
                f,
                "the key in {} has {bytes} bytes and needs at least {}: make one with `remit keygen`",
                path.display(),
                limits::KEY_BYTES
            ),
            Self::Long(path) => {
                write!(f, "the key file {} has more than {} bytes", path.display(), limits::KEY_FILE_BYTES)
            }
            Self::Keyring(invalid) => write!(f, "{invalid}"),
        }
    }
}

impl std::error::Error for KeyFileError {}

impl KeyFiles {
    /// Reads every file.
    ///
    /// # Errors
    /// The first file that can't be used, and why.
    pub fn read(&self) -> Result<Keyring, KeyFileError> {
        let keys = self.0.iter().map(KeyFile::read).collect::<Result<Vec<_>, _>>()?;
        Keyring::new(keys).map_err(KeyFileError::Keyring)
    }
}

impl KeyFile {
    fn read(&self) -> Result<Key, KeyFileError> {
        let unreadable = |error| KeyFileError::Unreadable(self.path.clone(), error);
        let before = std::fs::metadata(&self.path).map_err(unreadable)?;
        if !before.is_file() {
            return Err(KeyFileError::NotAFile(self.path.clone()));
        }
        let file = File::open(&self.path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        private(&self.path, &metadata)?;
        let limit = limits::KEY_FILE_BYTES;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit.saturating_add(1)));
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(bound).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > limit {
            return Err(KeyFileError::Long(self.path.clone()));
        }
        let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        Key::new(key, self.foreign).ok_or_else(|| KeyFileError::Short(self.path.clone(), key.len()))
    }
}

/// Readable by the owner, and by the group if it is the process's own (Kubernetes' `fsGroup`); nobody else writes.
fn private(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyFileError> {
    let mode = metadata.mode() & 0o7777;
    let by_strangers = mode & READABLE_BY_GROUP != 0 && !is_own_group(metadata.gid());
    if mode & (READABLE_BY_OTHERS | WRITABLE_BY_ANYBODY_ELSE) != 0 || by_strangers {
        return Err(KeyFileError::Exposed(path.to_owned(), mode));
    }
    Ok(())
}

fn is_own_group(group: u32) -> bool {
    let supplementary = rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == group || supplementary.iter().any(|own| own.as_raw() == group)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key_file(contents: &[u8], mode: u32) -> (tempfile::TempDir, KeyFiles) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hmac.key");
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, KeyFiles(vec![KeyFile { path, foreign: false }]))
    }

    #[test]
    fn a_final_newline_is_not_part_of_the_key() {
        let (_one, with) = key_file(&[&[b'k'; 32][..], b"\n"].concat(), 0o600);
        let (_two, without) = key_file(&[b'k'; 32], 0o640);
        assert!(with.read().unwrap() == without.read().unwrap());
    }

    #[test]
    fn refuses_what_others_can_read_or_write() {
        for mode in [0o604, 0o644, 0o620, 0o602] {
            let (_dir, files) = key_file(&[b'k'; 32], mode);
            assert!(matches!(files.read(), Err(KeyFileError::Exposed(..))), "{mode:o}");
        }
    }

    #[test]
    fn refuses_short_long_and_missing_ones_without_showing_them() {
        let (_dir, files) = key_file(b"secret-but-short\n", 0o600);
        let error = files.read().err().unwrap();
        assert!(matches!(error, KeyFileError::Short(_, 16)));
        assert!(!error.to_string().contains("secret"));
        let (_dir, files) = key_file(&[b'k'; 5000], 0o600);
        assert!(matches!(files.read(), Err(KeyFileError::Long(_))));
        let missing = KeyFiles(vec![KeyFile { path: "/nonexistent/key".into(), foreign: false }]);
        assert!(matches!(missing.read(), Err(KeyFileError::Unreadable(..))));
        let directory = KeyFiles(vec![KeyFile { path: "/".into(), foreign: false }]);
        assert!(matches!(directory.read(), Err(KeyFileError::NotAFile(_))));
    }
}
