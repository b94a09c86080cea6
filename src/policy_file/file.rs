//! The policy file on disk, read whole and bounded.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Compiled, Digest, ExtraRoles, PolicyError, compile};
use crate::domain::limits::POLICY_BYTES;

/// Readings until a file that changes meanwhile is called changing.
const ATTEMPTS: usize = 3;

/// Where the policy is and how it is read.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    path: PathBuf,
    roles: ExtraRoles,
    digest: Digest,
}

/// Why the bytes of a policy file can't be had. The path is part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The system refuses: not there, not readable.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        kind: std::io::ErrorKind,
    },
    /// A directory, a pipe, a socket or a device. Such a thing is not opened: it could block.
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// More bytes than a policy may have.
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes, as far as it was read.
        bytes: u64,
    },
    /// Somebody was writing to it each time it was read.
    Changing {
        /// The file.
        path: PathBuf,
    },
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, kind } => write!(f, "can't read the policy file {}: {kind}", path.display()),
            Self::NotAFile { path } => {
                write!(f, "the policy file {} is not a file: a directory, pipe or device can't be read", path.display())
            }
            Self::TooLarge { path, bytes } => write!(
                f,
                "the policy file {} has {bytes} bytes or more, a policy has at most {POLICY_BYTES}",
                path.display()
            ),
            Self::Changing { path } => write!(
                f,
                "the policy file {} is being written to: write a new file and rename it into place",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why there is no policy from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Its bytes can't be had.
    Read(ReadError),
    /// What it says is wrong.
    Policy(PolicyError),
}

impl LoadError {
    /// All of it, several lines where the file's content is wrong.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        match self {
            Self::Read(error) => error.to_string(),
            Self::Policy(error) => error.render(color),
        }
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for LoadError {}

impl PolicyFile {
    /// The policy file at this path, to be compiled with the configuration's roles.
    #[must_use]
    pub fn new(path: PathBuf, roles: ExtraRoles, digest: Digest) -> Self {
        Self { path, roles, digest }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes as they are now. Blocks for as long as the disk takes, and never on a pipe or device.
    ///
    /// # Errors
    /// Says why they can't be had.
    pub fn read_now(&self) -> Result<Vec<u8>, ReadError> {
        for _ in 0..ATTEMPTS {
            if let Some(bytes) = self.read_once()? {
                return Ok(bytes);
            }
        }
        Err(ReadError::Changing { path: self.path.clone() })
    }

    /// Compiles bytes that were read from this file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn compile(&self, bytes: &[u8], revision: u64) -> Result<Compiled, PolicyError> {
        compile(&self.path.to_string_lossy(), bytes, &self.roles, self.digest, revision)
    }

    /// Reads and compiles the file.
    ///
    /// # Errors
    /// Why there is no policy.
    pub fn load(&self, revision: u64) -> Result<Compiled, LoadError> {
        let bytes = self.read_now().map_err(LoadError::Read)?;
        self.compile(&bytes, revision).map_err(LoadError::Policy)
    }

    /// The bytes; none if the file changed while it was read.
    fn read_once(&self) -> Result<Option<Vec<u8>>, ReadError> {
        // Asked before opening, since opening alone can set a device in motion; and again after, since the
        // name may have got another file in between.
        self.check(&std::fs::metadata(&self.path).map_err(|error| self.io(&error))?)?;
        let file = self.open().map_err(|error| self.io(&error))?;
        let before = file.metadata().map_err(|error| self.io(&error))?;
        self.check(&before)?;
        let capacity = usize::try_from(before.len()).unwrap_or(POLICY_BYTES).min(POLICY_BYTES).saturating_add(1);
        let mut bytes = Vec::with_capacity(capacity);
        let limit = to_u64(POLICY_BYTES).saturating_add(1);
        (&file).take(limit).read_to_end(&mut bytes).map_err(|error| self.io(&error))?;
        if bytes.len() > POLICY_BYTES {
            return Err(ReadError::TooLarge { path: self.path.clone(), bytes: to_u64(bytes.len()) });
        }
        let after = file.metadata().map_err(|error| self.io(&error))?;
        let unchanged = after.len() == to_u64(bytes.len()) && same_time(&before, &after);
        Ok(unchanged.then_some(bytes))
    }

    fn check(&self, metadata: &Metadata) -> Result<(), ReadError> {
        if !metadata.is_file() {
            return Err(ReadError::NotAFile { path: self.path.clone() });
        }
        if metadata.len() > to_u64(POLICY_BYTES) {
            return Err(ReadError::TooLarge { path: self.path.clone(), bytes: metadata.len() });
        }
        Ok(())
    }

    fn io(&self, error: &std::io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), kind: error.kind() }
    }

    /// Opens without waiting for a pipe's writer, in case the name became a pipe after it was checked.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn open(&self) -> std::io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        /// `O_NONBLOCK` (open(2)); its number is the same on all Linux architectures that Rust's standard
        /// library is shipped for, but for MIPS and SPARC, where the check before has to do.
        #[cfg(target_os = "linux")]
        const NONBLOCK: i32 = if cfg!(any(
            target_arch = "mips",
            target_arch = "mips64",
            target_arch = "sparc",
            target_arch = "sparc64"
        )) {
            0
        } else {
            0o4000
        };
        #[cfg(target_os = "macos")]
        const NONBLOCK: i32 = 0x4;
        OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&self.path)
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new().read(true).open(&self.path)
    }
}

fn same_time(before: &Metadata, after: &Metadata) -> bool {
    match (before.modified(), after.modified()) {
        (Ok(before), Ok(after)) => before == after,
        // Without times, the length has to do.
        _ => true,
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> PolicyFile {
        PolicyFile::new(path.to_owned(), ExtraRoles::default(), |_| "digest".to_owned())
    }

    #[test]
    fn reads_a_file_and_says_why_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        let missing = at(&path).load(1).unwrap_err().to_string();
        assert!(missing.contains("policy.json: entity not found"), "{missing}");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(at(&path).load(7).unwrap().policy.id.revision, 7);
        std::fs::write(&path, "{").unwrap();
        assert!(at(&path).load(1).unwrap_err().to_string().contains("policy.json:1:2"));
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused_without_reading_it() {
        let folder = tempfile::tempdir().unwrap();
        let is_no_file = |path: &Path| matches!(at(path).read_now(), Err(ReadError::NotAFile { .. }));
        assert!(is_no_file(folder.path()));
        assert!(is_no_file(Path::new("/dev/zero")));
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(is_no_file(&pipe));
        // Had it become a pipe after it was checked, opening it would not wait for a writer either.
        assert!(at(&pipe).open().is_ok());
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(at(&large).read_now(), Err(ReadError::TooLarge { path: large, bytes: 1 << 30 }));
        let full = folder.path().join("full");
        std::fs::write(&full, vec![b' '; POLICY_BYTES]).unwrap();
        assert_eq!(at(&full).read_now().unwrap().len(), POLICY_BYTES);
    }
}
