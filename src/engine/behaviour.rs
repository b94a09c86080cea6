//! Tells what agents never did before: an event and a counter, and nothing is denied for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::baseline::{Anomaly, Baseline, Kind};
use crate::domain::reason::Reason;
use crate::events::{Brief, Event, Long, MessageType, Outcome, Share};

/// How often written events are looked at. Nobody waits for it.
const LOOK: Duration = Duration::from_millis(250);
/// Events that are looked at before others get their turn.
const AT_ONCE: usize = 1024;

impl Engine {
    /// Learns from what is decided from now on, until stopped. What it can't keep up with it never sees.
    pub async fn watch_behaviour(&self, mut baseline: Baseline, stop: CancellationToken) {
        let mut seen = self.events.numbers().sequence;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            loop {
                let events = self.events.written_after(seen, AT_ONCE);
                let Some(last) = events.last() else { break };
                seen = last.sequence();
                for event in &events {
                    self.learn(&mut baseline, event);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn learn(&self, baseline: &mut Baseline, event: &Event) {
        let policy = self.policy();
        if policy.policy.agent(&event.from_agent).is_none() {
            return;
        }
        for anomaly in baseline.saw(event) {
            self.tally.anomaly(&anomaly.agent, anomaly.kind);
            let mut told = self.anomaly_event(&anomaly);
            told.policy = Some(policy.policy.id.clone());
            // As denials are: what is only told takes no place of an answer.
            if let Some(place) = self.events.try_reserve(Share::Denial) {
                place.commit(told);
            }
        }
    }

    fn anomaly_event(&self, anomaly: &Anomaly) -> Event {
        let Anomaly { agent, kind, value, note } = anomaly;
        let id = self.events.decision_id();
        let mut event = Event::new(MessageType::Anomaly, Outcome::Accepted, Reason::Allowed, id, self.clock.now());
        event.from_agent = agent.clone();
        event.target = Brief::copied(value);
        event.note = Brief::copied(note);
        match kind {
            Kind::Capability => event.capabilities = vec![Brief::copied(value)],
            Kind::Resource => event.resource = Long::copied(value),
            Kind::Target => event.to_agent = value.as_ref().into(),
            Kind::Rate => {}
        }
        event
    }
}
