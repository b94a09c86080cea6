//! Those who watch: each reads the ring of written events at its own pace, and is told what it missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};

use super::archive::{Archive, Position};
use super::config::EventsConfig;
use super::event::{Event, MessageType, Outcome};
use super::published::Published;
use super::subscription::Subscription;
use crate::domain::reason::Reason;

/// Subscribers for whom files are read at the same time; others wait. Reading must not take the cores from decisions.
const READERS: usize = 2;

/// From where a subscriber wants to see events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since<'a> {
    /// From now on.
    Now,
    /// From the one after `sequence` of the stream `stream_id`, as far as it is kept; 0: from the earliest
    /// that is kept. After a stream come those of later processes, this process's last.
    After {
        /// The stream to which `sequence` belongs: this process's, or an earlier one's. Empty: this process's.
        stream_id: &'a str,
        /// The last one that the subscriber has.
        sequence: u64,
    },
}

/// Which events a subscriber wants: those that each list which isn't empty has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The agent acts, is acted on, or is in the chain.
    pub agents: Vec<Box<str>>,
    /// How it ended.
    pub results: Vec<Outcome>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What kind of event it is.
    pub message_types: Vec<MessageType>,
}

impl Filter {
    /// Whether the event passes.
    #[must_use]
    pub fn passes(&self, event: &Event) -> bool {
        has(&self.results, &event.outcome)
            && has(&self.reasons, &event.reason)
            && has(&self.message_types, &event.message_type)
            && (self.agents.is_empty() || self.agents.iter().any(|agent| concerns(event, agent)))
    }
}

fn has<T: PartialEq>(wanted: &[T], value: &T) -> bool {
    wanted.is_empty() || wanted.contains(value)
}

