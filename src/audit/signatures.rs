//! Checkpoints within a log: who signed them, and whether they stand where they say.

use serde_json::{Map, Value};

use super::What;
use super::batch::Line;
use crate::events::Checkpoint;
use crate::events::chain::Links;

/// Ends of streams that are told one by one; further ones are counted.
const UNSIGNED_TOLD: usize = 1000;

/// Takes a checkpoint's JWT and answers what it says, if one of the keys that the operator kept signed it.
pub type Keys<'k> = dyn Fn(&str) -> Result<Map<String, Value>, &'static str> + 'k;

/// What the checkpoints of a log say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Keys were given to check them.
    pub are_checked: bool,
    /// Checkpoints found.
    pub checkpoints: u64,
    /// Those that are signed, and stand where they say; 0 where nothing is checked.
    pub good: u64,
    /// `stream_id` and `sequence` of the last of those.
    pub last_good: Option<(String, u64)>,
    /// Lines after it, which nobody vouches for: those who may write the file could replace them, or cut them off,
    /// unseen.
    pub uncovered: u64,
    /// Where a stream ended without a checkpoint of its own, and streams that have none; at most a thousand of them. Of
    /// the last stream, if it has one, `uncovered` tells the rest.
    pub unsigned: Vec<Unsigned>,
    /// How many there are.
    pub unsigned_count: u64,
    /// Those of them that have no good checkpoint at all.
    pub unproven_streams: u64,
}

/// Events that no checkpoint of their own stream covers. A later process chains on to whatever it finds, so that its
/// checkpoints say nothing of who wrote these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    /// Their stream.
    pub stream_id: String,
    /// The number of the first.
    pub from: u64,
    /// The number of the last.
    pub to: u64,
    /// How many there are.
    pub count: u64,
    /// Good checkpoints of their stream, all before them.
    pub good: u64,
}

impl Unsigned {
    fn begin(line: &Line<'_>) -> Self {
        Self { stream_id: line.stream_id.to_owned(), from: line.sequence, to: line.sequence, count: 0, good: 0 }
    }

    fn note(&mut self, is_good: bool, sequence: u64) {
        if is_good {
            self.good = self.good.saturating_add(1);
            self.count = 0;
            return;
        }
        if self.count == 0 {
            self.from = sequence;
        }
        self.to = sequence;
        self.count = self.count.saturating_add(1);
    }
}

/// Counts what the checkpoints of a log say, line by line.
pub(super) struct Tally {
    told: Signatures,
    /// The stream of the last line, and what follows on its last checkpoint.
    stream: Option<Unsigned>,
}

impl Tally {
    pub(super) fn new(are_checked: bool) -> Self {
        Self { told: Signatures { are_checked, ..Signatures::default() }, stream: None }
    }

    pub(super) fn note(&mut self, checked: &Checked, line: &Line<'_>) {
        self.told.note(checked, line);
        if self.told.are_checked {
            let other = self.stream.take_if(|stream| stream.stream_id != line.stream_id);
            self.told.tell(other);
            let stream = self.stream.get_or_insert_with(|| Unsigned::begin(line));
            stream.note(*checked == Checked::Good, line.sequence);
        }
    }

    pub(super) fn end(mut self) -> Signatures {
        self.told.tell(self.stream.filter(|stream| stream.good == 0));
        self.told
    }
}

impl Signatures {
    fn note(&mut self, checked: &Checked, line: &Line<'_>) {
        self.uncovered = self.uncovered.saturating_add(1);
        if *checked != Checked::NoCheckpoint {
            self.checkpoints = self.checkpoints.saturating_add(1);
        }
        if *checked == Checked::Good {
            self.good = self.good.saturating_add(1);
            self.last_good = Some((line.stream_id.to_owned(), line.sequence));
            self.uncovered = 0;
        }
    }

    fn tell(&mut self, over: Option<Unsigned>) {
        let Some(over) = over.filter(|over| over.count > 0) else { return };
        self.unsigned_count = self.unsigned_count.saturating_add(1);
        self.unproven_streams = self.unproven_streams.saturating_add(u64::from(over.good == 0));
        if self.unsigned.len() < UNSIGNED_TOLD {
            self.unsigned.push(over);
        }
    }

    /// Somebody signed in each stream.
    #[must_use]
    pub const fn prove_each_stream(&self) -> bool {
        self.good > 0 && self.unproven_streams == 0
    }
}

/// What is found out about a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// It is no checkpoint.
    NoCheckpoint,
    /// Nobody can say without keys.
    Unchecked,
    /// One of the keys signed it for this place.
    Good,
    /// It proves nothing.
    Bad(What),
}

/// Checks a line.
pub(super) fn check(line: &Line<'_>, links: Links, keys: Option<&Keys<'_>>) -> Checked {
    if !line.is_checkpoint {
        return Checked::NoCheckpoint;
    }
    let Some(open) = keys else { return Checked::Unchecked };
    let Some(jwt) = quoted(line.bytes, ",\"checkpoint\":\"") else { return Checked::Bad(What::Unsigned) };
    let signed = match open(jwt) {
        Ok(claims) => Checkpoint::read(&claims),
        Err(why) => return Checked::Bad(What::Forged(why)),
    };
    let is_of_this_line = signed.is_some_and(|signed| {
        signed.stream_id == line.stream_id && signed.sequence == line.sequence && signed.previous == links.previous
    });
    if is_of_this_line { Checked::Good } else { Checked::Bad(What::SignedElsewhere) }
}

/// The key can't stand inside a text, where quotes are written `\"`.
fn quoted<'a>(line: &'a [u8], key: &str) -> Option<&'a str> {
    Some(std::str::from_utf8(line).ok()?.split_once(key)?.1.split_once('"')?.0)
}
