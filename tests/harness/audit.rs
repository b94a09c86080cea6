//! The audit log as a test reads it: a file, or a pipe that can be made to get stuck.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

/// Where a world's events go.
pub(crate) struct AuditLog {
    folder: Option<TempDir>,
    reader: Option<File>,
    /// What was read of a line whose end was not there yet.
    rest: Vec<u8>,
    is_stuck: bool,
}

impl AuditLog {
    /// Nowhere: events are only numbered.
    pub(crate) fn none() -> Self {
        Self { folder: None, reader: None, rest: Vec::new(), is_stuck: false }
    }

    /// A file.
    pub(crate) fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        Self { folder: Some(folder), reader: Some(reader), ..Self::none() }
    }

    /// A pipe, which [`AuditLog::stick`] makes stuck.
    pub(crate) fn pipe() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        // Reading and writing: opening never waits, and the pipe can be filled from here.
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        let reader = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&path).unwrap();
        Self { folder: Some(folder), reader: Some(reader), ..Self::none() }
    }

    /// The file's path.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.path().join("audit.jsonl"))
    }

    /// Whether writing waits.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Fills the pipe, so that the next line that is written waits.
    pub(crate) fn stick(&mut self) {
        let pipe = self.reader.as_mut().unwrap();
        for block in [4096, 1] {
            loop {
                match pipe.write(&vec![b'\n'; block]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("the pipe can't be filled: {error}"),
                }
            }
        }
        self.is_stuck = true;
    }

    /// From here on lines are read again.
    pub(crate) fn unstick(&mut self) {
        self.is_stuck = false;
        self.fill_rest();
    }

    /// Every whole line that was not read before.
    pub(crate) fn read(&mut self) -> Vec<serde_json::Value> {
        if self.is_stuck {
            return Vec::new();
        }
        self.fill_rest();
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end.saturating_add(1));
        let lines: Vec<u8> = self.rest.drain(..end).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn fill_rest(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        match reader.read_to_end(&mut self.rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("the audit log can't be read: {error}"),
        }
    }
}
