//! What was decided: numbered, bounded, gaps counted.
//!
//! A decision takes a [`Place`] before it is made and commits its [`Event`] to it afterwards. That costs one
//! atomic step and one short lock; a thread of its own gives the events to the audit file and only then to
//! those who watch. What can't be recorded gets no place, and what has no place is not allowed.

mod archive;
pub mod chain;
mod checkpoint;
mod config;
mod denials;
mod error;
mod event;
mod files;
mod line;
mod log;
mod mask;
mod queue;
mod recorded;
mod recorder;
mod rotation;
mod stream;
mod subscription;
mod synced;
mod text;
#[cfg(test)]
mod trial;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

pub use checkpoint::{Checkpoint, Sign};
pub use config::{AuditConfig, Durability, EventsConfig, InvalidConfig, OnFailure};
pub use error::{StartError, Unrecorded};
pub use event::{DecisionId, Event, MessageType, Outcome};
pub use line::Place as LinePlace;
pub use log::LogError;
pub use queue::{AuditUnavailable, Place, Share};
pub use recorded::Recorded;
pub use stream::{Filter, Item, Since, TooManySubscribers};
pub use subscription::Subscription;
pub use synced::NotInTime;
pub use text::{Brief, Long, Text};

use crate::domain::limits;
use crate::domain::time::Timestamp;
use archive::Archive;
use checkpoint::Notary;
use denials::Denials;
use event::DecisionIds;
use log::Log;
use mask::Mask;
use queue::Queue;
use recorder::Recorder;
use stream::Stream;

/// How often one that waits for a place looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The events of this process. Cloning shares them; when the last clone is dropped, the recorder writes what
/// is left and ends.
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

struct Shared {
    queue: Queue,
    denials: Denials,
    stream: Arc<Stream>,
    stream_id: Arc<str>,
    decision_ids: DecisionIds,
    finished: watch::Sender<bool>,
    /// The number of the last event that is synced; none where answers don't wait for it.
    synced: Option<watch::Sender<u64>>,
    is_abandoned: AtomicBool,
}

impl Shared {
    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

/// Ends the recorder when nobody can give it events any more.
struct Running {
    shared: Arc<Shared>,
    thread: Option<std::thread::Thread>,
}

impl Running {
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    fn close(&self) {
        self.shared.denials.flush_all(&self.shared.queue);
        self.shared.queue.close();
        self.shared.denials.give_up();
        self.wake();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.is_abandoned.store(true, Ordering::Relaxed);
        self.close();
    }
}

/// What the events say about themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The last number given to an event.
    pub sequence: u64,
    /// Events and places that wait to be written.
    pub waiting: usize,
    /// Those who watch.
    pub subscribers: usize,
    /// Gaps reported to subscribers.
    pub gaps: u64,
    /// Events in those gaps.
    pub missed: u64,
    /// Failed writes, answers that waited for a place in vain, and, where failures are only counted, answers
    /// given while the log was not well.
    pub audit_failures: u64,
    /// Denials beyond their share, of which no event tells.
    pub denials_unrecorded: u64,
    /// Whether what is decided now can be recorded.
    pub is_well: bool,
}

impl Events {
    /// Opens the audit file and starts the recorder's thread. `process` is random and new for each process:
    /// its 16 hex digits are the `stream_id` and begin each decision's id. `now` is read by the recorder and,
    /// while events wait to be written, by decisions.
    ///
    /// # Errors
    /// A setting is out of its range, or the audit file can't be opened.
    pub fn start(
        audit: &AuditConfig,
        events: &EventsConfig,
        process: u64,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        Self::start_signing(audit, events, process, now, None, None)
    }

