//! Events, a recorder and a clock in a test's hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{AuditConfig, Event, Events, EventsConfig, MessageType, Outcome, Place, Recorder, Share, Sign};
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;

pub(super) const START: u64 = 1_795_297_903_000_000_000;

/// The parts without the thread: time passes and the recorder turns when the test says so.
pub(super) struct Trial {
    pub(super) events: Events,
    pub(super) recorder: Recorder,
    nanos: Arc<AtomicU64>,
}

impl Trial {
    pub(super) fn new(audit: &AuditConfig, events: &EventsConfig) -> Self {
        Self::signing(audit, events, None)
    }

    pub(super) fn signing(audit: &AuditConfig, events: &EventsConfig, sign: Option<Sign>) -> Self {
        let nanos = Arc::new(AtomicU64::new(START));
        let clock = Arc::clone(&nanos);
        let now = move || Timestamp::from_nanos(clock.load(Ordering::SeqCst));
        let (shared, recorder) = Events::parts(audit, events, 1, now, sign, Some([7; 32])).unwrap();
        Self { events: Events::joined(shared, None), recorder, nanos }
    }

    /// Nothing is written, and the ring has this capacity.
    pub(super) fn unwritten(ring: usize) -> Self {
        Self::new(&AuditConfig::default(), &small(ring))
    }

    pub(super) fn pass(&self, time: Duration) {
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    pub(super) fn allow(&self, agent: &str) -> u64 {
        self.place().commit(self.event(agent, Reason::Allowed))
    }

    pub(super) fn place(&self) -> Place<'_> {
        self.events.try_reserve(Share::Answer).expect("there is a place")
    }

    pub(super) fn event(&self, agent: &str, reason: Reason) -> Event {
        let at = Timestamp::from_nanos(self.nanos.load(Ordering::SeqCst));
        event(&self.events, agent, reason, at)
    }
}

pub(super) fn small(ring: usize) -> EventsConfig {
    EventsConfig { ring, subscriber_buffer: 16, ..EventsConfig::default() }
}

pub(super) fn event(events: &Events, agent: &str, reason: Reason, at: Timestamp) -> Event {
    let outcome = if reason == Reason::Allowed { Outcome::Accepted } else { Outcome::Denied };
    let mut event = Event::new(MessageType::CapabilityRequest, outcome, reason, events.decision_id(), at);
    event.from_agent = agent.into();
    event.to_agent = "svc-demo".into();
    event.caller = "svc-demo".into();
    event.chain = vec!["agent-coordinator".into(), agent.into()];
    event.capabilities = vec!["kubectl_get".into()];
    event.resource = "prod/web".into();
    event
}
