//! What was decided: numbered, bounded, gaps counted.
//!
//! A decision takes a [`Place`] before it is made and commits its [`Event`] to it afterwards. That costs one
//! atomic step and one short lock; a thread of its own gives the events to the audit file and only then to
//! those who watch. What can't be recorded gets no place, and what has no place is not allowed.

mod config;
mod denials;
mod event;
mod line;
mod log;
mod queue;
mod recorder;
mod stream;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

pub use config::{AuditConfig, EventsConfig, InvalidConfig, OnFailure};
pub use event::{DecisionId, Event, MessageType, Outcome};
pub use log::LogError;
pub use queue::{AuditUnavailable, Place, Share};
pub use stream::{Filter, Item, Since, Subscription, TooManySubscribers};
pub use text::{Brief, Long, Text};

use crate::domain::limits;
use crate::domain::time::Timestamp;
use denials::Denials;
use event::DecisionIds;
use log::Log;
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
    fn close(&self) {
        self.shared.denials.flush_all(&self.shared.queue);
        self.shared.queue.close();
        self.shared.denials.give_up();
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.is_abandoned.store(true, Ordering::Relaxed);
        self.close();
    }
}

/// Why events can't be recorded from the start.
#[derive(Debug)]
pub enum StartError {
    /// A setting is out of its range.
    Config(InvalidConfig),
    /// The audit file can't be used.
    Log(LogError),
    /// The recorder's thread can't be started.
    Thread(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(invalid) => write!(f, "{invalid}"),
            Self::Log(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "the audit log's thread can't be started: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Events that were not written before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// How many.
    pub events: usize,
}

impl std::fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events could not be written to the audit log in time", self.events)
    }
}

impl std::error::Error for Unrecorded {}

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
        let (shared, recorder) = Self::parts(audit, events, process, now)?;
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
    ) -> Result<(Arc<Shared>, Recorder), StartError> {
        events.check().map_err(StartError::Config)?;
        let log = Log::open(audit).map_err(StartError::Log)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(events.ring, audit.on_failure, Arc::new(now)),
            denials: Denials::default(),
            stream: Arc::new(Stream::new(events)),
            stream_id: format!("{process:016x}").into(),
            decision_ids: DecisionIds::new(process),
            finished: watch::Sender::new(false),
            is_abandoned: AtomicBool::new(false),
        });
        let recorder = Recorder::new(Arc::clone(&shared), log);
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
        self.shared.stream.subscribe(since, &self.shared.stream_id, filter)
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
