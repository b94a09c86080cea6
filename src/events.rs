//! Numbers, records and streams what was decided. All of it is bounded, and gaps are counted.
//!
//! A decision takes a [`Place`] before it is made and commits its [`Event`] to it afterwards. That costs one
//! atomic step and one short lock; a thread of its own gives the events to the audit file and only then to
//! those who watch. What can't be recorded gets no place, and what has no place is not allowed.
//!
//! | file | |
//! |---|---|
//! | `event`, `text` | What an event says, in bounded text. |
//! | `queue`, `denials` | From a decision to the recorder. |
//! | `recorder`, `log`, `rotation`, `synced` | The thread that writes, its file, the files that are full, and who waits for the disk. |
//! | `line`, [`chain`], `checkpoint`, `mask` | What a line says, what proves it, and what it withholds. |
//! | `stream`, `subscription`, `filter`, `published` | What those who watch ask for and get. |
//! | `archive`, `files` | What memory has no more, read from the log. |

mod archive;
pub mod chain;
mod checkpoint;
mod config;
mod denials;
mod error;
mod event;
mod files;
mod filter;
mod invalid_config;
mod line;
mod log;
mod mask;
mod published;
mod queue;
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
pub use config::{AuditConfig, Durability, EventsConfig, OnFailure};
pub use error::{StartError, Unrecorded};
pub use event::{DecisionId, Event, MessageType, Outcome};
pub use filter::{Filter, Since};
pub use invalid_config::InvalidConfig;
pub use line::Place as LinePlace;
pub use log::LogError;
pub use published::Published;
pub use queue::{AuditUnavailable, Place, Share};
pub use stream::{Item, TooManySubscribers};
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
        Subscription::begin(&self.shared.stream, since, filter, self.shared.queue.sequence())
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
mod tests;
