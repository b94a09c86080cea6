//! The log's files in the order in which they were written, and what stands at their ends.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::chain;
use super::line::Place;
use super::rotation::rotated_files;
use crate::digest::Digest;

/// No line is longer: an event's parts are bounded, and together they stay below.
const LINE_BYTES: u64 = 256 * 1024;
/// Nearly every last line is shorter.
const END_BYTES: u64 = 4 * 1024;
/// A listing during which the file is renamed is done again; the file would have to be renamed each time.
const TRIES: usize = 8;

/// A file, whatever it is called: a name changes when the file is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What a line says of its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) timestamp: Box<str>,
    pub(super) stream_id: Box<str>,
    pub(super) sequence: u64,
    links: Option<chain::Links>,
}

impl End {
    fn of(line: &[u8]) -> Self {
        let Place { timestamp, stream_id, sequence, message_type: _ } = Place::of(line);
        let links = chain::links(line);
        Self { timestamp: timestamp.into(), stream_id: stream_id.into(), sequence, links }
    }

    /// The digest of the line.
    pub(super) fn own(&self) -> Option<Digest> {
        self.links.map(|links| links.own)
    }
}

/// A file of the log that has at least one whole line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) first: End,
    pub(super) last: End,
    /// The streams of all its lines, once somebody looked. A renamed file is read for this once.
    pub(super) streams: OnceLock<Box<[Box<str>]>>,
}

impl LogFile {
    /// Its first or its last line is of this stream.
    pub(super) fn begins_or_ends_in(&self, stream_id: &str) -> bool {
        *self.first.stream_id == *stream_id || *self.last.stream_id == *stream_id
    }

    fn read(path: &Path, file: File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        let mut reader = BufReader::new(file);
        let mut first = Vec::new();
        reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut first)?;
        let Some(first) = first.strip_suffix(b"\n") else { return Ok(None) };
        let (first, mut file) = (End::of(first), reader.into_inner());
        for window in [END_BYTES, LINE_BYTES] {
            let begin = metadata.len().saturating_sub(window);
            file.seek(SeekFrom::Start(begin))?;
            let mut tail = Vec::new();
            file.by_ref().take(window).read_to_end(&mut tail)?;
            // What follows on the last line end is half a line.
            let whole = tail.iter().rposition(|byte| *byte == b'\n').and_then(|end| tail.get(..end));
            let mut lines = whole.unwrap_or_default().rsplitn(2, |byte| *byte == b'\n');
            if let (Some(last), true) = (lines.next(), lines.next().is_some() || begin == 0) {
                let last = End::of(last);
                return Ok(Some(Self {
                    path: path.to_owned(),
                    id: FileId::of(&metadata),
                    first,
                    last,
                    streams: OnceLock::new(),
                }));
            }
        }
        Ok(None)
    }
}

/// The log's current file and those that it was renamed to.
pub(super) struct Files {
    path: PathBuf,
    /// Renamed files don't change, so that each is read once. As many as there are.
    renamed: Mutex<HashMap<PathBuf, Arc<LogFile>>>,
}

impl Files {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, renamed: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All files that have lines, the oldest first.
    pub(super) fn list(&self) -> io::Result<Vec<Arc<LogFile>>> {
        for _ in 0..TRIES {
            if let Some(files) = self.list_unless_renamed()? {
                return Ok(in_order(files, &self.path));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the audit log's files are renamed faster than they are listed",
        ))
    }

    /// The renamed file that was written last; none if none has a line.
    pub(super) fn newest_renamed(&self) -> io::Result<Option<Arc<LogFile>>> {
        let mut files = Vec::new();
        for name in rotated_files(&self.path)? {
            files.extend(self.renamed(&name)?);
        }
        Ok(written_last(&files))
    }

    /// The names of the renamed files, the oldest first and this one last. Those without a whole line come first of all.
    pub(super) fn rotated(&self, newest: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = rotated_files(&self.path)?;
        names.sort();
        let mut files = Vec::with_capacity(names.len());
        for name in &names {
            files.extend(self.renamed(name)?);
        }
        self.renamed.lock().retain(|name, _| names.binary_search(name).is_ok());
        let ordered: Vec<PathBuf> = in_order(files, newest).iter().map(|file| file.path.clone()).collect();
        let known: HashSet<&PathBuf> = ordered.iter().collect();
        names.retain(|name| !known.contains(name));
        Ok([names, ordered].concat())
    }

