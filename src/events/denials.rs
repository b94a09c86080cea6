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
            // It stands for requests of several traces, and so for none of them.
            first.trace = first.trace.filter(|trace| event.trace.is_some_and(|other| other.id == trace.id));
            first.repeated = first.repeated.saturating_add(1);
        }
        None => *repeats = Some(Box::new(Event { repeated: 1, ..event })),
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    const EXPIRED: Reason = Reason::TokenExpired;

    fn shown(trial: &mut Trial) -> Vec<(u64, String, u64)> {
        trial.recorder.turn();
        let shown = |event: &Arc<Event>| (event.sequence(), event.from_agent.to_string(), event.repeated());
        trial.events.shared.stream.kept().iter().map(shown).collect()
    }

    #[test]
    fn the_same_denial_within_a_second_makes_one_event_more() {
        let mut trial = Trial::unwritten(64);
        for _ in 0..5 {
            trial.events.deny(trial.event("agent-a", EXPIRED));
            trial.recorder.turn();
            trial.pass(Duration::from_millis(100));
        }
        trial.events.deny(trial.event("agent-b", EXPIRED));
        trial.events.deny(trial.event("agent-a", Reason::TokenRevoked));
        let three = vec![(1, "agent-a".into(), 0), (2, "agent-b".into(), 0), (3, "agent-a".into(), 0)];
        assert_eq!(shown(&mut trial), three);
        trial.pass(Duration::from_millis(499));
        assert_eq!(shown(&mut trial), three);
        trial.pass(Duration::from_millis(1));
        let four = [three, vec![(4, "agent-a".into(), 4)]].concat();
        assert_eq!(shown(&mut trial), four, "when its second is over");
        trial.pass(Duration::from_secs(5));
        assert_eq!(shown(&mut trial), four, "nothing repeated itself since");
        trial.events.deny(trial.event("agent-a", EXPIRED));
        assert_eq!(shown(&mut trial).last(), Some(&(5, "agent-a".into(), 0)), "at once again");
    }

    #[test]
    fn the_event_of_the_repeats_has_the_time_of_the_last() {
        let mut trial = Trial::unwritten(64);
        trial.events.deny(trial.event("agent-a", EXPIRED));
        trial.pass(Duration::from_millis(100));
        trial.events.deny(trial.event("agent-a", EXPIRED));
        trial.pass(Duration::from_millis(200));
        let last = trial.event("agent-a", EXPIRED);
        let at = last.at;
        trial.events.deny(last);
        trial.recorder.turn();
        trial.pass(Duration::from_secs(1));
        trial.recorder.turn();
        let kept = trial.events.shared.stream.kept();
        assert_eq!((kept[1].at, kept[1].repeated()), (at, 2));
    }

    #[test]
    fn every_denial_is_in_an_event_or_counted() {
        let mut trial = Trial::unwritten(64);
        let total = 3 * 6000;
        for round in 0..3 {
            for agent in 0..6000 {
                trial.events.deny(trial.event(&format!("agent-{agent}"), EXPIRED));
            }
            assert!(trial.events.shared.denials.windows.lock().open.len() <= WINDOWS, "{round}");
        }
        let (mut told, mut last) = (0, 0);
        for _ in 0..600 {
            trial.recorder.turn();
            for event in trial.events.shared.stream.kept().iter().filter(|event| event.sequence() > last) {
                told += event.repeated().max(1);
            }
            last = trial.events.numbers().sequence;
            trial.pass(Duration::from_millis(100));
        }
        assert_eq!(told + trial.events.numbers().denials_unrecorded, total);
        assert!(told >= 3 * 4096, "{told}");
        assert!(trial.events.shared.denials.windows.lock().open.is_empty());
    }

    #[tokio::test]
    async fn the_end_does_not_swallow_repeats() {
        let trial = Trial::unwritten(64);
        for _ in 0..3 {
            trial.events.deny(trial.event("agent-a", EXPIRED));
        }
        let events = trial.events.clone();
        let recorder = std::thread::spawn(move || trial.recorder.run());
        events.shutdown(Duration::from_secs(5)).await.unwrap();
        recorder.join().unwrap();
        let repeated: Vec<u64> = events.shared.stream.kept().iter().map(|event| event.repeated()).collect();
        assert_eq!(repeated, [0, 2]);
    }
}
