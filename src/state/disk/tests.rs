//! State directories: what comes back, what does not, and what is refused.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::domain::token::{SealTag, TokenId};
use crate::state::change::Change;
use crate::state::{Backend, Foreign, Refused, State, TokenRecord};

const ROOM: Capacity = Capacity { entries: 1000, per_agent: 1000 };
const START: u64 = 10_000;

/// A directory and the time, over several processes.
struct World {
    folder: tempfile::TempDir,
    now: Arc<AtomicU64>,
    backend: Backend,
    starts: AtomicU64,
}

fn id(number: u8) -> TokenId {
    TokenId::from_bytes([number; 16])
}

struct Token {
    id: TokenId,
    ancestors: Vec<TokenId>,
    chain: Vec<Cow<'static, str>>,
    uses: u32,
    foreign: Option<Foreign>,
}

impl Token {
    fn root(number: u8, uses: u32) -> Self {
        let chain = vec!["coordinator".into(), "deployer".into()];
        Self { id: id(number), ancestors: Vec::new(), chain, uses, foreign: None }
    }

    fn child(&self, number: u8, uses: u32) -> Self {
        let chain = self.chain.iter().cloned().chain(["validator".into()]).collect();
        let ancestors = self.ancestors.iter().copied().chain([self.id]).collect();
        Self { id: id(number), ancestors, chain, uses, foreign: None }
    }

    fn foreign(number: u8, issued_at: u64) -> Self {
        Self { foreign: Some(Foreign { issued_at }), ..Self::root(number, 1) }
    }

    fn record(&self) -> TokenRecord<'_> {
        TokenRecord {
            id: self.id,
            tag: SealTag::from_bytes(*self.id.bytes()),
            ancestors: &self.ancestors,
            chain: &self.chain,
            max_uses: self.uses,
            expires_at: START + 300,
            foreign: self.foreign,
        }
    }
}

