//! The first thing of every request: is there room, and who asks? By whichever wire it comes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::caller::Caller;
use crate::domain::limits;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::domain::trace::{TRACEPARENT, TraceContext};
use crate::engine::{Beginning, Decision, Engine, InForce};
use crate::identity::forwarded::Introduction;
use crate::identity::{Identity, Unidentified};
use crate::transport::Peer;

/// Requests in flight a core; more are shed. Each holds little, and waits at most 50 ms, or
/// as one of a batch until its deadline.
const IN_FLIGHT_A_CORE: usize = 1024;

/// Lets requests in that have a caller.
#[derive(Clone)]
pub struct Door {
    engine: Arc<Engine>,
    identity: Arc<Identity>,
    room: Arc<Semaphore>,
}

/// A request that was let in. It holds its place until it is dropped.
pub struct Visit {
    /// Who asks.
    pub caller: Caller,
    /// What it is answered from.
    pub beginning: Beginning,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
    _room: OwnedSemaphorePermit,
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Too many requests are in flight.
    Overloaded,
    /// Nobody asks, or nobody that policy knows.
    Nobody(Unidentified),
}

impl Visit {
    /// The policy under which it is answered.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.beginning.in_force.policy
    }
}

/// The trace that a request belongs to, by its headers. One that is there twice is as good as none.
fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    const NAME: HeaderName = HeaderName::from_static(TRACEPARENT);
    let mut values = headers.get_all(NAME).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() { None } else { TraceContext::parse(value) }
}

impl Door {
    /// A door to this engine, for a service on so many cores.
    #[must_use]
    pub fn new(engine: Arc<Engine>, identity: Arc<Identity>, cores: usize) -> Self {
        let room = Arc::new(Semaphore::new(cores.max(1).saturating_mul(IN_FLIGHT_A_CORE)));
        Self { engine, identity, room }
    }

    /// The engine behind it.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What tells who asks.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Who asks, under which policy, and until when; a caller waits no longer than [`limits::REQUEST_DEADLINE`].
    ///
    /// # Errors
    /// There is no room, or nobody asks.
    pub fn enter(
        &self,
        peer: Option<&Arc<Peer>>,
        headers: &HeaderMap,
        patience: Duration,
    ) -> Result<Visit, TurnedAway> {
        self.enter_by(patience, headers, |policy, now| self.identify(peer, headers, policy, now))
    }

    /// The same for a wire that has its own evidence of who asks. Of its headers only the trace is read.
    ///
    /// # Errors
    /// There is no room, or nobody asks.
    pub fn enter_by(
        &self,
        patience: Duration,
        headers: &HeaderMap,
        who: impl FnOnce(&InForce, Timestamp) -> Result<Caller, Unidentified>,
    ) -> Result<Visit, TurnedAway> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| TurnedAway::Overloaded)?;
        let beginning = self.engine.begin().traced(self.engine.trace(trace(headers)));
        let now = self.engine.clock().now();
        let caller = who(&beginning.in_force, now).map_err(TurnedAway::Nobody)?;
        let deadline = now.after(patience.min(limits::REQUEST_DEADLINE));
        Ok(Visit { caller, beginning, deadline, _room: room })
    }

    /// Who it is that this decision lets act, signed for the one that the request goes to. None where nobody's identity
    /// was established or nothing can be signed, which the log tells.
    #[must_use]
    pub fn introduce(&self, decision: &Decision, receiver: &str) -> Option<String> {
        let id = decision.id.to_string();
        let introduction = Introduction {
            identity: decision.agent.as_ref()?,
            audience: receiver,
            chain: &decision.chain,
            on_behalf_of: decision.on_behalf_of.as_deref(),
            id: &id,
        };
        let signed = self.identity.sources().forwarding.sign(&introduction, self.engine.clock().now());
        signed.inspect_err(|why| tracing::warn!(target: "identity", %why, "an identity is not forwarded")).ok()
    }

    /// Who asks. Nobody is counted, and told no more than it may know.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn identify(
        &self,
        peer: Option<&Arc<Peer>>,
        headers: &HeaderMap,
        policy: &InForce,
        now: Timestamp,
    ) -> Result<Caller, Unidentified> {
        match self.identity.identify_request(peer, headers, &policy.policy, now) {
            Ok(identified) => {
                if let Some(until) = identified.newly_seen_until {
                    self.engine.tally().certificate_seen(identified.caller.agent().as_str(), until);
                }
                Ok(identified.caller)
            }
            Err(nobody) => {
                self.engine.tally().unauthenticated(nobody.method());
                if let Unidentified::Unauthenticated(why) = &nobody {
                    tracing::debug!(target: "identity", why, "refused");
                }
                Err(nobody)
            }
        }
    }
}
