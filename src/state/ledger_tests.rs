//! The counting core under racing threads, and under every interleaving of a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::token::SealTag;
use crate::state::Foreign;
use crate::state::standing::QuarantineSource;

const ROOM: Capacity = Capacity { entries: 1000, per_agent: 1000 };
const NOW: Timestamp = Timestamp::from_seconds(1000);

fn id(number: u8) -> TokenId {
    TokenId::from_bytes([number; 16])
}

struct Token {
    id: TokenId,
    ancestors: Vec<TokenId>,
    chain: Vec<Cow<'static, str>>,
    max_uses: u32,
    foreign: Option<Foreign>,
}

impl Token {
    fn root(number: u8, max_uses: u32) -> Self {
        let chain = vec!["coordinator".into(), "deployer".into()];
        Self { id: id(number), ancestors: Vec::new(), chain, max_uses, foreign: None }
    }

    fn child(&self, number: u8, max_uses: u32) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(self.id);
        let mut chain = self.chain.clone();
        chain.push(format!("agent-{number}").into());
        Self { id: id(number), ancestors, chain, max_uses, foreign: None }
    }

    fn foreign(number: u8, max_uses: u32, issued_at: u64) -> Self {
        Self { foreign: Some(Foreign { issued_at }), ..Self::root(number, max_uses) }
    }

    fn record(&self) -> TokenRecord<'_> {
        TokenRecord {
            id: self.id,
            tag: SealTag::from_bytes(*self.id.bytes()),
            ancestors: &self.ancestors,
            chain: &self.chain,
            max_uses: self.max_uses,
            expires_at: 1300,
            foreign: self.foreign,
        }
    }
}

fn ledger() -> Ledger {
    Ledger::new(ROOM, 4, Timestamp::from_seconds(900))
}

fn spend<K: Locks>(ledger: &Ledger<K>, token: &Token) -> Result<u32, Refused> {
    ledger.spend(&token.record(), &[], ledger.standing(Standing::number))
}

fn mint<K: Locks>(ledger: &Ledger<K>, token: &Token) -> Result<(), Refused> {
    ledger.mint(&token.record(), &[], ledger.standing(Standing::number))
}

fn mint_child<K: Locks>(ledger: &Ledger<K>, parent: &Token, child: &Token) -> Result<u32, Refused> {
    ledger.mint_child(&parent.record(), &child.record(), &[], ledger.standing(Standing::number))
}

#[test]
fn a_token_is_spent_as_often_as_it_has_uses() {
    let ledger = ledger();
    let token = Token::root(1, 2);
    assert_eq!(spend(&ledger, &token), Err(Refused::Fenced), "not minted here");
    mint(&ledger, &token).unwrap();
    assert_eq!(spend(&ledger, &token), Ok(1));
    assert_eq!(spend(&ledger, &token), Ok(0));
    assert_eq!(spend(&ledger, &token), Err(Refused::Exhausted));
}

#[test]
fn a_childs_uses_come_out_of_its_parents() {
    let ledger = ledger();
    let root = Token::root(1, 3);
    mint(&ledger, &root).unwrap();
    let child = root.child(2, 2);
    assert_eq!(mint_child(&ledger, &root, &child), Ok(1));
    assert_eq!(mint_child(&ledger, &root, &root.child(3, 2)), Err(Refused::TooManyUses { left: 1 }));
    assert_eq!(spend(&ledger, &root), Ok(0));
    assert_eq!(spend(&ledger, &child), Ok(1));
    assert_eq!(spend(&ledger, &child), Ok(0));
    assert!(matches!(mint_child(&ledger, &root, &root.child(4, 1)), Err(Refused::Exhausted)));
}

#[test]
fn a_revoked_token_ends_its_descendants_and_not_its_parent() {
    let ledger = ledger();
    let root = Token::root(1, 5);
    mint(&ledger, &root).unwrap();
    let (middle, leaf) = (root.child(2, 3), root.child(2, 3).child(3, 1));
    mint_child(&ledger, &root, &middle).unwrap();
    mint_child(&ledger, &middle, &leaf).unwrap();
    assert!(ledger.revoke_held(&middle.record()));
    assert!(matches!(spend(&ledger, &leaf), Err(Refused::Revoked { .. })));
    assert!(matches!(spend(&ledger, &middle), Err(Refused::Revoked { .. })));
    assert_eq!(spend(&ledger, &root), Ok(1));
}