impl World {
    fn new(backend: Backend) -> Self {
        let (folder, now) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(START)));
        Self { folder, now, backend, starts: AtomicU64::new(7) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    fn start(&self) -> Result<State, StateError> {
        let directory = Directory::open(&self.folder.path().join("state"))?;
        self.now.fetch_max(directory.time().seconds(), Ordering::SeqCst);
        let now = Arc::clone(&self.now);
        let clock = move || Timestamp::from_seconds(now.load(Ordering::SeqCst));
        State::in_directory(directory, self.backend, ROOM, clock, self.starts.fetch_add(1, Ordering::SeqCst))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(self.now.load(Ordering::SeqCst))
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn settle(state: &State) {
    wait(state.uses_settled(Duration::from_secs(20))).unwrap();
    wait(state.revocations_settled(Duration::from_secs(20))).unwrap();
}

fn mint(state: &State, token: &Token) {
    state
        .ledger()
        .unwrap()
        .mint(&token.record(), &["kubectl_get".into()], state.standing(crate::state::standing::Standing::number))
        .unwrap();
}

fn spend(state: &State, token: &Token) -> Result<u32, Refused> {
    state.ledger().unwrap().spend(&token.record(), &[], state.standing(crate::state::standing::Standing::number))
}

fn message(world: &World) -> String {
    world.start().err().unwrap().to_string()
}

#[test]
fn an_orderly_stop_leaves_the_ledger_to_one_start_and_no_more() {
    let world = World::new(Backend::Memory);
    let (token, foreign) = (Token::root(1, 3), Token::foreign(2, START + 1));
    let child = token.child(3, 1);
    let state = world.start().unwrap();
    mint(&state, &token);
    assert_eq!(spend(&state, &token), Ok(2));
    let moved = state.ledger().unwrap().mint_child(&token.record(), &child.record(), &[], 0);
    assert_eq!((moved, spend(&state, &foreign)), (Ok(1), Ok(0)));
    state.save().unwrap();
    assert!(matches!(spend(&state, &token), Err(Refused::Unavailable { .. })), "nothing is spent after it was saved");
    drop(state);
    assert!(world.file("ledger").exists());
    std::fs::write(world.file("ledger.new"), "cut short").unwrap();

    let state = world.start().unwrap();
    assert!(!world.file("ledger").exists() && !world.file("ledger.new").exists() && state.is_restored());
    assert_eq!((spend(&state, &token), spend(&state, &token)), (Ok(0), Err(Refused::Exhausted)));
    assert_eq!((spend(&state, &child), spend(&state, &child)), (Ok(0), Err(Refused::Exhausted)));
    assert_eq!(spend(&state, &foreign), Err(Refused::Exhausted), "the saved fence stays, and the entry with it");
    assert_eq!(state.ledger().unwrap().root_capabilities(token.id), ["kubectl_get"]);
    assert_eq!(state.ledger().unwrap().look_up(child.id).unwrap().chain, ["coordinator", "deployer", "validator"]);
    assert_eq!(state.ledger().unwrap().size().0, 3);
    // A crash: the ledger was used up.
    drop(state);
    let state = world.start().unwrap();
    assert_eq!((spend(&state, &token), spend(&state, &foreign)), (Err(Refused::Fenced), Err(Refused::Fenced)));
}

#[test]
fn after_a_crash_foreign_tokens_are_fenced_up_to_the_mark() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    assert_eq!(state.ledger().unwrap().fence(), world.now());
    assert!(state.accepts_foreign(Timestamp::from_seconds(START + 2)).is_ok());
    assert!(state.accepts_foreign(Timestamp::from_seconds(START + 3)).is_err(), "beyond the durable mark");
    drop(state);
    // The wall clock stands still, or goes back.
    let state = world.start().unwrap();
    assert_eq!(state.ledger().unwrap().fence(), Timestamp::from_seconds(START + 2));
    assert_eq!(world.now(), Timestamp::from_seconds(START), "many restarts don't take time with them");
    drop(state);
    world.now.store(START - 100, Ordering::SeqCst);
    let _state = world.start().unwrap();
    assert_eq!(world.now(), Timestamp::from_seconds(START), "time never goes back");
}

#[test]
fn revocations_and_quarantines_outlive_a_crash() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    let ledger = state.ledger().unwrap();
    ledger.revoke_agent("deployer", world.now()).unwrap();
    ledger.revoke_all(world.now());
    ledger.revoke_agent("analyst", world.now()).unwrap();
    ledger.quarantine("writer", world.now()).unwrap();
    ledger.quarantine("validator", world.now()).unwrap();
    ledger.reinstate("validator");
    ledger.revoke_unknown(id(9), START + 100).unwrap();
    ledger.revoke_unknown(id(8), START + 1).unwrap();
    settle(&state);
    drop(state);
    world.now.store(START + 1, Ordering::SeqCst);
    for _ in 0..3 {
        let state = world.start().unwrap();
        state.standing(|standing| {
            assert_eq!((standing.number(), standing.all().unwrap().number), (5, 2));
            assert_eq!(standing.agent("deployer"), None, "everything was revoked after it");
            assert_eq!(standing.agent("analyst").unwrap().number, 3);
            assert!(standing.is_quarantined("writer") && !standing.is_quarantined("validator"));
        });
        assert_eq!(state.ledger().unwrap().unknown_revocations(), [(id(9), START + 100)]);
        assert_eq!(state.ledger().unwrap().unknown_revocation_count(), 1);
    }
}

#[test]
fn a_number_that_was_never_durable_is_not_given_twice() {
    let world = World::new(Backend::Journal);
    let state = world.start().unwrap();
    state.ledger().unwrap().revoke_agent("other", world.now()).unwrap();
    mint(&state, &Token::root(1, 1));
    settle(&state);
    drop(state);
    // The revocation is lost, and the token that was minted after it is not.
    std::fs::write(world.file("revocations"), fresh_register(0)).unwrap();
    let state = world.start().unwrap();
    assert_eq!(state.ledger().unwrap().revoke_agent("deployer", world.now()), Ok(2));
    assert!(matches!(spend(&state, &Token::root(1, 1)), Err(Refused::Revoked { .. })));
}

/// A register with nothing in it but the name of the first start's ledger.
fn fresh_register(sequence: u64) -> Vec<u8> {
    let mut framing = frame::Framing::new(1);
    let mut bytes = framing.header(Kind::Register);
    let at = Timestamp::from_seconds(START);
    let mut payload = Vec::new();
    log::encode(
        &[
            Change::Snapshot(Snapshot { sequence, register: 0, time: at, fence: at }),
            Change::Paired(crate::state::change::Paired { generation: 7, sequence: 0 }),
            Change::Whole,
        ],
        &mut payload,
    );
    framing.frame(&payload, &mut bytes);
    bytes
}

#[test]
fn a_directory_has_one_process() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    let refusal = message(&world);
    assert!(refusal.contains("one process a state directory"), "{refusal}");
    assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
    std::fs::remove_file(world.file("lock")).unwrap();
    assert!(message(&world).contains("one process a state directory"), "whatever is removed");
    drop(state);
    world.start().unwrap();
}

