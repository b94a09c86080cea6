//! The order in which files were written, whatever they are called and however they were named to us.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::{Place, Unread};
use crate::digest::Digest;
use crate::events::chain;

/// No line is longer.
const LINE_BYTES: u64 = 256 * 1024;

/// A stream, and a number in it.
struct Numbered {
    stream_id: String,
    sequence: u64,
}

impl Numbered {
    fn of(place: &Place<'_>) -> Self {
        Self { stream_id: place.stream_id.to_owned(), sequence: place.sequence }
    }

    fn is_before(&self, other: &Self) -> bool {
        self.stream_id == other.stream_id && self.sequence < other.sequence
    }
}

/// A file, and what its first and last line say.
struct Ends {
    file: PathBuf,
    begins: String,
    first: Numbered,
    end: Numbered,
    previous: Option<Digest>,
    last: Option<Digest>,
}

/// The files, the oldest first: each follows the one whose last line its first line names, or, where none is there,
/// the one before it in its stream, or in time. A clock that once ran ahead must not hide what is missing between.
pub(super) fn in_order(files: Vec<PathBuf>) -> Result<Vec<PathBuf>, Unread> {
    let mut rest = files.into_iter().map(Ends::of).collect::<Result<Vec<_>, _>>()?;
    rest.sort_by(|one, other| (&one.begins, &one.file).cmp(&(&other.begins, &other.file)));
    let mut ordered = Vec::with_capacity(rest.len());
    let mut head = None;
    while !rest.is_empty() {
        let ends = rest.remove(next(&rest, head));
        head = ends.last;
        ordered.push(ends.file);
    }
    Ok(ordered)
}

/// The place of the file that follows on `head`; else of the earliest that follows on none of the others.
fn next(rest: &[Ends], head: Option<Digest>) -> usize {
    let follows = |ends: &Ends| head.is_some() && ends.previous == head;
    let is_first = |ends: &Ends| {
        let follows_on = |other: &Ends| ends.previous.is_some() && other.last == ends.previous;
        !rest.iter().any(|other| follows_on(other) || other.end.is_before(&ends.first))
    };
    rest.iter().position(follows).or_else(|| rest.iter().position(is_first)).unwrap_or_default()
}

impl Ends {
    fn of(file: PathBuf) -> Result<Self, Unread> {
        let read = || -> std::io::Result<(Vec<u8>, Vec<u8>)> {
            let mut reader = BufReader::new(File::open(&file)?);
            let mut first = Vec::new();
            reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut first)?;
            let size = reader.get_ref().metadata()?.len();
            reader.seek(SeekFrom::Start(size.saturating_sub(LINE_BYTES)))?;
            let mut tail = Vec::new();
            reader.take(LINE_BYTES).read_to_end(&mut tail)?;
            Ok((first, tail))
        };
        let (first, tail) = match read() {
            Ok(ends) => ends,
            Err(error) => return Err(Unread { file, error }),
        };
        let last = tail.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty()).unwrap_or_default();
        let first = first.strip_suffix(b"\n").unwrap_or(&first);
        let begin = Place::of(first);
        Ok(Self {
            begins: begin.timestamp.to_owned(),
            first: Numbered::of(&begin),
            end: Numbered::of(&Place::of(last)),
            previous: chain::read(first).map(|seen| seen.links.previous),
            last: chain::read(last).map(|seen| seen.links.own),
            file,
        })
    }
}
