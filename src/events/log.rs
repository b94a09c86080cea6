//! The audit file: whole lines, appended; renamed when it is large.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chain;
use super::config::{AuditConfig, Durability};
use super::rotation::{forget_oldest, free_name, newest_rotated};
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
        let failed = |error| LogError::Unopened(path.clone(), error);
        let is_stdout = path.as_os_str() == "-";
        let file = if is_stdout { stdout() } else { append(path) }.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let is_plain = metadata.is_file() && !is_stdout;
        let syncs = config.sync == Durability::Each;
        if syncs && !is_plain {
            return Err(LogError::NotSyncable(path.clone()));
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
        let synced = named.and_then(|()| self.file.sync_data());
        self.is_unnamed &= synced.is_err();
        self.is_broken = synced.is_err();
        synced.inspect_err(|_| {
            let _ = self.take_back();
        })
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
        tracing::warn!(file = %path.display(), "the audit file could not be synced, and is begun anew: what was synced was renamed");
        Ok(())
    }

    /// Takes this file in the place of the one in use.
    fn begin(&mut self, file: File) -> io::Result<()> {
        self.size = file.metadata()?.len();
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
        if now.since(self.looked_up) < LOOK_UP {
            return Ok(());
        }
        let Some(path) = &self.path.clone() else { return Ok(()) };
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
            Ok(()) => forget_oldest(&path, self.keep),
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
    let tail = if size > 0 {
        tail(path, size)?
    } else if let Some(newest) = newest_rotated(path)? {
        let size = newest.metadata()?.len();
        tail(&newest, size)?
    } else {
        return Ok(Digest::default());
    };
    let last = tail.strip_suffix(b"\n").unwrap_or(&tail).rsplit(|byte| *byte == b'\n').next();
    let seen = last.and_then(chain::read);
    if seen.is_none() {
        tracing::warn!(file = %path.display(), "the audit log's last line has no hash: the chain begins anew after it");
    }
    Ok(seen.map(|seen| seen.links.own).unwrap_or_default())
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
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_795_297_903).after(Duration::from_secs(seconds))
    }

    fn config(file: &Path) -> AuditConfig {
        AuditConfig { file: Some(file.to_owned()), ..AuditConfig::default() }
    }

    fn open(config: &AuditConfig) -> Log {
        Log::open(config).unwrap().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_appended_to_and_not_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        open(&config(&file)).write(b"one\n", (1, 1), at(0)).unwrap();
        open(&config(&file)).write(b"two\n", (1, 1), at(0)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777 & !0o640, 0);
        let missing = folder.path().join("missing/audit.jsonl");
        assert!(matches!(Log::open(&config(&missing)), Err(LogError::Unopened(path, _)) if path == missing));
    }

    #[test]
    fn a_full_file_is_renamed_and_only_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        std::fs::write(folder.path().join("audit.jsonl.bak"), "mine").unwrap();
        let mut log = open(&AuditConfig { rotate_bytes: 20, keep: 2, ..config(&file) });
        for number in 1..=8_u64 {
            log.write(format!("line {number:04}\n").as_bytes(), (number, number), at(number)).unwrap();
        }
        let rotated = |first, last, time| format!("audit.jsonl.20261121T{time}Z.{first:020}-{last:020}");
        let wanted = ["audit.jsonl".into(), rotated(3, 4, "215148"), rotated(5, 6, "215150"), "audit.jsonl.bak".into()];
        assert_eq!(names(folder.path()), wanted);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "line 0007\nline 0008\n");
        let oldest = folder.path().join(&wanted[1]);
        assert_eq!(std::fs::read_to_string(oldest).unwrap(), "line 0003\nline 0004\n");
    }

    #[test]
    fn a_rotated_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        for _ in 0..3 {
            let mut log = open(&AuditConfig { rotate_bytes: 5, ..config(&file) });
            log.write(b"one\n", (1, 1), at(0)).unwrap();
            log.write(b"two\n", (2, 2), at(0)).unwrap();
        }
        let lines: usize = names(folder.path())
            .iter()
            .map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap().lines().count())
            .sum();
        assert_eq!((lines, names(folder.path()).len()), (6, 6));
    }

    #[test]
    fn a_log_that_cannot_be_renamed_grows_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let mut log = open(&AuditConfig { rotate_bytes: 5, ..config(&file) });
        log.write(b"one\n", (1, 1), at(0)).unwrap();
        std::fs::rename(folder.path(), folder.path().with_extension("away")).unwrap();
        log.write(b"two\n", (2, 2), at(0)).unwrap();
        let away = folder.path().with_extension("away");
        assert_eq!(std::fs::read_to_string(away.join("audit.jsonl")).unwrap(), "one\ntwo\n");
        assert!(log.write(b"three\n", (3, 3), at(2)).is_err(), "nobody would find it");
        std::fs::rename(&away, folder.path()).unwrap();
        log.write(b"three\n", (3, 3), at(2)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_file_that_was_deleted_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let mut log = open(&config(&file));
        log.write(b"one\n", (1, 1), at(0)).unwrap();
        std::fs::remove_file(&file).unwrap();
        log.write(b"two\n", (2, 2), at(2)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n");
    }

    #[test]
    fn half_a_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        for (before, after) in [("one\ntw", "one\nnext\n"), ("{\"timestamp\":\"20", "next\n"), ("one\n", "one\nnext\n")]
        {
            std::fs::write(&file, before).unwrap();
            open(&config(&file)).write(b"next\n", (1, 1), at(0)).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
        }
        std::fs::write(&file, "root:x:0:0").unwrap();
        assert!(matches!(Log::open(&config(&file)), Err(LogError::NotALog(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "root:x:0:0");
    }

    #[test]
    fn after_a_torn_write_the_same_lines_come_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let mut log = open(&config(&file));
        log.write(b"one\n", (1, 1), at(0)).unwrap();
        // What a disk that is full leaves: a part is written, the rest is an error.
        log.file.write_all(b"tw").unwrap();
        log.written = 2;
        log.write(b"two\nthree\n", (2, 3), at(1)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(log.size, 14);
    }

    fn line(number: u64, head: &mut chain::Chain) -> Vec<u8> {
        let mut line = format!("{{\"sequence\":{number}}}").into_bytes();
        head.add(&mut line, 0);
        line
    }

    #[test]
    fn the_chain_goes_on_after_the_file_that_was_written_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let mut head = chain::Chain::after(Digest::default());
        // Two processes in the same second: the second counts from 1 again.
        for first in [50, 1] {
            let mut log = open(&AuditConfig { rotate_bytes: 5, ..config(&file) });
            for number in [first, first + 1] {
                log.write(&line(number, &mut head), (number, number), at(0)).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // A crash between the two steps of a rotation.
        std::fs::rename(&file, free_name(&file, at(0), Some((2, 2)))).unwrap();
        assert_eq!(open(&config(&file)).ends_with(), head.head());
    }

    fn syncing(file: &Path) -> AuditConfig {
        AuditConfig { sync: Durability::Each, ..config(file) }
    }

    #[test]
    fn after_a_failed_sync_the_same_lines_come_in_a_fresh_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let mut log = open(&syncing(&file));
        log.write(b"one\n", (1, 1), at(0)).unwrap();
        // What a failed sync leaves: it is written, and counts for nothing.
        log.file.write_all(b"two\n").unwrap();
        (log.written, log.is_broken) = (4, true);
        log.write(b"two\n", (2, 2), at(1)).unwrap();
        let rotated = folder.path().join("audit.jsonl.20261121T215144Z.00000000000000000001-00000000000000000001");
        assert_eq!(std::fs::read_to_string(rotated).unwrap(), "one\n", "what was synced");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n");
        (log.written, log.is_broken) = (0, true);
        std::fs::write(&file, "").unwrap();
        log.write(b"three\n", (3, 3), at(1)).unwrap();
        assert_eq!(names(folder.path()).len(), 2, "an empty one is not kept");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "three\n");
    }

    #[test]
    fn what_can_not_be_synced_is_refused() {
        assert!(matches!(Log::open(&syncing(Path::new("/dev/null"))), Err(LogError::NotSyncable(_))));
        for (wrong, says) in [
            (AuditConfig { on_failure: super::super::OnFailure::Count, ..syncing(Path::new("a")) }, "\"deny\""),
            (syncing(Path::new("-")), "standard output"),
            (AuditConfig { file: None, ..syncing(Path::new("a")) }, "file = \"audit.jsonl\""),
        ] {
            let refused = wrong.check().unwrap_err().to_string();
            assert!(refused.starts_with("[audit] sync is \"each\"") && refused.contains(says), "{refused}");
        }
    }
}
