//! One shard of the ledger: live tokens and what is left of them. Plain data; the lock is around it.
//!
//! A root and all its descendants are in one shard, so that every question about a token is answered
//! under one lock.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::standing::{Birth, Standing};
use super::{Refused, TokenRecord};
use crate::domain::time::Timestamp;
use crate::domain::token::{SealTag, TokenId};

/// Ids are random or digests, so eight of their bytes are hash enough.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(Ok(first)) = bytes.get(..8).map(<[u8; 8]>::try_from) {
            self.0 = u64::from_ne_bytes(first);
        }
    }

    /// The length of an id says nothing.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by id.
pub(super) type ById<V> = HashMap<TokenId, V, BuildHasherDefault<IdHasher>>;

const CLOSED: &str = "the service is stopping, and has written its ledger down: ask again when it is back";

/// A symbol of the ledger's [`super::register::Register`]: an agent or a capability.
pub(super) type Symbol = u32;

/// A live token.
pub(super) struct Entry {
    pub(super) tag: SealTag,
    pub(super) left: u32,
    pub(super) expires_at: u64,
    /// The number of the last revocation when the root was minted.
    pub(super) number: u64,
    pub(super) revoked: bool,
    pub(super) ancestors: Box<[TokenId]>,
    /// The agents of the chain, from the root.
    pub(super) chain: Box<[Symbol]>,
    /// What the root was given; empty in a descendant.
    pub(super) capabilities: Box<[Symbol]>,
}

/// The parts of an entry that the register made.
pub(super) struct Symbols {
    pub(super) chain: Box<[Symbol]>,
    pub(super) capabilities: Box<[Symbol]>,
}

/// One shard.
#[derive(Default)]
pub(super) struct Book {
    entries: ById<Entry>,
    /// Ids revoked without being known, each with the second up to which it is kept.
    revoked_unknown: ById<u64>,
    /// What expires up to this second has been forgotten, so that it must not be entered again.
    swept_at: u64,
    /// It has been written down for the next process; nothing changes any more.
    closed: bool,
}

impl Book {
    pub(super) fn get(&self, id: TokenId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn is_revoked_unknown(&self, id: TokenId) -> bool {
        self.revoked_unknown.contains_key(&id)
    }

    /// Enters a root token or a foreign one.
    pub(super) fn enter(&mut self, token: &TokenRecord<'_>, symbols: Symbols, number: u64) -> Result<(), Refused> {
        self.has_room_for(token)?;
        self.entries.insert(token.id, entry(token, symbols, number));
        Ok(())
    }

    /// Whether the token can be entered: it is new, and not of a time that has been swept.
    pub(super) fn has_room_for(&self, token: &TokenRecord<'_>) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Unavailable { why: CLOSED });
        }
        let is_past = self.entries.contains_key(&token.id) || token.expires_at <= self.swept_at;
        if is_past { Err(Refused::Fenced) } else { Ok(()) }
    }

    /// The uses that are left, if the ledger lets the token be used.
    pub(super) fn check(&self, token: &TokenRecord<'_>, standing: &Standing, fence: u64) -> Result<u32, Refused> {
        if self.closed {
            return Err(Refused::Unavailable { why: CLOSED });
        }
        if token.expires_at <= self.swept_at {
            return Err(Refused::Fenced);
        }
        let held = self.entries.get(&token.id);
        let (born, left) = match (held, token.foreign) {
            (Some(entry), None) if entry.tag == token.tag => (Birth::numbered(entry.number), entry.left),
            (_, None) => return Err(Refused::Fenced),
            (_, Some(foreign)) if foreign.issued_at <= fence => return Err(Refused::Fenced),
            (held, Some(foreign)) => {
                let born = Birth { number: held.map(|entry| entry.number), second: Some(foreign.issued_at) };
                (born, held.map_or(token.max_uses, |entry| entry.left))
            }
        };
        if held.is_some_and(|entry| entry.revoked) || (held.is_none() && self.is_revoked_unknown(token.id)) {
            return Err(Refused::Revoked { by: Box::from("") });
        }
        for ancestor in token.ancestors {
            match self.entries.get(ancestor) {
                // An ancestor lives as long as its descendants; one that is gone is a doubt.
                None => return Err(Refused::Fenced),
                Some(entry) if entry.revoked => return Err(Refused::Revoked { by: Box::from("") }),
                Some(_) => {}
            }
        }
        if let Some(by) = standing.ended_by(born, token.chain.iter().map(AsRef::as_ref)) {
            return Err(Refused::Revoked { by: by.into() });
        }
        Ok(left)
    }

