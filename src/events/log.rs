//! The audit file: whole lines, appended; renamed when it is large.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;

use super::chain;
use super::config::{AuditConfig, Durability};
use super::files::Files;
use super::rotation::{forget_oldest, free_name};
use crate::digest::Digest;
use crate::domain::time::Timestamp;

/// The owner writes, the group reads.
const MODE: u32 = 0o640;
/// No line is longer: an event's parts are bounded, and together they stay below.
const LINE_BYTES: u64 = 256 * 1024;
/// How often the file's name is looked up: somebody may have moved or deleted it.
const LOOK_UP: Duration = Duration::from_secs(1);
/// A file that could not be renamed is tried again after this many bytes more.
const AFTER_FAILED_ROTATION: u64 = 1024 * 1024;

/// Why the audit file can't be used.
#[derive(Debug)]
pub enum LogError {
    /// It can't be opened.
    Unopened(PathBuf, io::Error),
    /// What is in it doesn't end in a line, so that it is not an audit log.
    NotALog(PathBuf),
    /// It is a pipe or a device, and is to be synced.
    NotSyncable(PathBuf),
    /// It is a pipe, and nobody reads it.
    Unread(PathBuf),
    /// Another process writes it.
    InUse(PathBuf),
    /// What an earlier process wrote can't be brought to the disk.
    Unsynced(PathBuf, io::Error),
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
            Self::NotSyncable(path) => write!(
                f,
                "{} is a pipe or a device, which can't be synced: name a file, or write sync = \"none\"",
                path.display()
            ),
            Self::Unread(path) => {
                write!(f, "the audit file {} is a pipe that nobody reads: start its reader first", path.display())
            }
            Self::InUse(path) => write!(
                f,
                "another process writes the audit file {}: stop it first, or name another file in [audit]; each process needs its own",
                path.display()
            ),
            Self::Unsynced(path, error) => write!(
                f,
                "the audit file {} can't be synced: {error}; see to the disk, or name a file on another",
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
    /// What it was renamed to.
    files: Option<Files>,
    /// How much of the bytes at hand is already written.
    written: usize,
    size: u64,
    /// Numbers of the first and last event that this process wrote into the file.
    numbers: Option<(u64, u64)>,
    rotate_at: u64,
    rotate_bytes: u64,
    keep: usize,
    looked_up: Timestamp,
    /// The digest of the last line that stood there when it was opened.
    ends_with: Digest,
    /// What is written counts when it is synced.
    syncs: bool,
    /// The folder may not have the file's name on the disk yet.
    is_unnamed: bool,
    /// The file could not be synced. Nothing is written to it any more: the next sync of the same file would say that
    /// all is well, whatever was lost.
    is_broken: bool,
}

impl Log {
    /// Opens what the settings name; none if they name nothing.
    pub(super) fn open(config: &AuditConfig) -> Result<Option<Self>, LogError> {
        let Some(path) = &config.file else { return Ok(None) };
        let failed = |error: io::Error| match Errno::from_io_error(&error) {
            Some(Errno::NXIO) => LogError::Unread(path.clone()),
            Some(Errno::WOULDBLOCK) => LogError::InUse(path.clone()),
            Some(_) | None => LogError::Unopened(path.clone(), error),
        };
        let is_stdout = path.as_os_str() == "-";
        let file = if is_stdout { stdout() } else { append(path) }.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let is_plain = metadata.is_file() && !is_stdout;
        let syncs = config.sync == Durability::Each;
        if syncs && !is_plain {
            return Err(LogError::NotSyncable(path.clone()));
        }
        if is_plain {
            lock(&file).map_err(failed)?;
        }
        let size = if is_plain { mend(path, &file, metadata.len())? } else { 0 };
        let ends_with = if is_plain { last_digest(path, size).map_err(failed)? } else { Digest::default() };
        if syncs {
            // The chain goes on after what is there, so that has to last.
            let synced = file.sync_data().and_then(|()| sync_folder(path));
            synced.map_err(|error| LogError::Unsynced(path.clone(), error))?;
        }
        // Zero would be a file for every batch.
        let rotate_bytes = if config.rotate_bytes == 0 { u64::MAX } else { config.rotate_bytes };
        Ok(Some(Self {
            file,
            path: is_plain.then(|| path.clone()),
            files: is_plain.then(|| Files::new(path.clone())),
            written: 0,
            size,
            numbers: None,
            rotate_at: rotate_bytes,
            rotate_bytes,
            keep: config.keep,
            looked_up: Timestamp::default(),
            ends_with,
            syncs,
            is_unnamed: false,
            is_broken: false,
        }))
    }

    /// The file, if it is one that can be read again.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The digest of the last line when it was opened, after which the chain goes on; zeros where there was none.
    pub(super) const fn ends_with(&self) -> Digest {
        self.ends_with
    }

    /// Appends whole lines of the events from `first` to `last`, and syncs them where that is wanted. After an error the
    /// same bytes come again: what was written of them is taken back, or, where that isn't possible, continued; and after
    /// a failed sync they go to a fresh file.
    pub(super) fn write(&mut self, lines: &[u8], (first, last): (u64, u64), now: Timestamp) -> io::Result<()> {
        self.take_back()?;
        if self.is_broken {
            self.begin_anew(now)?;
        }
        self.follow(now)?;
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
        self.sync()?;
        self.written = 0;
        self.size = self.size.saturating_add(length);
        self.numbers = Some((self.numbers.map_or(first, |(begin, _)| begin), last));
        Ok(())
    }