fn concerns(event: &Event, agent: &str) -> bool {
    *event.from_agent == *agent || *event.to_agent == *agent || event.chain.iter().any(|link| **link == *agent)
}

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

    /// `newest` is the last number that was given away, perhaps not written yet.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        since: Since<'_>,
        filter: Filter,
        newest: u64,
    ) -> Result<Subscription, TooManySubscribers> {
        let limit = self.max_subscribers;
        let one_more = |count: usize| (count < limit).then(|| count.saturating_add(1));
        self.subscribers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| TooManySubscribers { limit })?;
        let own = || Arc::clone(&self.id);
        // Nothing is missing before the earliest that is kept.
        let is_begun = !matches!(since, Since::After { sequence: 0, .. });
        let at = match since {
            Since::Now => Position { stream_id: own(), next: self.progress.borrow().latest.saturating_add(1) },
            Since::After { stream_id, sequence } => Position {
                stream_id: if stream_id.is_empty() || stream_id == &*self.id { own() } else { stream_id.into() },
                next: sequence.saturating_add(1),
            },
        };
        // A number that this process never gave is an earlier process's, whose stream nobody named.
        let is_ahead = at.stream_id == self.id && at.next > newest.saturating_add(1);
        Ok(Subscription::new(Arc::clone(self), at, is_begun, is_ahead, filter))
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::trial::Trial;
    use super::*;

    const FROM_THE_EARLIEST: Since<'_> = Since::After { stream_id: "", sequence: 0 };

    fn allow(trial: &mut Trial, count: usize) {
        for _ in 0..count {
            trial.allow("agent-a");
            trial.recorder.turn();
        }
    }

    /// Numbers as `7`, gaps as `3-6`, heartbeats as `♥6`, until a heartbeat.
    async fn seen(watch: &mut Subscription) -> String {
        let mut seen = Vec::new();
        watch.heartbeat_after(Duration::from_millis(5));
        loop {
            match watch.next().await {
                Some(Item::Event(event)) => seen.push(event.sequence().to_string()),
                Some(Item::Gap { from, to, .. }) => seen.push(format!("{from}-{to}")),
                Some(Item::Heartbeat { sequence, .. }) => {
                    return [seen, vec![format!("♥{sequence}")]].concat().join(" ");
                }
                None => return seen.join(" "),
            }
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_exactly_what_it_missed() {
        let mut trial = Trial::unwritten(64);
        let mut watch = trial.events.subscribe(Since::Now, Filter::default()).unwrap();
        allow(&mut trial, 3);
        assert_eq!(seen(&mut watch).await, "1 2 3 ♥3");
        allow(&mut trial, 70);
        let rest: Vec<_> = (10..=73).map(|number: u64| number.to_string()).collect();
        assert_eq!(seen(&mut watch).await, format!("4-9 {} ♥73", rest.join(" ")));
        assert_eq!((trial.events.numbers().gaps, trial.events.numbers().missed), (1, 6));
    }

    #[tokio::test]
    async fn a_subscriber_begins_where_it_says() {
        let mut trial = Trial::unwritten(64);
        allow(&mut trial, 66);
        let own = trial.events.stream_id().to_string();
        let events = trial.events.clone();
        let watch = |since| events.subscribe(since, Filter::default()).unwrap();
        let after = |stream_id, sequence| Since::After { stream_id, sequence };
        let rest: Vec<_> = (4..=66).map(|number: u64| number.to_string()).collect();
        let rest = rest.join(" ");
        assert_eq!(seen(&mut watch(Since::Now)).await, "♥66");
        assert_eq!(seen(&mut watch(after("", 64))).await, "65 66 ♥66");
        assert_eq!(seen(&mut watch(after(&own, 64))).await, "65 66 ♥66");
        assert_eq!(seen(&mut watch(after(&own, 0))).await, format!("3 {rest} ♥66"), "the earliest that is kept");
        assert_eq!(seen(&mut watch(after(&own, 1))).await, format!("2-2 3 {rest} ♥66"), "the second is gone");
        assert_eq!(seen(&mut watch(after("another", 64))).await, format!("0-0 1-2 3 {rest} ♥66"), "another stream");
        let mut unwritten = watch(after(&own, 67));
        assert_eq!(seen(&mut unwritten).await, format!("0-0 1-2 3 {rest} ♥66"), "a number that nobody has");
        let committed = trial.allow("agent-a");
        let mut unwritten = watch(after(&own, committed));
        assert_eq!(seen(&mut unwritten).await, "♥66");
        allow(&mut trial, 2);
        assert_eq!(seen(&mut unwritten).await, "68 69 ♥69");
    }

    #[tokio::test]
    async fn a_number_of_before_a_restart_is_a_gap_and_all_of_this_process_s_events() {
        let mut trial = Trial::unwritten(64);
        let own = trial.events.stream_id().to_string();
        for stream_id in ["", &own] {
            let since = Since::After { stream_id, sequence: 500 };
            let mut watch = trial.events.subscribe(since, Filter::default()).unwrap();
            assert_eq!(seen(&mut watch).await, if stream_id.is_empty() { "0-0 ♥0" } else { "0-0 1 2 3 ♥3" });
            allow(&mut trial, 3);
            let rest = if stream_id.is_empty() { "1 2 3 ♥3" } else { "4 5 6 ♥6" };
            assert_eq!(seen(&mut watch).await, rest, "it goes on");
        }
        let since = Since::After { stream_id: "", sequence: u64::MAX };
        let mut watch = trial.events.subscribe(since, Filter::default()).unwrap();
        let gap = Item::Gap { stream_id: own.as_str().into(), from: 0, to: 0 };
        assert_eq!(watch.next().await, Some(gap));
        assert_eq!(seen(&mut watch).await, "1 2 3 4 5 6 ♥6");
    }

    #[tokio::test]
    async fn another_stream_is_a_gap_even_where_nothing_of_this_one_is_missing() {
        let mut trial = Trial::unwritten(64);
        allow(&mut trial, 2);
        let since = Since::After { stream_id: "another", sequence: 9 };
        let mut watch = trial.events.subscribe(since, Filter::default()).unwrap();
        assert_eq!(watch.next().await, Some(Item::Gap { stream_id: "another".into(), from: 0, to: 0 }));
        assert_eq!(seen(&mut watch).await, "1 2 ♥2");
        assert_eq!((trial.events.numbers().gaps, trial.events.numbers().missed), (1, 0));
    }

    #[tokio::test]
    async fn only_what_is_written_is_shown() {
        let mut trial = Trial::unwritten(64);
        let mut watch = trial.events.subscribe(Since::Now, Filter::default()).unwrap();
        trial.allow("agent-a");
        assert_eq!(seen(&mut watch).await, "♥0");
        trial.recorder.turn();
        assert_eq!(seen(&mut watch).await, "1 ♥1");
    }

    #[tokio::test]
    async fn a_filter_lets_pass_what_each_list_has_and_gaps_count_all() {
        let mut trial = Trial::unwritten(64);
        let with = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            trial.events.subscribe(FROM_THE_EARLIEST, filter).unwrap()
        };
        let mut coordinator = with(|filter| filter.agents = vec!["agent-coordinator".into()]);
        let mut a = with(|filter| filter.agents = vec!["agent-a".into(), "agent-x".into()]);
        let mut demo = with(|filter| filter.agents = vec!["svc-demo".into()]);
        let mut denied = with(|filter| filter.results = vec![Outcome::Denied]);
        let mut expired = with(|filter| filter.reasons = vec![Reason::TokenExpired]);
        let mut revoked = with(|filter| filter.message_types = vec![MessageType::Revoke]);
        let mut both = with(|filter| {
            filter.results = vec![Outcome::Denied];
            filter.agents = vec!["agent-a".into()];
        });
        trial.allow("agent-a");
        trial.events.deny(trial.event("agent-b", Reason::TokenExpired));
        trial.events.deny(trial.event("agent-a", Reason::TokenRevoked));
        trial.recorder.turn();
        assert_eq!(seen(&mut coordinator).await, "1 2 3 ♥3", "in the chain");
        assert_eq!(seen(&mut a).await, "1 3 ♥3", "acts");
        assert_eq!(seen(&mut demo).await, "1 2 3 ♥3", "is acted on");
        assert_eq!(seen(&mut denied).await, "2 3 ♥3");
        assert_eq!(seen(&mut expired).await, "2 ♥3");
        assert_eq!(seen(&mut revoked).await, "♥3");
        assert_eq!(seen(&mut both).await, "3 ♥3");
        allow(&mut trial, 67);
        assert_eq!(seen(&mut both).await, "4-6 ♥70");
    }

    #[tokio::test]
    async fn a_heartbeat_comes_although_events_pass_by() {
        let mut trial = Trial::unwritten(64);
        let filter = Filter { results: vec![Outcome::Error], ..Filter::default() };
        let mut watch = trial.events.subscribe(Since::Now, filter).unwrap();
        watch.heartbeat_after(Duration::from_millis(100));
        let before = Instant::now();
        let Trial { events, recorder, .. } = &mut trial;
        let busy = async {
            loop {
                let event = super::super::trial::event(events, "agent-a", Reason::Allowed, recorder.now());
                events.try_reserve(super::super::Share::Answer).unwrap().commit(event);
                recorder.turn();
                tokio::task::yield_now().await;
            }
        };
        let item = tokio::select! { item = watch.next() => item, () = busy => None };
        let Some(Item::Heartbeat { sequence, .. }) = item else { panic!("{item:?}") };
        assert!(sequence > 1, "{sequence}");
        assert!(before.elapsed() >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn so_many_may_watch_and_places_come_back() {
        let trial = Trial::unwritten(64);
        let watch = || trial.events.subscribe(Since::Now, Filter::default());
        let mut all: Vec<_> = (0..64).map(|_| watch().unwrap()).collect();
        assert_eq!(watch().err(), Some(TooManySubscribers { limit: 64 }));
        assert_eq!(trial.events.numbers().subscribers, 64);
        all.pop();
        assert!(watch().is_ok());
    }
}
