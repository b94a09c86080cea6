//! The ledger and its revocations as a snapshot, and back.

use std::borrow::Cow;

use super::{Ledger, Sinks};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::state::book::{Book, Entry};
use crate::state::change::{Change, Entered, Snapshot};
use crate::state::locks::{Locks, Mutex, Snapshot as _};
use crate::state::recovered;
use crate::state::register::Capacity;

/// What an earlier process left.
pub(in crate::state) struct Left {
    pub(in crate::state) register: recovered::Register,
    pub(in crate::state) tokens: Option<recovered::Tokens>,
    pub(in crate::state) fence: Timestamp,
    pub(in crate::state) now: Timestamp,
}

/// An entry out of its book, its names still symbols.
struct Copied {
    id: TokenId,
    entry: Entered<'static>,
    chain: Box<[u32]>,
    capabilities: Box<[u32]>,
}

impl<K: Locks> Ledger<K> {
    /// The ledger that an earlier process left, without what has expired.
    pub(in crate::state) fn restored(capacity: Capacity, shards: usize, left: Left, sinks: Sinks) -> Self {
        let Left { register, tokens, fence, now } = left;
        let mut ledger = Self::new(capacity, shards, fence);
        ledger.sinks = sinks;
        let mut standing = register.standing;
        if let Some(recovered::Tokens { entries, names, .. }) = tokens {
            ledger.register = Mutex::new(names.within(capacity));
            for (id, entry) in entries {
                // A revocation that was in force and never durable may have been counted already.
                standing.continue_from(entry.number, Timestamp::default());
                if entry.expires_at > now.seconds() {
                    let root = entry.ancestors.first().copied().unwrap_or(id);
                    ledger.shard_of(root).with(|book: &mut Book| book.restore(id, entry));
                } else {
                    ledger.release(entry.chain.first().copied());
                }
            }
        }
        standing.forget_outlived(now);
        ledger.standing.replace(standing);
        for (id, until) in register.unknown.into_iter().filter(|(_, until)| *until > now.seconds()) {
            ledger.restore_unknown(id, until);
        }
        ledger
    }

    /// Tells revocations and quarantines: everything that was noted up to the snapshot's number, at least.
    pub(in crate::state) fn tell_register(
        &self,
        snapshot: Snapshot,
        paired: Change<'_>,
        mark: Timestamp,
        tell: &mut dyn FnMut(&[Change<'_>]),
    ) {
        tell(&[Change::Snapshot(snapshot), paired]);
        // Under the lock, so that what was noted is in force.
        let standing = self.revoking.with(|()| self.standing.read(Clone::clone));
        tell(&[Change::Counter { number: standing.number(), latest: standing.latest() }]);
        if let Some(cutoff) = standing.all() {
            tell(&[Change::All(cutoff)]);
        }
        for (name, cutoff) in standing.agents() {
            tell(&[Change::Agent { name: Cow::Borrowed(name), cutoff }]);
        }
        for (name, sources) in standing.quarantined() {
            tell(&[Change::Quarantined { name: Cow::Borrowed(name), sources }]);
        }
        for (name, version) in standing.versions() {
            tell(&[Change::QuarantineVersion { name: Cow::Borrowed(name), version }]);
        }
        for (id, until) in self.unknown_revocations() {
            tell(&[Change::Unknown { id, until }]);
        }
        tell(&[Change::Mark { until: mark }]);
        tell(&[Change::Whole]);
    }

    /// Tells every token: all that was noted up to the snapshot's number, at least. With `close`, nothing in a shard
    /// changes any more once it was told.
    pub(in crate::state) fn tell_tokens(
        &self,
        snapshot: Snapshot,
        lineage: Change<'_>,
        close: bool,
        tell: &mut dyn FnMut(&[Change<'_>]),
    ) {
        tell(&[Change::Snapshot(snapshot), lineage]);
        for shard in &self.shards {
            let copied = shard.with(|book| {
                if close {
                    book.close();
                }
                book.entries().map(|(id, entry)| copied(*id, entry)).collect::<Vec<_>>()
            });
            for Copied { id, entry, chain, capabilities } in copied {
                let names = |symbols| self.names(symbols).into_iter().map(Cow::Owned).collect();
                tell(&[Change::Entered(Entered {
                    id,
                    chain: names(&chain),
                    capabilities: names(&capabilities),
                    ..entry
                })]);
            }
        }
        tell(&[Change::Whole]);
    }

    fn restore_unknown(&self, id: TokenId, until: u64) {
        self.shard_of(id).with(|book| book.revoke_unknown(id, until));
        self.register.with(|register| {
            let count = register.unknown_revocations();
            *count = count.saturating_add(1);
        });
    }
}

fn copied(id: TokenId, entry: &Entry) -> Copied {
    let entered = Entered {
        id,
        tag: entry.tag,
        left: entry.left,
        expires_at: entry.expires_at,
        number: entry.number,
        revoked: entry.revoked,
        ancestors: entry.ancestors.to_vec().into(),
        chain: Vec::new(),
        capabilities: Vec::new(),
    };
    Copied { id, entry: entered, chain: entry.chain.clone(), capabilities: entry.capabilities.clone() }
}
