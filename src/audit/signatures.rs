//! Checkpoints within a log: who signed them, and whether they stand where they say.

use serde_json::{Map, Value};

use super::What;
use super::batch::Line;
use crate::events::Checkpoint;
use crate::events::chain::Links;

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
}

impl Signatures {
    pub(super) fn note(&mut self, checked: &Checked, line: &Line<'_>) {
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
