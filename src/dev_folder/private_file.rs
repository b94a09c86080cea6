//! Files that nobody else may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Readable and writable by the owner alone.
const PRIVATE: u32 = 0o600;
/// Readable by all, as certificates are.
const PUBLIC: u32 = 0o644;

/// Writes a new file that only its owner can read, with a newline at the end.
///
/// # Errors
/// The system refuses; `AlreadyExists` if there is such a file, which stays as it is.
pub fn create(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path)?;
    fill(file, text)
}

/// Puts a file that only its owner can read in the place of whatever is there, whole or not at all.
///
/// # Errors
/// The system refuses.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    replace_with_mode(path, text, PRIVATE)
}

/// Likewise a file that all can read.
pub(super) fn replace_public(path: &Path, text: &str) -> io::Result<()> {
    replace_with_mode(path, text, PUBLIC)
}

fn replace_with_mode(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = beside(path);
    // Left behind by a process that was stopped between writing and renaming.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    fill(file, text).and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn fill(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keeps_others_out_and_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        create(&path, "one").unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode()), ("one\n", 0o600));
        assert_eq!(create(&path, "two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, "three").unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode()), ("three\n", 0o600));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
