//! More of what every interleaving must keep: three that race, expiry, and revocations of what isn't known yet.

use crate::state::standing::QuarantineSource;
use loom::sync::Arc;

use super::*;

/// The second at which every token here has expired.
const PAST: Timestamp = Timestamp::from_seconds(1300);

type Shared = Arc<Ledger<LoomLocks>>;

fn empty_ledger() -> Shared {
    Arc::new(Ledger::<LoomLocks>::new(ROOM, 1, Timestamp::from_seconds(900)))
}

/// Runs beside the test's own thread, over the same ledger.
fn beside<R: 'static>(
    ledger: &Shared,
    work: impl FnOnce(&Ledger<LoomLocks>) -> R + 'static,
) -> loom::thread::JoinHandle<R> {
    let ledger = Arc::clone(ledger);
    loom::thread::spawn(move || work(&ledger))
}

fn is_spent(ledger: &Ledger<LoomLocks>, token: &Token) -> u32 {
    u32::from(spend(ledger, token).is_ok())
}

#[test]
fn every_interleaving_of_three_for_the_last_use_gives_it_once() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(1);
        let spending = beside(&ledger, |ledger| is_spent(ledger, &Token::root(1, 1)));
        let moving = beside(&ledger, |ledger| {
            let (root, child) = (Token::root(1, 1), Token::root(1, 1).child(2, 1));
            u32::from(mint_child(ledger, &root, &child).is_ok())
        });
        let here = is_spent(&ledger, &root);
        let moved = moving.join().unwrap();
        assert_eq!(here + spending.join().unwrap() + moved, 1);
        assert_eq!(is_spent(&ledger, &root.child(2, 1)), moved, "what was moved is the child's to spend");
    });
}

#[test]
fn every_interleaving_of_two_moves_gives_children_no_more_than_there_was() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(3);
        let other = beside(&ledger, |ledger| {
            let root = Token::root(1, 3);
            mint_child(ledger, &root, &root.child(2, 2))
        });
        let here = mint_child(&ledger, &root, &root.child(3, 2));
        let there = other.join().unwrap();
        assert!(matches!((here, there), (Ok(1), Err(Refused::TooManyUses { left: 1 })) | (Err(_), Ok(1))));
        let tokens = [&root, &root.child(2, 2), &root.child(3, 2)];
        let given: u32 = tokens.iter().flat_map(|token| [*token; 3]).map(|token| is_spent(&ledger, token)).sum();
        assert_eq!(given, 3);
    });
}

#[test]
fn every_interleaving_of_a_spend_a_move_and_a_revocation_is_some_order_of_them() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(2);
        let spending = beside(&ledger, |ledger| spend(ledger, &Token::root(1, 2)));
        let moving = beside(&ledger, |ledger| {
            let root = Token::root(1, 2);
            mint_child(ledger, &root, &root.child(2, 1))
        });
        assert!(ledger.revoke_held(&root.record()));
        let ended = |outcome: Result<u32, Refused>| match outcome {
            Ok(left) => Some(left),
            Err(Refused::Revoked { .. }) => None,
            Err(other) => panic!("{other:?}"),
        };
        let (spent, moved) = (ended(spending.join().unwrap()), ended(moving.join().unwrap()));
        // Whoever came second saw what the first had left.
        assert!(matches!((spent, moved), (None, None) | (Some(1), None | Some(0)) | (None | Some(0), Some(1))));
        for token in [&root, &root.child(2, 1)] {
            assert_eq!(is_spent(&ledger, token), 0, "nothing begins after a revocation");
        }
    });
}

#[test]
fn every_interleaving_of_expiry_enters_a_foreign_token_once_at_most() {
    loom::model(|| {
        let ledger = empty_ledger();
        // Whoever read the clock just before the sweep still thinks that the token is good.
        let spending = beside(&ledger, |ledger| is_spent(ledger, &Token::foreign(1, 1, 950)));
        ledger.sweep(0, PAST);
        assert_eq!(is_spent(&ledger, &Token::foreign(1, 1, 950)), 0);
        let _ = spending.join().unwrap();
        ledger.sweep(0, PAST);
        assert_eq!(ledger.size().0, 0, "every place that was taken is given back once");
    });
}

#[test]
fn every_interleaving_of_expiry_and_a_move_gives_every_place_back() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(2);
        let moving = beside(&ledger, |ledger| {
            let (root, child) = (Token::root(1, 2), Token::root(1, 2).child(2, 1));
            mint_child(ledger, &root, &child).map(|_| is_spent(ledger, &child))
        });
        ledger.sweep(0, PAST);
        assert_eq!(spend(&ledger, &root), Err(Refused::Fenced));
        if let Err(refused) = moving.join().unwrap() {
            assert_eq!(refused, Refused::Fenced);
        }
        ledger.sweep(0, PAST);
        assert_eq!(ledger.size().0, 0);
        assert_eq!(is_spent(&ledger, &root.child(2, 1)), 0, "a child doesn't outlive its root");
    });
}

#[test]
fn every_interleaving_of_a_root_and_a_revocation_leaves_none_of_before() {
    loom::model(|| {
        let ledger = empty_ledger();
        let minting = beside(&ledger, |ledger| mint(ledger, &Token::root(1, 1)).is_ok());
        let number = ledger.revoke_agent("deployer", NOW).unwrap();
        let lives = is_spent(&ledger, &Token::root(1, 1)) == 1;
        // It lives only if it was asked for after the revocation; then it does so at once.
        let later = mint(&ledger, &Token::root(2, 1)).and_then(|()| spend(&ledger, &Token::root(2, 1)));
        assert_eq!((number, later), (1, Ok(0)));
        let was_minted = minting.join().unwrap();
        assert!(!lives || was_minted);
    });
}

#[test]
fn every_interleaving_of_a_revocation_of_everything_ends_children_too() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(2);
        let moving = beside(&ledger, |ledger| {
            let root = Token::root(1, 2);
            let _ = mint_child(ledger, &root, &root.child(2, 1));
        });
        ledger.revoke_all(NOW);
        assert_eq!(is_spent(&ledger, &root), 0);
        moving.join().unwrap();
        assert_eq!(is_spent(&ledger, &root.child(2, 1)), 0);
    });
}

#[test]
fn every_interleaving_of_an_unknown_ids_revocation_ends_what_comes_after_it() {
    loom::model(|| {
        let ledger = empty_ledger();
        let spending = beside(&ledger, |ledger| is_spent(ledger, &Token::foreign(1, 2, 950)));
        ledger.revoke_unknown(id(1), 2000).unwrap();
        assert_eq!(is_spent(&ledger, &Token::foreign(1, 2, 950)), 0);
        let before = spending.join().unwrap();
        assert_eq!(is_spent(&ledger, &Token::foreign(1, 2, 950)), 0);
        // It was known if it was used before, and is remembered as unknown if it was not.
        let remembered = ledger.unknown_revocation_count();
        assert_eq!(remembered, ledger.unknown_revocations().len());
        assert!(before == 0 || remembered == 0);
    });
}

#[test]
fn every_interleaving_of_two_revocations_numbers_them_apart() {
    loom::model(|| {
        let (ledger, root) = loom_ledger(1);
        let other = beside(&ledger, |ledger| ledger.quarantine("deployer", QuarantineSource::Api, NOW).unwrap());
        let here = ledger.revoke_agent("deployer", NOW).unwrap();
        let there = other.join().unwrap();
        let mut numbers = [here, there];
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2]);
        assert!(ledger.standing(|standing| standing.is_quarantined("deployer")), "neither undoes the other");
        assert_eq!(is_spent(&ledger, &root), 0);
    });
}
