//! The committer on a disk that fails.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::domain::token::TokenId;
use crate::state::disk::frame;
use crate::state::recovered::Register;

/// A file in memory: what was written, and how much of it is on the disk.
#[derive(Default)]
struct Contents {
    written: Vec<u8>,
    synced: usize,
    syncs_after_failure: usize,
    has_failed: bool,
}

type Shared = Arc<Mutex<Contents>>;

#[derive(Default)]
struct Faults {
    /// Bytes that fit; none: any number.
    room: Option<usize>,
    sync_fails: bool,
    /// Only of the file that is not in its place yet.
    begun_sync_fails: bool,
    rename_fails: bool,
    /// A sync of which file doesn't return.
    stuck: Stuck,
    /// Bytes that fit in both files together; none: any number.
    disk: Option<usize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stuck {
    #[default]
    None,
    Begun,
    Both,
}

/// A folder with one file.
#[derive(Clone, Default)]
struct Faulty {
    in_place: Arc<Mutex<Option<Shared>>>,
    begun: Arc<Mutex<Option<Shared>>>,
    faults: Arc<Mutex<Faults>>,
    files: Arc<AtomicU64>,
}

impl Medium for Faulty {
    type File = Shared;

    fn begin(&self) -> io::Result<Shared> {
        let file = Shared::default();
        *self.begun.lock() = Some(Arc::clone(&file));
        self.files.fetch_add(1, Ordering::SeqCst);
        Ok(file)
    }

    fn write(&self, file: &mut Shared, bytes: &[u8]) -> io::Result<()> {
        let room_of_disk = self.faults.lock().disk.map_or(usize::MAX, |disk| disk.saturating_sub(self.taken()));
        let mut file = file.lock();
        let room = self.faults.lock().room.unwrap_or(usize::MAX).saturating_sub(file.written.len());
        let room = room.min(room_of_disk);
        // A full disk takes what fits.
        file.written.extend(bytes.iter().take(room));
        if bytes.len() > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&self, file: &mut Shared, length: u64) -> io::Result<()> {
        file.lock().written.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&self, file: &mut Shared) -> io::Result<()> {
        let is_begun = self.begun.lock().as_ref().is_some_and(|begun| Arc::ptr_eq(begun, file));
        let is_stuck = || match self.faults.lock().stuck {
            Stuck::None => false,
            Stuck::Begun => is_begun,
            Stuck::Both => true,
        };
        while is_stuck() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut file = file.lock();
        file.syncs_after_failure = file.syncs_after_failure.saturating_add(usize::from(file.has_failed));
        let fails = {
            let faults = self.faults.lock();
            faults.sync_fails || is_begun && faults.begun_sync_fails
        };
        if fails {
            // What Linux does: the pages are clean now, and lost.
            file.has_failed = true;
            return Err(io::Error::from_raw_os_error(5));
        }
        file.synced = file.written.len();
        Ok(())
    }

    fn discard(&self) {
        *self.begun.lock() = None;
    }

    fn put_in_place(&self) -> io::Result<()> {
        if self.faults.lock().rename_fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        *self.in_place.lock() = self.begun.lock().take();
        Ok(())
    }
}

impl Faulty {
    /// How much of the disk is taken.
    fn taken(&self) -> usize {
        let length = |file: &Mutex<Option<Shared>>| file.lock().as_ref().map_or(0, |file| file.lock().written.len());
        length(&self.in_place).saturating_add(length(&self.begun))
    }