    /// Takes uses from an entry that [`Book::check`] has just passed, under the same lock. Returns what is left.
    pub(super) fn take(&mut self, id: TokenId, uses: u32) -> Result<u32, Refused> {
        let Some(entry) = self.entries.get_mut(&id) else { return Err(Refused::Fenced) };
        let Some(left) = entry.left.checked_sub(uses) else {
            return Err(match entry.left {
                0 => Refused::Exhausted,
                left => Refused::TooManyUses { left },
            });
        };
        entry.left = left;
        Ok(left)
    }

    /// Enters a child with the birth of its parent, whose uses have been taken. Returns the birth's number.
    pub(super) fn enter_child(
        &mut self,
        parent: TokenId,
        child: &TokenRecord<'_>,
        symbols: Symbols,
    ) -> Result<u64, Refused> {
        let number = self.entries.get(&parent).map(|entry| entry.number).ok_or(Refused::Fenced)?;
        self.enter(child, symbols, number)?;
        Ok(number)
    }

    /// Every token, live or not.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&TokenId, &Entry)> {
        self.entries.iter()
    }

    /// Puts back what an earlier process held.
    pub(super) fn restore(&mut self, id: TokenId, entry: Entry) {
        self.entries.insert(id, entry);
    }

    /// Nothing is spent or entered any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// The number under which this entry's chain began.
    pub(super) fn number(&self, id: TokenId) -> Option<u64> {
        self.entries.get(&id).map(|entry| entry.number)
    }

    /// Ends a known token, and with it its descendants. Whether it is known; one of another seal is not this one.
    pub(super) fn revoke(&mut self, id: TokenId, tag: Option<SealTag>) -> bool {
        match self.entries.get_mut(&id) {
            Some(entry) if tag.is_none_or(|tag| tag == entry.tag) => {
                entry.revoked = true;
                true
            }
            _ => false,
        }
    }

    /// Remembers that an unknown id is revoked. Whether it was not remembered before.
    pub(super) fn revoke_unknown(&mut self, id: TokenId, keep_until: u64) -> bool {
        self.revoked_unknown.insert(id, keep_until).is_none()
    }

    /// Remembers for longer that an unknown id is revoked. Whether it was remembered.
    pub(super) fn keep_revoked_unknown(&mut self, id: TokenId, keep_until: u64) -> bool {
        let kept = self.revoked_unknown.get_mut(&id);
        kept.map(|kept| *kept = keep_until.max(*kept)).is_some()
    }

    /// Forgets what has expired; says which roots' issuers have how much room again, and how many unknown ids went.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Swept {
        let mut swept = Swept::default();
        let now = now.seconds();
        self.swept_at = self.swept_at.max(now);
        self.entries.retain(|_, entry| {
            let lives = entry.expires_at > now;
            if !lives && let Some(issuer) = entry.chain.first() {
                swept.issuers.push(*issuer);
            }
            lives
        });
        let before = self.revoked_unknown.len();
        self.revoked_unknown.retain(|_, keep_until| *keep_until > now);
        swept.unknown = before.saturating_sub(self.revoked_unknown.len());
        // A shard that was crowded once gives its room back.
        if self.entries.capacity() > 64 && self.entries.len().saturating_mul(8) < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len().saturating_mul(2));
        }
        swept
    }

    /// What an operator is told of an id.
    pub(super) fn held(&self, id: TokenId) -> Option<Held> {
        let entry = self.entries.get(&id)?;
        let ends = |id: &TokenId| self.entries.get(id).is_none_or(|entry| entry.revoked);
        Some(Held {
            left: entry.left,
            expires_at: entry.expires_at,
            ancestors: entry.ancestors.to_vec(),
            is_revoked: entry.revoked || entry.ancestors.iter().any(ends),
            born: Birth::numbered(entry.number),
            chain: entry.chain.clone(),
        })
    }

    pub(super) fn revoked_unknown(&self) -> impl Iterator<Item = (&TokenId, &u64)> {
        self.revoked_unknown.iter()
    }
}

/// What the book knows of a token by its id alone.
pub(super) struct Held {
    pub(super) left: u32,
    pub(super) expires_at: u64,
    pub(super) ancestors: Vec<TokenId>,
    /// It, or one above it.
    pub(super) is_revoked: bool,
    pub(super) born: Birth,
    pub(super) chain: Box<[Symbol]>,
}

/// What a sweep found.
#[derive(Default)]
pub(super) struct Swept {
    pub(super) issuers: Vec<Symbol>,
    pub(super) unknown: usize,
}

fn entry(token: &TokenRecord<'_>, symbols: Symbols, number: u64) -> Entry {
    Entry {
        tag: token.tag,
        left: token.max_uses,
        expires_at: token.expires_at,
        number,
        revoked: false,
        ancestors: token.ancestors.into(),
        chain: symbols.chain,
        capabilities: symbols.capabilities,
    }
}
