//! The locks that the counting core stands on, so that a model checker can put its own in their place.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// A family of locks.
pub trait Locks: 'static {
    /// A lock around a value.
    type Mutex<T: Send + 'static>: Mutex<T>;
    /// A value that is replaced whole and read without waiting.
    type Snapshot<T: Send + Sync + 'static>: Snapshot<T>;
}

/// A lock around a value.
pub trait Mutex<T>: Send + Sync {
    /// A lock around this value.
    fn new(value: T) -> Self;
    /// Does something while nobody else does.
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R;
}

/// A value that is replaced whole and read without waiting.
pub trait Snapshot<T>: Send + Sync {
    /// A snapshot of this value.
    fn new(value: T) -> Self;
    /// Reads the newest value.
    fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R;
    /// Replaces the value. Reads that begin after this has returned see it.
    fn replace(&self, value: T);
}

/// The locks that the service runs on.
pub enum SystemLocks {}

impl Locks for SystemLocks {
    type Mutex<T: Send + 'static> = parking_lot::Mutex<T>;
    type Snapshot<T: Send + Sync + 'static> = ArcSwap<T>;
}

impl<T: Send> Mutex<T> for parking_lot::Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.lock())
    }
}

impl<T: Send + Sync> Snapshot<T> for ArcSwap<T> {
    fn new(value: T) -> Self {
        Self::from_pointee(value)
    }

    fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.load())
    }

    fn replace(&self, value: T) {
        self.store(Arc::new(value));
    }
}
