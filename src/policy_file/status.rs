//! How the policy file is doing, for metrics, readiness and people.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::time::Timestamp;

/// How the policy file is doing. Shared; written by the watcher alone.
#[derive(Debug)]
pub struct Status {
    revision: AtomicU64,
    loaded_at: AtomicU64,
    last_valid_read: AtomicU64,
    reload_failures: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Status {
    /// The status after the first policy was put in force.
    #[must_use]
    pub(super) fn new(revision: u64, now: Timestamp) -> Self {
        Self {
            revision: AtomicU64::new(revision),
            loaded_at: AtomicU64::new(now.nanos()),
            last_valid_read: AtomicU64::new(now.nanos()),
            reload_failures: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// The policy in force.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// When it was put in force.
    #[must_use]
    pub fn loaded_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.loaded_at.load(Ordering::Acquire))
    }

    /// When the file was last read and found valid, changed or not.
    #[must_use]
    pub fn last_valid_read(&self) -> Timestamp {
        Timestamp::from_nanos(self.last_valid_read.load(Ordering::Acquire))
    }

    /// How often the file was found broken, each broken content counted once, and each time somebody asked
    /// for a reload and there was none.
    #[must_use]
    pub fn reload_failures(&self) -> u64 {
        self.reload_failures.load(Ordering::Acquire)
    }

    /// What is wrong with the file now; none if it is the policy in force.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// The file was read at this time and is what is in force.
    pub(super) fn found_valid(&self, read_at: Timestamp) {
        self.last_valid_read.fetch_max(read_at.nanos(), Ordering::AcqRel);
        *self.last_error.lock() = None;
    }

    pub(super) fn installed(&self, revision: u64, now: Timestamp) {
        self.revision.store(revision, Ordering::Release);
        self.loaded_at.store(now.nanos(), Ordering::Release);
    }

    pub(super) fn failed(&self, error: String) {
        self.reload_failures.fetch_add(1, Ordering::AcqRel);
        *self.last_error.lock() = Some(error);
    }
}
