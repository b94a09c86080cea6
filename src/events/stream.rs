//! The ring of written events, which each subscriber reads at its own pace; and what they are given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};

use super::archive::Archive;
use super::config::EventsConfig;
use super::event::Event;
use super::published::Published;

/// Subscribers for whom files are read at the same time; others wait. Reading must not take the cores from decisions.
const READERS: usize = 2;

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The next event.
    Event(Published),
    /// Events that the subscriber will not get; `from` and `to` are both inside. Filters don't matter.
    /// 0 to 0: what the stream had after the last event that the subscriber knows of, and how many that were can't be
    /// known; what follows is of a later stream.
    Gap {
        /// The stream in which they are missing.
        stream_id: Arc<str>,
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// Nothing passed for a while; the stream is alive and complete up to `sequence`.
    Heartbeat {
        /// The stream in which the subscriber is.
        stream_id: Arc<str>,
        /// The last one that was shown, filtered out or reported missing.
        sequence: u64,
    },
}

/// As many subscribe as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySubscribers {
    /// How many may.
    pub limit: usize,
}

impl std::fmt::Display for TooManySubscribers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} already watch, as many as max_subscribers in [events] lets; try again later", self.limit)
    }
}

impl std::error::Error for TooManySubscribers {}

/// How far the stream is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The last event shown.
    pub(super) latest: u64,
    /// Nothing will follow.
    pub(super) is_over: bool,
}

/// The written events that are kept, and who reads them. Decisions never touch it.
pub(super) struct Stream {
    id: Arc<str>,
    ring: RwLock<VecDeque<Arc<Event>>>,
    capacity: usize,
    archive: Option<Archive>,
    readers: Arc<Semaphore>,
    progress: watch::Sender<Progress>,
    batch: usize,
    heartbeat: Duration,
    max_subscribers: usize,
    subscribers: AtomicUsize,
    gaps: AtomicU64,
    missed: AtomicU64,
}

impl Stream {
    pub(super) fn new(id: Arc<str>, config: &EventsConfig, archive: Option<Archive>) -> Self {
        Self {
            id,
            ring: RwLock::default(),
            capacity: config.ring,
            archive,
            readers: Arc::new(Semaphore::new(READERS)),
            progress: watch::Sender::new(Progress::default()),
            batch: config.subscriber_buffer,
            heartbeat: config.heartbeat(),
            max_subscribers: config.max_subscribers,
            subscribers: AtomicUsize::new(0),
            gaps: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }

    /// Shows events, in their order, and forgets the oldest beyond the capacity.
    pub(super) fn publish(&self, events: impl Iterator<Item = Arc<Event>>) {
        let mut ring = self.ring.write();
        ring.extend(events);
        let latest = ring.back().map_or(0, |event| event.sequence());
        let surplus = ring.len().saturating_sub(self.capacity);
        let forgotten: Vec<_> = ring.drain(..surplus).collect();
        drop(ring);
        self.progress.send_modify(|progress| progress.latest = latest);
        // Freed here, with no lock held and on the recorder's time.
        drop(forgotten);
    }

    /// Events that are kept, with numbers after this one, so many at most.
    pub(super) fn written_after(&self, sequence: u64, most: usize) -> Vec<Arc<Event>> {
        let ring = self.ring.read();
        let start = ring.partition_point(|event| event.sequence() <= sequence);
        ring.iter().skip(start).take(most).cloned().collect()
    }

    /// Nothing will follow.
    pub(super) fn end(&self) {
        self.progress.send_modify(|progress| progress.is_over = true);
    }

    /// One subscriber more, if there may be.
    pub(super) fn join(&self) -> Result<(), TooManySubscribers> {
        let limit = self.max_subscribers;
        let one_more = |count: usize| (count < limit).then(|| count.saturating_add(1));
        let joined = self.subscribers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        joined.map(|_| ()).map_err(|_| TooManySubscribers { limit })
    }

    /// The first event that is kept, or the one that will be the first.
    pub(super) fn earliest(&self) -> u64 {
        self.ring.read().front().map_or(1, |event| event.sequence())
    }

    /// The first number that is kept, and the events from this number on, so many at most.
    pub(super) fn read(&self, from: u64) -> (u64, Vec<Published>) {
        let ring = self.ring.read();
        let earliest = ring.front().map_or(1, |event| event.sequence());
        let start = ring.partition_point(|event| event.sequence() < from);
        let events = ring.iter().skip(start).take(self.batch);
        (earliest, events.map(|event| Published::kept(Arc::clone(&self.id), Arc::clone(event))).collect())
    }

    /// Counts a gap; the item that tells of it.
    pub(super) fn gap(&self, stream_id: Arc<str>, from: u64, to: u64) -> Item {
        self.gaps.fetch_add(1, Ordering::Relaxed);
        let known = if to == 0 { 0 } else { to.saturating_sub(from).saturating_add(1) };
        self.missed.fetch_add(known, Ordering::Relaxed);
        Item::Gap { stream_id, from, to }
    }

    /// One subscriber is gone.
    pub(super) fn leave(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) const fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The last event that was shown.
    pub(super) fn latest(&self) -> u64 {
        self.progress.borrow().latest
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(super) const fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// The files, with a turn to read them and how much a subscriber takes at once.
    pub(super) fn past(&self) -> Option<(Archive, Arc<Semaphore>, usize)> {
        Some((self.archive.clone()?, Arc::clone(&self.readers), self.batch))
    }

    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Stream {
    pub(super) fn kept(&self) -> Vec<Arc<Event>> {
        self.ring.read().iter().cloned().collect()
    }

    pub(super) fn sequences(&self) -> Vec<u64> {
        self.ring.read().iter().map(|event| event.sequence()).collect()
    }
}
