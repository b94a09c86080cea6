//! What the files of a state directory say, change by change.

use std::collections::HashMap;

use super::book::{Entry, Symbols};
use super::change::{Change, Entered, Lineage, Paired, Snapshot};
use super::register::Register as Names;
use super::standing::Standing;
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;

/// The register as it was left: revocations, quarantines, and how far tokens of other issuers were let in.
#[derive(Debug, Default)]
pub(super) struct Register {
    pub(super) sequence: u64,
    pub(super) standing: Standing,
    /// Ids revoked without being known, each with the second up to which it is remembered.
    pub(super) unknown: HashMap<TokenId, u64>,
    pub(super) mark: Timestamp,
    /// The ledger that belongs to it.
    pub(super) paired: Paired,
    pub(super) is_whole: bool,
}

/// The ledger as it was left.
#[derive(Default)]
pub(super) struct Tokens {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) sequence: u64,
    /// Whose it is.
    pub(super) lineage: Lineage,
    /// The register beside it is at least this far.
    pub(super) register: u64,
    pub(super) entries: HashMap<TokenId, Entry>,
    /// The names in them, and how many there are of each issuer.
    pub(super) names: Names,
    pub(super) is_whole: bool,
}

impl Register {
    /// Takes the changes of one frame; false if they don't belong here.
    pub(super) fn apply(&mut self, frame: &[u8]) -> bool {
        let was_whole = self.is_whole;
        let applied = each_change(frame, |change| self.take(change));
        self.sequence = self.sequence.saturating_add(u64::from(was_whole));
        applied
    }

    fn take(&mut self, change: Change<'_>) -> bool {
        match change {
            Change::Snapshot(snapshot) if !self.is_whole => self.sequence = snapshot.sequence,
            Change::Whole if !self.is_whole => self.is_whole = true,
            Change::Counter { number, latest } => self.standing.continue_from(number, latest),
            Change::All(cutoff) => self.standing.restore_all(cutoff),
            Change::Agent { name, cutoff } => self.standing.restore_agent(&name, cutoff),
            Change::Quarantined { name, sources } => self.standing.restore_quarantine(&name, sources),
            Change::Reinstated { name } => {
                self.standing.reinstate(&name);
            }
            Change::QuarantineVersion { name, version } => self.standing.restore_version(&name, version),
            Change::Unknown { id, until } => {
                let kept = self.unknown.entry(id).or_default();
                *kept = until.max(*kept);
            }
            Change::Mark { until } => self.mark = self.mark.max(until),
            Change::Paired(paired) => self.paired = paired,
            Change::Snapshot(_)
            | Change::Whole
            | Change::Entered(_)
            | Change::Left { .. }
            | Change::Ended { .. }
            | Change::Lineage(_)
            | Change::RegisterAt { .. } => return false,
        }
        true
    }
}

impl Tokens {
    /// Takes the changes of one frame; false if they don't belong here.
    pub(super) fn apply(&mut self, frame: &[u8]) -> bool {
        let was_whole = self.is_whole;
        let applied = each_change(frame, |change| self.take(change));
        self.sequence = self.sequence.saturating_add(u64::from(was_whole));
        applied
    }

    fn take(&mut self, change: Change<'_>) -> bool {
        match change {
            Change::Snapshot(snapshot) if self.snapshot.is_none() => {
                self.snapshot = Some(snapshot);
                self.sequence = snapshot.sequence;
                self.register = snapshot.register;
            }
            Change::Lineage(lineage) if !self.is_whole => self.lineage = lineage,
            Change::RegisterAt { sequence } => self.register = self.register.max(sequence),
            Change::Whole if !self.is_whole => self.is_whole = true,
            Change::Entered(entered) => self.enter(entered),
            // What is not held has expired since: the snapshot no longer had it.
            Change::Left { id, left } => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.left = entry.left.min(left);
                }
            }
            Change::Ended { id } => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.revoked = true;
                }
            }
            Change::Snapshot(_)
            | Change::Whole
            | Change::Counter { .. }
            | Change::All(_)
            | Change::Agent { .. }
            | Change::Quarantined { .. }
            | Change::Reinstated { .. }
            | Change::QuarantineVersion { .. }
            | Change::Unknown { .. }
            | Change::Mark { .. }
            | Change::Paired(_)
            | Change::Lineage(_) => return false,
        }
        true
    }

    /// A snapshot that was made while tokens were used may have the token already, with fewer uses.
    fn enter(&mut self, entered: Entered<'_>) {
        let Entered { id, tag, left, expires_at, number, revoked, ancestors, chain, capabilities } = entered;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.left = entry.left.min(left);
            entry.revoked |= revoked;
            return;
        }
        let admitted = self.names.admit_held(chain.iter().map(AsRef::as_ref), capabilities.iter().map(AsRef::as_ref));
        // More names than can be told apart: a token that is not held is refused.
        let Some(Symbols { chain, capabilities }) = admitted else { return };
        let ancestors = ancestors.as_ref().into();
        self.entries.insert(id, Entry { tag, left, expires_at, number, revoked, ancestors, chain, capabilities });
    }
}

fn each_change<'b>(mut frame: &'b [u8], mut take: impl FnMut(Change<'b>) -> bool) -> bool {
    while !frame.is_empty() {
        let Some(change) = Change::read(&mut frame) else { return false };
        if !take(change) {
            return false;
        }
    }
    true
}
