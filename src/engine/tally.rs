//! What the verbs count for metrics. Labels are names that policy knows, or `unknown`: strangers add no series.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::event::outcome_of;
use crate::baseline::Kind;
use crate::domain::agent::AgentName;
use crate::domain::names::NameMap;
use crate::domain::policy::Policy;
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;

/// Series of calls between agents at most; further pairs count as `other`.
const COMMUNICATION_PAIRS: usize = 10_000;
/// The deepest chain is that of the last five minutes, kept by the minute.
const DEPTH_MINUTES: u64 = 5;

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Authorize, also in a batch.
    Authorize,
    /// Delegate, also in a batch.
    Delegate,
    /// Revoke.
    Revoke,
    /// Reinstate.
    Reinstate,
    /// `RecordMessage`.
    RecordMessage,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Authorize, Self::Delegate, Self::Revoke, Self::Reinstate, Self::RecordMessage];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Delegate => "delegate",
            Self::Revoke => "revoke",
            Self::Reinstate => "reinstate",
            Self::RecordMessage => "record_message",
        }
    }
}

/// The counters, with the handles that each decision needs kept ready.
pub struct Tally {
    decisions: IntCounterVec,
    allowed: [IntCounter; 5],
    durations: [Histogram; 5],
    escalations: IntCounterVec,
    reuses: IntCounterVec,
    wrong_holders: IntCounterVec,
    communications: IntCounterVec,
    communication_pairs: parking_lot::Mutex<std::collections::HashSet<(String, String)>>,
    depth: IntGaugeVec,
    certificates: IntGaugeVec,
    depth_limit: IntGauge,
    unauthenticated: IntCounterVec,
    detected: Detected,
    agents: ArcSwap<NameMap<AgentName, Arc<Depths>>>,
}

/// What follows from detection.
struct Detected {
    quarantines: IntCounter,
    withheld: IntCounter,
    anomalies: IntCounterVec,
}

impl Detected {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let anomalies = Opts::new(
            "remit_anomalies_total",
            "What agents did that they never did before, by kind. Nothing is denied for it.",
        );
        let anomalies = IntCounterVec::new(anomalies, &["agent_id", "kind"])?;
        registry.register(Box::new(anomalies.clone()))?;
        Ok(Self {
            quarantines: counter(
                "remit_automatic_quarantines_total",
                "Agents put under quarantine by quarantine_after.",
            )?,
            withheld: counter(
                "remit_automatic_quarantines_withheld_total",
                "Agents that quarantine_after did not put under quarantine because of its max_agents.",
            )?,
            anomalies,
        })
    }
}

/// The deepest chain that an agent asked for, by the minute: the minute in the high bits, the hops in the low ones.
#[derive(Default)]
struct Depths([AtomicU64; 5]);

