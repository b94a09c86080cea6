//! What was written to the log and is no longer in memory, read back for those who watch: this process's stream, and those
//! of the processes before it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::chain;
use super::files::{FileId, Files, LogFile, present};
use super::line::{Place, read_line};
use super::published::Published;
use crate::digest::Digest;

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// A file with more streams than this is read each time: a process that ends after a few lines, so often.
const STREAMS: usize = 1024;
/// A file that is renamed between being found and being opened is looked for again.
const TRIES: usize = 8;

/// A place in the log: a stream, and the number that comes next in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) stream_id: Arc<str>,
    pub(super) next: u64,
}

impl Position {
    fn is_at_or_before(&self, place: &Place<'_>) -> bool {
        place.stream_id != &*self.stream_id || place.sequence >= self.next
    }
}

/// The log's files.
#[derive(Clone)]
pub(super) struct Archive {
    files: Arc<Files>,
    /// This process's stream, which is the last one.
    own: Arc<str>,
}

/// Where a reader is.
#[derive(Default)]
pub(super) struct Cursor {
    /// Stays open though it is renamed.
    reading: Option<Reading>,
    /// A line of the stream that is wanted was met; the lines from there on are wanted, whatever stream they are of.
    is_met: bool,
    /// An event that was read too early.
    ahead: Option<Read>,
    /// The digest of the last line that was passed.
    head: Option<Digest>,
    /// The time of the last line that was passed.
    timestamp: String,
}

struct Reading {
    id: FileId,
    file: BufReader<File>,
}

/// An event from a file.
pub(super) struct Read {
    pub(super) recorded: Published,
    /// The digest of the line before it, if that was read.
    pub(super) before: Option<Digest>,
}

/// What a reader is after.
#[derive(Clone)]
pub(super) struct Wanted {
    /// From where.
    pub(super) from: Position,
    /// Memory has this process's stream from this number on.
    pub(super) own_before: u64,
    /// So many events at most.
    pub(super) most: usize,
    /// Nobody waits for them any more.
    pub(super) abandoned: Arc<AtomicBool>,
}

