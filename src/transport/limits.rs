//! What a listener tolerates, and who is inside at this moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// HTTP/2 concurrent streams for a connection that carries many callers, such as a proxy's.
pub const PROXY_STREAMS: u32 = 256;

/// Bounds of a listener. Set by hand, all of them: what a library leaves out it leaves unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once. When so many are, no further one is accepted until one ends.
    pub connections: usize,
    /// Handshakes at once: each costs a signature, and a stalled one a place.
    pub handshakes: usize,
    /// From accepting to the first request line or HTTP/2 preface, TLS included.
    pub handshake: Duration,
    /// HTTP/2 concurrent streams a connection (RFC 9113 §6.5.2). See [`PROXY_STREAMS`].
    pub streams: u32,
    /// A request's header list, in bytes. A token of 4 KiB and a bearer JWT fit.
    pub header_list_bytes: u32,
    /// HTTP/2 flow-control window of a stream, in bytes. A request is smaller than that. Windows are
    /// below 2^31 (RFC 9113 §6.9.1).
    pub stream_window_bytes: u32,
    /// HTTP/2 flow-control window of a connection, in bytes: 16 streams' worth.
    pub connection_window_bytes: u32,
    /// What waits to be written on one HTTP/2 stream, in bytes.
    pub send_buffer_bytes: u32,
    /// Streams reset by us for the client's errors before the connection is ended (CVE-2025-8671).
    pub local_error_resets: usize,
    /// Streams reset by the client before we took them up, likewise (CVE-2023-44487).
    pub pending_accept_resets: usize,
    /// An HTTP/2 ping after this long without a frame.
    pub keepalive_interval: Duration,
    /// A ping unanswered for this long ends the connection.
    pub keepalive_timeout: Duration,
    /// A connection is asked to end at this age, ± 10 %, so that clients find new servers and changed
    /// certificates.
    pub connection_age: Duration,
    /// Left for requests in flight once a connection was asked to end.
    pub connection_grace: Duration,
    /// Left for all connections at shutdown. Then they are cut.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshakes: 512,
            handshake: Duration::from_secs(5),
            streams: 100,
            header_list_bytes: 16 * 1024,
            stream_window_bytes: 64 * 1024,
            connection_window_bytes: 1024 * 1024,
            send_buffer_bytes: 256 * 1024,
            local_error_resets: 256,
            pending_accept_resets: 20,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age: Duration::from_mins(10),
            connection_grace: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The age at which connection `number` is asked to end: 90 to 110 % of the configured one, told by
    /// the number, so that connections that came together don't leave together.
    pub(super) fn age_of(&self, number: u64) -> Duration {
        // A multiplication by 2^64 divided by the golden ratio spreads neighbours apart (Knuth, 6.4).
        let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) % 201;
        let permille = u32::try_from(spread).unwrap_or(100).saturating_add(900);
        let thousandth = self.connection_age.checked_div(1000).unwrap_or_default();
        thousandth.saturating_mul(permille)
    }
}

/// The entrance of one service: its limits and its counts, shared by all of its listeners, also when
/// they run on different runtimes.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    connections: Arc<Semaphore>,
    handshakes: Semaphore,
    counters: TransportCounters,
}

/// What came through a [`Gate`] since it was made.
#[derive(Debug, Default)]
pub struct TransportCounters {
    accepted: AtomicU64,
    handshake_failures: AtomicU64,
    full: AtomicU64,
    open: AtomicU64,
}

/// One connection's place inside. Given back when dropped.
pub(super) struct Place {
    /// This connection's number, from 1.
    pub(super) number: u64,
    gate: Arc<Gate>,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate that nobody has passed yet. At least one connection and one handshake are let in at once.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        let room = |wanted: usize| wanted.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(room(limits.connections))),
            handshakes: Semaphore::new(room(limits.handshakes)),
            counters: TransportCounters::default(),
            limits,
        })
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The counts.
    #[must_use]
    pub fn counters(&self) -> &TransportCounters {
        &self.counters
    }

    /// A place for one more connection, waited for when all are taken.
    pub(super) async fn enter(self: &Arc<Self>) -> Option<Place> {
        if self.connections.available_permits() == 0 {
            self.counters.full.fetch_add(1, Ordering::Relaxed);
        }
        // Fails only when the semaphore is closed, which nobody does.
        let permit = Arc::clone(&self.connections).acquire_owned().await.ok()?;
        let before = self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        Some(Place { number: before.saturating_add(1), gate: Arc::clone(self), _permit: permit })
    }

    /// A turn to shake hands, waited for when too many do.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.handshakes.acquire().await.ok()
    }

    pub(super) fn handshake_failed(&self) {
        self.counters.handshake_failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl TransportCounters {
    /// Connections accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections that were refused by TLS or did not say in time what they speak.
    #[must_use]
    pub fn handshake_failures(&self) -> u64 {
        self.handshake_failures.load(Ordering::Relaxed)
    }

    /// How often a connection had to wait because the most were open.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

impl Place {
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_stay_within_a_tenth_and_differ() {
        let limits = Limits::default();
        let ages: Vec<Duration> = (0..1000).map(|number| limits.age_of(number)).collect();
        assert!(ages.iter().all(|age| *age >= Duration::from_mins(9)));
        assert!(ages.iter().all(|age| *age <= Duration::from_mins(11)));
        let mut distinct = ages.clone();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 150, "{} ages", distinct.len());
    }

    #[tokio::test]
    async fn a_place_is_given_back() {
        let gate = Gate::new(Limits { connections: 1, ..Limits::default() });
        let first = gate.enter().await.unwrap();
        assert_eq!(first.number, 1);
        assert_eq!(gate.counters().open(), 1);
        let mut second = Box::pin(gate.enter());
        tokio::time::timeout(Duration::from_millis(20), &mut second).await.map(|_| ()).unwrap_err();
        assert_eq!(gate.counters().full(), 1);
        drop(first);
        assert_eq!(second.await.unwrap().number, 2);
        assert_eq!(gate.counters().accepted(), 2);
        assert_eq!(gate.counters().open(), 0);
    }
}
