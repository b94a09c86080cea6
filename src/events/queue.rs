//! From a decision to the recorder: a bounded queue in which every event has its number.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::config::OnFailure;
use super::event::Event;
use crate::domain::limits;
use crate::domain::time::Timestamp;

/// Reads the time.
pub(super) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whose part of the queue: denials have their own, so that they can't keep an ALLOW from being recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// What is given only if it is recorded: half of the ring.
    Answer,
    /// A denial: a quarter of the ring.
    Denial,
}

/// Why nothing more can be recorded at the moment. Safe to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditUnavailable {
    /// As many events wait to be written as may.
    Full,
    /// The oldest event that waits to be written waits for more than half a second.
    Stalled,
    /// The last write failed.
    Failing,
    /// The log is closed.
    Closed,
}

impl std::fmt::Display for AuditUnavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "the decision can't be recorded: the audit log's queue is full; try again later",
            Self::Stalled => "the decision can't be recorded: the audit log can't be written in time; try again later",
            Self::Failing => {
                "the decision can't be recorded: writing the audit log fails, and the server's own log says why"
            }
            Self::Closed => "the decision can't be recorded: the server is closing its audit log",
        })
    }
}

impl std::error::Error for AuditUnavailable {}

/// An event that is numbered and not yet written.
pub(super) struct Unwritten {
    pub(super) event: Arc<Event>,
    pub(super) share: Share,
}

struct Inbox {
    next: u64,
    /// When the oldest of `events` came.
    since: Timestamp,
    events: VecDeque<Unwritten>,
}

/// The queue. A decision takes a place and commits to it; the recorder takes what was committed.
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    /// Places given and not yet written, by share.
    answers: AtomicUsize,
    denials: AtomicUsize,
    /// When the oldest unwritten event came, in nanoseconds; 0: all is written.
    oldest: AtomicU64,
    failing: AtomicBool,
    closed: AtomicBool,
    failures: AtomicU64,
    capacity: usize,
    on_failure: OnFailure,
    now: Clock,
}

/// A place in the queue. Dropped without a commit, it is free again.
#[must_use = "a place that is dropped records nothing"]
pub struct Place<'a> {
    queue: &'a Queue,
    share: Share,
}

impl Queue {
    pub(super) fn new(capacity: usize, on_failure: OnFailure, now: Clock) -> Self {
        Self {
            inbox: Mutex::new(Inbox { next: 1, since: Timestamp::default(), events: VecDeque::new() }),
            answers: AtomicUsize::new(0),
            denials: AtomicUsize::new(0),
            oldest: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            capacity,
            on_failure,
            now,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// A place, if there is one and the recorder is well. One atomic step, no lock.
    pub(super) fn reserve(&self, share: Share) -> Result<Place<'_>, AuditUnavailable> {
        let (taken, bound) = self.part(share);
        // In one order with `closed`: either the recorder sees this place before it ends, or this sees that it ends.
        let is_free = taken.fetch_add(1, Ordering::SeqCst) < bound;
        let place = Place { queue: self, share };
        let granted = self.health().and(if is_free { Ok(()) } else { Err(AuditUnavailable::Full) });
        match (granted, self.on_failure, share) {
            (Ok(()), ..) => Ok(place),
            (Err(AuditUnavailable::Closed), ..) | (Err(_), OnFailure::Deny, _) => granted.map(|()| place),
            (Err(_), OnFailure::Count, Share::Answer) => {
                self.count_failure();
                Ok(place)
            }
            (Err(_), OnFailure::Count, Share::Denial) if is_free => Ok(place),
            (Err(_), OnFailure::Count, Share::Denial) => granted.map(|()| place),
        }
    }

    /// Whether what is committed now will be written.
    pub(super) fn health(&self) -> Result<(), AuditUnavailable> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(AuditUnavailable::Closed);
        }
        if self.failing.load(Ordering::Relaxed) {
            return Err(AuditUnavailable::Failing);
        }
        // The clock is read only while something waits.
        let oldest = self.oldest.load(Ordering::Relaxed);
        if oldest != 0 && self.now().since(Timestamp::from_nanos(oldest)) >= limits::AUDIT_STALL {
            return Err(AuditUnavailable::Stalled);
        }
        Ok(())
    }

    /// Gives the next number and queues the event. Short on purpose: nothing is written, nobody is woken.
    fn commit(&self, event: Event, share: Share) -> u64 {
        let mut event = Arc::new(event);
        let mut inbox = self.inbox.lock();
        let sequence = inbox.next;
        inbox.next = sequence.saturating_add(1);
        if let Some(event) = Arc::get_mut(&mut event) {
            event.sequence = sequence;
        }
        // Only without refusals (`on_failure = "count"`) can so many wait. The number is used up, so that
        // log and stream show what is missing.
        if inbox.events.len() >= self.capacity {
            debug_assert!(self.on_failure == OnFailure::Count, "the shares are smaller than the queue");
            drop(inbox);
            self.release(share, 1);
            return sequence;
        }
        if inbox.events.is_empty() {
            inbox.since = self.now();
            // Zero says that all is written, so the epoch itself is one nanosecond late.
            let since = inbox.since.nanos().max(1);
            if self.oldest.load(Ordering::Relaxed) == 0 {
                self.oldest.store(since, Ordering::Relaxed);
            }
        }
        inbox.events.push_back(Unwritten { event, share });
        sequence
    }

    /// Moves everything committed into `batch`, which is empty; its room is used for what comes next.
    pub(super) fn take(&self, batch: &mut VecDeque<Unwritten>) {
        debug_assert!(batch.is_empty(), "the batch before is written first");
        std::mem::swap(&mut self.inbox.lock().events, batch);
    }

    /// All that was taken is written: what waits now came later.
    pub(super) fn settle(&self) {
        let inbox = self.inbox.lock();
        let oldest = if inbox.events.is_empty() { 0 } else { inbox.since.nanos().max(1) };
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Makes written or dropped places free.
    pub(super) fn release(&self, share: Share, places: usize) {
        self.part(share).0.fetch_sub(places, Ordering::Relaxed);
    }

    pub(super) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last number that was given.
    pub(super) fn sequence(&self) -> u64 {
        self.inbox.lock().next.saturating_sub(1)
    }

    /// Places given and not yet written.
    pub(super) fn waiting(&self) -> usize {
        self.answers.load(Ordering::SeqCst).saturating_add(self.denials.load(Ordering::SeqCst))
    }

    fn part(&self, share: Share) -> (&AtomicUsize, usize) {
        match share {
            Share::Answer => (&self.answers, self.capacity / 2),
            Share::Denial => (&self.denials, self.capacity / 4),
        }
    }
}

impl Place<'_> {
    /// Records the event at this place; its number in the stream.
    #[expect(clippy::must_use_candidate, reason = "committing is the purpose; few need the number")]
    pub fn commit(self, event: Event) -> u64 {
        let (queue, share) = (self.queue, self.share);
        // The place stays taken until the recorder has written the event.
        std::mem::forget(self);
        queue.commit(event, share)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.release(self.share, 1);
    }
}
