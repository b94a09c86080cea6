//! One who watches: what it gets next, and what it is told to be missing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::archive::{Cursor, Position, Read, Wanted};
use super::filter::{Filter, Since};
use super::published::Published;
use super::stream::{Item, Progress, Stream, TooManySubscribers};
use crate::digest::Digest;

/// A subscriber's place in the stream.
pub struct Subscription {
    stream: Arc<Stream>,
    /// Everything below was shown, filtered out or reported missing.
    at: Position,
    /// A gap before `at` is told.
    is_begun: bool,
    /// The files have no more of the streams before this process's.
    is_past_over: bool,
    /// The digest of the last line that was passed, after which the next one follows if nothing is missing between.
    head: Option<Digest>,
    filter: Filter,
    ready: VecDeque<Item>,
    past: Past,
    /// Tells a reading that nobody waits for it any more.
    abandoned: Arc<AtomicBool>,
    progress: watch::Receiver<Progress>,
    quiet_since: Instant,
    heartbeat: Duration,
}

/// Reading of what memory has no more.
enum Past {
    NotRead(Cursor),
    /// Kept here, so that a call that is dropped halfway loses nothing; with the number before which it reads.
    Reading(JoinHandle<(Cursor, Option<Vec<Read>>)>, u64),
}

/// What the files have of what memory has no more.
enum Forgotten {
    Events(Vec<Read>),
    /// Nothing more, before this number of this process's stream.
    Nothing(u64),
    /// Not even the stream.
    Unknown,
}

impl Subscription {
    /// A place in the stream for one subscriber more. `newest` is the last number that was given away, perhaps not written
    /// yet.
    pub(super) fn begin(
        stream: &Arc<Stream>,
        since: Since<'_>,
        filter: Filter,
        newest: u64,
    ) -> Result<Self, TooManySubscribers> {
        stream.join()?;
        let own = || Arc::clone(stream.id());
        // Nothing is missing before the earliest that is kept.
        let is_begun = !matches!(since, Since::After { sequence: 0, .. });
        let at = match since {
            Since::Now => Position { stream_id: own(), next: stream.latest().saturating_add(1) },
            Since::After { stream_id, sequence } => Position {
                stream_id: if stream_id.is_empty() || *stream_id == **stream.id() { own() } else { stream_id.into() },
                next: sequence.saturating_add(1),
            },
        };
        // A number that this process never gave is an earlier process's, whose stream nobody named.
        let is_ahead = at.stream_id == *stream.id() && at.next > newest.saturating_add(1);
        Ok(Self::new(Arc::clone(stream), at, is_begun, is_ahead, filter))
    }

    fn new(stream: Arc<Stream>, at: Position, is_begun: bool, is_ahead: bool, filter: Filter) -> Self {
        let mut new = Self {
            is_past_over: at.stream_id == *stream.id(),
            at,
            is_begun,
            head: None,
            filter,
            ready: VecDeque::new(),
            past: Past::NotRead(Cursor::default()),
            abandoned: Arc::default(),
            progress: stream.progress(),
            quiet_since: Instant::now(),
            heartbeat: stream.heartbeat(),
            stream,
        };
        if is_ahead || !new.is_past_over && new.stream.past().is_none() {
            new.lose_the_past();
        }
        new
    }

    /// The stream in which it is, and the last number that was shown, filtered out or reported missing in it.
    #[must_use]
    pub fn position(&self) -> (Arc<str>, u64) {
        let passed = self.at.next.saturating_sub(1);
        let passed = if self.is_in_own() { passed.min(self.progress.borrow().latest) } else { passed };
        (Arc::clone(&self.at.stream_id), passed)
    }

