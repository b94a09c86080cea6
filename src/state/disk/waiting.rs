//! What waits to be written to a log, and how far writing came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::log::encode;
use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::state::change::{Change, Sink};

/// Records that may wait for a disk that doesn't answer: then nothing more is begun.
const BACKLOG: u64 = 500_000;
/// What they may take, in bytes: a full number of common ones.
const BACKLOG_BYTES: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// Reads the time.
pub(in crate::state) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Records back to back.
#[derive(Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn append(&mut self, other: &Self) {
        other.iter().for_each(|record| self.push(record));
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).filter_map(|(begin, end)| self.bytes.get(*begin..*end))
    }
}

struct Pending {
    records: Records,
    scratch: Vec<u8>,
    /// The number of the last change.
    last: u64,
    /// The log is broken: what comes is counted and not kept.
    discards: bool,
    stop: bool,
    /// Nothing is written any more.
    is_over: bool,
    /// When the first of the records came, in nanoseconds; 0: there is none.
    since: u64,
}

/// How far writing came; numbers of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    durable: u64,
    /// Those up to here were given up on, unless they are durable.
    refused: u64,
}

/// That a change may not outlive this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct NotDurable;

/// The changes that wait. Whoever changes something notes it; one thread writes.
pub(in crate::state) struct Waiting {
    pending: Mutex<Pending>,
    clock: Clock,
    wake: Condvar,
    over: Condvar,
    progress: watch::Sender<Progress>,
    last: AtomicU64,
    durable: AtomicU64,
    /// When the oldest change came that is not durable, in nanoseconds; 0: all are.
    oldest: AtomicU64,
    /// What waits to be taken, in bytes.
    bytes: AtomicUsize,
    is_well: AtomicBool,
    failures: AtomicU64,
    trouble: Mutex<Option<String>>,
    marked_until: AtomicU64,
}

impl Sink for Waiting {
    fn note(&self, changes: &[Change<'_>]) {
        let mut pending = self.pending.lock();
        pending.last = pending.last.saturating_add(1);
        self.last.store(pending.last, Ordering::SeqCst);
        if pending.discards {
            return;
        }
        let Pending { records, scratch, .. } = &mut *pending;
        encode(changes, scratch);
        records.push(scratch);
        self.bytes.store(records.bytes.len(), Ordering::Relaxed);
        if pending.since == 0 {
            // Zero says that nothing waits, so the epoch itself is one nanosecond late.
            pending.since = (self.clock)().nanos().max(1);
            let _ = self.oldest.compare_exchange(0, pending.since, Ordering::SeqCst, Ordering::SeqCst);
        }
        self.wake.notify_one();
    }
}

impl Waiting {
    /// Nothing waits, and everything up to this number is durable.
    pub(super) fn new(sequence: u64, clock: Clock) -> Self {
        let (records, scratch) = (Records::default(), Vec::new());
        let pending =
            Pending { records, scratch, last: sequence, discards: false, stop: false, is_over: false, since: 0 };
        Self {
            pending: Mutex::new(pending),
            clock,
            wake: Condvar::new(),
            over: Condvar::new(),
            progress: watch::Sender::new(Progress { durable: sequence, refused: 0 }),
            last: AtomicU64::new(sequence),
            durable: AtomicU64::new(sequence),
            oldest: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            is_well: AtomicBool::new(true),
            failures: AtomicU64::new(0),
            trouble: Mutex::new(None),
            marked_until: AtomicU64::new(0),
        }
    }

