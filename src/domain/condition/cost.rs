//! What an evaluation may cost: steps, counted before they are taken.
//!
//! A step is a part of an expression that is evaluated once. A part that may look at all of what the request says
//! counts a step for each value in it, and for each sixteen bytes of its strings, times the parts that put values
//! together. So a context of 8 KiB can't make a condition cost more than its steps, whatever it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cel::{Context, DeclarationError, ExecutionError};

/// The function that counts a round of a loop. It can't be written in a condition.
pub(super) const TICK: &str = "@tick";

/// Steps for which the request's size doesn't matter, and parts for which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) steps: u64,
    pub(super) bulks: u64,
}

impl Cost {
    pub(super) const STEP: Self = Self { steps: 1, bulks: 0 };
    /// Looks at all that the request says.
    pub(super) const BULK: Self = Self { steps: 0, bulks: 1 };
    /// What each round of a loop costs by itself: two variables are set and its result is looked at.
    pub(super) const ROUND: Self = Self { steps: 8, bulks: 0 };

    pub(super) fn and(self, other: Self) -> Self {
        Self { steps: self.steps.saturating_add(other.steps), bulks: self.bulks.saturating_add(other.bulks) }
    }

    /// The same for values that may be so many times as large as the request.
    pub(super) fn times(self, growth: u64) -> Self {
        Self { steps: self.steps, bulks: self.bulks.saturating_mul(growth) }
    }
}

/// Counts the steps of a request's evaluations.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// How many steps it takes to look at all that the request says.
    bulk: AtomicU64,
    left: AtomicU64,
    is_exceeded: AtomicBool,
}

impl Meter {
    pub(super) fn new(steps: u64) -> Self {
        Self(Arc::new(Counts {
            bulk: AtomicU64::new(1),
            left: AtomicU64::new(steps),
            is_exceeded: AtomicBool::new(false),
        }))
    }

    /// The request says this much more.
    pub(super) fn grow(&self, bulk: u64) {
        self.0.bulk.fetch_add(bulk, Ordering::Relaxed);
    }

    /// Takes the steps, if so many are left.
    pub(super) fn take(&self, cost: Cost) -> bool {
        let steps = cost.steps.saturating_add(cost.bulks.saturating_mul(self.0.bulk.load(Ordering::Relaxed)));
        let left = self.0.left.load(Ordering::Relaxed).checked_sub(steps);
        self.0.left.store(left.unwrap_or(0), Ordering::Relaxed);
        if left.is_none() {
            self.0.is_exceeded.store(true, Ordering::Relaxed);
        }
        left.is_some()
    }

    /// Whether steps were refused at any time: an error may be forgotten on the way up, this is not.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.is_exceeded.load(Ordering::Relaxed)
    }

    /// The steps that are left.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.0.left.load(Ordering::Relaxed)
    }

    /// Lets the loops of expressions that are evaluated here count their rounds.
    pub(super) fn count_in(&self, context: &mut Context<'_, '_>) -> Result<(), DeclarationError> {
        let meter = self.clone();
        context.add_function(TICK, move |steps: i64, bulks: i64| -> Result<bool, ExecutionError> {
            let cost = Cost {
                steps: u64::try_from(steps).unwrap_or(u64::MAX),
                bulks: u64::try_from(bulks).unwrap_or(u64::MAX),
            };
            let too_much = || ExecutionError::function_error(TICK, "too many steps");
            meter.take(cost).then_some(true).ok_or_else(too_much)
        })
    }
}