#[test]
fn a_revoked_agent_ends_what_was_minted_and_not_what_comes() {
    let ledger = ledger();
    let before = Token::root(1, 1);
    mint(&ledger, &before).unwrap();
    ledger.revoke_agent("deployer", NOW).unwrap();
    assert_eq!(spend(&ledger, &before), Err(Refused::Revoked { by: "deployer".into() }));
    let after = Token::root(2, 1);
    mint(&ledger, &after).unwrap();
    assert_eq!(spend(&ledger, &after), Ok(0), "in the same second");
    ledger.revoke_all(NOW);
    let last = Token::root(3, 1);
    mint(&ledger, &last).unwrap();
    assert_eq!(spend(&ledger, &last), Ok(0));
}

#[test]
fn a_root_whose_request_began_before_a_revocation_is_not_born() {
    let ledger = ledger();
    let born = ledger.standing(Standing::number);
    ledger.quarantine("deployer", QuarantineSource::Api, NOW).unwrap();
    ledger.reinstate("deployer");
    let minted = ledger.mint(&Token::root(1, 1).record(), &[], born);
    assert_eq!(minted, Err(Refused::Revoked { by: "deployer".into() }));
    assert_eq!(ledger.size().0, 0, "and takes no room");
}

#[test]
fn a_child_that_would_be_born_dead_is_not_born() {
    let ledger = ledger();
    let root = Token::root(1, 2);
    mint(&ledger, &root).unwrap();
    ledger.revoke_agent("agent-2", NOW).unwrap();
    assert_eq!(mint_child(&ledger, &root, &root.child(2, 1)), Err(Refused::Revoked { by: "agent-2".into() }));
    assert_eq!(ledger.check(&root.record()), Ok(2), "and takes no uses");
}

#[test]
fn foreign_tokens_are_fenced_and_entered_once() {
    let ledger = ledger();
    let old = Token::foreign(1, 1, 900);
    assert_eq!(spend(&ledger, &old), Err(Refused::Fenced));
    let new = Token::foreign(2, 2, 901);
    assert_eq!(spend(&ledger, &new), Ok(1));
    let child = new.child(3, 1);
    assert_eq!(mint_child(&ledger, &new, &child), Ok(0));
    assert!(matches!(spend(&ledger, &new), Err(Refused::Exhausted)));
    assert_eq!(spend(&ledger, &child), Ok(0));
    ledger.revoke_agent("coordinator", NOW).unwrap();
    assert!(matches!(spend(&ledger, &Token::foreign(4, 1, 1000)), Err(Refused::Revoked { .. })));
    assert_eq!(spend(&ledger, &Token::foreign(5, 1, 1001)), Ok(0));
}

#[test]
fn an_unknown_id_can_be_revoked_before_it_is_seen() {
    let ledger = ledger();
    let token = Token::foreign(1, 1, 950);
    assert!(!ledger.revoke_held_id(token.id));
    ledger.revoke_unknown(token.id, 2000).unwrap();
    assert!(matches!(spend(&ledger, &token), Err(Refused::Revoked { .. })));
    assert_eq!(ledger.unknown_revocations(), [(token.id, 2000)]);
}

#[test]
fn another_seal_under_the_same_id_is_another_token() {
    let ledger = ledger();
    let token = Token::root(1, 1);
    mint(&ledger, &token).unwrap();
    let forged = TokenRecord { tag: SealTag::from_bytes([9; 16]), ..token.record() };
    assert_eq!(ledger.spend(&forged, &[], 0), Err(Refused::Fenced));
}

#[test]
fn full_refuses_to_mint_and_expiry_makes_room() {
    let ledger = Ledger::<SystemLocks>::new(Capacity { entries: 3, per_agent: 2 }, 4, Timestamp::from_seconds(900));
    for number in 1..=2 {
        mint(&ledger, &Token::root(number, 1)).unwrap();
    }
    assert_eq!(mint(&ledger, &Token::root(3, 1)), Err(Refused::ShareFull { share: 2 }));
    let other = Token { chain: vec!["other".into(), "deployer".into()], ..Token::root(4, 1) };
    mint(&ledger, &other).unwrap();
    let third = Token { chain: vec!["third".into(), "deployer".into()], ..Token::root(5, 1) };
    assert_eq!(mint(&ledger, &third), Err(Refused::Full { capacity: 3 }));
    assert_eq!(spend(&ledger, &Token::root(1, 1)), Ok(0), "nothing live is evicted");
    for shard in 0..ledger.shards() {
        ledger.sweep(shard, Timestamp::from_seconds(1300));
    }
    assert_eq!(ledger.size().0, 0);
    let later = TokenRecord { expires_at: 1400, ..third.record() };
    ledger.mint(&later, &[], 0).unwrap();
}

