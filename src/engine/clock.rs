//! The time: it follows the wall clock forward and never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::time::Timestamp;

/// A clock that never goes back. Clones show the same time.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    System(System),
    /// Nanoseconds since the epoch, moved by hand, and how many each look at it takes.
    Simulated(AtomicU64, u64),
}

struct System {
    origin: Instant,
    /// The greatest difference seen between the wall clock and the time since `origin`, in nanoseconds. While
    /// the wall clock runs well it hardly moves; when the wall falls behind, it keeps time going at the monotonic rate.
    offset: AtomicU64,
}

impl Clock {
    /// This machine's clock.
    #[must_use]
    pub fn system() -> Self {
        let clock = System { origin: monotonic(), offset: AtomicU64::new(wall()) };
        Self(Arc::new(Source::System(clock)))
    }

    /// A clock that stands still until it is moved.
    #[must_use]
    pub fn simulated(start: Timestamp) -> Self {
        Self::ticking(start, Duration::ZERO)
    }

    /// A clock that moves on by so much at each look: as if what is done between two looks took that long.
    #[must_use]
    pub fn ticking(start: Timestamp, step: Duration) -> Self {
        let step = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
        Self(Arc::new(Source::Simulated(AtomicU64::new(start.nanos()), step)))
    }

    /// The time: the wall clock's where that is ahead of every earlier answer, else on from the latest one at the rate of the
    /// monotonic clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System(system) => system.now(wall()),
            Source::Simulated(nanos, step) => Timestamp::from_nanos(nanos.fetch_add(*step, Ordering::SeqCst)),
        }
    }

    /// How far the wall clock is behind the time, for the operator.
    #[must_use]
    pub fn ahead_of_wall(&self) -> Duration {
        match &*self.0 {
            Source::System(system) => {
                let wall = wall();
                system.now(wall).since(Timestamp::from_nanos(wall))
            }
            Source::Simulated(..) => Duration::ZERO,
        }
    }

    /// Goes on from at least this moment: an earlier process may have answered then.
    pub fn not_before(&self, floor: Timestamp) {
        match &*self.0 {
            Source::System(system) => {
                let running = system.running();
                system.offset.fetch_max(floor.nanos().saturating_sub(running), Ordering::Relaxed);
            }
            Source::Simulated(nanos, _) => {
                nanos.fetch_max(floor.nanos(), Ordering::SeqCst);
            }
        }
    }

    /// Moves a simulated clock forward; the machine's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Simulated(nanos, _) = &*self.0 {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            nanos.fetch_add(by, Ordering::SeqCst);
        }
    }
}

impl System {
    /// Nanoseconds since `origin`.
    fn running(&self) -> u64 {
        u64::try_from(monotonic().duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    fn now(&self, wall: u64) -> Timestamp {
        let running = self.running();
        let offset = wall.saturating_sub(running);
        let greatest = self.offset.load(Ordering::Relaxed);
        let offset =
            if offset > greatest { self.offset.fetch_max(offset, Ordering::Relaxed).max(offset) } else { greatest };
        Timestamp::from_nanos(running.saturating_add(offset))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
fn wall() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the one reader of the monotonic clock")]
fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_back_does_not_take_the_time_with_it() {
        let system = System { origin: monotonic(), offset: AtomicU64::new(0) };
        let hour = 3_600_000_000_000;
        let before = system.now(10 * hour);
        assert!(before.nanos() >= 10 * hour);
        let after = system.now(9 * hour);
        assert!(after >= before);
        assert!(after.since(before) < Duration::from_secs(10), "it goes on at the monotonic rate");
        assert!(system.now(11 * hour).nanos() >= 11 * hour, "and follows the wall forward");
    }

    #[test]
    fn time_goes_on_from_where_an_earlier_process_left_it() {
        let clock = Clock::system();
        let ahead = clock.now().after(Duration::from_hours(1));
        clock.not_before(ahead);
        assert!(clock.now() >= ahead && clock.ahead_of_wall() > Duration::from_secs(3500));
        clock.not_before(Timestamp::default());
        assert!(clock.now() >= ahead);
    }
}