    /// What a crash at this moment leaves.
    fn after_crash(&self) -> Register {
        let in_place = self.in_place.lock().clone().unwrap();
        let file = in_place.lock();
        assert_eq!(file.syncs_after_failure, 0, "a failed sync is never tried again");
        let mut register = Register::default();
        frame::read(&file.written[..file.synced], Kind::Register, |frame| register.apply(frame)).unwrap();
        assert!(register.is_whole);
        register
    }
}

/// A register of unknown ids, and its committer.
struct World {
    medium: Faulty,
    waiting: Arc<Waiting>,
    known: Arc<Mutex<Vec<TokenId>>>,
    committer: Committer<Faulty>,
    now: Arc<AtomicU64>,
}

impl World {
    fn new(on_failure: OnFailure) -> Self {
        let (medium, known) = (Faulty::default(), Arc::default());
        let now = Arc::new(AtomicU64::new(1000));
        let time = Arc::clone(&now);
        let clock: Clock = Arc::new(move || Timestamp::from_seconds(time.load(Ordering::SeqCst)));
        let waiting = Arc::new(Waiting::new(0, Arc::clone(&clock)));
        let all: Arc<Mutex<Vec<TokenId>>> = Arc::clone(&known);
        let source: Source = Arc::new(move |sequence, mark, tell| {
            let snapshot = crate::state::change::Snapshot {
                sequence,
                register: sequence,
                time: Timestamp::default(),
                fence: Timestamp::default(),
            };
            tell(&[Change::Snapshot(snapshot)]);
            all.lock().iter().for_each(|id| tell(&[Change::Unknown { id: *id, until: 9 }]));
            tell(&[Change::Mark { until: mark }, Change::Whole]);
        });
        let plan = Plan { name: "test", kind: Kind::Register, on_failure, marks: true, long: u64::MAX, salt: 1 };
        let committer =
            Committer::begin(medium.clone(), plan, clock, source, Arc::new(|| None), Arc::clone(&waiting)).unwrap();
        Self { medium, waiting, known, committer, now }
    }

    /// In force first, then noted.
    fn revoke(&self, number: u8) {
        let id = TokenId::from_bytes([number; 16]);
        self.known.lock().push(id);
        self.waiting.note(&[Change::Unknown { id, until: 9 }]);
    }

    /// Whether what was noted is durable, or was given up on.
    fn settled(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.waiting.settled(Duration::from_millis(1))).is_ok()
    }

    /// Goes on until nothing is written anew.
    fn turn_until_rewritten(&mut self) {
        while self.committer.rewriting.is_some() {
            std::thread::yield_now();
            self.committer.turn();
        }
    }

    fn survivors(&self) -> usize {
        self.medium.after_crash().unknown.len()
    }
}

#[test]
fn what_is_settled_survives_and_the_mark_is_renewed() {
    let mut world = World::new(OnFailure::BeginAnew);
    world.revoke(1);
    assert!(!world.settled());
    world.committer.turn();
    assert!(world.settled());
    let register = world.medium.after_crash();
    assert_eq!((register.unknown.len(), register.sequence, register.mark), (1, 1, Timestamp::from_seconds(1002)));
    assert_eq!(world.waiting.marked_until(), Timestamp::from_seconds(1002));
    world.now.store(1001, Ordering::SeqCst);
    world.committer.turn();
    assert_eq!(world.waiting.marked_until(), Timestamp::from_seconds(1003));
    assert_eq!(world.medium.after_crash().mark, Timestamp::from_seconds(1003));
}

#[test]
fn after_a_failed_sync_all_is_written_to_a_fresh_file() {
    let mut world = World::new(OnFailure::BeginAnew);
    world.revoke(1);
    world.committer.turn();
    world.medium.faults.lock().sync_fails = true;
    world.revoke(2);
    world.committer.turn();
    assert!(!world.settled() && !world.waiting.accepts() && world.waiting.trouble().is_some());
    assert_eq!(world.survivors(), 1);
    world.now.store(1005, Ordering::SeqCst);
    world.committer.turn();
    assert_eq!(world.waiting.marked_until(), Timestamp::from_seconds(1002), "the mark stands still");
    world.medium.faults.lock().sync_fails = false;
    world.revoke(3);
    world.committer.turn();
    assert!(world.settled() && world.waiting.accepts() && world.waiting.trouble().is_none());
    assert_eq!(world.survivors(), 3);
    assert_eq!(world.waiting.marked_until(), Timestamp::from_seconds(1007));
    world.revoke(4);
    world.committer.turn();
    assert_eq!((world.survivors(), world.medium.after_crash().sequence), (4, world.waiting.durable()));
}