impl Wanted {
    /// Reading can take seconds, which others wait for.
    fn go_on(&self) -> io::Result<()> {
        if self.abandoned.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl Cursor {
    /// The digest of the last line that was passed.
    pub(super) const fn head(&self) -> Option<Digest> {
        self.head
    }

    fn pass(&mut self, read: &Read) {
        self.head = read.recorded.links().map(|links| links.own);
    }
}

impl Archive {
    pub(super) fn new(path: PathBuf, own: Arc<str>) -> Self {
        Self { files: Arc::new(Files::new(path)), own }
    }

    /// The next events, in the order of the log; none of them where the files have none. What can't be read is not there.
    /// None: no file has a line of this stream, and it is not this process's.
    pub(super) fn read(&self, cursor: &mut Cursor, wanted: &Wanted) -> Option<Vec<Read>> {
        let mut found = Vec::new();
        match self.read_into(&mut found, cursor, wanted) {
            Ok(true) => Some(found),
            Ok(false) => None,
            // Whatever it is, nobody gets it.
            Err(_) if wanted.go_on().is_err() => Some(Vec::new()),
            Err(error) => {
                let file = self.files.path().display();
                tracing::warn!(%file, %error, "the audit log can't be read for a subscriber");
                *cursor = Cursor::default();
                Some(found)
            }
        }
    }

    /// Whether the stream is known.
    fn read_into(&self, found: &mut Vec<Read>, cursor: &mut Cursor, wanted: &Wanted) -> io::Result<bool> {
        let Wanted { from, own_before, most, .. } = wanted;
        let mut at = from.clone();
        if cursor.reading.is_none() && !self.begin(cursor, wanted)? {
            return Ok(at.stream_id == self.own);
        }
        while found.len() < *most {
            let Some(read) = self.following(cursor, &at, wanted)? else { break };
            if **read.recorded.stream_id() == *self.own && read.recorded.sequence() >= *own_before {
                cursor.ahead = Some(read);
                break;
            }
            cursor.pass(&read);
            at = Position {
                stream_id: Arc::clone(read.recorded.stream_id()),
                next: read.recorded.sequence().saturating_add(1),
            };
            found.push(read);
        }
        Ok(true)
    }

    fn following(&self, cursor: &mut Cursor, at: &Position, wanted: &Wanted) -> io::Result<Option<Read>> {
        // Memory may have had it meanwhile.
        let is_wanted = |read: &Read| {
            let recorded = &read.recorded;
            recorded.stream_id() != &at.stream_id || recorded.sequence() >= at.next
        };
        if let Some(ahead) = cursor.ahead.take().filter(is_wanted) {
            return Ok(Some(ahead));
        }
        loop {
            if let Some(read) = cursor.next(at, &self.own, wanted)? {
                return Ok(Some(read));
            }
            let next = opened(|| self.after(cursor, at, wanted))?;
            // What was written before the file was renamed is there by now.
            if let Some(read) = cursor.next(at, &self.own, wanted)? {
                return Ok(Some(read));
            }
            let Some(next) = next else { return Ok(None) };
            cursor.reading = Some(next);
        }
    }

    /// Opens the first file with something from this position on; false if there is none.
    fn begin(&self, cursor: &mut Cursor, wanted: &Wanted) -> io::Result<bool> {
        let reading = opened(|| self.first_with(&self.files.list()?, &wanted.from, wanted))?;
        let is_there = reading.is_some();
        *cursor = Cursor { reading, ..Cursor::default() };
        Ok(is_there)
    }

    /// The file that has the position, else the first one that has something of its stream after it.
    fn first_with(&self, files: &[Arc<LogFile>], at: &Position, wanted: &Wanted) -> io::Result<Option<Arc<LogFile>>> {
        let at_an_end = files.iter().position(|file| file.begins_or_ends_in(&at.stream_id));
        let first = match at_an_end {
            Some(first) => Some(first),
            // Whatever this process wrote last stands at the end of a file.
            None if at.stream_id == self.own => None,
            None => within_one(files, &at.stream_id, wanted)?,
        };
        let rest = first.and_then(|first| files.get(first..)).unwrap_or_default();
        let passed = rest.windows(2).take_while(|pair| match pair {
            [file, next] => is_passed(file, at) && next.first.stream_id == file.last.stream_id,
            _ => false,
        });
        let found = rest.get(passed.count()).cloned();
        Ok(found.filter(|file| at.stream_id != self.own || !is_passed(file, at)))
    }

    /// The file that follows on the one at hand.
    fn after(&self, cursor: &Cursor, at: &Position, wanted: &Wanted) -> io::Result<Option<Arc<LogFile>>> {
        let files = self.files.list()?;
        let own = cursor.reading.as_ref().map(|reading| reading.id);
        if let Some(place) = files.iter().position(|file| Some(file.id) == own) {
            return Ok(files.get(place.saturating_add(1)).cloned());
        }
        // The one at hand was deleted: usually as the oldest, and then all others are younger.
        if let Some(file) = self.first_with(&files, at, wanted)?.filter(|file| !is_passed(file, at)) {
            return Ok(Some(file));
        }
        Ok(files.into_iter().find(|file| *file.first.timestamp >= *cursor.timestamp))
    }
}

/// Opens the file that `choose` finds, which may be renamed meanwhile.
fn opened(choose: impl Fn() -> io::Result<Option<Arc<LogFile>>>) -> io::Result<Option<Reading>> {
    for _ in 0..TRIES {
        let Some(chosen) = choose()? else { return Ok(None) };
        let Some(file) = present(File::open(&chosen.path))? else { continue };
        let id = FileId::of(&file.metadata()?);
        if id == chosen.id {
            return Ok(Some(Reading { id, file: BufReader::with_capacity(READ_BYTES, file) }));
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the audit log's files are renamed faster than they are opened"))
}

/// Nothing in the file comes after the position, as far as it is of the position's stream.
fn is_passed(file: &LogFile, at: &Position) -> bool {
    *file.last.stream_id == *at.stream_id && file.last.sequence < at.next
}

/// The first of the files within which other streams begin that has a line of this stream.
fn within_one(files: &[Arc<LogFile>], stream_id: &str, wanted: &Wanted) -> io::Result<Option<usize>> {
    for (place, file) in files.iter().enumerate() {
        if file.first.stream_id == file.last.stream_id {
            continue;
        }
        let has = |streams: &[Box<str>]| streams.iter().any(|stream| **stream == *stream_id);
        let is_there = if let Some(known) = file.streams.get() {
            has(known)
        } else {
            let Some(streams) = streams_of(file, wanted)? else { continue };
            let is_there = has(&streams);
            if streams.len() <= STREAMS {
                // Somebody else may have been faster, with the same.
                let _ = file.streams.set(streams.into());
            }
            is_there
        };
        if is_there {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// The streams of the file's lines, in their order; none where the file is gone.
fn streams_of(file: &LogFile, wanted: &Wanted) -> io::Result<Option<Vec<Box<str>>>> {
    let Some(opened) = present(File::open(&file.path))? else { return Ok(None) };
    let mut lines = BufReader::with_capacity(READ_BYTES, opened);
    let (mut line, mut streams) = (Vec::new(), Vec::<Box<str>>::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        wanted.go_on()?;
        let stream_id = Place::of(&line).stream_id;
        if streams.last().is_none_or(|last| **last != *stream_id) {
            streams.push(stream_id.into());
        }
        line.clear();
    }
    Ok(Some(streams))
}

impl Cursor {
    /// The next event in the file at hand.
    fn next(&mut self, at: &Position, own: &Arc<str>, wanted: &Wanted) -> io::Result<Option<Read>> {
        let Some(Reading { file, .. }) = &mut self.reading else { return Ok(None) };
        let (mut line, mut skipped) = (Vec::new(), Vec::new());
        let read = loop {
            wanted.go_on()?;
            line.clear();
            let length = file.read_until(b'\n', &mut line)?;
            let Some(whole) = line.strip_suffix(b"\n") else {
                // Half a line is being written. It is read again.
                file.seek_relative(i64::try_from(length).unwrap_or_default().saturating_neg())?;
                break None;
            };
            let place = Place::of(whole);
            self.is_met |= place.stream_id == &*at.stream_id;
            if !self.is_met || place.stream_id.is_empty() {
                continue;
            }
            self.timestamp.clear();
            self.timestamp.push_str(place.timestamp);
            let text = std::str::from_utf8(whole).unwrap_or_default();
            if let Some(event) = at.is_at_or_before(&place).then(|| read_line(whole)).flatten() {
                let known = [&at.stream_id, own].into_iter().find(|known| ***known == *place.stream_id);
                let stream_id = known.map_or_else(|| Arc::from(place.stream_id), Arc::clone);
                break Some(Published::read(stream_id, event, text));
            }
            std::mem::swap(&mut line, &mut skipped);
        };
        if let Some(links) = skipped.strip_suffix(b"\n").and_then(chain::links) {
            self.head = Some(links.own);
        }
        Ok(read.map(|recorded| Read { recorded, before: self.head }))
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
