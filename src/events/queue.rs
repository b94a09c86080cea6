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
            Self::Full => "the decision can't be recorded, so nothing is allowed: more events wait for the audit log than may; try again",
            Self::Stalled => "the decision can't be recorded, so nothing is allowed: the audit log's disk or reader has not answered in time; it goes on by itself once it does",
            Self::Failing => {
                "the decision can't be recorded, so nothing is allowed: the audit log can't be written; see the service's log about [audit]"
            }
            Self::Closed => "the decision can't be recorded, so nothing is allowed: the service ends",
        })
    }
}

impl std::error::Error for AuditUnavailable {}

/// An event that is numbered and not yet written.
pub(super) struct Unwritten {
    pub(super) event: Arc<Event>,
    /// Whose place it takes; none for what the recorder itself has to say.
    pub(super) share: Option<Share>,
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

    /// What an operator is told while nothing can be recorded.
    pub(super) fn trouble(&self) -> Option<String> {
        match self.health() {
            Ok(()) | Err(AuditUnavailable::Closed | AuditUnavailable::Full) => None,
            Err(AuditUnavailable::Failing) => Some(
                "the audit log can't be written: the service's log says why, and it goes on by itself once it can"
                    .to_owned(),
            ),
            Err(AuditUnavailable::Stalled) => {
                let oldest = Timestamp::from_nanos(self.oldest.load(Ordering::Relaxed));
                let waited = self.now().since(oldest).as_millis();
                Some(format!(
                    "the audit log's disk or reader has not answered for {waited} ms: it goes on by itself once it does"
                ))
            }
        }
    }

    /// Queues an event of the recorder's own. It takes no place: there is one at a time.
    pub(super) fn commit_own(&self, event: Event) {
        self.commit(event, None);
    }

