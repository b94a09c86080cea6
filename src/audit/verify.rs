//! Whether a log is what was written: follows the chain from line to line and from file to file.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use super::order::in_order;
use super::signatures::{Checked, Keys, Signatures, check, is_checkpoint};
use super::{Place, READ_BYTES, Unread};
use crate::digest::Digest;
use crate::events::chain::{self, Links, Seen};

/// Faults that are told one by one; further ones are counted.
const FAULTS_TOLD: usize = 1000;

/// What was found in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The files, in the order in which they were written.
    pub files: Vec<PathBuf>,
    /// Lines that are events.
    pub events: u64,
    /// What is wrong, in the order of the log; at most a thousand of them.
    pub faults: Vec<Fault>,
    /// How much is wrong.
    pub fault_count: u64,
    /// Numbers that no event has though the chain is whole: decisions that could not be recorded, where the
    /// configuration lets them be given all the same.
    pub unrecorded: u64,
    /// Whether something stood before the first line, in files that are not here.
    pub continues: bool,
    /// `stream_id` and `sequence` of the last line.
    pub last: (String, u64),
    /// What the checkpoints say.
    pub signatures: Signatures,
    /// The digest of the last line: whoever kept it elsewhere knows whether the end was cut off.
    pub head: Option<Digest>,
}

/// Something is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: PathBuf,
    /// In which line of it, from 1.
    pub line: u64,
    /// The `sequence` that the line says it has; 0 if it says none.
    pub sequence: u64,
    /// What is wrong.
    pub what: What,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its bytes are not those that its hash was made of.
    Changed,
    /// It is no event of a chained log.
    NotAnEvent,
    /// It breaks off: what was to follow in the same write is missing.
    BreaksOff,
    /// Before it, these events of the same stream are missing.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// It does not follow on the line before it: that one was changed or put there, or some of another stream are
    /// missing, or this line was moved.
    DoesNotFollow,
    /// It is a checkpoint, and nobody signed it.
    Unsigned,
    /// It is a checkpoint, and none of the keys has signed it.
    Forged(&'static str),
    /// It is a checkpoint whose signature is for another line.
    SignedElsewhere,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changed => f.write_str("was changed: its hash is not that of its bytes"),
            Self::NotAnEvent => f.write_str("is no event of a chained log"),
            Self::BreaksOff => f.write_str("breaks off: what followed is missing"),
            Self::Missing { from, to } if from == to => write!(f, "comes where the event {from} is missing"),
            Self::Missing { from, to } => write!(f, "comes where the events {from} to {to} are missing"),
            Self::DoesNotFollow => {
                f.write_str("does not follow on the line before it: one of them was put there, moved or replaced")
            }
            Self::Unsigned => f.write_str("is a checkpoint without a signature"),
            Self::Forged(why) => write!(f, "is a checkpoint that none of the keys signed: {why}"),
            Self::SignedElsewhere => f.write_str("is a checkpoint whose signature is for another line"),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: sequence {} {}", self.file.display(), self.line, self.sequence, self.what)
    }
}

/// Follows the chain through these files, given in any order; with `keys` the signatures of its checkpoints are checked
/// too. `progress` is told how many bytes were read.
///
/// # Errors
/// A file can't be read.
pub fn verify(files: Vec<PathBuf>, keys: Option<&Keys<'_>>, mut progress: impl FnMut(u64)) -> Result<Report, Unread> {
    let files = in_order(files)?;
    let mut follower = Follower { keys, report: Report::default(), at: None };
    follower.report.signatures.are_checked = keys.is_some();
    for file in &files {
        follower.follow(file, &mut progress).map_err(|error| Unread { file: file.clone(), error })?;
    }
    let Follower { mut report, at, .. } = follower;
    report.files = files;
    if let Some(at) = at {
        report.last = (at.stream_id, at.sequence);
        report.head = Some(at.digest);
    }
    Ok(report)
}

/// The line that was read last.
struct At {
    stream_id: String,
    sequence: u64,
    digest: Digest,
}

struct Follower<'k> {
    keys: Option<&'k Keys<'k>>,
    report: Report,
    at: Option<At>,
}

impl Follower<'_> {
    fn follow(&mut self, file: &Path, progress: &mut impl FnMut(u64)) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(READ_BYTES, File::open(file)?);
        let mut line = Vec::new();
        let mut number: u64 = 0;
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(());
            }
            progress(u64::try_from(length).unwrap_or(u64::MAX));
            number = number.saturating_add(1);
            for what in self.next(&line).into_iter().flatten() {
                let sequence = Place::of(&line).sequence;
                self.note(Fault { file: file.to_owned(), line: number, sequence, what });
            }
        }
    }

    /// What is wrong with the line itself, with its place, and with its signature.
    fn next(&mut self, line: &[u8]) -> [Option<What>; 3] {
        let Some(whole) = line.strip_suffix(b"\n") else { return [Some(What::BreaksOff), None, None] };
        let Some(Seen { links, is_intact }) = chain::read(whole) else { return [Some(What::NotAnEvent), None, None] };
        let place = Place::of(whole);
        let misplaced = self.misplaced(links, place);
        self.report.events = self.report.events.saturating_add(1);
        let at = self.at.get_or_insert_with(|| At { stream_id: String::new(), sequence: 0, digest: Digest::default() });
        if at.stream_id != place.stream_id {
            place.stream_id.clone_into(&mut at.stream_id);
        }
        (at.sequence, at.digest) = (place.sequence, links.own);
        let missigned = self.missigned(whole, place, links);
        [(!is_intact).then_some(What::Changed), misplaced, missigned]
    }

    fn missigned(&mut self, line: &[u8], place: Place<'_>, links: Links) -> Option<What> {
        let signatures = &mut self.report.signatures;
        let checked = if is_checkpoint(line) { check(line, place, links, self.keys) } else { Checked::NoCheckpoint };
        signatures.note(&checked, place);
        match checked {
            Checked::NoCheckpoint | Checked::Unchecked | Checked::Good => None,
            Checked::Bad(what) => Some(what),
        }
    }

    fn misplaced(&mut self, links: Links, place: Place<'_>) -> Option<What> {
        let Some(at) = &self.at else {
            self.report.continues = links.previous != Digest::default();
            return None;
        };
        let expected = at.sequence.saturating_add(1);
        let jumps = at.stream_id == place.stream_id && place.sequence > expected;
        if at.digest == links.previous {
            if jumps {
                let skipped = place.sequence.saturating_sub(expected);
                self.report.unrecorded = self.report.unrecorded.saturating_add(skipped);
            }
            return None;
        }
        Some(if jumps {
            What::Missing { from: expected, to: place.sequence.saturating_sub(1) }
        } else {
            What::DoesNotFollow
        })
    }

    fn note(&mut self, fault: Fault) {
        self.report.fault_count = self.report.fault_count.saturating_add(1);
        if self.report.faults.len() < FAULTS_TOLD {
            self.report.faults.push(fault);
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
