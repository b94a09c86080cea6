//! Whether a log is what was written: follows the chain from line to line and from file to file.

use std::path::{Path, PathBuf};

use super::Unread;
use super::batch::{Line, each_line};
use super::order::in_order;
use super::signatures::{Checked, Keys, Signatures, Tally, check};
use crate::digest::Digest;
use crate::events::chain::{Links, Seen};

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
    /// The last line has no end. A crash leaves that, or a write that is under way; nobody can say more of it than that
    /// the log is whole up to there.
    pub unfinished: Option<Fault>,
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
    /// It is the last, and the line whose hash was kept elsewhere is not there: the end was cut off, or this is another
    /// log.
    CutOff,
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
            Self::CutOff => {
                f.write_str("is the last, and no line has the hash that was kept: what followed was cut off, or this is another log")
            }
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
/// too, and with `kept`, a line's hash that was kept elsewhere, that this line is there. `progress` is told how many
/// bytes were read.
///
/// # Errors
/// A file can't be read.
pub fn verify(
    files: Vec<PathBuf>,
    keys: Option<&Keys<'_>>,
    kept: Option<Digest>,
    mut progress: impl FnMut(u64),
) -> Result<Report, Unread> {
    let files = in_order(files)?;
    let signatures = Tally::new(keys.is_some());
    let mut follower = Follower { keys, kept, report: Report::default(), signatures, at: None, unfinished: None };
    for file in &files {
        follower.follow(file, &mut progress).map_err(|error| Unread { file: file.clone(), error })?;
    }
    Ok(follower.end(files))
}

/// The line that was read last.
struct At {
    stream_id: String,
    sequence: u64,
    digest: Digest,
    file: usize,
    line: u64,
}

struct Follower<'k> {
    keys: Option<&'k Keys<'k>>,
    /// Looked for, until it is found.
    kept: Option<Digest>,
    report: Report,
    signatures: Tally,
    at: Option<At>,
    /// A line without an end: no fault if nothing follows.
    unfinished: Option<Fault>,
}

impl Follower<'_> {
    fn follow(&mut self, file: &Path, progress: &mut impl FnMut(u64)) -> std::io::Result<()> {
        let index = self.report.files.len();
        self.report.files.push(file.to_owned());
        let mut number: u64 = 0;
        each_line(file, progress, |line| {
            number = number.saturating_add(1);
            let fault = |what| Fault { file: file.to_owned(), line: number, sequence: line.sequence, what };
            if let Some(unfinished) = self.unfinished.take() {
                self.note(unfinished);
            }
            if !line.is_whole {
                self.unfinished = Some(fault(What::BreaksOff));
                return;
            }
            for what in self.next(line, (index, number)).into_iter().flatten() {
                self.note(fault(what));
            }
        })
    }

    /// What is wrong with the line itself, with its place, and with its signature.
    fn next(&mut self, line: &Line<'_>, (file, number): (usize, u64)) -> [Option<What>; 3] {
        let Some(Seen { links, is_intact }) = line.seen else { return [Some(What::NotAnEvent), None, None] };
        let misplaced = self.misplaced(links, line);
        self.report.events = self.report.events.saturating_add(1);
        let stream_id = match self.at.take() {
            Some(at) if at.stream_id == line.stream_id => at.stream_id,
            _ => line.stream_id.to_owned(),
        };
        self.at = Some(At { stream_id, sequence: line.sequence, digest: links.own, file, line: number });
        self.kept = self.kept.filter(|kept| *kept != links.own || !is_intact);
        let checked = check(line, links, self.keys);
        self.signatures.note(&checked, line);
        let missigned = match checked {
            Checked::NoCheckpoint | Checked::Unchecked | Checked::Good => None,
            Checked::Bad(what) => Some(what),
        };
        [(!is_intact).then_some(What::Changed), misplaced, missigned]
    }

    /// Says how the log ends.
    fn end(mut self, files: Vec<PathBuf>) -> Report {
        self.report.unfinished = self.unfinished.take();
        if self.kept.is_some() {
            let (index, line, sequence) = self.at.as_ref().map_or((0, 0, 0), |at| (at.file, at.line, at.sequence));
            let file = files.get(index).cloned().unwrap_or_default();
            self.note(Fault { file, line, sequence, what: What::CutOff });
        }
        let Self { mut report, signatures, at, .. } = self;
        report.files = files;
        report.signatures = signatures.end();
        if let Some(at) = at {
            report.last = (at.stream_id, at.sequence);
            report.head = Some(at.digest);
        }
        report
    }

    fn misplaced(&mut self, links: Links, line: &Line<'_>) -> Option<What> {
        let Some(at) = &self.at else {
            self.report.continues = links.previous != Digest::default();
            return None;
        };
        let expected = at.sequence.saturating_add(1);
        let jumps = at.stream_id == line.stream_id && line.sequence > expected;
        if at.digest == links.previous {
            if jumps {
                let skipped = line.sequence.saturating_sub(expected);
                self.report.unrecorded = self.report.unrecorded.saturating_add(skipped);
            }
            return None;
        }
        Some(if jumps {
            What::Missing { from: expected, to: line.sequence.saturating_sub(1) }
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