    /// The same, and where `sign` is given and the log is a file, it gets signed checkpoints. What `[audit] mask` names
    /// is masked under `mask_key`, which is random.
    ///
    /// # Errors
    /// As [`Events::start`]; or something is to be masked, and there is no key.
    pub fn start_signing(
        audit: &AuditConfig,
        events: &EventsConfig,
        process: u64,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        sign: Option<Sign>,
        mask_key: Option<[u8; 32]>,
    ) -> Result<Self, StartError> {
        let (shared, recorder) = Self::parts(audit, events, process, now, sign, mask_key)?;
        let thread = std::thread::Builder::new()
            .name("remit-recorder".to_owned())
            .spawn(move || recorder.run())
            .map_err(StartError::Thread)?;
        Ok(Self::joined(shared, Some(thread.thread().clone())))
    }

    /// The same without the thread.
    fn parts(
        audit: &AuditConfig,
        events: &EventsConfig,
        process: u64,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        sign: Option<Sign>,
        mask_key: Option<[u8; 32]>,
    ) -> Result<(Arc<Shared>, Recorder), StartError> {
        events.check().and_then(|()| audit.check()).map_err(StartError::Config)?;
        let mask = Mask::new(&audit.mask, mask_key).map_err(StartError::Config)?;
        let log = Log::open(audit).map_err(StartError::Log)?;
        let stream_id: Arc<str> = format!("{process:016x}").into();
        let path = log.as_ref().and_then(Log::path);
        let archive = path.map(|path| Archive::new(path.to_owned(), Arc::clone(&stream_id)));
        let shared = Arc::new(Shared {
            queue: Queue::new(events.ring, audit.on_failure, Arc::new(now)),
            denials: Denials::default(),
            stream: Arc::new(Stream::new(Arc::clone(&stream_id), events, archive)),
            stream_id,
            decision_ids: DecisionIds::new(process),
            finished: watch::Sender::new(false),
            synced: (audit.sync == Durability::Each).then(|| watch::Sender::new(0)),
            is_abandoned: AtomicBool::new(false),
        });
        let notary = sign.filter(|_| log.is_some()).and_then(|sign| Notary::new(audit, sign));
        let recorder = Recorder::new(Arc::clone(&shared), log, notary, mask);
        Ok((shared, recorder))
    }

    fn joined(shared: Arc<Shared>, thread: Option<std::thread::Thread>) -> Self {
        let running = Arc::new(Running { shared: Arc::clone(&shared), thread });
        Self { shared, running }
    }

    /// The name of this process's stream.
    #[must_use]
    pub fn stream_id(&self) -> &Arc<str> {
        &self.shared.stream_id
    }

    /// A new decision's id.
    #[must_use]
    pub fn decision_id(&self) -> DecisionId {
        self.shared.decision_ids.next()
    }