#[test]
fn the_register_cut_at_any_byte_is_what_it_was_then() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    settle(&state);
    let mut lengths = Vec::new();
    for name in ["one", "two", "three", "four"] {
        lengths.push(usize::try_from(world.file("revocations").metadata().unwrap().len()).unwrap());
        state.ledger().unwrap().quarantine(name, world.now()).unwrap();
        settle(&state);
    }
    let bytes = std::fs::read(world.file("revocations")).unwrap();
    drop(state);
    let quarantined = |bytes: &[u8]| {
        std::fs::write(world.file("revocations"), bytes).unwrap();
        let register = open::register(&world.file("revocations"))?;
        Ok::<_, StateError>(register.unwrap().standing.quarantined().count())
    };
    for cut in lengths[1]..bytes.len() {
        let whole = lengths.iter().rposition(|length| *length <= cut).unwrap();
        assert_eq!(quarantined(&bytes[..cut]).unwrap(), whole, "{cut}");
    }
    for bit in lengths[3] * 8..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(quarantined(&flipped), Err(StateError::Damaged(..))), "{bit}");
    }
    let mut hole = bytes.clone();
    hole.drain(lengths[1]..lengths[2]);
    assert!(matches!(quarantined(&hole), Err(StateError::Damaged(..))));
    let refusal = message(&world);
    assert!(refusal.contains("damaged") && refusal.contains("remove it and the ledger"), "{refusal}");
}

#[test]
fn a_flipped_bit_in_the_saved_ledger_refuses_and_says_how_to_go_on() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    mint(&state, &Token::root(1, 3));
    state.save().unwrap();
    drop(state);
    let bytes = std::fs::read(world.file("ledger")).unwrap();
    let register = open::register(&world.file("revocations")).unwrap();
    let tokens = |bytes: &[u8]| {
        std::fs::write(world.file("ledger"), bytes).unwrap();
        open::tokens(&world.file("ledger"), register.as_ref())
    };
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(tokens(&flipped).is_err(), "{bit}");
    }
    for cut in 0..bytes.len() {
        assert!(tokens(&bytes[..cut]).is_err(), "{cut}: a snapshot is whole or damaged");
    }
    let refusal = message(&world);
    assert!(refusal.contains("damaged") && refusal.contains("remove it: every live token ends"), "{refusal}");
    std::fs::remove_file(world.file("ledger")).unwrap();
    assert_eq!(spend(&world.start().unwrap(), &Token::root(1, 3)), Err(Refused::Fenced));
}

#[test]
fn a_ledger_without_its_revocations_is_refused() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    let before = std::fs::read(world.file("revocations")).unwrap();
    state.ledger().unwrap().quarantine("deployer", world.now()).unwrap();
    state.save().unwrap();
    drop(state);
    std::fs::write(world.file("revocations"), before).unwrap();
    assert!(message(&world).contains("missing or older than the ledger"), "{}", message(&world));
    std::fs::remove_file(world.file("revocations")).unwrap();
    assert!(message(&world).contains("missing or older than the ledger"));
    std::fs::write(world.file("revocations"), "root:x:0:0:root:/root:/bin/bash").unwrap();
    assert!(message(&world).contains("not a file of Remit's"));
}

#[test]
fn a_journal_brings_back_every_use_after_a_crash_and_begins_a_fresh_file() {
    let world = World::new(Backend::Journal);
    let (token, foreign, ended) = (Token::root(1, 3), Token::foreign(2, START + 1), Token::root(4, 1));
    let child = token.child(3, 1);
    let state = world.start().unwrap();
    let fence = state.ledger().unwrap().fence();
    mint(&state, &token);
    mint(&state, &ended);
    assert_eq!(spend(&state, &token), Ok(2));
    assert_eq!(state.ledger().unwrap().mint_child(&token.record(), &child.record(), &[], 0), Ok(1));
    assert_eq!(spend(&state, &foreign), Ok(0));
    assert!(state.ledger().unwrap().revoke_held(&ended.record()));
    settle(&state);
    drop(state);
    // Its end may be in the kernel's memory alone, marked as written by a sync that failed.
    let kept_aside = world.file("kept-aside");
    std::fs::hard_link(world.file("ledger"), &kept_aside).unwrap();
    let recovered = std::fs::read(&kept_aside).unwrap();

    for _ in 0..2 {
        let state = world.start().unwrap();
        assert_eq!(state.ledger().unwrap().fence(), fence);
        let left = |token: &Token| state.ledger().unwrap().check(&token.record());
        assert_eq!((left(&token), left(&child), left(&foreign)), (Ok(1), Ok(1), Ok(0)));
        assert!(matches!(left(&ended), Err(Refused::Revoked { .. })));
    }
    let state = world.start().unwrap();
    assert_eq!((spend(&state, &token), spend(&state, &child)), (Ok(0), Ok(0)));
    settle(&state);
    drop(state);
    assert_eq!(std::fs::read(&kept_aside).unwrap(), recovered, "nothing is added to a file that was found");
    let state = world.start().unwrap();
    for token in [&token, &child, &foreign] {
        assert_eq!(spend(&state, token), Err(Refused::Exhausted));
    }
}

