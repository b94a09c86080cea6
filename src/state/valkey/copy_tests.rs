//! The copy of what a store says: complete or refused, never older than a second.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::state::register::Capacity;
use crate::state::standing::QuarantineSource;
use crate::state::valkey::settings::{Login, Place, StoreAddress};
use crate::state::{Directory, disk};

struct World {
    _folder: tempfile::TempDir,
    now: Arc<AtomicU64>,
    copy: Copy,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1_800_000_000_000_000_000));
    let read = Arc::clone(&now);
    let clock: Clock = Arc::new(move || Timestamp::from_nanos(read.load(Ordering::SeqCst)));
    let directory = Directory::open(&folder.path().join("state")).unwrap();
    let none = Capacity { entries: 0, per_agent: 0 };
    let (ledger, kept) = directory.begin(disk::Uses::AtStop, none, Arc::clone(&clock), 7).unwrap();
    let address = StoreAddress { host: "store".to_owned(), port: 6379, tls: false, database: 0 };
    let settings = StoreSettings {
        place: Place::At(address),
        login: Login::default(),
        sentinel_login: Login::default(),
        tls: None,
        prefix: "remit".to_owned(),
        replicas: 0,
        timeout: Duration::from_millis(200),
    };
    let copy = Copy::new(settings, ledger, Arc::new(kept), clock, Arc::new(|| [7; 16]));
    World { _folder: folder, now, copy }
}

fn entry(change: u64, kind: Kind, name: &str, number: u64) -> Entry {
    Entry { change, kind, name: name.to_owned(), number, at: 1_800_000_000, version: change }
}

fn news(changes: u64, counter: u64, entries: Vec<Entry>) -> News {
    News { number: 0, fence: 0, counter, changes, entries }
}

fn id(byte: u8) -> TokenId {
    TokenId::from_bytes([byte; 16])
}

#[test]
fn changes_are_taken_in_their_order_and_once() {
    let World { copy, now, .. } = world();
    let sent = Timestamp::from_nanos(now.load(Ordering::SeqCst));
    copy.replace("one", 4, &Everything::default());
    let five = entry(5, Kind::Agent, "deployer", 11);
    let six = entry(6, Kind::Quarantine, "analyst", 12);
    assert_eq!(copy.hear("one", &news(6, 12, vec![five.clone()]), sent), Ok(false), "one is still to come");
    assert!(copy.age() > FRESH, "what is not all of it is not fresh");
    assert_eq!(copy.hear("one", &news(6, 12, vec![five, six.clone()]), sent), Ok(true));
    assert_eq!((copy.changes(), copy.age()), (6, Duration::ZERO));
    let seven = entry(7, Kind::Reinstate, "analyst", 12);
    let eight = entry(8, Kind::Unknown, &id(3).to_string(), 1_800_003_600);
    assert_eq!(copy.hear("one", &news(8, 12, vec![six, seven, eight]), sent), Ok(true));
    copy.ledger.standing(|standing| {
        assert_eq!(standing.number(), 12);
        assert_eq!(standing.agent("deployer").map(|cutoff| cutoff.number), Some(11));
        assert!(!standing.is_quarantined("analyst"), "what was heard twice is not done twice");
    });
    assert_eq!(copy.unknown_revocations(), [(id(3), 1_800_003_600)]);
}

#[test]
fn a_copy_with_a_gap_or_of_another_epoch_is_not_fresh() {
    let World { copy, now, .. } = world();
    let sent = Timestamp::from_nanos(now.load(Ordering::SeqCst));
    copy.replace("one", 4, &Everything::default());
    let six = || vec![entry(6, Kind::All, "", 12)];
    assert_eq!(copy.hear("one", &news(6, 12, six()), sent), Err(Trouble::Reading), "the fifth was trimmed");
    assert_eq!(copy.hear("one", &news(6, 12, vec![]), sent), Err(Trouble::Reading), "all were");
    assert_eq!(copy.hear("two", &news(5, 12, vec![]), sent), Err(Trouble::Reading));
    assert!(copy.age() > FRESH);
    assert!(copy.accepts().is_err());
    assert_eq!(copy.hear("one", &news(4, 9, vec![]), sent), Ok(true));
    now.fetch_add(1_000_000_000, Ordering::SeqCst);
    assert!(copy.age() <= FRESH);
    now.fetch_add(1, Ordering::SeqCst);
    assert!(copy.age() > FRESH, "counted from when it was asked for");
}

