//! Keys from files, one key a file, as Vault Agent, the CSI driver or a Kubernetes Secret mount them.

use std::path::PathBuf;

use super::closed_file::{ClosedFileError, read_closed};
use super::{InvalidKeyring, Key, Keyring};
use crate::domain::limits;

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
    /// The file can't be read, or others can.
    File(ClosedFileError),
    /// The key has fewer than 32 bytes.
    Short(PathBuf, usize),
    /// The keys don't make a keyring.
    Keyring(InvalidKeyring),
}

impl std::fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error @ ClosedFileError::Unreadable(..)) => {
                write!(f, "{error}; make one with `remit keygen`")
            }
            Self::File(error) => write!(f, "{error}"),
            Self::Short(path, bytes) => write!(
                f,
                "the key in {} has {bytes} bytes and needs at least {}: make one with `remit keygen`",
                path.display(),
                limits::KEY_BYTES
            ),
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
        let bytes = read_closed(&self.path, limits::KEY_FILE_BYTES).map_err(KeyFileError::File)?;
        let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        Key::new(key, self.foreign).ok_or_else(|| KeyFileError::Short(self.path.clone(), key.len()))
    }
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
            assert!(matches!(files.read(), Err(KeyFileError::File(ClosedFileError::Exposed(..)))), "{mode:o}");
        }
    }

    #[test]
    fn refuses_short_long_and_missing_ones_without_showing_them() {
        let (_dir, files) = key_file(b"secret-but-short\n", 0o600);
        let error = files.read().err().unwrap();
        assert!(matches!(error, KeyFileError::Short(_, 16)));
        assert!(!error.to_string().contains("secret"));
        let (_dir, files) = key_file(&[b'k'; 5000], 0o600);
        assert!(matches!(files.read(), Err(KeyFileError::File(ClosedFileError::Long(..)))));
        let missing = KeyFiles(vec![KeyFile { path: "/nonexistent/key".into(), foreign: false }]);
        assert!(matches!(missing.read(), Err(KeyFileError::File(ClosedFileError::Unreadable(..)))));
        let directory = KeyFiles(vec![KeyFile { path: "/".into(), foreign: false }]);
        assert!(matches!(directory.read(), Err(KeyFileError::File(ClosedFileError::NotAFile(_)))));
    }
}
