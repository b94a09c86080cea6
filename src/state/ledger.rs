//! The counting core: synchronous, without input or output, generic over its locks, told the time.
//!
//! Locks are taken one at a time: the register's, or a shard's. What revocations say is read inside the
//! shard's lock, so that a spend that begins after a revocation returned sees it.

pub(super) mod export;
mod heard;

use std::borrow::Cow;
use std::sync::Arc;

use super::book::{Book, Held, Symbols};
use super::change::{Change, Entered, Sink};
use super::locks::{Locks, Mutex, Snapshot, SystemLocks};
use super::register::{Capacity, Register};
use super::standing::{Birth, QuarantineSource, Standing};
use super::{Known, Refused, TokenRecord};
use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::domain::token::{SealTag, TokenId};

/// The ledger: every live token, what is left of it, and what is revoked.
pub struct Ledger<K: Locks = SystemLocks> {
    shards: Box<[K::Mutex<Book>]>,
    register: K::Mutex<Register>,
    standing: K::Snapshot<Standing>,
    /// Held while `standing` is replaced.
    revoking: K::Mutex<()>,
    /// Tokens of other issuers made up to this second are refused.
    fence: u64,
    sinks: Sinks,
}

/// Who takes note of what changes.
#[derive(Clone, Default)]
pub(super) struct Sinks {
    /// Of revocations and quarantines.
    pub(super) register: Option<Arc<dyn Sink>>,
    /// Of tokens and their uses.
    pub(super) tokens: Option<Arc<dyn Sink>>,
}

impl<K: Locks> Ledger<K> {
    /// An empty ledger. Small shards keep each step short: with 1,024 of them, one of a million tokens
    /// holds about a thousand.
    #[must_use]
    pub fn new(capacity: Capacity, shards: usize, fence: Timestamp) -> Self {
        Self {
            shards: (0..shards.max(1)).map(|_| Mutex::new(Book::default())).collect(),
            register: Mutex::new(Register::new(capacity)),
            standing: Snapshot::new(Standing::default()),
            revoking: Mutex::new(()),
            fence: fence.seconds(),
            sinks: Sinks::default(),
        }
    }

    /// Looks at revocations and quarantines.
    pub fn standing<R>(&self, look: impl FnOnce(&Standing) -> R) -> R {
        self.standing.read(look)
    }

    /// The moment up to which foreign tokens are refused.
    #[must_use]
    pub fn fence(&self) -> Timestamp {
        Timestamp::from_seconds(self.fence)
    }

