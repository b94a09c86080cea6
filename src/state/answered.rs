//! Which uses this process answered for: a token that is found spent speaks against its holder only where its holder
//! had the uses.
//!
//! A use may be gone and nobody had it: the answer was dropped because a disk was slow. Or somebody else had it: an
//! enforcement point spent it. What is not known here, of another process or forgotten, speaks against nobody.

use super::book::ById;
use super::locks::{Locks, Mutex, SystemLocks};
use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;

/// Locks, so that answers seldom wait for each other.
const SHARDS: usize = 16;
/// Tokens remembered at most in each half of a shard, some 50 bytes each, a quarter of a million in all; more push out
/// the older half early.
const MOST: usize = 8192;

/// The uses of tokens that were answered for, at least for as long as a token lives, if there aren't too many.
pub struct AnsweredUses<K: Locks = SystemLocks> {
    shards: Vec<K::Mutex<Halves>>,
}

#[derive(Default)]
struct Halves {
    newer: ById<Answered>,
    older: ById<Answered>,
    /// The second since which `newer` is filled.
    since: u64,
}

/// The uses of one token.
#[derive(Clone, Copy, Default)]
struct Answered {
    /// Whoever had them.
    in_all: u32,
    /// The holder had them on its own connection.
    to_holder: u32,
}

impl<K: Locks> Default for AnsweredUses<K> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Halves::default())).collect() }
    }
}

impl<K: Locks> AnsweredUses<K> {
    /// Notes so many uses of a token that were spent or handed on, and are about to be answered for; `to_holder`: to its
    /// holder on its own connection.
    pub fn note(&self, token: TokenId, uses: u32, to_holder: bool, now: Timestamp) {
        let Some(shard) = self.shard(token) else { return };
        shard.with(|halves| {
            halves.turn(now.seconds());
            let before = halves.newer.get(&token).copied().or_else(|| halves.older.remove(&token));
            let Answered { in_all, to_holder: before } = before.unwrap_or_default();
            let to_holder = before.saturating_add(if to_holder { uses } else { 0 });
            halves.newer.insert(token, Answered { in_all: in_all.saturating_add(uses), to_holder });
        });
    }

    /// Whether all uses that this token ever had were answered for, whoever had them.
    #[must_use]
    pub fn has_all(&self, token: TokenId, uses: u32) -> bool {
        self.of(token).in_all >= uses
    }

    /// Whether its holder had them all, on its own connection.
    #[must_use]
    pub fn has_all_of_holder(&self, token: TokenId, uses: u32) -> bool {
        self.of(token).to_holder >= uses
    }

    fn of(&self, token: TokenId) -> Answered {
        let Some(shard) = self.shard(token) else { return Answered::default() };
        shard.with(|halves| halves.newer.get(&token).or_else(|| halves.older.get(&token)).copied().unwrap_or_default())
    }

    fn shard(&self, token: TokenId) -> Option<&K::Mutex<Halves>> {
        // Not of the bytes by which a half finds it.
        let [.., last] = *token.bytes();
        self.shards.get(usize::from(last) % SHARDS)
    }
}

impl Halves {
    fn turn(&mut self, now: u64) {
        if now.saturating_sub(self.since) > limits::TTL_SECONDS || self.newer.len() >= MOST {
            self.older = std::mem::take(&mut self.newer);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids are spread, as random ones are.
    fn token(number: u128) -> TokenId {
        TokenId::from_bytes(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn only_uses_that_were_answered_for_add_up() {
        let answered = AnsweredUses::<SystemLocks>::default();
        assert!(!answered.has_all(token(1), 1));
        answered.note(token(1), 1, true, at(1000));
        assert!(answered.has_all(token(1), 1) && answered.has_all_of_holder(token(1), 1));
        assert!(!answered.has_all(token(1), 2), "the other use was never answered for");
        assert!(!answered.has_all(token(2), 1), "each token for itself");
        answered.note(token(1), 3, true, at(1001));
        assert!(answered.has_all_of_holder(token(1), 4));
    }

    #[test]
    fn what_another_had_is_not_the_holders() {
        let answered = AnsweredUses::<SystemLocks>::default();
        answered.note(token(1), 1, true, at(1000));
        answered.note(token(1), 1, false, at(1000));
        assert!(answered.has_all(token(1), 2));
        assert!(!answered.has_all_of_holder(token(1), 2));
    }

    #[test]
    fn they_are_known_for_as_long_as_a_token_lives() {
        let answered = AnsweredUses::<SystemLocks>::default();
        answered.note(token(1), 1, true, at(1000));
        answered.note(token(2), 1, true, at(1000 + limits::TTL_SECONDS));
        assert!(answered.has_all(token(1), 1));
        answered.note(token(1), 1, true, at(1001 + limits::TTL_SECONDS));
        assert!(answered.has_all_of_holder(token(1), 2), "and added to where the halves turned meanwhile");
    }

    #[test]
    fn they_are_bounded() {
        let answered = AnsweredUses::<SystemLocks>::default();
        for number in 0..400_000 {
            answered.note(token(number), 1, true, at(1000));
        }
        for shard in &answered.shards {
            shard.with(|halves| assert!(halves.newer.len() <= MOST && halves.older.len() <= MOST));
        }
        assert!(!answered.has_all(token(0), 1), "what is forgotten speaks against nobody");
    }
}