    /// Brings what was written to the disk. One that fails is never tried again on this file: what was written since the
    /// last is taken back, so that the file ends with the last line that lasts.
    fn sync(&mut self) -> io::Result<()> {
        let Some(path) = self.path.as_deref().filter(|_| self.syncs) else { return Ok(()) };
        let named = if self.is_unnamed { sync_folder(path) } else { Ok(()) };
        let synced = named.and_then(|()| self.file.sync_data()).and_then(|()| {
            if self.is_unlinked()? {
                // What is synced into a file that has no name is lost all the same.
                return Err(io::Error::new(io::ErrorKind::NotFound, "the audit file was deleted while it was written"));
            }
            Ok(())
        });
        self.is_unnamed &= synced.is_err();
        self.is_broken = synced.is_err();
        synced.inspect_err(|_| {
            let _ = self.take_back();
        })
    }

    /// Somebody deleted the file: nobody can find what is in it.
    fn is_unlinked(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }

    /// Goes on in a fresh file after one that could not be synced, which keeps what was synced under another name.
    fn begin_anew(&mut self, now: Timestamp) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let own = self.file.metadata()?;
        if is_named(&path, &own) {
            if own.len() > 0 {
                std::fs::rename(&path, free_name(&path, now, self.numbers))?;
            } else {
                std::fs::remove_file(&path)?;
            }
        }
        self.begin(append(&path)?)?;
        self.is_broken = false;
        tracing::warn!(file = %path.display(), "the audit file could not be synced or was deleted, and is begun anew: what was synced was renamed");
        Ok(())
    }

    /// Takes this file in the place of the one in use.
    fn begin(&mut self, file: File) -> io::Result<()> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a pipe or a device stands in the audit file's place",
            ));
        }
        lock(&file)?;
        self.size = metadata.len();
        self.file = file;
        self.numbers = None;
        self.rotate_at = self.rotate_bytes;
        self.is_unnamed = true;
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

    /// Begins the file anew where somebody moved or deleted it: lines that nobody can find are not recorded.
    fn follow(&mut self, now: Timestamp) -> io::Result<()> {
        let Some(path) = &self.path.clone() else { return Ok(()) };
        let is_due = now.since(self.looked_up) >= LOOK_UP;
        // Where each line has to last, none may go to a file that was deleted.
        let is_lost = self.syncs && self.is_unlinked()?;
        if !(is_due || is_lost) {
            return Ok(());
        }
        let own = self.file.metadata()?;
        if is_named(path, &own) {
            self.size = own.len();
        } else {
            let file = append(path)?;
            self.begin(file)?;
            tracing::warn!(file = %path.display(), "the audit file was moved or deleted, and is begun anew");
        }
        self.looked_up = now;
        Ok(())
    }

    /// Renames the file and begins a new one. A log that can't be renamed grows on: every line is kept.
    fn rotate(&mut self, now: Timestamp) {
        let Some(path) = self.path.clone() else { return };
        let rotated = free_name(&path, now, self.numbers);
        let begun = std::fs::rename(&path, &rotated).and_then(|()| {
            append(&path).inspect_err(|_| {
                // If this fails too, the next look-up says so.
                let _ = std::fs::rename(&rotated, &path);
            })
        });
        match begun.and_then(|file| self.begin(file)) {
            Ok(()) => self.files.iter().for_each(|files| forget_oldest(files, &rotated, self.keep)),
            Err(error) => {
                self.rotate_at = self.size.saturating_add(AFTER_FAILED_ROTATION);
                tracing::warn!(file = %path.display(), %error, "the audit file can't be rotated and grows on");
            }
        }
    }
}

/// Whether the name is still that of this file.
fn is_named(path: &Path, own: &Metadata) -> bool {
    std::fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino()))
}

/// Brings the file's name to the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Opens the file, and never waits for the reader of a pipe: without one it is the error ENXIO.
fn append(path: &Path) -> io::Result<File> {
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(false).append(true).create(true).mode(MODE).custom_flags(at_once).open(path)?;
    // Lines are whole: a write waits until the reader takes them.
    fcntl_setfl(&file, fcntl_getfl(&file)?.difference(OFlags::NONBLOCK))?;
    Ok(file)
}

/// Two processes that write one file would break its chain. The lock goes with the open file: readers don't need it, a
/// rename keeps it, and the end of the process gives it back, however it ends. EWOULDBLOCK: another process has it.
fn lock(file: &File) -> io::Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        // Some file systems of a network have no locks.
        Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        locked => Ok(locked?),
    }
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
    let tail = tail(path, size).map_err(failed)?;
    let after_line = tail.iter().rposition(|byte| *byte == b'\n').map(|end| end.saturating_add(1));
    let half = match after_line {
        Some(whole) => tail.len().saturating_sub(whole),
        None if size < LINE_BYTES && tail.starts_with(b"{\"timestamp\":") => tail.len(),
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

/// The digest of the last line, in this file or, where it is empty, in the newest of those that it was renamed to.
fn last_digest(path: &Path, size: u64) -> io::Result<Digest> {
    let seen = if size > 0 {
        let tail = tail(path, size)?;
        let last = tail.strip_suffix(b"\n").unwrap_or(&tail).rsplit(|byte| *byte == b'\n').next();
        last.and_then(chain::links).map(|links| links.own)
    } else if let Some(newest) = Files::new(path.to_owned()).newest_renamed()? {
        newest.last.own()
    } else {
        return Ok(Digest::default());
    };
    if seen.is_none() {
        tracing::warn!(file = %path.display(), "the audit log's last line has no hash: the chain begins anew after it");
    }
    Ok(seen.unwrap_or_default())
}

/// The end of a file of this size, at most as much as the longest line.
pub(super) fn tail(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let mut reader = File::open(path)?;
    reader.seek(SeekFrom::Start(size.saturating_sub(LINE_BYTES)))?;
    let mut tail = Vec::new();
    reader.take(LINE_BYTES).read_to_end(&mut tail)?;
    Ok(tail)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