#[test]
fn a_journal_cut_at_any_byte_has_every_use_before_the_cut() {
    let world = World::new(Backend::Journal);
    let state = world.start().unwrap();
    let token = Token::root(1, 9);
    mint(&state, &token);
    settle(&state);
    let length = || usize::try_from(world.file("ledger").metadata().unwrap().len()).unwrap();
    let mut lengths = vec![length()];
    let child = token.child(2, 3);
    state.ledger().unwrap().mint_child(&token.record(), &child.record(), &[], 0).unwrap();
    settle(&state);
    lengths.push(length());
    for _ in 0..2 {
        spend(&state, &token).unwrap();
        settle(&state);
        lengths.push(length());
    }
    drop(state);
    let bytes = std::fs::read(world.file("ledger")).unwrap();
    let register = open::register(&world.file("revocations")).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(world.file("ledger"), bytes).unwrap();
        open::tokens(&world.file("ledger"), register.as_ref())
    };
    for cut in lengths[0]..=bytes.len() {
        let whole = lengths.iter().rposition(|length| *length <= cut).unwrap();
        let tokens = read(&bytes[..cut]).unwrap().unwrap();
        assert_eq!(tokens.entries[&token.id].left, [9, 6, 5, 4][whole], "{cut}");
        assert_eq!(tokens.entries.contains_key(&child.id), whole > 0, "uses and child move together: {cut}");
    }
    for bit in lengths[2] * 8..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(read(&flipped), Err(StateError::Damaged(..))), "{bit}");
    }
    let mut hole = bytes.clone();
    hole[lengths[1]..lengths[2]].fill(0);
    assert!(matches!(read(&hole), Err(StateError::Damaged(..))), "a hole before valid records");
}

#[test]
fn either_backend_takes_over_what_the_other_left() {
    let mut world = World::new(Backend::Journal);
    let token = Token::root(1, 3);
    let state = world.start().unwrap();
    mint(&state, &token);
    assert_eq!(spend(&state, &token), Ok(2));
    settle(&state);
    drop(state);
    world.backend = Backend::Memory;
    let state = world.start().unwrap();
    assert!(!world.file("ledger").exists(), "a journal that goes stale would bring uses back");
    assert_eq!(spend(&state, &token), Ok(1));
    state.save().unwrap();
    drop(state);
    world.backend = Backend::Journal;
    let state = world.start().unwrap();
    assert_eq!(spend(&state, &token), Ok(0));
}

#[test]
fn live_tokens_come_back_whatever_the_bounds_are_now() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    let tokens = [1, 2, 3].map(|number| Token::root(number, 1));
    for token in &tokens {
        mint(&state, token);
    }
    state.save().unwrap();
    drop(state);
    let directory = Directory::open(&world.folder.path().join("state")).unwrap();
    let (now, small) = (world.now(), Capacity { entries: 2, per_agent: 2 });
    let state = State::in_directory(directory, Backend::Memory, small, move || now, 7).unwrap();
    assert_eq!(state.ledger().unwrap().size(), (3, small));
    let another = state.ledger().unwrap().mint(&Token::root(4, 1).record(), &[], 0);
    assert_eq!(another, Err(Refused::Full { capacity: 2 }));
    assert!(tokens.iter().all(|token| spend(&state, token) == Ok(0)));
}

/// Everything that a ledger holds, in one order.
fn everything(state: &State) -> Vec<String> {
    let at = Timestamp::default();
    let (mut all, snapshot) = (Vec::new(), Snapshot { sequence: 0, register: 0, time: at, fence: at });
    state.ledger().unwrap().tell_tokens(snapshot, Change::Whole, false, &mut |changes| {
        all.extend(changes.iter().map(|one| format!("{one:?}")));
    });
    state.ledger().unwrap().tell_register(snapshot, Change::Whole, at, &mut |changes| {
        all.extend(changes.iter().map(|one| format!("{one:?}")));
    });
    all.sort();
    all
}

