//! Learns what each agent usually does, and says what is new. What is new is an anomaly, and denies nothing.
//!
//! It is kept in memory and learnt anew after a restart. It looks at events that are written already, so that no
//! decision waits for it.

mod config;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

pub use config::{Config, InvalidConfig};

use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::events::{Event, MessageType, Outcome};

/// The same anomaly is told again after this time.
const TELL_AGAIN: Duration = Duration::from_hours(1);
/// Requests are counted by the minute.
const MINUTE_SECONDS: u64 = 60;
/// Of the greatest number of a minute this part is forgotten with each further minute in which the agent asks: half of
/// it in 45.
const FORGET_PART: u64 = 64;

/// In what an agent differs from its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A capability that it never used or passed on.
    Capability,
    /// A resource below a point where it never was.
    Resource,
    /// An enforcement point, a called agent or a target of a delegation that it never had to do with.
    Target,
    /// Far more requests in a minute than in any lately.
    Rate,
}

impl Kind {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Capability, Self::Resource, Self::Target, Self::Rate];

    /// The name in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capability => "capability",
            Self::Resource => "resource",
            Self::Target => "target",
            Self::Rate => "rate",
        }
    }
}

/// Something that an agent never did before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// The agent.
    pub agent: Arc<str>,
    /// In what it differs.
    pub kind: Kind,
    /// The new value; of a rate, the requests of the minute so far.
    pub value: Box<str>,
    /// For people.
    pub note: String,
}

/// What agents usually do. Bounded: so many agents, so many values of each kind, each a few bytes, whatever their length.
pub struct Baseline {
    learn: Duration,
    rate_factor: u64,
    rate_minimum: u64,
    agents: HashMap<Arc<str>, Habits>,
}

/// What one agent usually does.
struct Habits {
    since: Timestamp,
    latest: Timestamp,
    capabilities: Values,
    resources: Values,
    targets: Values,
    rate: Rate,
}

/// Values by their hash. Two that meet by chance hide one anomaly.
#[derive(Default)]
struct Values(HashMap<u64, Value>);

struct Value {
    first: Timestamp,
    told: Option<Timestamp>,
}

#[derive(Default)]
struct Rate {
    minute: u64,
    count: u64,
    /// The greatest number of a minute, fading.
    usual: u64,
    told: Option<Timestamp>,
}

impl Baseline {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            learn: Duration::from_secs(config.learn_seconds),
            rate_factor: u64::from(config.rate_factor),
            rate_minimum: u64::from(config.rate_minimum),
            agents: HashMap::new(),
        }
    }

    /// Learns from an event of an agent that policy knows; what of it is new.
    pub fn saw(&mut self, event: &Event) -> Vec<Anomaly> {
        let is_of_agent = matches!(event.message_type, MessageType::CapabilityRequest | MessageType::Delegate);
        if !is_of_agent || event.from_agent.is_empty() || !self.has_room(event) {
            return Vec::new();
        }
        let (learn, now) = (self.learn, event.at);
        let agent = &event.from_agent;
        let habits = self.agents.entry(Arc::clone(agent)).or_insert_with(|| Habits::since(now));
        habits.latest = habits.latest.max(now);
        let is_learning = now.since(habits.since) < learn;
        let mut anomalies = Vec::new();
        let limits = (self.rate_factor, self.rate_minimum);
        anomalies.extend(habits.rate.count(event.repeated().max(1), now, is_learning, limits).map(|anomaly| {
            let (value, note) = anomaly;
            Anomaly { agent: Arc::clone(agent), kind: Kind::Rate, value, note }
        }));
        // What was refused was not done, and has counters of its own.
        if event.outcome != Outcome::Accepted || event.dry_run {
            return anomalies;
        }
        let since = habits.since;
        let mut used = |values: fn(&mut Habits) -> &mut Values, kind: Kind, value: &str| {
            let is_new = values(habits).is_new(value, now, since, learn);
            let note = || format!("{}: never before", kind.as_str());
            anomalies.extend(is_new.then(|| Anomaly {
                agent: Arc::clone(agent),
                kind,
                value: value.into(),
                note: note(),
            }));
        };
        for capability in &event.capabilities {
            used(|habits| &mut habits.capabilities, Kind::Capability, capability.as_str());
        }
        for resource in event.resource.as_str().split(' ').filter(|resource| !resource.is_empty()) {
            used(|habits| &mut habits.resources, Kind::Resource, point_of(resource));
        }
        if !event.to_agent.is_empty() && event.to_agent != event.from_agent {
            used(|habits| &mut habits.targets, Kind::Target, &event.to_agent);
        }
        anomalies
    }

    /// Whether the agent is known or can be: those of whom nothing was heard for as long as is learnt make room.
    fn has_room(&mut self, event: &Event) -> bool {
        if self.agents.len() < limits::BASELINE_AGENTS || self.agents.contains_key(&event.from_agent) {
            return true;
        }
        let (learn, now) = (self.learn, event.at);
        self.agents.retain(|_, habits| now.since(habits.latest) < learn);
        self.agents.len() < limits::BASELINE_AGENTS
    }
}