    /// Gives the next number and queues the event. Short on purpose: nothing is written, nobody is woken.
    fn commit(&self, event: Event, share: Option<Share>) -> u64 {
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
            if let Some(share) = share {
                self.release(share, 1);
            }
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
        queue.commit(event, Some(share))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.release(self.share, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::super::trial::Trial;
    use super::super::{AuditConfig, AuditUnavailable, EventsConfig, OnFailure, Share};
    use crate::domain::reason::Reason;

    #[test]
    fn racing_decisions_get_each_number_once() {
        let trial = Trial::unwritten(16_384);
        let events = &trial.events;
        let numbers: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).map(|_| trial.allow("agent-a")).collect::<Vec<u64>>()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for own in &numbers {
            assert!(own.is_sorted_by(|before, after| before < after));
        }
        let all: HashSet<u64> = numbers.into_iter().flatten().collect();
        assert_eq!(all, (1..=8000).collect());
        assert_eq!((events.numbers().sequence, events.numbers().waiting), (8000, 8000));
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped_or_written() {
        let mut trial = Trial::unwritten(64);
        let places: Vec<_> = (0..32).map(|_| trial.place()).collect();
        assert!(trial.events.try_reserve(Share::Answer).is_none(), "half of the ring");
        assert_eq!(trial.events.numbers().waiting, 32);
        drop(places);
        assert_eq!(trial.events.numbers().waiting, 0);

        for _ in 0..32 {
            trial.allow("agent-a");
        }
        assert!(trial.events.try_reserve(Share::Answer).is_none());
        trial.recorder.turn();
        assert_eq!(trial.events.numbers().waiting, 0);
        trial.allow("agent-a");
        assert_eq!(trial.events.numbers().sequence, 33);
    }

    #[test]
    fn denials_do_not_take_the_places_of_answers() {
        let trial = Trial::unwritten(64);
        for agent in 0..100 {
            trial.events.deny(trial.event(&format!("agent-{agent}"), Reason::TokenExpired));
        }
        assert_eq!(trial.events.numbers().waiting, 16);
        let answers: Vec<_> = std::iter::from_fn(|| trial.events.try_reserve(Share::Answer)).collect();
        assert_eq!(answers.len(), 32);
    }

    #[test]
    fn what_waits_for_too_long_is_a_refusal_until_it_is_written() {
        let mut trial = Trial::unwritten(64);
        trial.pass(Duration::from_mins(1));
        trial.allow("agent-a");
        trial.pass(Duration::from_millis(499));
        trial.allow("agent-a");
        trial.pass(Duration::from_millis(1));
        assert!(trial.events.try_reserve(Share::Answer).is_none());
        assert!(trial.events.try_reserve(Share::Denial).is_none());
        assert!(!trial.events.numbers().is_well);
        assert!(trial.events.trouble().is_some_and(|text| text.contains("has not answered for 500 ms")));
        trial.recorder.turn();
        assert!(trial.events.numbers().is_well && trial.events.trouble().is_none());
        trial.pass(Duration::from_mins(1));
        trial.allow("agent-a");
    }

    #[test]
    fn what_comes_while_the_recorder_writes_waits_from_then_on() {
        let trial = Trial::unwritten(64);
        let queue = &trial.events.shared.queue;
        let mut taken = std::collections::VecDeque::new();
        trial.allow("agent-a");
        queue.take(&mut taken);
        trial.pass(Duration::from_millis(400));
        trial.allow("agent-b");
        trial.pass(Duration::from_millis(99));
        assert_eq!(queue.health(), Ok(()));
        trial.pass(Duration::from_millis(1));
        assert_eq!(queue.health(), Err(AuditUnavailable::Stalled), "the first one waits for 500 ms");
        queue.settle();
        assert_eq!(queue.health(), Ok(()), "the second one for 100 ms");
        trial.pass(Duration::from_millis(400));
        assert_eq!(queue.health(), Err(AuditUnavailable::Stalled));
    }

    #[test]
    fn where_failures_only_count_the_numbers_show_what_is_missing() {
        let audit = AuditConfig { on_failure: OnFailure::Count, ..AuditConfig::default() };
        let mut trial =
            Trial::new(&audit, &EventsConfig { ring: 64, subscriber_buffer: 64, ..EventsConfig::default() });
        for _ in 0..100 {
            trial.allow("agent-a");
        }
        assert_eq!(trial.events.numbers().audit_failures, 100 - 32);
        trial.recorder.turn();
        trial.allow("agent-a");
        trial.recorder.turn();
        let kept = trial.events.shared.stream.sequences();
        assert_eq!(kept.last_chunk(), Some(&[63, 64, 101]));
        assert_eq!(trial.events.numbers().waiting, 0);
    }

    #[tokio::test]
    async fn an_answer_waits_fifty_milliseconds_for_a_place() {
        let mut trial = Trial::unwritten(64);
        for _ in 0..32 {
            trial.allow("agent-a");
        }
        let before = tokio::time::Instant::now();
        assert_eq!(trial.events.reserve().await.err(), Some(AuditUnavailable::Full));
        assert!(before.elapsed() >= Duration::from_millis(50));
        assert_eq!(trial.events.numbers().audit_failures, 1);

        let Trial { events, recorder, .. } = &mut trial;
        let written_meanwhile = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            recorder.turn();
        };
        let (place, ()) = tokio::join!(events.reserve(), written_meanwhile);
        assert!(place.is_ok());
    }

    #[tokio::test]
    async fn a_closed_log_gives_no_place_and_loses_none() {
        let trial = Trial::unwritten(64);
        let place = trial.place();
        trial.events.running.close();
        assert_eq!(trial.events.reserve().await.err(), Some(AuditUnavailable::Closed));
        assert_eq!(place.commit(trial.event("agent-a", Reason::Allowed)), 1);
        let events = trial.events.clone();
        let recorder = std::thread::spawn(move || trial.recorder.run());
        assert_eq!(events.shutdown(Duration::from_secs(5)).await, Ok(()));
        recorder.join().unwrap();
        assert_eq!(events.shared.stream.sequences(), [1]);
    }
}
