//! What each agent attempted lately, and whether it is enough to pull the kill switch.
//!
//! An attempt counts if the agent made it on its own connection. What enforcement points report counts as often as it
//! would without the one that reports most: whatever one of them says, it can't get an agent there alone, nor add to
//! what an agent did elsewhere.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::locks::{Locks, Mutex, SystemLocks};
use crate::domain::policy::QuarantineAfter;
use crate::domain::time::Timestamp;

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// To use or pass on more than was given.
    Escalation,
    /// To use a token that has no use left.
    Reuse,
}

/// Who saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenBy<'a> {
    /// Remit itself: the agent was on its own connection.
    Remit,
    /// This enforcement point says so.
    EnforcementPoint(&'a str),
}

/// What follows from an attempt.
pub enum Counted<'a, K: Locks = SystemLocks> {
    /// Nothing: it is not enough yet, or somebody is at it.
    Noted,
    /// The kill switch is to be pulled.
    Enough(Pull<'a, K>),
    /// It would be, and as many agents as may were taken already. Said once a window for each agent.
    Withheld,
}

/// The right to pull the switch for an agent: nobody else gets it meanwhile. Where it is dropped without
/// [`Pull::done`], the agent's next attempt gives it again.
pub struct Pull<'a, K: Locks = SystemLocks> {
    attempts: &'a Attempts<K>,
    agent: Arc<str>,
    attempt: Attempt,
    taken_at: Timestamp,
    is_done: bool,
}

/// The attempts of the last window. Only names that policy knows come here; of each no more is kept than twice the
/// limit.
pub struct Attempts<K: Locks = SystemLocks> {
    noted: K::Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    agents: HashMap<Arc<str>, Record>,
    /// When an agent was taken, the earliest first.
    taken: VecDeque<Timestamp>,
}

/// What is known of one agent.
#[derive(Default)]
struct Record {
    escalations: Seen,
    reuses: Seen,
    is_pulled: bool,
    withheld_at: Option<Timestamp>,
}

/// The moments of attempts of one kind, the earliest first.
#[derive(Default)]
struct Seen {
    by_remit: VecDeque<Timestamp>,
    by_points: HashMap<Arc<str>, VecDeque<Timestamp>>,
}

impl<K: Locks> Default for Attempts<K> {
    fn default() -> Self {
        Self { noted: Mutex::new(Noted::default()) }
    }
}

impl<K: Locks> Attempts<K> {
    /// Notes an attempt of this agent. `after` has the limits in force: as many attempts of a kind within its window give the
    /// right to pull the switch, as long as fewer agents than `max_agents` were taken within it.
    pub fn note(
        &self,
        agent: &Arc<str>,
        attempt: Attempt,
        seen_by: SeenBy<'_>,
        after: QuarantineAfter,
        now: Timestamp,
    ) -> Counted<'_, K> {
        let window = Duration::from_secs(after.window_seconds);
        let limit = match attempt {
            Attempt::Escalation => after.escalation_attempts,
            Attempt::Reuse => after.reuse_attempts,
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.noted.with(|noted| {
            let Noted { agents, taken } = noted;
            let record = agents.entry(Arc::clone(agent)).or_default();
            if record.is_pulled {
                return Counted::Noted;
            }
            record.forget(now, window);
            let seen = record.of(attempt);
            seen.note(seen_by, limit, now);
            if seen.count() < limit {
                return Counted::Noted;
            }
            forget(taken, now, window);
            if taken.len() < usize::try_from(after.max_agents).unwrap_or(usize::MAX) {
                taken.push_back(now);
                record.is_pulled = true;
                let agent = Arc::clone(agent);
                return Counted::Enough(Pull { attempts: self, agent, attempt, taken_at: now, is_done: false });
            }
            // Counted anew, so that it stays bounded.
            *record = Record { withheld_at: record.withheld_at, ..Record::default() };
            if record.withheld_at.is_some() {
                return Counted::Noted;
            }
            record.withheld_at = Some(now);
            Counted::Withheld
        })
    }

    /// Drops what counts no more. Without a window nothing does.
    pub fn forget_outlived(&self, window: Option<Duration>, now: Timestamp) {
        let window = window.unwrap_or_default();
        self.noted.with(|noted| {
            noted.agents.retain(|_, record| {
                record.forget(now, window);
                !record.is_empty()
            });
            forget(&mut noted.taken, now, window);
        });
    }
}

impl<K: Locks> Pull<'_, K> {
    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Arc<str> {
        &self.agent
    }

    /// What it attempted too often.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// It is under quarantine. What it attempts after it is reinstated counts anew.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

impl<K: Locks> Drop for Pull<'_, K> {
    fn drop(&mut self) {
        self.attempts.noted.with(|noted| {
            if self.is_done {
                noted.agents.remove(&self.agent);
                return;
            }
            if let Some(record) = noted.agents.get_mut(&self.agent) {
                record.is_pulled = false;
            }
            if let Some(place) = noted.taken.iter().position(|taken| *taken == self.taken_at) {
                noted.taken.remove(place);
            }
        });
    }
}

impl Record {
    fn of(&mut self, attempt: Attempt) -> &mut Seen {
        match attempt {
            Attempt::Escalation => &mut self.escalations,
            Attempt::Reuse => &mut self.reuses,
        }
    }

    fn forget(&mut self, now: Timestamp, window: Duration) {
        self.escalations.forget(now, window);
        self.reuses.forget(now, window);
        self.withheld_at = self.withheld_at.filter(|at| now.since(*at) < window);
    }

    fn is_empty(&self) -> bool {
        self.escalations.is_empty() && self.reuses.is_empty() && !self.is_pulled && self.withheld_at.is_none()
    }
}

impl Seen {
    /// Of each that saw it, so many as would be enough are kept.
    fn note(&mut self, seen_by: SeenBy<'_>, limit: usize, now: Timestamp) {
        let moments = match seen_by {
            SeenBy::Remit => &mut self.by_remit,
            SeenBy::EnforcementPoint(name) => {
                if !self.by_points.contains_key(name) {
                    self.by_points.insert(name.into(), VecDeque::new());
                }
                let Some(moments) = self.by_points.get_mut(name) else { return };
                moments
            }
        };
        moments.push_back(now);
        let surplus = moments.len().saturating_sub(limit);
        moments.drain(..surplus);
    }

    /// How many count: all that were seen here, and of the others all but those of the one that saw most.
    fn count(&self) -> usize {
        let lengths = || self.by_points.values().map(VecDeque::len);
        let reported = lengths().fold(0, usize::saturating_add);
        let by_one = lengths().max().unwrap_or_default();
        self.by_remit.len().saturating_add(reported.saturating_sub(by_one))
    }

    fn forget(&mut self, now: Timestamp, window: Duration) {
        forget(&mut self.by_remit, now, window);
        self.by_points.retain(|_, moments| {
            forget(moments, now, window);
            !moments.is_empty()
        });
    }

    fn is_empty(&self) -> bool {
        self.by_remit.is_empty() && self.by_points.is_empty()
    }
}

fn forget(moments: &mut VecDeque<Timestamp>, now: Timestamp, window: Duration) {
    while moments.front().is_some_and(|at| now.since(*at) >= window) {
        moments.pop_front();
    }
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
