//! Denials that repeat themselves: one event at once, and one for the rest of the second.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::event::{Event, MessageType};
use super::queue::{Queue, Share};
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;

/// For how long the same denial makes no event of its own.
const WINDOW: Duration = Duration::from_secs(1);
/// Different denials that are held together at once. An attacker chooses names; beyond this many, each
/// denial is on its own.
const WINDOWS: usize = 4096;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    message_type: MessageType,
    reason: Reason,
    agent: Arc<str>,
    caller: Arc<str>,
    dry_run: bool,
}

#[derive(Default)]
struct Windows {
    /// The first repeated event of each, which stands for all of them.
    open: HashMap<Key, Option<Box<Event>>>,
    /// When each is over, the earliest first.
    ends: VecDeque<(Timestamp, Key)>,
}

/// The denials of the last second.
#[derive(Default)]
pub(super) struct Denials {
    windows: Mutex<Windows>,
    unrecorded: AtomicU64,
}

impl Denials {
    /// Records a denial now, or counts it to the same ones of this second. Never waits.
    pub(super) fn deny(&self, queue: &Queue, event: Event) {
        let key = Key {
            message_type: event.message_type,
            reason: event.reason,
            agent: Arc::clone(&event.from_agent),
            caller: Arc::clone(&event.caller),
            dry_run: event.dry_run,
        };
        let mut windows = self.windows.lock();
        if let Some(repeats) = windows.open.get_mut(&key) {
            repeat(repeats, event);
            return;
        }
        let place = queue.reserve(Share::Denial).ok();
        let has_room = windows.open.len() < WINDOWS && !queue.is_closed();
        match (place, has_room) {
            (Some(place), true) => {
                windows.begin(key, None, queue.now());
                drop(windows);
                place.commit(event);
            }
            // There is no place now; there may be one when the second is over.
            (None, true) => {
                let mut repeats = None;
                repeat(&mut repeats, event);
                windows.begin(key, repeats, queue.now());
            }
            (Some(place), false) => {
                drop(windows);
                place.commit(event);
            }
            (None, false) => {
                self.unrecorded.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records what repeated itself in each second that is over. Without a place it stays and goes on counting.
    pub(super) fn flush(&self, queue: &Queue, now: Timestamp) {
        self.flush_until(queue, Some(now));
    }

    /// Records what repeated itself, whether its second is over or not.
    pub(super) fn flush_all(&self, queue: &Queue) {
        self.flush_until(queue, None);
    }

    fn flush_until(&self, queue: &Queue, now: Option<Timestamp>) {
        loop {
            let mut windows = self.windows.lock();
            let is_over = windows.ends.front().is_some_and(|(end, _)| now.is_none_or(|now| *end <= now));
            if !is_over {
                return;
            }
            let Some((end, key)) = windows.ends.pop_front() else { return };
            let Some(event) = windows.open.remove(&key).flatten() else { continue };
            let Ok(place) = queue.reserve(Share::Denial) else {
                windows.open.insert(key.clone(), Some(event));
                windows.ends.push_front((end, key));
                return;
            };
            drop(windows);
            place.commit(*event);
        }
    }

    /// Counts what found no place before the end.
    pub(super) fn give_up(&self) {
        let mut windows = self.windows.lock();
        windows.ends.clear();
        let left = windows.open.drain().filter_map(|(_, repeats)| repeats).map(|event| event.repeated);
        self.unrecorded.fetch_add(left.fold(0, u64::saturating_add), Ordering::Relaxed);
    }

    /// Denials of which no event will ever tell.
    pub(super) fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }
}

impl Windows {
    fn begin(&mut self, key: Key, repeats: Option<Box<Event>>, now: Timestamp) {
        self.ends.push_back((now.after(WINDOW), key.clone()));
        self.open.insert(key, repeats);
    }
}

/// One more. The event of the first stands for all, at the time of the last.
fn repeat(repeats: &mut Option<Box<Event>>, event: Event) {
    match repeats {
        Some(first) => {
            first.at = event.at;
            first.repeated = first.repeated.saturating_add(1);
        }
        None => *repeats = Some(Box::new(Event { repeated: 1, ..event })),
    }
}
