//! When keys are fetched next: pure, so that hours of outage are tested in no time.

use std::time::Duration;

use crate::domain::time::Timestamp;

/// However many tokens with unknown keys come, the issuer is asked once in this time.
pub(super) const WISHES_APART: Duration = Duration::from_secs(10);
/// The wait after the first failure; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_mins(1);

/// When one issuer's keys are fetched.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    /// The last attempt began then.
    attempted_at: Option<Timestamp>,
    next: Timestamp,
    retry: Duration,
}

impl Schedule {
    /// The first fetch is due at once.
    pub(super) fn new(refresh: Duration, now: Timestamp) -> Self {
        Self { refresh, attempted_at: None, next: now, retry: FIRST_RETRY }
    }

    /// How long until the next fetch is due.
    pub(super) fn wait(&self, now: Timestamp) -> Duration {
        self.next.since(now)
    }

    /// A token wants newer keys: the next fetch comes sooner, but no sooner than its distance from the last.
    pub(super) fn wish(&mut self, now: Timestamp) {
        let earliest = self.attempted_at.map_or(now, |at| at.after(WISHES_APART));
        self.next = self.next.min(earliest.max(now));
    }

    /// A fetch that began then has ended.
    pub(super) fn done(&mut self, began_at: Timestamp, now: Timestamp, went_well: bool) {
        self.attempted_at = Some(began_at);
        if went_well {
            self.retry = FIRST_RETRY;
            self.next = now.after(self.refresh);
        } else {
            self.next = now.after(self.retry.min(self.refresh));
            self.retry = self.retry.saturating_mul(2).min(LAST_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_mins(5);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds.saturating_add(1000))
    }

    #[test]
    fn keys_are_fetched_at_once_and_then_each_time_they_are_due() {
        let mut schedule = Schedule::new(REFRESH, at(0));
        assert_eq!(schedule.wait(at(0)), Duration::ZERO);
        schedule.done(at(0), at(1), true);
        assert_eq!(schedule.wait(at(1)), REFRESH);
        assert_eq!(schedule.wait(at(400)), Duration::ZERO);
    }

    #[test]
    fn however_many_unknown_keys_are_shown_the_issuer_is_asked_once_in_10_s() {
        let mut schedule = Schedule::new(REFRESH, at(0));
        schedule.done(at(0), at(0), true);
        let mut fetches = 0;
        for now in 0..100 {
            schedule.wish(at(now));
            if schedule.wait(at(now)).is_zero() {
                fetches += 1;
                schedule.done(at(now), at(now), now % 2 == 0);
                // A failure's own retry is not this test's.
                schedule.retry = LAST_RETRY;
                schedule.next = at(now).after(LAST_RETRY);
            }
        }
        assert_eq!(fetches, 9, "at 10, 20, … 90");
    }

    #[test]
    fn a_wish_never_puts_a_fetch_off() {
        let mut schedule = Schedule::new(Duration::from_secs(4), at(0));
        schedule.done(at(0), at(0), true);
        schedule.wish(at(1));
        assert_eq!(schedule.wait(at(1)), Duration::from_secs(3));
    }

    #[test]
    fn failures_are_retried_ever_more_slowly_and_success_forgets_them() {
        let mut schedule = Schedule::new(REFRESH, at(0));
        let mut waits = Vec::new();
        for _ in 0..8 {
            schedule.done(at(0), at(0), false);
            waits.push(schedule.wait(at(0)).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        schedule.done(at(0), at(0), true);
        schedule.done(at(0), at(0), false);
        assert_eq!(schedule.wait(at(0)).as_secs(), 1);
    }
}
