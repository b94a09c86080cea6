//! Lines of a file, many at a time and on every core: hashing them is what checking a log costs.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _};
use std::ops::Range;
use std::path::Path;

use super::Place;
use crate::events::chain::{self, Seen};

/// A batch has about as many bytes: some thousand lines, and much more than the longest line.
const BYTES: usize = 2 * 1024 * 1024;
/// Batches at a time; with more the reading of the file would be what takes long.
const SIDE_BY_SIDE: usize = 8;

/// What a line says, found out without knowing the line before it.
pub(super) struct Line<'a> {
    /// Without its end.
    pub(super) bytes: &'a [u8],
    /// It has an end: nothing is missing from it.
    pub(super) is_whole: bool,
    /// None: it is no line of a chained log.
    pub(super) seen: Option<Seen>,
    pub(super) stream_id: &'a str,
    pub(super) sequence: u64,
    pub(super) is_checkpoint: bool,
}

/// Gives every line of the file, in its order, to `take`. `progress` is told how many bytes were read.
pub(super) fn each_line(
    file: &Path,
    progress: &mut impl FnMut(u64),
    mut take: impl FnMut(&Line<'_>),
) -> io::Result<()> {
    let mut reader = Reader { file: File::open(file)?, rest: Vec::new() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(SIDE_BY_SIDE);
    let mut batches: Vec<Batch> = std::iter::repeat_with(Batch::default).take(cores).collect();
    loop {
        let mut filled = 0_usize;
        for batch in &mut batches {
            if !reader.fill(&mut batch.bytes)? {
                break;
            }
            filled = filled.saturating_add(1);
        }
        let Some((first, others)) = batches.get_mut(..filled).and_then(<[_]>::split_first_mut) else { return Ok(()) };
        std::thread::scope(|scope| {
            for batch in &mut *others {
                scope.spawn(|| batch.examine());
            }
            first.examine();
        });
        for batch in batches.iter().take(filled) {
            progress(u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX));
            batch.lines().for_each(|line| take(&line));
        }
    }
}

/// Reads whole lines.
struct Reader {
    file: File,
    /// The beginning of a line whose end is not read yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Whether there was anything left. What has no line end in so many bytes is no log, and comes in pieces.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        bytes.clear();
        bytes.append(&mut self.rest);
        let wanted = u64::try_from(BYTES).unwrap_or(u64::MAX);
        let read = (&mut self.file).take(wanted).read_to_end(bytes)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at.saturating_add(1));
        if let (Some(end), true) = (end, read > 0) {
            self.rest.extend_from_slice(bytes.get(end..).unwrap_or_default());
            bytes.truncate(end);
        }
        Ok(!bytes.is_empty())
    }
}

/// Some lines, and what each says. Its room is used again.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    found: Vec<Found>,
    /// The streams of the lines, in their order: as a rule one.
    streams: Vec<String>,
}

/// What a line of a batch says; places are those in the batch.
struct Found {
    at: Range<usize>,
    is_whole: bool,
    seen: Option<Seen>,
    stream: usize,
    sequence: u64,
    is_checkpoint: bool,
}

impl Batch {
    fn examine(&mut self) {
        let Self { bytes, found, streams } = self;
        found.clear();
        streams.clear();
        let (mut rest, mut begin) = (bytes.as_slice(), 0_usize);
        // Of the ways to a line's end in memory, where reading can't fail, this is the one that looks at many bytes at once.
        while let Some(line) =
            rest.skip_until(b'\n').ok().and_then(|length| bytes.get(begin..begin.checked_add(length)?))
        {
            if line.is_empty() {
                break;
            }
            let whole = line.strip_suffix(b"\n");
            let text = whole.unwrap_or(line);
            let place = Place::of(text);
            if streams.last().is_none_or(|last| last != place.stream_id) {
                streams.push(place.stream_id.to_owned());
            }
            found.push(Found {
                at: begin..begin.saturating_add(text.len()),
                is_whole: whole.is_some(),
                seen: chain::read(text),
                stream: streams.len().saturating_sub(1),
                sequence: place.sequence,
                is_checkpoint: place.message_type == "checkpoint",
            });
            begin = begin.saturating_add(line.len());
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.found.iter().map(|found| Line {
            bytes: self.bytes.get(found.at.clone()).unwrap_or_default(),
            is_whole: found.is_whole,
            seen: found.seen,
            stream_id: self.streams.get(found.stream).map_or("", String::as_str),
            sequence: found.sequence,
            is_checkpoint: found.is_checkpoint,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, text).unwrap();
        let (mut lines, mut read) = (Vec::new(), Vec::new());
        let take = |line: &Line<'_>| lines.push((line.bytes.to_vec(), line.is_whole));
        each_line(&file, &mut |bytes| read.push(bytes), take).unwrap();
        assert_eq!(read.iter().sum::<u64>(), u64::try_from(text.len()).unwrap());
        lines
    }

    #[test]
    fn every_line_comes_once_and_in_order() {
        assert_eq!(read(b""), []);
        assert_eq!(read(b"one\n\ntwo"), [(b"one".to_vec(), true), (vec![], true), (b"two".to_vec(), false)]);
        let wanted = (0..100_000_u32).map(|number| format!("{number:0100}")).collect::<Vec<_>>();
        let long = format!("{}\n", wanted.join("\n"));
        let lines = read(long.as_bytes());
        assert_eq!(lines.len(), 100_000);
        assert!(lines.iter().zip(long.lines()).all(|((found, whole), wanted)| *whole && found == wanted.as_bytes()));
    }

    #[test]
    fn what_has_no_line_end_does_not_fill_the_memory() {
        let pieces = read(&vec![b'x'; 5 * BYTES]);
        assert!(pieces.len() == 5 && pieces.iter().all(|(piece, whole)| piece.len() == BYTES && !whole));
    }
}
