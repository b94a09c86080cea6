//! Which ledger belongs to which register, so that one of the two that is put back alone is noticed.
//!
//! Each process that writes a ledger gives it a new generation. The register names the generation in force and, each
//! second, how far that ledger is on the disk; the ledger says, each second, how far the register is. A fresh ledger
//! names the one that it follows, since a crash may come before the register names it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::waiting::Waiting;
use crate::state::change::{Change, Lineage, Paired};
use crate::state::recovered::{Register, Tokens};

/// Where no ledger is in force: the last was used up.
const NONE: u64 = 0;

/// The two files of a process.
pub(super) struct Pairing {
    /// Of the ledger that this process writes; never [`NONE`].
    own: u64,
    /// Of the ledger that it was made from.
    follows: u64,
    /// What the register names.
    named: AtomicU64,
    /// How far the ledger was when it was found.
    found: u64,
    register: Arc<Waiting>,
    /// Only where uses are written down as they are spent.
    tokens: Option<Arc<Waiting>>,
}

impl Pairing {
    /// `salt` is new for each process. `found` is the ledger that an earlier process left, by its generation and its
    /// last change.
    pub(super) fn new(
        salt: u64,
        found: Option<(u64, u64)>,
        register: &Arc<Waiting>,
        tokens: Option<&Arc<Waiting>>,
    ) -> Self {
        let own = salt.max(1);
        // Nothing was found: what is named until the first ledger is in its place exists nowhere.
        let (follows, found) = found.unwrap_or(((!salt).max(1), 0));
        let named = AtomicU64::new(if tokens.is_some() { follows } else { NONE });
        Self { own, follows, named, found, register: Arc::clone(register), tokens: tokens.cloned() }
    }

    /// The ledger of this process is the one in force from now on, once the register says so.
    pub(super) fn take_own(&self) -> Change<'static> {
        self.named.store(self.own, Ordering::SeqCst);
        self.named()
    }

    /// What the register says.
    pub(super) fn named(&self) -> Change<'static> {
        let generation = self.named.load(Ordering::SeqCst);
        let durable = self.tokens.as_ref().map_or(0, |tokens| tokens.durable());
        let sequence = match generation {
            NONE => 0,
            own if own == self.own => durable,
            _ => self.found,
        };
        Change::Paired(Paired { generation, sequence })
    }

    /// What a ledger of this process begins with.
    pub(super) fn lineage(&self) -> Change<'static> {
        Change::Lineage(Lineage { own: self.own, follows: self.follows })
    }

    /// What the ledger says of the register.
    pub(super) fn register(&self) -> Change<'static> {
        Change::RegisterAt { sequence: self.register.durable() }
    }
}

/// How a ledger that was found goes with the register beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// They are of the same moment, up to a crash.
    Together,
    /// The ledger was used up by an earlier start, which ended before it could remove it; or it is a copy of it.
    UsedUp,
    /// The register is older.
    RegisterBehind,
    /// The ledger is older, or another.
    LedgerBehind,
}

/// How the two go together.
pub(super) fn fit(register: Option<&Register>, tokens: &Tokens) -> Fit {
    let Some(register) = register.filter(|register| register.sequence >= tokens.register) else {
        return Fit::RegisterBehind;
    };
    let Paired { generation, sequence } = register.paired;
    let Lineage { own, follows } = tokens.lineage;
    if generation == NONE {
        return Fit::UsedUp;
    }
    let is_named = own == generation && tokens.sequence >= sequence;
    if is_named || follows == generation { Fit::Together } else { Fit::LedgerBehind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(sequence: u64, generation: u64, named: u64) -> Register {
        Register { sequence, paired: Paired { generation, sequence: named }, ..Register::default() }
    }

    fn tokens(own: u64, follows: u64, sequence: u64, register: u64) -> Tokens {
        Tokens { lineage: Lineage { own, follows }, sequence, register, ..Tokens::default() }
    }

    #[test]
    fn the_ledger_that_is_named_and_the_one_that_follows_it_fit() {
        let of = |register: Register, tokens: Tokens| fit(Some(&register), &tokens);
        assert_eq!(of(register(5, 7, 3), tokens(7, 6, 3, 5)), Fit::Together);
        assert_eq!(of(register(5, 7, 3), tokens(7, 6, 9, 4)), Fit::Together, "it went on since");
        assert_eq!(of(register(5, 6, 3), tokens(7, 6, 0, 5)), Fit::Together, "a crash came before it was named");
        assert_eq!(of(register(5, 7, 3), tokens(7, 6, 2, 5)), Fit::LedgerBehind, "a copy of some time ago");
        assert_eq!(of(register(5, 7, 3), tokens(6, 5, 9, 5)), Fit::LedgerBehind, "of an earlier process");
        assert_eq!(of(register(4, 7, 3), tokens(7, 6, 3, 5)), Fit::RegisterBehind);
        assert_eq!(of(register(9, 0, 0), tokens(7, 7, 3, 5)), Fit::UsedUp);
        assert_eq!(fit(None, &tokens(7, 6, 3, 0)), Fit::RegisterBehind);
    }
}