#[test]
fn another_epoch_takes_its_own_revocations_and_keeps_the_newer_word_on_quarantines() {
    let World { copy, .. } = world();
    let quarantined = |name: &str| copy.ledger.standing(|standing| standing.is_quarantined(name));
    copy.ledger.quarantine_here("deployer", QuarantineSource::Api).unwrap();
    copy.ledger.confirm("deployer", 2);
    let mut read = Everything::default();
    let at = Timestamp::from_seconds(1_800_000_000);
    read.cutoffs.insert(String::new(), Cutoff { number: 30, at });
    read.cutoffs.insert("analyst".to_owned(), Cutoff { number: 31, at });
    read.cutoffs.insert("writer".to_owned(), Cutoff { number: 29, at });
    read.quarantines.insert("deployer".to_owned(), (2, false));
    read.quarantines.insert("analyst".to_owned(), (9, true));
    copy.replace("one", 1, &read);
    assert!(quarantined("deployer"), "of two words of one version a quarantine wins");
    assert!(quarantined("analyst"));
    copy.ledger.standing(|standing| {
        assert_eq!((standing.number(), standing.all().map(|all| all.number)), (31, Some(30)));
        assert!(standing.agent("analyst").is_some());
    });
    read.quarantines.insert("deployer".to_owned(), (3, false));
    read.cutoffs.clear();
    copy.replace("two", 0, &read);
    assert!(!quarantined("deployer"), "a newer word lifts it");
    copy.ledger
        .standing(|standing| assert!(standing.is_empty() && standing.number() == 0, "numbers are the epoch's own"));
}

#[test]
fn a_quarantine_that_the_store_was_not_told_of_is_newer_than_all_that_it_says() {
    let World { copy, now, .. } = world();
    let sent = Timestamp::from_nanos(now.load(Ordering::SeqCst));
    let is_quarantined = || copy.ledger.standing(|standing| standing.is_quarantined("deployer"));
    let mut read = Everything::default();
    read.quarantines.insert("deployer".to_owned(), (9, false));
    copy.replace("one", 3, &read);
    copy.ledger.quarantine_here("deployer", QuarantineSource::Automatic).unwrap();
    copy.replace("one", 3, &read);
    assert!(is_quarantined(), "what was read is of before");
    let others = || vec![entry(4, Kind::Quarantine, "deployer", 12), entry(5, Kind::Reinstate, "deployer", 12)];
    assert_eq!(copy.hear("one", &news(5, 12, others()), sent), Ok(true));
    assert!(is_quarantined(), "and so is what others said");
    copy.confirm("deployer", &news(5, 13, others()));
    assert!(is_quarantined() && copy.owes.swap(false, Ordering::SeqCst), "none of these is its own: it is told again");
    let mut own = news(6, 13, vec![entry(6, Kind::Quarantine, "deployer", 13)]);
    own.number = 13;
    assert_eq!(copy.hear("one", &own, sent), Ok(true));
    copy.confirm("deployer", &own);
    assert!(is_quarantined() && !copy.owes.load(Ordering::SeqCst), "now the store has it");
    assert_eq!(copy.hear("one", &news(7, 13, vec![entry(7, Kind::Reinstate, "deployer", 13)]), sent), Ok(true));
    assert!(!is_quarantined(), "and lifts it");
}

#[test]
fn a_word_that_came_before_the_confirmation_is_read_again() {
    let World { copy, now, .. } = world();
    let sent = Timestamp::from_nanos(now.load(Ordering::SeqCst));
    copy.replace("one", 3, &Everything::default());
    copy.ledger.quarantine_here("deployer", QuarantineSource::Api).unwrap();
    let mut own = news(4, 12, vec![entry(4, Kind::Quarantine, "deployer", 12)]);
    own.number = 12;
    let both = vec![entry(4, Kind::Quarantine, "deployer", 12), entry(5, Kind::Reinstate, "deployer", 12)];
    let polled = news(5, 12, both);
    assert_eq!(copy.hear("one", &polled, sent), Ok(true));
    assert_eq!(copy.hear("one", &own, sent), Ok(true));
    copy.confirm("deployer", &own);
    assert!(copy.owes.load(Ordering::SeqCst), "somebody lifted it, and this copy has not taken that");
}

#[test]
fn the_word_on_a_quarantine_outlives_the_process() {
    let World { copy, _folder: folder, .. } = world();
    let settled = |copy: &Copy| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(copy.kept.revocations_settled(Duration::from_secs(5))).unwrap();
    };
    copy.ledger.hear("deployer", 4, true);
    copy.ledger.hear("deployer", 5, false);
    copy.ledger.hear("analyst", 6, true);
    copy.ledger.hear("analyst", 5, false);
    copy.ledger.hear("writer", 4, false);
    copy.ledger.quarantine_here("writer", QuarantineSource::Api).unwrap();
    settled(&copy);
    drop(copy);
    let directory = Directory::open(&folder.path().join("state")).unwrap();
    let none = Capacity { entries: 0, per_agent: 0 };
    let clock: Clock = Arc::new(|| Timestamp::from_seconds(1_800_000_000));
    let (ledger, _kept) = directory.begin(disk::Uses::AtStop, none, clock, 8).unwrap();
    ledger.standing(|standing| {
        assert_eq!((standing.version("deployer"), standing.is_quarantined("deployer")), (5, false));
        assert_eq!((standing.version("analyst"), standing.is_quarantined("analyst")), (6, true));
        assert_eq!((standing.version("writer"), standing.is_quarantined("writer")), (0, true), "not yet told");
    });
}