    /// None: the current file was renamed meanwhile, so that it may be missing, or there twice.
    fn list_unless_renamed(&self) -> io::Result<Option<Vec<Arc<LogFile>>>> {
        let current = present(File::open(&self.path))?;
        let id = |file: &File| file.metadata().map(|metadata| FileId::of(&metadata));
        let before = current.as_ref().map(id).transpose()?;
        let mut names = rotated_files(&self.path)?;
        names.sort();
        let mut files = Vec::with_capacity(names.len().saturating_add(1));
        for name in &names {
            files.extend(self.renamed(name)?);
        }
        self.renamed.lock().retain(|name, _| names.binary_search(name).is_ok());
        if let Some(current) = current {
            files.extend(LogFile::read(&self.path, current)?.map(Arc::new));
        }
        let after = present(std::fs::metadata(&self.path))?.map(|metadata| FileId::of(&metadata));
        Ok((before == after).then_some(files))
    }

    fn renamed(&self, name: &Path) -> io::Result<Option<Arc<LogFile>>> {
        let known = self.renamed.lock().get(name).map(Arc::clone);
        if known.is_some() {
            return Ok(known);
        }
        let Some(file) = present(File::open(name))? else { return Ok(None) };
        let read = LogFile::read(name, file)?.map(Arc::new);
        if let Some(read) = &read {
            self.renamed.lock().insert(name.to_owned(), Arc::clone(read));
        }
        Ok(read)
    }
}

