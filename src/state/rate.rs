//! How often, by the generic cell rate algorithm (ITU-T I.371): one moment per bucket, no timers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::locks::{Locks, Mutex, SystemLocks};
use crate::domain::policy::RateLimit;
use crate::domain::time::Timestamp;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

type Buckets = HashMap<Arc<str>, HashMap<Arc<str>, u64>>;

/// Buckets by a pair of names. Only names that policy knows come here, so the buckets are bounded by policy.
pub struct RateLimiter<K: Locks = SystemLocks> {
    /// By the first name, then the second: the moment at which the bucket is full again, in nanoseconds.
    buckets: K::Mutex<Buckets>,
}

impl<K: Locks> Default for RateLimiter<K> {
    fn default() -> Self {
        Self { buckets: Mutex::new(HashMap::new()) }
    }
}

impl<K: Locks> RateLimiter<K> {
    /// Takes one from the bucket of this pair. A limit that changed meanwhile holds at once.
    ///
    /// # Errors
    /// How long until there is one again; nothing is taken.
    pub fn take(&self, first: &str, second: &str, limit: RateLimit, now: Timestamp) -> Result<(), Duration> {
        let interval = NANOS_PER_SECOND.checked_div(u64::from(limit.per_second)).unwrap_or(NANOS_PER_SECOND).max(1);
        let tolerance = interval.saturating_mul(u64::from(limit.burst));
        self.buckets.with(|buckets| {
            if !buckets.contains_key(first) {
                buckets.insert(first.into(), HashMap::new());
            }
            let Some(bucket) = buckets.get_mut(first) else { return Ok(()) };
            if let Some(full_at) = bucket.get_mut(second) {
                // Never emptier than empty: what an earlier, slower limit left of the wait counts no more.
                *full_at = (*full_at).min(now.nanos().saturating_add(tolerance));
                *full_at = advance(*full_at, interval, tolerance, now)?;
            } else {
                bucket.insert(second.into(), now.nanos().saturating_add(interval));
            }
            Ok(())
        })
    }

    /// Drops the buckets that are full, which is as good as none.
    pub fn forget_full(&self, now: Timestamp) {
        self.buckets.with(|buckets| {
            for bucket in buckets.values_mut() {
                bucket.retain(|_, full_at| *full_at > now.nanos());
            }
            buckets.retain(|_, bucket| !bucket.is_empty());
        });
    }
}

fn advance(full_at: u64, interval: u64, tolerance: u64, now: Timestamp) -> Result<u64, Duration> {
    let next = full_at.max(now.nanos()).saturating_add(interval);
    let over = next.saturating_sub(now.nanos()).saturating_sub(tolerance);
    if over > 0 { Err(Duration::from_nanos(over)) } else { Ok(next) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_A_SECOND: RateLimit = RateLimit { per_second: 2, burst: 3 };

    #[test]
    fn a_burst_then_the_rate() {
        let limiter = RateLimiter::<SystemLocks>::default();
        let start = Timestamp::from_seconds(100);
        let take = |millis| limiter.take("a", "b", TWO_A_SECOND, start.after(Duration::from_millis(millis)));
        for _ in 0..3 {
            assert_eq!(take(0), Ok(()));
        }
        assert_eq!(take(0), Err(Duration::from_millis(500)));
        assert_eq!(take(499), Err(Duration::from_millis(1)));
        assert_eq!(take(500), Ok(()));
        assert_eq!(take(500), Err(Duration::from_millis(500)));
    }

    #[test]
    fn a_new_limit_holds_at_once() {
        let limiter = RateLimiter::<SystemLocks>::default();
        let start = Timestamp::from_seconds(100);
        let slow = RateLimit { per_second: 1, burst: 100 };
        let take = |limit, millis| limiter.take("a", "b", limit, start.after(Duration::from_millis(millis)));
        for _ in 0..100 {
            assert_eq!(take(slow, 0), Ok(()));
        }
        assert_eq!(take(TWO_A_SECOND, 0), Err(Duration::from_millis(500)), "and not a hundred seconds");
        assert_eq!(take(TWO_A_SECOND, 500), Ok(()));
        assert_eq!(take(RateLimit { per_second: 1, burst: 1 }, 500), Err(Duration::from_secs(1)), "nor more at once");
    }

    #[test]
    fn pairs_have_buckets_of_their_own_and_full_ones_are_forgotten() {
        let limiter = RateLimiter::<SystemLocks>::default();
        let start = Timestamp::from_seconds(100);
        for _ in 0..3 {
            assert!(limiter.take("a", "b", TWO_A_SECOND, start).is_ok());
            assert!(limiter.take("a", "c", TWO_A_SECOND, start).is_ok());
        }
        limiter.forget_full(start);
        assert!(limiter.take("a", "b", TWO_A_SECOND, start).is_err());
        limiter.forget_full(Timestamp::from_seconds(102));
        limiter.buckets.with(|buckets| assert!(buckets.is_empty()));
    }
}