    /// Waits until all that was noted before is durable.
    pub(in crate::state) async fn settled(&self, within: Duration) -> Result<(), NotDurable> {
        let sequence = self.last.load(Ordering::SeqCst);
        if self.durable() >= sequence {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let is_settled = |progress: &Progress| progress.durable >= sequence || progress.refused >= sequence;
        match tokio::time::timeout(within, progress.wait_for(is_settled)).await {
            Ok(Ok(progress)) if progress.durable >= sequence => Ok(()),
            _ => Err(NotDurable),
        }
    }

    /// Whether what is noted now is likely to become durable soon.
    pub(in crate::state) fn accepts(&self) -> bool {
        self.is_well.load(Ordering::SeqCst)
            && self.backlog() < BACKLOG
            && self.bytes.load(Ordering::Relaxed) < BACKLOG_BYTES
            && self.stalled().is_none()
    }

    /// How long the disk has not answered, if that is too long.
    fn stalled(&self) -> Option<Duration> {
        let oldest = self.oldest.load(Ordering::SeqCst);
        // The clock is read only while something waits.
        let waited = (oldest != 0).then(|| (self.clock)().since(Timestamp::from_nanos(oldest)));
        waited.filter(|waited| *waited >= limits::STATE_STALL)
    }

    /// Changes that are not durable yet.
    pub(in crate::state) fn backlog(&self) -> u64 {
        self.last.load(Ordering::SeqCst).saturating_sub(self.durable())
    }

    /// The number of the last durable change.
    pub(in crate::state) fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// Commits that failed since the start.
    pub(in crate::state) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What is wrong.
    pub(in crate::state) fn trouble(&self) -> Option<String> {
        let told = self.trouble.lock().clone();
        told.or_else(|| {
            let waited = self.stalled()?.as_millis();
            Some(format!(
                "the state directory's disk has not answered for {waited} ms: it goes on by itself once the disk does"
            ))
        })
    }

    /// The durable mark.
    pub(in crate::state) fn marked_until(&self) -> Timestamp {
        Timestamp::from_nanos(self.marked_until.load(Ordering::SeqCst))
    }

    pub(super) fn mark(&self, until: Timestamp) {
        self.marked_until.fetch_max(until.nanos(), Ordering::SeqCst);
    }

    pub(super) fn stop(&self) {
        self.pending.lock().stop = true;
        self.wake.notify_one();
    }

    /// Waits until there is something to write, or to stop for, or this long; whether to stop.
    pub(super) fn wait(&self, idle: Duration) -> bool {
        let mut pending = self.pending.lock();
        if pending.records.is_empty() && !pending.stop {
            self.wake.wait_for(&mut pending, idle);
        }
        pending.stop
    }

    /// Waits until nothing is written any more, or this long; whether it came to that.
    pub(super) fn wait_for_end(&self, within: Duration) -> bool {
        let mut pending = self.pending.lock();
        self.over.wait_while_for(&mut pending, |pending| !pending.is_over, within);
        pending.is_over
    }

    /// Moves what waits behind `batch`; the number of the last.
    pub(super) fn take(&self, batch: &mut Records) -> u64 {
        let mut pending = self.pending.lock();
        self.none_waits(&mut pending);
        if batch.is_empty() {
            std::mem::swap(batch, &mut pending.records);
        } else {
            batch.append(&pending.records);
            pending.records.clear();
        }
        pending.last
    }

    /// A fresh snapshot will have everything up to this number: what waits is dropped, what comes is kept again.
    pub(super) fn begin_again(&self) -> u64 {
        let mut pending = self.pending.lock();
        pending.records.clear();
        self.none_waits(&mut pending);
        pending.discards = false;
        pending.last
    }

    /// Whether something came since writing was given up on.
    pub(super) fn has_news(&self) -> bool {
        self.last.load(Ordering::SeqCst) > self.progress.borrow().refused
    }

    /// Everything up to this number is on the disk.
    pub(super) fn is_durable(&self, sequence: u64) {
        self.durable.store(sequence, Ordering::SeqCst);
        let pending = self.pending.lock();
        self.oldest.store(pending.since, Ordering::SeqCst);
        drop(pending);
        if !self.is_well.swap(true, Ordering::SeqCst) {
            *self.trouble.lock() = None;
            tracing::info!(target: "state", "the state directory can be written to again");
        }
        self.progress.send_modify(|progress| progress.durable = progress.durable.max(sequence));
    }

    /// Writing failed. Those who wait are told; what waits is kept where it will be tried again.
    pub(super) fn has_failed(&self, trouble: String, keeps: bool) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.is_well.store(false, Ordering::SeqCst);
        let mut told = self.trouble.lock();
        if told.as_ref() != Some(&trouble) {
            tracing::error!(target: "state", "{trouble}");
            *told = Some(trouble);
        }
        drop(told);
        let last = self.give_up(keeps);
        self.progress.send_modify(|progress| progress.refused = progress.refused.max(last));
    }

    /// Nothing will be written any more.
    pub(super) fn is_over(&self) {
        self.is_well.store(false, Ordering::SeqCst);
        self.give_up(false);
        self.progress.send_modify(|progress| progress.refused = u64::MAX);
        self.pending.lock().is_over = true;
        self.over.notify_all();
    }

    /// What waited was taken: it is durable or not by itself.
    fn none_waits(&self, pending: &mut Pending) {
        pending.since = 0;
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn give_up(&self, keeps: bool) -> u64 {
        let mut pending = self.pending.lock();
        if !keeps {
            pending.discards = true;
            self.none_waits(&mut pending);
            pending.records.clear();
        }
        pending.last
    }
}