impl Habits {
    fn since(now: Timestamp) -> Self {
        Self {
            since: now,
            latest: now,
            capabilities: Values::default(),
            resources: Values::default(),
            targets: Values::default(),
            rate: Rate::default(),
        }
    }
}

impl Values {
    /// Whether the value is to be told as new. What came up while the agent was learnt is usual, and what is new
    /// becomes usual after as long a time.
    fn is_new(&mut self, value: &str, now: Timestamp, since: Timestamp, learn: Duration) -> bool {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let key = hasher.finish();
        if self.0.len() >= limits::BASELINE_VALUES && !self.0.contains_key(&key) {
            return false;
        }
        let value = self.0.entry(key).or_insert(Value { first: now, told: None });
        let was_learnt = value.first.since(since) < learn || now.since(value.first) >= learn;
        if was_learnt || value.told.is_some_and(|told| now.since(told) < TELL_AGAIN) {
            return false;
        }
        value.told = Some(now);
        true
    }
}

impl Rate {
    /// Counts requests; the number of the minute so far and a note, where it is to be told.
    fn count(
        &mut self,
        requests: u64,
        now: Timestamp,
        is_learning: bool,
        (factor, minimum): (u64, u64),
    ) -> Option<(Box<str>, String)> {
        let minute = now.seconds() / MINUTE_SECONDS;
        if minute > self.minute {
            self.usual = self.usual.saturating_sub(self.usual / FORGET_PART).max(self.count);
            (self.minute, self.count) = (minute, 0);
        }
        self.count = self.count.saturating_add(requests);
        if is_learning {
            self.usual = self.usual.max(self.count);
            return None;
        }
        let is_far_above = self.count >= minimum && self.count > self.usual.saturating_mul(factor);
        if !is_far_above || self.told.is_some_and(|told| now.since(told) < TELL_AGAIN) {
            return None;
        }
        self.told = Some(now);
        let note = format!("rate: {} requests within a minute, and {} at most lately", self.count, self.usual);
        Some((self.count.to_string().into(), note))
    }
}

/// The point below which a resource stands: its scheme and first segment, or the scheme alone where there is no more than
/// one segment. `prod/web` stands below `prod`, `/data/a/b` below `/data`, `record:7` below `record:`.
fn point_of(resource: &str) -> &str {
    let scheme = resource.find(':').map_or(0, |at| at.saturating_add(1));
    let (_, rest) = resource.split_at_checked(scheme).unwrap_or(("", resource));
    let slashes = rest.len().saturating_sub(rest.trim_start_matches('/').len());
    let end = rest.trim_start_matches('/').find('/');
    let cut = match end {
        Some(end) => scheme.saturating_add(slashes).saturating_add(end),
        None if scheme > 0 => scheme,
        None => resource.len(),
    };
    resource.get(..cut).unwrap_or(resource)
}

#[cfg(test)]
mod tests;