#[test]
fn a_foreign_token_that_was_forgotten_is_not_entered_again() {
    let ledger = ledger();
    let token = Token::foreign(1, 1, 950);
    assert_eq!(spend(&ledger, &token), Ok(0));
    // Whoever read the clock just before the sweep still thinks that the token is good.
    for shard in 0..ledger.shards() {
        ledger.sweep(shard, Timestamp::from_seconds(1300));
    }
    assert_eq!(spend(&ledger, &token), Err(Refused::Fenced));
    assert_eq!(mint_child(&ledger, &token, &token.child(2, 1)), Err(Refused::Fenced));
}

#[test]
fn a_child_that_cannot_be_entered_takes_no_uses() {
    let ledger = ledger();
    let root = Token::root(1, 2);
    ledger.mint(&TokenRecord { expires_at: 2000, ..root.record() }, &[], 0).unwrap();
    for shard in 0..ledger.shards() {
        ledger.sweep(shard, Timestamp::from_seconds(1500));
    }
    let parent = TokenRecord { expires_at: 2000, ..root.record() };
    let late = root.child(2, 1);
    assert_eq!(ledger.mint_child(&parent, &late.record(), &[], 0), Err(Refused::Fenced));
    assert_eq!(ledger.check(&parent), Ok(2));
}

#[test]
fn a_token_under_another_seal_ends_nobodys() {
    let ledger = ledger();
    let token = Token::root(1, 1);
    mint(&ledger, &token).unwrap();
    let forged = TokenRecord { tag: SealTag::from_bytes([9; 16]), ..token.record() };
    assert!(!ledger.revoke_held(&forged));
    assert_eq!(spend(&ledger, &token), Ok(0));
}

#[test]
fn a_revocations_moment_never_goes_back() {
    let ledger = ledger();
    ledger.revoke_agent("coordinator", Timestamp::from_seconds(1001)).unwrap();
    ledger.revoke_all(Timestamp::from_seconds(1000));
    assert!(matches!(spend(&ledger, &Token::foreign(1, 1, 1001)), Err(Refused::Revoked { .. })));
}

#[test]
fn an_unknown_id_is_kept_for_the_longest_that_was_asked() {
    let ledger = ledger();
    ledger.revoke_unknown(id(1), 9000).unwrap();
    ledger.revoke_unknown(id(1), 2000).unwrap();
    assert_eq!(ledger.unknown_revocations(), [(id(1), 9000)]);
    assert_eq!(ledger.unknown_revocation_count(), 1);
}

#[test]
fn a_held_foreign_token_ends_with_a_revocation_whatever_its_second() {
    let ledger = ledger();
    let token = Token::foreign(1, 2, 1000);
    assert_eq!(spend(&ledger, &token), Ok(1));
    // The revocation read the clock a moment before the token was made, and took effect after its first use.
    ledger.revoke_all(Timestamp::from_seconds(999));
    assert!(matches!(spend(&ledger, &token), Err(Refused::Revoked { .. })));
}

#[test]
fn a_child_of_a_foreign_parent_is_as_old_as_its_request() {
    let ledger = ledger();
    let parent = Token::foreign(1, 2, 950);
    let born = ledger.standing(Standing::number);
    ledger.quarantine("agent-2", QuarantineSource::Api, NOW).unwrap();
    ledger.reinstate("agent-2");
    let child = parent.child(2, 1);
    let moved = ledger.mint_child(&parent.record(), &child.record(), &[], born);
    assert_eq!(moved, Err(Refused::Revoked { by: "agent-2".into() }));
}

#[test]
fn racing_spends_and_moves_conserve_uses() {
    for round in 0..200 {
        let ledger = Arc::new(ledger());
        let root = Arc::new(Token::root(1, 20));
        mint(&ledger, &root).unwrap();
        let allowed = Arc::new(AtomicUsize::new(0));
        let racers = (0..8u8).map(|racer| {
            let (ledger, root, allowed) = (Arc::clone(&ledger), Arc::clone(&root), Arc::clone(&allowed));
            std::thread::spawn(move || {
                for step in 0..4 {
                    let child = root.child(10 + racer * 4 + step, 2);
                    let tokens =
                        if mint_child(&ledger, &root, &child).is_ok() { vec![&child, &child, &child] } else { vec![] };
                    for token in tokens.into_iter().chain([root.as_ref()]) {
                        allowed.fetch_add(usize::from(spend(&ledger, token).is_ok()), Ordering::Relaxed);
                    }
                }
            })
        });
        for racer in racers.collect::<Vec<_>>() {
            racer.join().unwrap();
        }
        assert_eq!(allowed.load(Ordering::Relaxed), 20, "round {round}");
    }
}

