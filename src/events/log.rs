//! The audit file: whole lines, appended; renamed when it is large.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::config::AuditConfig;
use super::line::stamp;
use crate::domain::time::Timestamp;

/// The owner writes, the group reads.
const MODE: u32 = 0o640;
/// No line is longer: an event's parts are bounded, and together they stay below.
const LINE_BYTES: u64 = 256 * 1024;
/// A file that could not be renamed is tried again after this many bytes more.
const AFTER_FAILED_ROTATION: u64 = 1024 * 1024;

/// Why the audit file can't be used.
#[derive(Debug)]
pub enum LogError {
    /// It can't be opened.
    Unopened(PathBuf, io::Error),
    /// What is in it doesn't end in a line, so that it is not an audit log.
    NotALog(PathBuf),
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unopened(path, error) => write!(
                f,
                "the audit file {} can't be opened: {error}; its folder has to exist and be writable",
                path.display()
            ),
            Self::NotALog(path) => write!(
                f,
                "{} has no end of line in its last {LINE_BYTES} bytes, so it is not an audit log: name another file in [audit]",
                path.display()
            ),
        }
    }
}

impl std::error::Error for LogError {}

/// An audit log that is open.
pub(super) struct Log {
    file: File,
    /// None for standard output, and for pipes and devices, which can be neither cut nor renamed.
    path: Option<PathBuf>,
    /// How much of the bytes at hand is already written.
    written: usize,
    size: u64,
    /// Numbers of the first and last event that this process wrote into the file.
    numbers: Option<(u64, u64)>,
    rotate_at: u64,
    rotate_bytes: u64,
    keep: usize,
}

impl Log {
    /// Opens what the settings name; none if they name nothing.
    pub(super) fn open(config: &AuditConfig) -> Result<Option<Self>, LogError> {
        let Some(path) = &config.file else { return Ok(None) };
        let failed = |error| LogError::Unopened(path.clone(), error);
        let is_stdout = path.as_os_str() == "-";
        let file = if is_stdout { stdout() } else { append(path) }.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let is_plain = metadata.is_file() && !is_stdout;
        let size = if is_plain { mend(path, &file, metadata.len())? } else { 0 };
        // Zero would be a file for every batch.
        let rotate_bytes = if config.rotate_bytes == 0 { u64::MAX } else { config.rotate_bytes };
        Ok(Some(Self {
            file,
            path: is_plain.then(|| path.clone()),
            written: 0,
            size,
            numbers: None,
            rotate_at: rotate_bytes,
            rotate_bytes,
            keep: config.keep,
        }))
    }

    /// Appends whole lines of the events from `first` to `last`. After an error the same bytes come again:
    /// what was written of them is taken back, or, where that isn't possible, continued.
    pub(super) fn write(&mut self, lines: &[u8], (first, last): (u64, u64), now: Timestamp) -> io::Result<()> {
        self.take_back()?;
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.written == 0 && self.size > 0 && self.size.saturating_add(length) > self.rotate_at {
            self.rotate(now);
        }
        while let Some(rest) = lines.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written = self.written.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Now rather than at the next try: a reader should not see half a line for longer than needed.
                    let _ = self.take_back();
                    return Err(error);
                }
            }
        }
        self.written = 0;
        self.size = self.size.saturating_add(length);
        self.numbers = Some((self.numbers.map_or(first, |(begin, _)| begin), last));
        Ok(())
    }

    /// Cuts off what is written of unfinished lines. It stands at the end, whatever else was done to the file.
    fn take_back(&mut self) -> io::Result<()> {
        if self.written == 0 || self.path.is_none() {
            return Ok(());
        }
        let written = u64::try_from(self.written).unwrap_or(u64::MAX);
        let length = self.file.metadata()?.len();
        self.file.set_len(length.saturating_sub(written))?;
        self.written = 0;
        Ok(())
    }

    /// Renames the file and begins a new one. A log that can't be renamed grows on: every line is kept.
    fn rotate(&mut self, now: Timestamp) {
        let Some(path) = self.path.clone() else { return };
        let rotated = free_name(&path, now, self.numbers);
        let begun = std::fs::rename(&path, &rotated).and_then(|()| {
            append(&path).inspect_err(|_| {
                let _ = std::fs::rename(&rotated, &path);
            })
        });
        match begun {
            Ok(file) => {
                self.file = file;
                self.size = 0;
                self.numbers = None;
                self.rotate_at = self.rotate_bytes;
                forget_oldest(&path, self.keep);
            }
            Err(error) => {
                self.rotate_at = self.size.saturating_add(AFTER_FAILED_ROTATION);
                tracing::warn!(file = %path.display(), %error, "the audit file can't be rotated and grows on");
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(false).append(true).create(true).mode(MODE).open(path)
}

/// Standard output without the buffer of `std::io::stdout`, which would hide what is written.
fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Cuts off half a line that a crash left at the end, so that no whole line follows on it; the size then.
fn mend(path: &Path, file: &File, size: u64) -> Result<u64, LogError> {
    let failed = |error| LogError::Unopened(path.to_owned(), error);
    if size == 0 {
        return Ok(0);
    }
    let start = size.saturating_sub(LINE_BYTES);
    let mut reader = File::open(path).map_err(failed)?;
    reader.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut tail = Vec::new();
    reader.take(LINE_BYTES).read_to_end(&mut tail).map_err(failed)?;
    let after_line = tail.iter().rposition(|byte| *byte == b'\n').map(|end| end.saturating_add(1));
    let half = match after_line {
        Some(whole) => tail.len().saturating_sub(whole),
        None if start == 0 && tail.starts_with(b"{\"timestamp\":") => tail.len(),
        None => return Err(LogError::NotALog(path.to_owned())),
    };
    if half > 0 {
        let whole = size.saturating_sub(u64::try_from(half).unwrap_or(u64::MAX));
        file.set_len(whole).map_err(failed)?;
        tracing::warn!(file = %path.display(), bytes = half, "cut off an unfinished line at the end of the audit file");
        return Ok(whole);
    }
    Ok(size)
}

/// `audit.jsonl.20261121T215143Z.00000000000000000001-00000000000000065536`: by name is by age. The numbers
/// begin with the first event that this process wrote into it.
fn free_name(path: &Path, now: Timestamp, numbers: Option<(u64, u64)>) -> PathBuf {
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

/// Deletes rotated files beyond the newest `keep`; 0 keeps all.
fn forget_oldest(path: &Path, keep: usize) {
    if keep == 0 {
        return;
    }
    let mut rotated = rotated_files(path).unwrap_or_else(|error| {
        tracing::warn!(file = %path.display(), %error, "the rotated audit files can't be listed, so none is deleted");
        Vec::new()
    });
    rotated.sort();
    let surplus = rotated.len().saturating_sub(keep);
    for old in rotated.iter().take(surplus) {
        if let Err(error) = std::fs::remove_file(old) {
            tracing::warn!(file = %old.display(), %error, "an old audit file can't be deleted");
        }
    }
}

/// The files beside `path` that have a name of [`free_name`]'s form.
fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
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