#[test]
fn a_journal_stops_for_good_after_a_failed_sync() {
    let mut world = World::new(OnFailure::Stop);
    world.medium.faults.lock().sync_fails = true;
    world.revoke(1);
    world.committer.turn();
    world.medium.faults.lock().sync_fails = false;
    for second in 1001..1010 {
        world.now.store(second, Ordering::SeqCst);
        world.revoke(2);
        world.committer.turn();
        assert!(!world.settled() && !world.waiting.accepts());
    }
    assert_eq!((world.survivors(), world.medium.files.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn a_journal_waits_for_room_and_loses_no_order() {
    let mut world = World::new(OnFailure::Stop);
    let full = world.medium.in_place.lock().as_ref().unwrap().lock().written.len();
    for room in full..full + 76 {
        world.medium.faults.lock().room = Some(room);
        world.revoke(1);
        world.revoke(2);
        world.committer.turn();
        assert!(!world.settled() && !world.waiting.accepts(), "{room}");
        world.revoke(3);
        world.medium.faults.lock().room = None;
        world.committer.turn();
        assert!(world.settled() && world.waiting.accepts(), "{room}");
        assert_eq!((world.survivors(), world.waiting.backlog()), (3, 0), "{room}");
        assert_eq!(world.medium.after_crash().sequence, world.waiting.durable(), "no gap");
        world = World::new(OnFailure::Stop);
    }
}

#[test]
fn a_long_log_is_written_anew_while_commits_go_on() {
    let mut world = World::new(OnFailure::Stop);
    world.committer.long = 1000;
    for number in 0..=255 {
        world.revoke(number);
        world.committer.turn();
        assert!(world.settled());
        assert_eq!(world.survivors(), usize::from(number) + 1);
    }
    assert_eq!(world.medium.after_crash().sequence, world.waiting.durable());
    while world.committer.rewriting.is_some() {
        std::thread::yield_now();
        world.committer.turn();
    }
    assert!(world.medium.files.load(Ordering::SeqCst) > 1);
    assert_eq!(world.survivors(), 256);
}

#[test]
fn a_file_that_cannot_be_put_in_place_is_a_failure() {
    let mut world = World::new(OnFailure::Stop);
    world.committer.long = 10;
    world.medium.faults.lock().rename_fails = true;
    (1..=5).for_each(|number| world.revoke(number));
    world.committer.turn();
    assert!(world.committer.rewriting.is_some());
    while world.committer.rewriting.is_some() {
        std::thread::yield_now();
        world.committer.turn();
    }
    world.revoke(6);
    world.committer.turn();
    assert!(!world.settled() && !world.waiting.accepts());
    assert_eq!(world.survivors(), 5);
}

#[test]
fn what_was_noted_before_the_end_is_written() {
    let world = World::new(OnFailure::BeginAnew);
    for number in 0..100 {
        world.revoke(number);
    }
    let (medium, waiting) = (world.medium.clone(), Arc::clone(&world.waiting));
    let thread = world.committer.start().unwrap();
    assert!(thread.finish(STOP_WAIT));
    assert_eq!(medium.after_crash().unknown.len(), 100);
    waiting.note(&[Change::Whole]);
    assert!(!waiting.accepts() && !thread.finish(STOP_WAIT), "nothing is durable after the end");
}

#[test]
fn a_rewrite_that_finds_no_room_leaves_the_room_to_the_log_in_use() {
    // First nothing fits beside the log, then only the snapshot does and what came since does not.
    for spare in [10, 280] {
        let mut world = World::new(OnFailure::Stop);
        (1..=5).for_each(|number| world.revoke(number));
        world.committer.turn();
        world.committer.long = 10;
        let taken = world.medium.taken();
        let mut faults = world.medium.faults.lock();
        (faults.disk, faults.stuck) = (Some(taken + 200 + spare), Stuck::Begun);
        drop(faults);
        world.revoke(6);
        world.revoke(7);
        world.committer.turn();
        assert!(world.committer.rewriting.is_some() && world.settled());
        world.medium.faults.lock().stuck = Stuck::None;
        world.turn_until_rewritten();
        assert!(world.medium.begun.lock().is_none(), "{spare}: nothing is left behind");
        world.revoke(8);
        world.committer.turn();
        assert!(world.settled() && world.waiting.accepts(), "{spare}: {:?}", world.waiting.trouble());
        assert_eq!(world.survivors(), 8);
    }
}

#[test]
fn a_failed_sync_of_a_fresh_file_stops_a_journal_and_is_put_off_otherwise() {
    for on_failure in [OnFailure::Stop, OnFailure::BeginAnew] {
        let mut world = World::new(on_failure);
        world.committer.long = 10;
        world.medium.faults.lock().begun_sync_fails = true;
        (1..=5).for_each(|number| world.revoke(number));
        world.committer.turn();
        assert!(world.committer.rewriting.is_some());
        world.turn_until_rewritten();
        world.medium.faults.lock().begun_sync_fails = false;
        world.revoke(6);
        world.committer.turn();
        let goes_on = on_failure == OnFailure::BeginAnew;
        assert_eq!((world.settled(), world.waiting.accepts()), (goes_on, goes_on));
        assert_eq!(world.survivors(), if goes_on { 6 } else { 5 });
        assert!(world.medium.begun.lock().is_none());
    }
}

#[test]
fn a_disk_that_does_not_answer_is_noticed_and_forgotten() {
    let mut world = World::new(OnFailure::Stop);
    world.now.store(2000, Ordering::SeqCst);
    assert!(world.waiting.accepts(), "nothing waits");
    world.revoke(1);
    assert!(world.waiting.accepts() && world.waiting.trouble().is_none());
    world.now.store(2001, Ordering::SeqCst);
    world.revoke(2);
    assert!(!world.waiting.accepts() && world.waiting.trouble().unwrap().contains("not answered for 1000 ms"));
    world.committer.turn();
    assert!(world.settled() && world.waiting.accepts() && world.waiting.trouble().is_none());
    // What came while a batch was written is as old as it is.
    world.revoke(3);
    let last = world.waiting.take(&mut Records::default());
    world.now.store(2002, Ordering::SeqCst);
    world.revoke(4);
    assert!(!world.waiting.accepts());
    world.waiting.is_durable(last);
    assert!(world.waiting.accepts());
    world.now.store(2003, Ordering::SeqCst);
    assert!(!world.waiting.accepts());
}

#[test]
fn what_waits_has_a_bound_in_bytes() {
    let mut world = World::new(OnFailure::Stop);
    let id = TokenId::from_bytes([1; 16]);
    let large: Vec<_> = (0..1000).map(|until| Change::Unknown { id, until }).collect();
    for _ in 0..10 {
        world.waiting.note(&large);
    }
    assert!(world.waiting.accepts());
    for _ in 0..40 {
        world.waiting.note(&large);
    }
    assert!(!world.waiting.accepts());
    world.committer.turn();
    assert!(world.waiting.accepts());
}

#[test]
fn a_stop_does_not_wait_for_a_disk_that_does_not_answer() {
    let world = World::new(OnFailure::Stop);
    world.medium.faults.lock().stuck = Stuck::Both;
    world.revoke(1);
    let (medium, waiting) = (world.medium.clone(), Arc::clone(&world.waiting));
    let thread = world.committer.start().unwrap();
    assert!(!thread.finish(Duration::from_millis(20)) && thread.is_stuck());
    drop(thread);
    assert_eq!(waiting.backlog(), 1, "it is still stuck");
    medium.faults.lock().stuck = Stuck::None;
    assert!(waiting.wait_for_end(Duration::from_secs(20)));
}

#[test]
fn those_who_wait_are_told_before_a_rewriting_is_waited_for() {
    let mut world = World::new(OnFailure::Stop);
    world.committer.long = 10;
    world.medium.faults.lock().stuck = Stuck::Begun;
    (1..=5).for_each(|number| world.revoke(number));
    world.committer.turn();
    assert!(world.committer.rewriting.is_some());
    world.medium.faults.lock().sync_fails = true;
    world.revoke(6);
    let (medium, waiting) = (world.medium.clone(), Arc::clone(&world.waiting));
    let thread = world.committer.start().unwrap();
    assert!(waiting.wait_for_end(Duration::from_secs(20)), "that nothing is written any more");
    assert!(waiting.trouble().is_some());
    medium.faults.lock().stuck = Stuck::None;
    drop(thread);
    assert!(medium.begun.lock().is_none());
}