impl Tally {
    /// Counters in this registry.
    ///
    /// # Errors
    /// A name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let decisions =
            counters("remit_decisions_total", "Decisions, by verb, result and reason.", &["verb", "result", "reason"])?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "remit_decision_duration_seconds",
                "Time from a request's start to its decision, in seconds.",
            )
            .buckets(vec![1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 1e-2, 5e-2, 0.25, 2.0]),
            &["verb"],
        )?;
        registry.register(Box::new(durations.clone()))?;
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["agent_id"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let depth_limit =
            IntGauge::new("remit_policy_max_delegation_depth", "Hops that the policy in force allows in a chain.")?;
        registry.register(Box::new(depth_limit.clone()))?;
        Ok(Self {
            allowed: Verb::ALL
                .map(|verb| decisions.with_label_values(&[verb.as_str(), "accepted", Reason::Allowed.as_str()])),
            durations: Verb::ALL.map(|verb| durations.with_label_values(&[verb.as_str()])),
            escalations: counters(
                "agent_capability_escalation_attempts_total",
                "Attempts to use or delegate more than was granted.",
                &["agent_id"],
            )?,
            reuses: counters(
                "agent_token_reuse_attempts_total",
                "Attempts to use a token more often than it has uses.",
                &["agent_id"],
            )?,
            wrong_holders: counters(
                "agent_token_wrong_holder_total",
                "Tokens presented by an agent that is not their holder.",
                &["agent_id"],
            )?,
            communications: counters(
                "agent_unauthorized_communication_total",
                "Calls between agents that no communication rule covers.",
                &["source", "destination"],
            )?,
            unauthenticated: counters(
                "remit_unauthenticated_total",
                "Requests without a verified identity that is an agent's.",
                &["method"],
            )?,
            detected: Detected::new(registry)?,
            communication_pairs: parking_lot::Mutex::default(),
            decisions,
            depth: gauges(
                "agent_delegation_depth_current",
                "Deepest delegation chain the agent asked for in the last 5 minutes, in hops.",
            )?,
            certificates: gauges(
                "remit_agent_certificate_expiry_timestamp_seconds",
                "End of the client certificate that the agent was last seen with, in seconds since the epoch.",
            )?,
            depth_limit,
            agents: ArcSwap::default(),
        })
    }

    /// A request was not of its form, and refused before it was decided.
    pub fn malformed(&self, verb: Verb) {
        let reason = Reason::RequestMalformed;
        self.decisions.with_label_values(&[verb.as_str(), outcome_of(reason).as_str(), reason.as_str()]).inc();
    }

    /// A request came without a verified identity; `method` is what was tried.
    pub fn unauthenticated(&self, method: &str) {
        self.unauthenticated.with_label_values(&[method]).inc();
    }

    /// An agent connected with a certificate that is good until then.
    pub fn certificate_seen(&self, agent: &str, until: Timestamp) {
        let until = i64::try_from(until.seconds()).unwrap_or(i64::MAX);
        self.certificates.with_label_values(&[self.label(agent)]).set(until);
    }

    /// Brings the gauges up to date that depend on the time.
    pub fn refresh(&self, now: Timestamp) {
        for (name, depths) in self.agents.load().iter() {
            let deepest = i64::try_from(depths.deepest(now)).unwrap_or(i64::MAX);
            self.depth.with_label_values(&[name.as_str()]).set(deepest);
        }
    }

    /// Every counter of an agent that policy names is there from the start, at 0.
    /// Those of an agent that policy names no more are gone.
    pub(super) fn know<'a>(&self, agents: impl Iterator<Item = &'a AgentName>) {
        let before = self.agents.load();
        let known: NameMap<_, _> = agents
            .map(|name| {
                for counters in [&self.escalations, &self.reuses, &self.wrong_holders] {
                    counters.with_label_values(&[name.as_str()]);
                }
                for kind in Kind::ALL {
                    self.detected.anomalies.with_label_values(&[name.as_str(), kind.as_str()]);
                }
                self.depth.with_label_values(&[name.as_str()]);
                (name.clone(), before.get(name).map(Arc::clone).unwrap_or_default())
            })
            .collect();
        for name in before.keys().filter(|name| !known.contains_key(*name)) {
            let series = &[name.as_str()];
            for counters in [&self.escalations, &self.reuses, &self.wrong_holders] {
                // What is not there needs no removing.
                let _ = counters.remove_label_values(series);
            }
            for kind in Kind::ALL {
                let _ = self.detected.anomalies.remove_label_values(&[name.as_str(), kind.as_str()]);
            }
            let _ = (self.depth.remove_label_values(series), self.certificates.remove_label_values(series));
        }
        self.agents.store(Arc::new(known));
    }

    pub(super) fn max_depth(&self, hops: u8) {
        self.depth_limit.set(i64::from(hops));
    }

    pub(super) fn decided(&self, verb: Verb, reason: Reason, took: Duration) {
        let [allowed_authorize, allowed_delegate, allowed_revoke, allowed_reinstate, allowed_message] = &self.allowed;
        let [authorize, delegate, revoke, reinstate, message] = &self.durations;
        let (allowed, duration) = match verb {
            Verb::Authorize => (allowed_authorize, authorize),
            Verb::Delegate => (allowed_delegate, delegate),
            Verb::Revoke => (allowed_revoke, revoke),
            Verb::Reinstate => (allowed_reinstate, reinstate),
            Verb::RecordMessage => (allowed_message, message),
        };
        duration.observe(took.as_secs_f64());
        if reason == Reason::Allowed {
            allowed.inc();
        } else {
            self.decisions.with_label_values(&[verb.as_str(), outcome_of(reason).as_str(), reason.as_str()]).inc();
        }
    }

    pub(super) fn chain_asked(&self, agent: &str, hops: usize, now: Timestamp) {
        if let Some(depths) = self.agents.load().get(agent) {
            depths.saw(u64::try_from(hops).unwrap_or(u64::MAX), now);
        }
    }

    pub(super) fn escalation_attempt(&self, agent: &str) {
        self.escalations.with_label_values(&[self.label(agent)]).inc();
    }

    pub(super) fn reuse_attempt(&self, agent: &str) {
        self.reuses.with_label_values(&[self.label(agent)]).inc();
    }

    pub(super) fn wrong_holder(&self, presenter: &str) {
        self.wrong_holders.with_label_values(&[self.label(presenter)]).inc();
    }

    pub(super) fn automatic_quarantine(&self) {
        self.detected.quarantines.inc();
    }

    pub(super) fn quarantine_withheld(&self) {
        self.detected.withheld.inc();
    }

    pub(super) fn anomaly(&self, agent: &str, kind: Kind) {
        self.detected.anomalies.with_label_values(&[self.label(agent), kind.as_str()]).inc();
    }

    pub(super) fn unauthorized_communication(&self, policy: &Policy, from: &str, to: &str) {
        let label = |name: &str| if policy.agent(name).is_some() { name.to_owned() } else { "unknown".to_owned() };
        let pair = (label(from), label(to));
        let mut pairs = self.communication_pairs.lock();
        let pair = if pairs.contains(&pair) || pairs.len() < COMMUNICATION_PAIRS {
            pairs.insert(pair.clone());
            pair
        } else {
            ("other".to_owned(), "other".to_owned())
        };
        self.communications.with_label_values(&[&pair.0, &pair.1]).inc();
    }

    fn label<'a>(&self, agent: &'a str) -> &'a str {
        if self.agents.load().contains_key(agent) { agent } else { "unknown" }
    }
}

impl Depths {
    fn saw(&self, hops: u64, now: Timestamp) {
        let minute = now.seconds() / 60;
        let slot = self.0.get(usize::try_from(minute % DEPTH_MINUTES).unwrap_or_default());
        let seen = minute.saturating_mul(1 << 8).saturating_add(hops.min(0xff));
        // A newer minute is greater than any depth of an older one, so the greater number wins.
        if let Some(slot) = slot
            && slot.load(Ordering::Relaxed) < seen
        {
            slot.fetch_max(seen, Ordering::Relaxed);
        }
    }

    fn deepest(&self, now: Timestamp) -> u64 {
        let oldest = (now.seconds() / 60).saturating_sub(DEPTH_MINUTES.saturating_sub(1));
        let in_time = |seen: u64| (seen >> 8 >= oldest).then_some(seen & 0xff);
        self.0.iter().filter_map(|slot| in_time(slot.load(Ordering::Relaxed))).max().unwrap_or(0)
    }
}
