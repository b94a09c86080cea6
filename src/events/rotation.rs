//! The names of audit files that are full, and how many of them stay.

use std::io;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::line::stamp;
use crate::domain::time::Timestamp;

/// `audit.jsonl.20261121T215143Z.00000000000000000001-00000000000000065536`: by name is by age, as long as no clock is
/// set back. The numbers begin with the first event that this process wrote into it.
pub(super) fn free_name(path: &Path, now: Timestamp, numbers: Option<(u64, u64)>) -> PathBuf {
    let (first, last) = numbers.unwrap_or_default();
    let time = stamp(now).replace(['-', ':'], "");
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{time}.{first:020}-{last:020}"));
    // The same name again takes two processes or a clock that was set back; nothing is overwritten.
    while Path::new(&name).exists() {
        name.push("+");
    }
    PathBuf::from(name)
}

/// Deletes rotated files beyond the newest `keep`, of which `newest` is the last; 0 keeps all.
pub(super) fn forget_oldest(files: &Files, newest: &Path, keep: usize) {
    if keep == 0 {
        return;
    }
    let rotated = files.rotated(newest).unwrap_or_else(|error| {
        let file = files.path().display();
        tracing::warn!(%file, %error, "the rotated audit files can't be listed, so none is deleted");
        Vec::new()
    });
    let surplus = rotated.len().saturating_sub(keep);
    for old in rotated.iter().take(surplus) {
        if let Err(error) = std::fs::remove_file(old) {
            tracing::warn!(file = %old.display(), %error, "an old audit file can't be deleted");
        }
    }
}

/// The files beside `path` that have a name of [`free_name`]'s form.
pub(super) fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let is_rotated = |name: &str| {
        let ending = name.strip_prefix(&*own).and_then(|rest| rest.strip_prefix('.'));
        ending.is_some_and(|ending| {
            let shape = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte };
            let ending: Vec<u8> = ending.trim_end_matches('+').bytes().map(shape).collect();
            ending == b"00000000T000000Z.00000000000000000000-00000000000000000000"
        })
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if is_rotated(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