    /// Enters a root token before it is handed out. `born` is the number of the last revocation when the request
    /// began, before it looked at the policy: a revocation that came since then ends the token.
    ///
    /// # Errors
    /// [`Refused::Full`] or [`Refused::ShareFull`], or [`Refused::Revoked`]: the token would be born dead. Nothing is entered.
    pub fn mint(&self, token: &TokenRecord<'_>, capabilities: &[Cow<'_, str>], born: u64) -> Result<(), Refused> {
        let symbols = self.admit(token, capabilities)?;
        let issuer = symbols.chain.first().copied();
        let entered = self.shard(token).with(|book| {
            let chain = token.chain.iter().map(AsRef::as_ref);
            if let Some(by) = self.standing.read(|standing| standing.ended_by(Birth::numbered(born), chain)) {
                return Err(Refused::Revoked { by: by.into() });
            }
            book.enter(token, symbols, born)?;
            self.note_entered(token, capabilities, born, &[]);
            Ok(())
        });
        self.or_release(entered, issuer)
    }

    /// Moves `child.max_uses` uses from a parent to a new child, and enters the child, in one step. Returns what the parent
    /// has left.
    ///
    /// # Errors
    /// As [`Ledger::check`] of the parent and [`Ledger::mint`] of the child; [`Refused::Exhausted`] or
    /// [`Refused::TooManyUses`] if the parent has none or fewer. Nothing is moved.
    pub fn mint_child(
        &self,
        parent: &TokenRecord<'_>,
        child: &TokenRecord<'_>,
        parent_capabilities: &[Cow<'_, str>],
        born: u64,
    ) -> Result<u32, Refused> {
        let symbols = self.admit(child, &[])?;
        let issuer = symbols.chain.first().copied();
        let moved = self.ensure_entered(parent, parent_capabilities, born).and_then(|()| {
            self.shard(parent).with(|book| {
                self.standing.read(|standing| {
                    book.check(parent, standing, self.fence)?;
                    not_born_dead(book, parent.id, child, standing)
                })?;
                // Uses that are taken don't come back, so that nothing may fail after.
                book.has_room_for(child)?;
                let left = book.take(parent.id, child.max_uses)?;
                let number = book.enter_child(parent.id, child, symbols)?;
                self.note_entered(child, &[], number, &[Change::Left { id: parent.id, left }]);
                Ok(left)
            })
        });
        self.or_release(moved, issuer)
    }

    /// The uses that are left of a token that the ledger holds and nobody revoked; 0 is no error here. Changes nothing.
    ///
    /// # Errors
    /// [`Refused::Fenced`] if it is not held, [`Refused::Revoked`] if it, one above it, or an agent of its chain was.
    pub fn check(&self, token: &TokenRecord<'_>) -> Result<u32, Refused> {
        self.shard(token).with(|book| self.standing.read(|standing| book.check(token, standing, self.fence)))
    }

    /// Spends one use: one step whose result is the answer. Returns what is left. `born` is as for [`Ledger::mint`],
    /// for a foreign token that is entered now.
    ///
    /// # Errors
    /// As [`Ledger::check`], or [`Refused::Exhausted`]. Nothing is spent.
    pub fn spend(&self, token: &TokenRecord<'_>, capabilities: &[Cow<'_, str>], born: u64) -> Result<u32, Refused> {
        self.ensure_entered(token, capabilities, born)?;
        self.shard(token).with(|book| {
            self.standing.read(|standing| book.check(token, standing, self.fence))?;
            let left = book.take(token.id, 1)?;
            self.note_token(|| Change::Left { id: token.id, left });
            Ok(left)
        })
    }

    /// Ends this token, if the ledger holds it, and its descendants. Whether it holds it.
    pub fn revoke_held(&self, token: &TokenRecord<'_>) -> bool {
        self.shard(token).with(|book| self.end(book, token.id, Some(token.tag)))
    }

    /// Ends the token of this id, if the ledger holds it, and its descendants. Whether it holds it.
    pub fn revoke_held_id(&self, id: TokenId) -> bool {
        self.shards.iter().any(|shard| shard.with(|book| self.end(book, id, None)))
    }

    /// Ends a token that the ledger does not hold: only a foreign one can still be used. It is remembered up to
    /// `keep_until`, in seconds since the epoch.
    ///
    /// # Errors
    /// [`Refused::Full`]: no more than [`limits::UNKNOWN_REVOCATIONS`] are remembered, and none is forgotten for another.
    pub fn revoke_unknown(&self, id: TokenId, keep_until: u64) -> Result<(), Refused> {
        let kept = self.shard_of(id).with(|book| {
            let kept = book.keep_revoked_unknown(id, keep_until);
            if kept {
                self.note_register(&[Change::Unknown { id, until: keep_until }]);
            }
            kept
        });
        if kept {
            return Ok(());
        }
        let fits = self.register.with(|register| {
            let count = register.unknown_revocations();
            let fits = *count < limits::UNKNOWN_REVOCATIONS;
            *count = count.saturating_add(usize::from(fits));
            fits
        });
        if !fits {
            return Err(Refused::Full { capacity: limits::UNKNOWN_REVOCATIONS });
        }
        // A foreign token is its own root. It may have been entered since.
        let is_new = self.shard_of(id).with(|book| {
            if self.end(book, id, None) {
                return false;
            }
            let is_new = book.revoke_unknown(id, keep_until);
            self.note_register(&[Change::Unknown { id, until: keep_until }]);
            is_new
        });
        if !is_new {
            self.register.with(|register| {
                let count = register.unknown_revocations();
                *count = count.saturating_sub(1);
            });
        }
        Ok(())
    }

    /// Ends every token that has this agent in its chain, minted up to now. Returns the revocation's number.
    ///
    /// # Errors
    /// No more agents can be remembered.
    pub fn revoke_agent(&self, name: &str, now: Timestamp) -> Result<u64, Refused> {
        self.change_standing(|standing| {
            room_for_agent(standing, name)?;
            let cutoff = standing.revoke_agent(name, now);
            Ok(vec![Change::Agent { name: name.into(), cutoff }])
        })
    }

    /// Ends the agent's tokens and keeps it from everything until it is reinstated.
    ///
    /// # Errors
    /// No more agents can be remembered.
    pub fn quarantine(&self, name: &str, source: QuarantineSource, now: Timestamp) -> Result<u64, Refused> {
        self.change_standing(|standing| {
            room_for_agent(standing, name)?;
            let cutoff = standing.revoke_agent(name, now);
            let sources = standing.quarantine(name, source);
            let quarantined = Change::Quarantined { name: name.into(), sources };
            Ok(vec![Change::Agent { name: name.into(), cutoff }, quarantined])
        })
    }

    /// Lifts a quarantine; one that isn't there is no error. Returns the last revocation's number.
    pub fn reinstate(&self, name: &str) -> u64 {
        let lifted = self.change_standing(|standing| {
            let lifted = standing.reinstate(name);
            Ok(lifted.then(|| Change::Reinstated { name: name.into() }).into_iter().collect())
        });
        lifted.unwrap_or_default()
    }

    /// Ends every token minted up to now. Returns the revocation's number.
    pub fn revoke_all(&self, now: Timestamp) -> u64 {
        let revoked = self.change_standing(|standing| Ok(vec![Change::All(standing.revoke_all(now))]));
        revoked.unwrap_or_default()
    }

    /// What the ledger knows of an id.
    #[must_use]
    pub fn look_up(&self, id: TokenId) -> Option<Known> {
        let held = self.shards.iter().find_map(|shard| shard.with(|book| book.held(id)))?;
        let Held { left, expires_at, ancestors, is_revoked, born, chain } = held;
        let chain = self.names(&chain);
        let names = chain.iter().map(String::as_str);
        let is_ended = self.standing.read(|standing| standing.ended_by(born, names).is_some());
        Some(Known { id, left, expires_at, ancestors, is_revoked: is_revoked || is_ended, chain })
    }

    /// What the root of this token's chain was given.
    #[must_use]
    pub fn root_capabilities(&self, root: TokenId) -> Vec<String> {
        let symbols = self.shard_of(root).with(|book| book.get(root).map(|entry| entry.capabilities.clone()));
        self.names(&symbols.unwrap_or_default())
    }

    /// Ids that were revoked without being known, each with the second up to which it is kept.
    #[must_use]
    pub fn unknown_revocations(&self) -> Vec<(TokenId, u64)> {
        let of = |shard: &K::Mutex<Book>| {
            shard.with(|book| book.revoked_unknown().map(|(id, until)| (*id, *until)).collect::<Vec<_>>())
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// How many ids were revoked without being known.
    #[must_use]
    pub fn unknown_revocation_count(&self) -> usize {
        self.register.with(|register| *register.unknown_revocations())
    }

    /// How many shards there are to sweep.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Forgets what has expired in one shard.
    pub fn sweep(&self, shard: usize, now: Timestamp) {
        let Some(shard) = self.shards.get(shard) else { return };
        let swept = shard.with(|book| book.sweep(now));
        if swept.issuers.is_empty() && swept.unknown == 0 {
            return;
        }
        self.register.with(|register| {
            for issuer in swept.issuers {
                register.release(issuer);
            }
            let count = register.unknown_revocations();
            *count = count.saturating_sub(swept.unknown);
        });
    }

    /// Forgets revocations that are older than any token can be.
    pub fn forget_outlived_revocations(&self, now: Timestamp) {
        if !self.standing.read(|standing| standing.has_outlived(now)) {
            return;
        }
        self.revoking.with(|()| {
            let mut standing = self.standing.read(Clone::clone);
            standing.forget_outlived(now);
            self.standing.replace(standing);
        });
    }

    /// Live tokens, and how many there may be.
    #[must_use]
    pub fn size(&self) -> (usize, Capacity) {
        self.register.with(|register| (register.live(), register.capacity()))
    }

    fn change_standing<'n>(
        &self,
        change: impl FnOnce(&mut Standing) -> Result<Vec<Change<'n>>, Refused>,
    ) -> Result<u64, Refused> {
        self.revoking.with(|()| {
            let mut standing = self.standing.read(Clone::clone);
            let changes = change(&mut standing)?;
            let number = standing.number();
            self.standing.replace(standing);
            self.note_register(&changes);
            Ok(number)
        })
    }

    /// Ends a token that the book holds, and notes it; whether it does.
    fn end(&self, book: &mut Book, id: TokenId, tag: Option<SealTag>) -> bool {
        let is_held = book.revoke(id, tag);
        if is_held {
            self.note_token(|| Change::Ended { id });
        }
        is_held
    }

    fn note_register(&self, changes: &[Change<'_>]) {
        if let Some(sink) = self.sinks.register.as_ref().filter(|_| !changes.is_empty()) {
            sink.note(changes);
        }
    }

    fn note_token<'c>(&self, change: impl FnOnce() -> Change<'c>) {
        if let Some(sink) = &self.sinks.tokens {
            sink.note(&[change()]);
        }
    }

    fn note_entered(&self, token: &TokenRecord<'_>, capabilities: &[Cow<'_, str>], number: u64, with: &[Change<'_>]) {
        let Some(sink) = &self.sinks.tokens else { return };
        let entered = Entered {
            id: token.id,
            tag: token.tag,
            left: token.max_uses,
            expires_at: token.expires_at,
            number,
            revoked: false,
            ancestors: token.ancestors.into(),
            chain: borrowed(token.chain),
            capabilities: borrowed(capabilities),
        };
        let mut changes = with.to_vec();
        changes.push(Change::Entered(entered));
        sink.note(&changes);
    }

    /// Only a foreign token is entered when it is first used.
    fn ensure_entered(&self, token: &TokenRecord<'_>, capabilities: &[Cow<'_, str>], born: u64) -> Result<(), Refused> {
        if token.foreign.is_none() || self.shard(token).with(|book| book.get(token.id).is_some()) {
            return Ok(());
        }
        // What can't be used any more takes no room.
        self.shard(token).with(|book| self.standing.read(|standing| book.check(token, standing, self.fence)))?;
        let symbols = self.admit(token, capabilities)?;
        let issuer = symbols.chain.first().copied();
        let entered = self.shard(token).with(|book| {
            if book.get(token.id).is_some() {
                return Ok(false);
            }
            if book.is_revoked_unknown(token.id) {
                return Err(Refused::Revoked { by: Box::from("") });
            }
            book.enter(token, symbols, born)?;
            self.note_entered(token, capabilities, born, &[]);
            Ok(true)
        });
        if !matches!(entered, Ok(true)) {
            self.release(issuer);
        }
        entered.map(|_| ())
    }

    fn admit(&self, token: &TokenRecord<'_>, capabilities: &[Cow<'_, str>]) -> Result<Symbols, Refused> {
        if self.standing.read(Standing::is_full) {
            return Err(Refused::Full { capacity: limits::AGENT_REVOCATIONS });
        }
        let chain = token.chain.iter().map(AsRef::as_ref);
        self.register.with(|register| {
            if *register.unknown_revocations() >= limits::UNKNOWN_REVOCATIONS {
                return Err(Refused::Full { capacity: limits::UNKNOWN_REVOCATIONS });
            }
            register.admit(chain, capabilities.iter().map(AsRef::as_ref))
        })
    }

    fn or_release<T>(&self, result: Result<T, Refused>, issuer: Option<u32>) -> Result<T, Refused> {
        if result.is_err() {
            self.release(issuer);
        }
        result
    }

    fn release(&self, issuer: Option<u32>) {
        if let Some(issuer) = issuer {
            self.register.with(|register| register.release(issuer));
        }
    }

    fn names(&self, symbols: &[u32]) -> Vec<String> {
        let name = |register: &mut Register| {
            symbols.iter().filter_map(|symbol| register.name(*symbol).map(ToString::to_string)).collect()
        };
        self.register.with(name)
    }

    fn shard(&self, token: &TokenRecord<'_>) -> &K::Mutex<Book> {
        self.shard_of(token.root())
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder by the length, which is at least 1")]
    fn shard_of(&self, root: TokenId) -> &K::Mutex<Book> {
        let [.., a, b, c, d] = *root.bytes();
        let hash = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or_default();
        &self.shards[hash.checked_rem(self.shards.len()).unwrap_or_default()]
    }
}

fn borrowed<'n>(names: &'n [Cow<'_, str>]) -> Vec<Cow<'n, str>> {
    names.iter().map(|name| Cow::Borrowed(name.as_ref())).collect()
}

/// A child for an agent whose tokens were revoked after the chain began would be dead at birth.
fn not_born_dead(book: &Book, parent: TokenId, child: &TokenRecord<'_>, standing: &Standing) -> Result<(), Refused> {
    let Some(number) = book.number(parent) else { return Err(Refused::Fenced) };
    match standing.ended_by(Birth::numbered(number), child.chain.iter().map(AsRef::as_ref)) {
        Some(by) => Err(Refused::Revoked { by: by.into() }),
        None => Ok(()),
    }
}

fn room_for_agent(standing: &Standing, name: &str) -> Result<(), Refused> {
    if standing.is_full() && standing.agent(name).is_none() {
        return Err(Refused::Full { capacity: limits::AGENT_REVOCATIONS });
    }
    Ok(())
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
