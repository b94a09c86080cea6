//! Requests of the last seconds, by their callers' own ids: a retry is not a reuse attempt.

use std::collections::HashMap;

use super::locks::{Locks, Mutex, SystemLocks};
use crate::domain::limits;
use crate::domain::time::Timestamp;

/// Requests remembered at most in each half; more push out the older half early.
const MOST: usize = 65_536;

/// Which requests came within the last [`limits::RETRY_SECONDS`]. Forgetting one early counts a retry as an attempt,
/// and never the other way round.
pub struct RecentRequests<K: Locks = SystemLocks> {
    halves: K::Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    newer: HashMap<u64, u64>,
    older: HashMap<u64, u64>,
    /// The second since which `newer` is filled.
    since: u64,
}

impl<K: Locks> Default for RecentRequests<K> {
    fn default() -> Self {
        Self { halves: Mutex::new(Halves::default()) }
    }
}

impl<K: Locks> RecentRequests<K> {
    /// Notes a request; whether the same came within the last seconds. `number` stands for caller and id.
    pub fn saw(&self, number: u64, now: Timestamp) -> bool {
        let now = now.seconds();
        self.halves.with(|halves| {
            let is_recent = |second: &u64| now.saturating_sub(*second) <= limits::RETRY_SECONDS;
            let before = halves.newer.get(&number).or_else(|| halves.older.get(&number));
            let is_retry = before.is_some_and(is_recent);
            if is_retry {
                // The window begins with the first: who repeats itself for ever does not stay hidden.
                return true;
            }
            if now.saturating_sub(halves.since) > limits::RETRY_SECONDS || halves.newer.len() >= MOST {
                halves.older = std::mem::take(&mut halves.newer);
                halves.since = now;
            }
            halves.newer.insert(number, now);
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_known_for_ten_seconds() {
        let recent = RecentRequests::<SystemLocks>::default();
        let saw = |number, seconds| recent.saw(number, Timestamp::from_seconds(seconds));
        assert!(!saw(1, 1000));
        assert!(!saw(2, 1005));
        assert!(saw(1, 1010));
        assert!(!saw(2, 1016));
        assert!(!saw(1, 1011));
        assert!(saw(1, 1021));
    }

    #[test]
    fn it_is_bounded() {
        let recent = RecentRequests::<SystemLocks>::default();
        for number in 0..200_000 {
            recent.saw(number, Timestamp::from_seconds(1000));
        }
        recent.halves.with(|halves| assert!(halves.newer.len() <= MOST && halves.older.len() <= MOST));
    }
}