/// A file that is not there is none.
pub(super) fn present<T>(file: io::Result<T>) -> io::Result<Option<T>> {
    match file {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file after which nothing was written, by what the files say: no other follows on its last line, nor has a later
/// number of that line's stream. Names and times are of a clock, which may have run ahead; they count only where files
/// are missing and the rest say nothing of each other.
fn written_last(files: &[Arc<LogFile>]) -> Option<Arc<LogFile>> {
    let followed: HashSet<Digest> =
        files.iter().filter_map(|file| file.first.links.map(|links| links.previous)).collect();
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    for end in files.iter().flat_map(|file| [&file.first, &file.last]) {
        let number = numbers.entry(&end.stream_id).or_default();
        *number = end.sequence.max(*number);
    }
    let place = |file: &LogFile| {
        let is_followed = file.last.own().is_some_and(|own| followed.contains(&own));
        let is_passed = numbers.get(&*file.last.stream_id).is_some_and(|number| file.last.sequence < *number);
        (!is_followed, !is_passed, file.last.timestamp.clone(), file.path.clone())
    };
    files.iter().max_by_key(|file| place(file)).map(Arc::clone)
}

/// The files, sorted by name and the current one last, as they were written. Names tell the second in which a file was
/// full; within a second, and after a clock was set back, only the chain tells which file follows on which. Where it is
/// broken, the part with the newest file is the last.
fn in_order(files: Vec<Arc<LogFile>>, newest: &Path) -> Vec<Arc<LogFile>> {
    let ends: HashSet<Digest> = files.iter().filter_map(|file| file.last.own()).collect();
    let mut starts = Vec::new();
    let mut followers = HashMap::new();
    let count = files.len();
    for file in files {
        match file.first.links.map(|links| links.previous).filter(|previous| ends.contains(previous)) {
            // A second one that follows on the same line is a part of its own.
            Some(previous) => starts.extend(followers.insert(previous, file)),
            None => starts.push(file),
        }
    }
    let mut ordered = Vec::with_capacity(count);
    let mut last = Vec::new();
    for start in starts {
        let mut part = Vec::new();
        let mut next = Some(start);
        while let Some(file) = next {
            next = file.last.own().and_then(|own| followers.remove(&own));
            part.push(file);
        }
        let is_last = part.iter().any(|file| file.path == newest);
        if is_last { last = part } else { ordered.append(&mut part) }
    }
    ordered.append(&mut last);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream_id: &str, sequence: u64, previous: u8, own: u8) -> String {
        let digest = |number: u8| format!("{number:064x}");
        format!(
            "{{\"timestamp\":\"2026-11-21T21:51:43Z\",\"stream_id\":\"{stream_id}\",\"sequence\":{sequence},\"prev_hash\":\"{}\",\"hash\":\"{}\"}}\n",
            digest(previous),
            digest(own)
        )
    }

    fn found(files: &Files) -> Vec<(String, u64, u64)> {
        let listed = files.list().unwrap();
        listed.iter().map(|file| (file.first.stream_id.to_string(), file.first.sequence, file.last.sequence)).collect()
    }

    #[test]
    fn files_of_one_second_are_ordered_by_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let renamed = |numbers: &str| folder.path().join(format!("audit.jsonl.20261121T215143Z.{numbers}"));
        let name = |first: u64, last: u64| renamed(&format!("{first:020}-{last:020}"));
        std::fs::write(name(8, 9), line("a", 8, 0, 1) + &line("a", 9, 1, 2)).unwrap();
        std::fs::write(name(1, 2), line("b", 1, 2, 3) + &line("b", 2, 3, 4)).unwrap();
        std::fs::write(folder.path().join("audit.jsonl.bak"), "mine").unwrap();
        let files = Files::new(path.clone());
        let expected = [("a".to_owned(), 8, 9), ("b".to_owned(), 1, 2)];
        assert_eq!(found(&files), expected, "there is no current file");
        std::fs::write(&path, line("b", 3, 4, 5) + "{\"timestamp\":\"2026").unwrap();
        assert_eq!(found(&files), [expected.as_slice(), &[("b".to_owned(), 3, 3)]].concat(), "half a line is none");
        std::fs::remove_file(name(8, 9)).unwrap();
        assert_eq!(found(&files), [("b".to_owned(), 1, 2), ("b".to_owned(), 3, 3)]);
        std::fs::write(&path, "").unwrap();
        assert_eq!(found(&files), [("b".to_owned(), 1, 2)]);
        assert_eq!(files.renamed.lock().len(), 1, "only what is there is remembered");
    }

    #[test]
    fn what_the_files_say_tells_the_newest_and_no_clock_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let named = |day: &str, lines: String| {
            let name = folder.path().join(format!("audit.jsonl.{day}T215143Z.{:020}-{:020}", 1, 1));
            std::fs::write(&name, lines).unwrap();
            name
        };
        let ahead = |line: String| line.replace("2026-11-21", "2031-11-21");
        let newest = || Files::new(path.clone()).newest_renamed().unwrap().map(|file| file.path.clone());
        assert_eq!(newest(), None);
        let oldest = named("20311121", ahead(line("a", 1, 0, 1) + &line("a", 2, 1, 2)));
        let middle = named("20261121", line("a", 3, 2, 3));
        let last = named("20261122", line("b", 1, 3, 4) + &line("b", 2, 4, 5));
        named("20311122", "{\"timestamp\":\"2031".to_owned());
        assert_eq!(newest(), Some(last.clone()), "the chain tells");
        std::fs::remove_file(&last).unwrap();
        assert_eq!(newest(), Some(middle.clone()));
        std::fs::write(&middle, line("a", 9, 8, 9)).unwrap();
        assert_eq!(newest(), Some(middle.clone()), "where files are missing, the numbers of the stream tell");
        std::fs::write(&middle, line("b", 9, 8, 9)).unwrap();
        assert_eq!(newest(), Some(oldest), "of another stream nothing but the time is known");
    }

    #[test]
    fn a_long_last_line_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let long =
            line("a", 2, 1, 2).replacen("{\"timestamp", &format!("{{\"x\":\"{}\",\"timestamp", "x".repeat(9000)), 1);
        std::fs::write(&path, line("a", 1, 0, 1) + &long).unwrap();
        assert_eq!(found(&Files::new(path)), [("a".to_owned(), 1, 2)]);
    }
}