/// Loom's locks: with these every interleaving is tried.
enum LoomLocks {}

struct LoomMutex<T>(loom::sync::Mutex<T>);
struct LoomSnapshot<T>(loom::sync::Mutex<Arc<T>>);

impl Locks for LoomLocks {
    type Mutex<T: Send + 'static> = LoomMutex<T>;
    type Snapshot<T: Send + Sync + 'static> = LoomSnapshot<T>;
}

impl<T: Send> Mutex<T> for LoomMutex<T> {
    fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
}

impl<T: Send + Sync> Snapshot<T> for LoomSnapshot<T> {
    fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(Arc::new(value)))
    }

    fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let value = Arc::clone(&self.0.lock().unwrap());
        look(&value)
    }

    fn replace(&self, value: T) {
        *self.0.lock().unwrap() = Arc::new(value);
    }
}

fn loom_ledger(uses: u32) -> (loom::sync::Arc<Ledger<LoomLocks>>, Token) {
    let ledger = Ledger::<LoomLocks>::new(ROOM, 1, Timestamp::from_seconds(900));
    let root = Token::root(1, uses);
    mint(&ledger, &root).unwrap();
    (loom::sync::Arc::new(ledger), root)
}

#[test]
fn every_interleaving_of_two_spends_and_a_move_conserves_uses() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(2);
        let other = loom::sync::Arc::clone(&ledger);
        let racer = loom::thread::spawn(move || {
            let root = Token::root(1, 2);
            let child = root.child(2, 2);
            match mint_child(&other, &root, &child) {
                Ok(_) => u32::from(spend(&other, &child).is_ok()) + u32::from(spend(&other, &child).is_ok()),
                Err(_) => u32::from(spend(&other, &root).is_ok()),
            }
        });
        let here = u32::from(spend(&ledger, &root).is_ok()) + u32::from(spend(&ledger, &root).is_ok());
        let there = racer.join().unwrap();
        assert_eq!(here + there, 2);
    });
}

#[test]
fn every_interleaving_of_a_revocation_ends_what_begins_after_it() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(3);
        let other = loom::sync::Arc::clone(&ledger);
        let racer = loom::thread::spawn(move || {
            let root = Token::root(1, 3);
            let child = root.child(2, 1);
            let moved = mint_child(&other, &root, &child);
            (moved, spend(&other, &child))
        });
        ledger.revoke_agent("deployer", NOW).unwrap();
        assert!(matches!(spend(&ledger, &root), Err(Refused::Revoked { .. })));
        let _ = racer.join().unwrap();
        let child = root.child(2, 1);
        assert!(spend(&ledger, &child).is_err(), "a child that was born before is dead too");
    });
}

#[test]
fn every_interleaving_of_a_token_revocation_ends_its_children() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(2);
        let other = loom::sync::Arc::clone(&ledger);
        let racer = loom::thread::spawn(move || {
            let root = Token::root(1, 2);
            let _ = mint_child(&other, &root, &root.child(2, 1));
        });
        assert!(ledger.revoke_held_id(root.id));
        assert!(mint_child(&ledger, &root, &root.child(3, 1)).is_err());
        racer.join().unwrap();
        assert!(spend(&ledger, &root.child(2, 1)).is_err());
    });
}

#[test]
fn every_interleaving_of_a_foreign_tokens_first_uses_counts_once() {
    loom::model(|| {
        let ledger = loom::sync::Arc::new(Ledger::<LoomLocks>::new(ROOM, 1, Timestamp::from_seconds(900)));
        let other = loom::sync::Arc::clone(&ledger);
        let racer = loom::thread::spawn(move || spend(&other, &Token::foreign(1, 1, 950)).is_ok());
        let here = spend(&ledger, &Token::foreign(1, 1, 950)).is_ok();
        assert!(here ^ racer.join().unwrap(), "exactly one is allowed");
        assert_eq!(ledger.size().0, 1);
    });
}

#[path = "ledger_interleaving_tests.rs"]
mod interleavings;