    /// A place for an event, if there is one at once.
    #[must_use]
    pub fn try_reserve(&self, share: Share) -> Option<Place<'_>> {
        self.shared.queue.reserve(share).ok()
    }

    /// Whether there is a place for an answer at once.
    ///
    /// # Errors
    /// Why there is none: the answer can't be given.
    pub fn has_room(&self) -> Result<(), AuditUnavailable> {
        self.shared.queue.reserve(Share::Answer).map(drop)
    }

    /// A place for an answer. Waits at most [`limits::AUDIT_RESERVE`].
    ///
    /// # Errors
    /// Why there is none: the answer can't be given.
    pub async fn reserve(&self) -> Result<Place<'_>, AuditUnavailable> {
        let queue = &self.shared.queue;
        if let Ok(place) = queue.reserve(Share::Answer) {
            return Ok(place);
        }
        let place = async {
            loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                match queue.reserve(Share::Answer) {
                    Err(AuditUnavailable::Full | AuditUnavailable::Stalled | AuditUnavailable::Failing) => {}
                    ended => return ended,
                }
            }
        };
        tokio::time::timeout(limits::AUDIT_RESERVE, place).await.unwrap_or_else(|_| {
            queue.count_failure();
            Err(queue.health().err().unwrap_or(AuditUnavailable::Full))
        })
    }

    /// Records a denial. The same again (what was asked, agent, caller, reason) within a second makes one
    /// event more when the second is over. Never waits; a denial beyond the share of denials is counted.
    pub fn deny(&self, event: Event) {
        self.shared.denials.deny(&self.shared.queue, event);
    }

    /// Watches the events that are written.
    ///
    /// # Errors
    /// As many watch as may.
    pub fn subscribe(&self, since: Since<'_>, filter: Filter) -> Result<Subscription, TooManySubscribers> {
        self.shared.stream.subscribe(since, filter, self.shared.queue.sequence())
    }

    /// Written events that are in memory, with numbers after this one, so many at most. Takes no subscriber's place.
    #[must_use]
    pub fn written_after(&self, sequence: u64, most: usize) -> Vec<Arc<Event>> {
        self.shared.stream.written_after(sequence, most)
    }

    /// What is going on.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let Shared { queue, denials, stream, .. } = &*self.shared;
        Numbers {
            sequence: queue.sequence(),
            waiting: queue.waiting(),
            subscribers: stream.subscribers(),
            gaps: stream.gaps(),
            missed: stream.missed(),
            audit_failures: queue.failures(),
            denials_unrecorded: denials.unrecorded(),
            is_well: queue.health().is_ok(),
        }
    }

    /// What keeps events from being recorded, for an operator.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.queue.trouble()
    }

    /// Takes no more events and writes what is left; subscriptions end when they have seen it.
    ///
    /// # Errors
    /// Not everything could be written within this time.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Unrecorded> {
        self.running.close();
        let mut finished = self.shared.finished.subscribe();
        match tokio::time::timeout(within, finished.wait_for(|finished| *finished)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Unrecorded { events: self.shared.queue.waiting() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::path::{Path, PathBuf};

    use tokio::time::Instant;

    use super::trial::{event, small};
    use super::*;
    use crate::domain::reason::Reason;

    fn clock() -> impl Fn() -> Timestamp + Send + Sync + 'static {
        let start = Instant::now();
        move || Timestamp::from_nanos(trial::START).after(start.elapsed())
    }

    fn start(file: &Path, rotate_bytes: u64, config: &EventsConfig) -> Events {
        let audit = AuditConfig { file: Some(file.to_owned()), rotate_bytes, ..AuditConfig::default() };
        Events::start(&audit, config, 1, clock()).unwrap()
    }

    fn allow(events: &Events) -> Option<u64> {
        let event = event(events, "agent-a", Reason::Allowed, Timestamp::from_nanos(trial::START));
        Some(events.try_reserve(Share::Answer)?.commit(event))
    }

    /// The numbers of the lines, each of which has to be whole.
    fn numbers(lines: &str) -> Vec<u64> {
        assert!(lines.is_empty() || lines.ends_with('\n'));
        lines
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("torn: {line}"));
                value["sequence"].as_u64().unwrap()
            })
            .collect()
    }

    async fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        start.elapsed()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_allow_is_a_line_across_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let events = start(&file, 64 * 1024, &small(1024));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let events = events.clone();
                tokio::spawn(async move {
                    for _ in 0..500 {
                        // The queue is small on purpose, and a machine may be busy with something else.
                        let place = loop {
                            match events.reserve().await {
                                Ok(place) => break place,
                                Err(AuditUnavailable::Full | AuditUnavailable::Stalled) => {}
                                Err(why) => panic!("{why}"),
                            }
                        };
                        place.commit(event(&events, "agent-a", Reason::Allowed, Timestamp::from_nanos(trial::START)));
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        events.shutdown(Duration::from_secs(10)).await.unwrap();
        let mut files: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.rotate_left(1);
        assert!(files.len() > 3 && files.last() == Some(&file), "{files:?}");
        let lines: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(numbers(&lines), (1..=4000).collect::<Vec<u64>>());
        assert_eq!(events.numbers().waiting, 0);
    }

    /// A pipe that is a file for the log: its name, and the end from which it is read.
    fn pipe() -> (PathBuf, std::io::PipeReader, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd())), reader, writer)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_blocked_log_refuses_within_half_a_second_and_recovers() {
        let (file, mut reader, writer) = pipe();
        let events = start(&file, 0, &small(65_536));
        let mut watch = events.subscribe(Since::Now, Filter::default()).unwrap();
        drop(writer);
        let mut given = 0;
        // Nobody reads: the pipe takes 64 KiB, and then the recorder hangs in its write.
        let begin = Instant::now();
        while events.numbers().is_well {
            if let Some(sequence) = allow(&events) {
                given = sequence;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
        let waited = Instant::now();
        assert_eq!(events.reserve().await.err(), Some(AuditUnavailable::Stalled));
        assert!(waited.elapsed() < Duration::from_millis(300));
        assert_eq!(allow(&events), None);
        events.deny(event(&events, "agent-a", Reason::AuditUnavailable, Timestamp::from_nanos(trial::START)));

        let lines = std::thread::spawn(move || {
            let mut lines = String::new();
            reader.read_to_string(&mut lines).unwrap();
            lines
        });
        until("recovery", || events.numbers().is_well).await;
        assert_eq!(allow(&events), Some(given + 1));
        events.shutdown(Duration::from_secs(10)).await.unwrap();
        let total = events.numbers().sequence;
        drop(events);
        assert_eq!(numbers(&lines.join().unwrap()), (1..=total).collect::<Vec<u64>>());
        let mut seen = 0;
        while let Some(Item::Event(event)) = watch.next().await {
            seen += 1;
            assert_eq!(event.sequence(), seen);
        }
        assert_eq!(seen, total);
        assert_eq!(total, given + 2, "the denial was held until it could be recorded");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_failing_log_refuses_and_recovers() {
        let (file, reader, writer) = pipe();
        let events = start(&file, 0, &small(1024));
        drop(reader);
        assert_eq!(allow(&events), Some(1));
        let refused_after = until("refusal", || !events.numbers().is_well).await;
        assert!(refused_after < Duration::from_millis(500), "{refused_after:?}");
        assert_eq!(allow(&events), None);
        assert_eq!(events.reserve().await.err(), Some(AuditUnavailable::Failing));
        until("more tries", || events.numbers().audit_failures >= 3).await;

        let mut reader = File::open(&file).unwrap();
        drop(writer);
        until("recovery", || events.numbers().is_well).await;
        assert_eq!(allow(&events), Some(2));
        events.shutdown(Duration::from_secs(10)).await.unwrap();
        drop(events);
        let mut lines = String::new();
        reader.read_to_string(&mut lines).unwrap();
        assert_eq!(numbers(&lines), [1, 2]);
    }

    #[tokio::test]
    async fn a_full_disk_ends_in_an_error_and_not_in_a_loss() {
        let events = start(Path::new("/dev/full"), 0, &small(1024));
        let mut watch = events.subscribe(Since::Now, Filter::default()).unwrap();
        let mut given = 0;
        let begin = Instant::now();
        while let Some(sequence) = allow(&events) {
            given = sequence;
            assert!(begin.elapsed() < Duration::from_millis(500), "no refusal after {given}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let unrecorded = events.shutdown(Duration::from_millis(150)).await;
        assert_eq!(unrecorded, Err(Unrecorded { events: usize::try_from(given).unwrap() }));
        let shown = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
        assert!(shown.is_err(), "what is not written is not shown: {shown:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn stalled_subscribers_cost_decisions_nothing_and_miss_exactly_what_they_are_told() {
        let events = Events::start(&AuditConfig::default(), &small(256), 1, clock()).unwrap();
        let stalled: Vec<_> = (0..16).map(|_| events.subscribe(Since::Now, Filter::default()).unwrap()).collect();
        let mut total = 0;
        while total < 10_000 {
            match allow(&events) {
                Some(sequence) => total = sequence,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        events.shutdown(Duration::from_secs(10)).await.unwrap();
        for mut watch in stalled {
            let (mut delivered, mut missed) = (0, 0);
            while let Some(item) = watch.next().await {
                match item {
                    Item::Event(event) => {
                        delivered += 1;
                        assert_eq!(event.sequence(), delivered + missed);
                    }
                    Item::Gap { from, to, .. } => {
                        assert_eq!(from, delivered + missed + 1);
                        missed += to - from + 1;
                    }
                    Item::Heartbeat { .. } => panic!("the stream is over"),
                }
            }
            assert_eq!((delivered, delivered + missed), (256, total));
        }
        assert_eq!(events.numbers().missed, 16 * (total - 256));
        assert_eq!(events.numbers().subscribers, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_beside_the_writers_sees_everything_once() {
        let events = Events::start(&AuditConfig::default(), &small(512), 1, clock()).unwrap();
        let watch = events.subscribe(Since::Now, Filter::default()).unwrap();
        let reader = tokio::spawn(async move {
            let (mut watch, mut last, mut delivered, mut missed) = (watch, 0, 0, 0);
            while let Some(item) = watch.next().await {
                let (from, to) = match item {
                    Item::Event(event) => (event.sequence(), event.sequence()),
                    Item::Gap { from, to, .. } => (from, to),
                    Item::Heartbeat { sequence, .. } => {
                        assert_eq!(sequence, last);
                        continue;
                    }
                };
                assert_eq!(from, last + 1);
                last = to;
                if from == to { delivered += 1 } else { missed += to - from + 1 }
            }
            delivered + missed
        });
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let events = events.clone();
                std::thread::spawn(move || {
                    let given = std::iter::repeat_with(|| allow(&events)).take(20_000).flatten().count();
                    u64::try_from(given).unwrap()
                })
            })
            .collect();
        let given: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        events.shutdown(Duration::from_secs(10)).await.unwrap();
        assert_eq!(events.numbers().sequence, given);
        assert_eq!(reader.await.unwrap(), given);
    }

    #[tokio::test]
    async fn the_last_handle_ends_the_recorder_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let events = start(&file, 0, &small(256));
        let mut watch = events.subscribe(Since::Now, Filter::default()).unwrap();
        allow(&events);
        drop(events.clone());
        allow(&events);
        drop(events);
        assert!(matches!(watch.next().await, Some(Item::Event(event)) if event.sequence() == 1));
        assert!(matches!(watch.next().await, Some(Item::Event(event)) if event.sequence() == 2));
        assert_eq!(watch.next().await, None);
        assert_eq!(numbers(&std::fs::read_to_string(file).unwrap()), [1, 2]);
    }

    #[test]
    fn settings_are_read_by_their_names_and_checked() {
        let audit: AuditConfig =
            serde_json::from_str(r#"{"file": "-", "rotate_bytes": 5, "keep": 2, "on_failure": "count"}"#).unwrap();
        let wanted = AuditConfig {
            file: Some("-".into()),
            rotate_bytes: 5,
            keep: 2,
            on_failure: OnFailure::Count,
            ..AuditConfig::default()
        };
        assert_eq!(audit, wanted);
        assert!(serde_json::from_str::<AuditConfig>(r#"{"files": "-"}"#).is_err());
        let events: EventsConfig = serde_json::from_str("{}").unwrap();
        assert_eq!((events.ring, events.max_subscribers, events.check()), (65_536, 64, Ok(())));
        for wrong in [r#"{"ring": 63}"#, r#"{"subscriber_buffer": 0}"#, r#"{"heartbeat_seconds": 0}"#] {
            assert!(serde_json::from_str::<EventsConfig>(wrong).unwrap().check().is_err(), "{wrong}");
        }
    }
}