    /// The next item; none when the stream is over. A call that is dropped halfway loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.quiet_since = Instant::now();
                return Some(item);
            }
            let progress = *self.progress.borrow_and_update();
            let may_have_more = !self.is_past_over || self.own_next() <= progress.latest;
            let has_more = may_have_more && self.advance().await;
            if !self.ready.is_empty() {
                continue;
            }
            let quiet_for = self.heartbeat.saturating_sub(self.quiet_since.elapsed());
            if has_more {
                // A filter that lets nothing pass must neither hold the thread nor keep the heartbeat away.
                tokio::task::yield_now().await;
                if !quiet_for.is_zero() {
                    continue;
                }
            } else if progress.is_over {
                return None;
            } else if let Ok(Ok(())) = tokio::time::timeout(quiet_for, self.progress.changed()).await {
                continue;
            }
            let (stream_id, sequence) = self.position();
            self.ready.push_back(Item::Heartbeat { stream_id, sequence });
        }
    }

    fn is_in_own(&self) -> bool {
        self.at.stream_id == *self.stream.id()
    }

    /// The number in this process's stream that comes next.
    fn own_next(&self) -> u64 {
        if self.is_in_own() { self.at.next } else { 1 }
    }

    /// Takes the next events from the ring, or those that it has no more from the log; false if there are none.
    async fn advance(&mut self) -> bool {
        let looked_before = match self.forgotten().await {
            Forgotten::Events(events) => {
                for Read { recorded, before } in events {
                    self.head = before.or(self.head);
                    self.take(recorded);
                }
                return true;
            }
            Forgotten::Unknown => {
                self.lose_the_past();
                return true;
            }
            Forgotten::Nothing(looked_before) => looked_before,
        };
        let (earliest, kept) = self.stream.read(self.own_next());
        if self.own_next() < earliest && looked_before < earliest && self.stream.past().is_some() {
            // The ring went on since the files were looked at.
            return true;
        }
        let found = !kept.is_empty();
        for recorded in kept {
            self.take(recorded);
        }
        found
    }

    fn take(&mut self, recorded: Published) {
        let sequence = recorded.sequence();
        let links = recorded.links();
        if *recorded.stream_id() != self.at.stream_id {
            // The chain tells whether the stream before was seen to its end.
            if links.is_none_or(|links| Some(links.previous) != self.head) {
                self.lose(0, 0);
            }
            self.at = Position { stream_id: Arc::clone(recorded.stream_id()), next: 1 };
            self.is_begun = true;
        }
        if sequence > self.at.next && self.is_begun {
            self.lose(self.at.next, sequence.saturating_sub(1));
        }
        self.is_begun = true;
        self.at.next = sequence.saturating_add(1);
        self.head = links.map(|links| links.own);
        if self.filter.passes(&recorded) {
            self.ready.push_back(Item::Event(recorded));
        }
    }

    fn lose(&mut self, from: u64, to: u64) {
        let gap = self.stream.gap(Arc::clone(&self.at.stream_id), from, to);
        self.ready.push_back(gap);
    }

    /// Nobody knows the stream that the subscriber means: it goes on with this process's, from its beginning.
    fn lose_the_past(&mut self) {
        self.lose(0, 0);
        self.at = Position { stream_id: Arc::clone(self.stream.id()), next: 1 };
        self.is_begun = true;
        self.is_past_over = true;
    }

    /// The next events, where memory has them no more and the log's files do. Read beside the runtime.
    async fn forgotten(&mut self) -> Forgotten {
        let earliest = self.stream.earliest();
        let is_wanted = !self.is_past_over || self.own_next() < earliest;
        if let Past::NotRead(cursor) = &mut self.past {
            let past = self.stream.past().filter(|_| is_wanted);
            let Some((archive, readers, most)) = past else { return Forgotten::Nothing(earliest) };
            let mut cursor = std::mem::take(cursor);
            let abandoned = Arc::clone(&self.abandoned);
            let wanted = Wanted { from: self.at.clone(), own_before: earliest, most, abandoned };
            let reading = tokio::spawn(async move {
                // Nobody closes it; and if somebody did, reading would do no harm.
                let turn = readers.acquire_owned().await;
                let read = move || {
                    // Kept as long as it reads, also where nobody waits for it any more.
                    let _turn = turn;
                    let events = archive.read(&mut cursor, &wanted);
                    (cursor, events)
                };
                tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| unread())
            });
            self.past = Past::Reading(reading, earliest);
        }
        let Past::Reading(reading, before) = &mut self.past else { return Forgotten::Nothing(earliest) };
        let before = *before;
        let (cursor, events) = reading.await.unwrap_or_else(|_| unread());
        let head = cursor.head();
        self.past = Past::NotRead(cursor);
        match events {
            None => Forgotten::Unknown,
            Some(events) if events.is_empty() => {
                self.is_past_over = true;
                self.head = head.or(self.head);
                Forgotten::Nothing(before)
            }
            Some(events) => Forgotten::Events(events),
        }
    }
}

/// What a reading that broke off has.
fn unread() -> (Cursor, Option<Vec<Read>>) {
    (Cursor::default(), Some(Vec::new()))
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        if let Past::Reading(reading, _) = &self.past {
            // It may still wait for its turn.
            reading.abort();
        }
        self.stream.leave();
    }
}

#[cfg(test)]
impl Subscription {
    pub(super) fn heartbeat_after(&mut self, quiet: Duration) {
        self.heartbeat = quiet;
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
