//! What this process wrote to its log and no longer has in memory, read back for those who watch.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::event::Event;
use super::line::{Place, read_line};
use super::log::tail;
use super::rotation::rotated_files;

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// The log's files, as far as they are this process's stream.
#[derive(Clone)]
pub(super) struct Archive {
    path: PathBuf,
    stream_id: Arc<str>,
}

/// Where a reader is: a file that stays open though it is renamed, and an event that was read too early.
#[derive(Default)]
pub(super) struct Cursor {
    file: Option<BufReader<File>>,
    ahead: Option<Arc<Event>>,
}

impl Archive {
    pub(super) const fn new(path: PathBuf, stream_id: Arc<str>) -> Self {
        Self { path, stream_id }
    }

    /// The events from `from` to `to` in their order, so many at most; none where the files have none of them. What
    /// can't be read is not there.
    pub(super) fn read(&self, cursor: &mut Cursor, from: u64, to: u64, most: usize) -> Vec<Arc<Event>> {
        let mut found = Vec::new();
        let read = self.read_into(&mut found, cursor, from, to, most);
        if let Err(error) = read {
            tracing::warn!(file = %self.path.display(), %error, "the audit log can't be read for a subscriber");
            *cursor = Cursor::default();
        }
        found
    }

    fn read_into(
        &self,
        found: &mut Vec<Arc<Event>>,
        cursor: &mut Cursor,
        from: u64,
        to: u64,
        most: usize,
    ) -> io::Result<()> {
        let mut next = from;
        while found.len() < most && next <= to {
            let event = match cursor.ahead.take() {
                Some(event) => Some(event),
                None => self.next(cursor, next)?,
            };
            match event {
                None => break,
                Some(event) if event.sequence < next => {}
                Some(event) if event.sequence > to => {
                    cursor.ahead = Some(event);
                    break;
                }
                Some(event) => {
                    next = event.sequence.saturating_add(1);
                    found.push(event);
                }
            }
        }
        Ok(())
    }

    /// The next event from `from` on: in the file at hand, else in the first that has one.
    fn next(&self, cursor: &mut Cursor, from: u64) -> io::Result<Option<Arc<Event>>> {
        if let Some(file) = &mut cursor.file {
            if let Some(event) = self.next_in(file, from)? {
                return Ok(Some(event));
            }
            cursor.file = None;
        }
        let Some(path) = self.file_with(from)? else { return Ok(None) };
        let file = cursor.file.insert(BufReader::with_capacity(READ_BYTES, File::open(path)?));
        self.next_in(file, from)
    }

    fn next_in(&self, file: &mut BufReader<File>, from: u64) -> io::Result<Option<Arc<Event>>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = file.read_until(b'\n', &mut line)?;
            let Some(whole) = line.strip_suffix(b"\n") else {
                // Half a line is being written. It is read again.
                file.seek_relative(i64::try_from(length).unwrap_or_default().saturating_neg())?;
                return Ok(None);
            };
            let place = Place::of(whole);
            let is_wanted = place.stream_id == &*self.stream_id && place.sequence >= from;
            if let Some(event) = is_wanted.then(|| read_line(whole)).flatten() {
                return Ok(Some(Arc::new(event)));
            }
        }
    }

    /// The first file whose last line is of this stream, and not before `from`. Names are by age.
    fn file_with(&self, from: u64) -> io::Result<Option<PathBuf>> {
        let mut files = rotated_files(&self.path)?;
        files.sort();
        files.push(self.path.clone());
        for file in files {
            if self.ends_after(&file, from)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    fn ends_after(&self, file: &Path, from: u64) -> io::Result<bool> {
        let Ok(metadata) = file.metadata() else { return Ok(false) };
        let tail = tail(file, metadata.len())?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').and_then(|end| tail.get(..end)).unwrap_or_default();
        let last = Place::of(whole.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
        Ok(last.stream_id == &*self.stream_id && last.sequence >= from)
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