#[test]
fn what_racing_threads_left_is_what_comes_back() {
    let world = World::new(Backend::Journal);
    for round in 0..4 {
        let state = world.start().unwrap();
        // Each number stands for one token a round; the files are written anew several times meanwhile.
        let race = |thread: u8| {
            for number in 0..60 {
                let mut token = Token::root(number, 5);
                token.id = TokenId::from_bytes([round, thread % 2, number, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, number]);
                let mut child = token.child(number, 1);
                child.id = TokenId::from_bytes([round, thread, number, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, number]);
                let born = state.standing(crate::state::standing::Standing::number);
                let _ = state.ledger().unwrap().mint(&token.record(), &["kubectl_get".into()], born);
                let _ = spend(&state, &token);
                let _ = state.ledger().unwrap().mint_child(&token.record(), &child.record(), &[], born);
                let _ = spend(&state, &child);
                if number % 7 == 0 {
                    state.ledger().unwrap().revoke_held(&token.record());
                    state.ledger().unwrap().quarantine(&format!("agent-{thread}-{number}"), world.now()).unwrap();
                    state.ledger().unwrap().reinstate(&format!("agent-{thread}-{}", number.saturating_sub(7)));
                    state.ledger().unwrap().revoke_unknown(child.id, START + 100).unwrap();
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || race(thread)))));
        settle(&state);
        let before = everything(&state);
        drop(state);
        let state = world.start().unwrap();
        assert_eq!(everything(&state), before);
    }
}

#[test]
fn nothing_is_forgotten_before_the_next_process_knows_that_it_is_over() {
    let world = World::new(Backend::Journal);
    let state = world.start().unwrap();
    let ahead = Timestamp::from_seconds(START + 1000);
    assert_eq!(state.forgettable(ahead), Timestamp::from_seconds(START), "the mark was written then");
    assert_eq!(state.forgettable(Timestamp::from_seconds(5)), Timestamp::from_seconds(5));
    assert_eq!(World::new(Backend::Memory).start().unwrap().forgettable(ahead), ahead, "the fence is enough");
}

#[test]
fn what_has_expired_does_not_come_back() {
    let world = World::new(Backend::Journal);
    let state = world.start().unwrap();
    mint(&state, &Token::root(1, 1));
    settle(&state);
    drop(state);
    world.now.store(START + 300, Ordering::SeqCst);
    assert_eq!(world.start().unwrap().ledger().unwrap().size().0, 0);
}

#[test]
fn what_an_earlier_process_had_on_its_way_is_removed_before_anything_is_written() {
    for backend in [Backend::Memory, Backend::Journal] {
        let world = World::new(backend);
        drop(world.start().unwrap());
        let directory = Directory::open(&world.folder.path().join("state")).unwrap();
        std::fs::write(world.file("ledger.new"), "takes room").unwrap();
        // So that the first file that is written fails.
        std::fs::remove_file(world.file("revocations")).unwrap();
        std::fs::create_dir_all(world.file("revocations").join("inside")).unwrap();
        let now = world.now();
        assert!(State::in_directory(directory, backend, ROOM, move || now, 7).is_err());
        assert!(!world.file("ledger.new").exists());
        assert!(!world.file("revocations.new").exists(), "nor does this start leave one");
    }
}

#[test]
fn a_directory_or_file_that_anybody_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new(Backend::Journal);
    drop(world.start().unwrap());
    let set = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let folder = world.folder.path().join("state");
    for (path, closed) in [
        (folder, 0o770),
        (world.file("revocations"), 0o660),
        (world.file("ledger"), 0o660),
        (world.file("lock"), 0o660),
    ] {
        set(path.clone(), closed | 0o002);
        assert!(message(&world).contains("others than this user"), "{}", path.display());
        set(path, closed);
        assert!(Directory::open(&world.folder.path().join("state")).is_ok(), "the process's own group may");
    }
}

#[test]
fn what_a_stop_could_not_write_is_told_by_what_is_lost() {
    let path = PathBuf::from("ledger");
    assert!(StateError::NotSaved(path.clone(), None).to_string().contains("the next start ends every live token"));
    let journal = StateError::NotWritten(path, Some("no answer".to_owned())).to_string();
    assert!(journal.contains("(no answer): live tokens stay, and revocations") && !journal.contains("ends"));
}

#[path = "put_back_tests.rs"]
mod put_back;

#[path = "tears_tests.rs"]
mod tears;
