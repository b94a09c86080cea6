//! The first thing of every request: is there room, and who asks?

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Status};

use super::status;
use crate::domain::caller::Caller;
use crate::domain::limits;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::engine::{Beginning, Engine, InForce};
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

/// A request that was let in.
pub(super) struct Visit {
    pub(super) caller: Caller,
    pub(super) beginning: Beginning,
    pub(super) deadline: Timestamp,
    _room: OwnedSemaphorePermit,
}

impl Visit {
    /// The policy under which it is answered.
    pub(super) fn policy(&self) -> &Policy {
        &self.beginning.in_force.policy
    }
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

    /// Who asks, under which policy, and until when.
    pub(super) fn enter<T>(&self, request: &Request<T>) -> Result<Visit, Status> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| status::overloaded())?;
        let beginning = self.engine.begin();
        let now = self.engine.clock().now();
        let caller = self.identify(
            request.extensions().get::<Arc<Peer>>(),
            request.metadata().as_ref(),
            &beginning.in_force,
            now,
        )?;
        let deadline = now.after(timeout(request.metadata().as_ref()).min(limits::REQUEST_DEADLINE));
        Ok(Visit { caller, beginning, deadline, _room: room })
    }

    /// Who asks. Nobody is counted, and told no more than it may know.
    pub(super) fn identify(
        &self,
        peer: Option<&Arc<Peer>>,
        headers: &HeaderMap,
        policy: &InForce,
        now: Timestamp,
    ) -> Result<Caller, Status> {
        match self.identity.identify_request(peer, headers, &policy.policy, now) {
            Ok(identified) => {
                if let Some(until) = identified.newly_seen_until {
                    self.engine.tally().certificate_seen(identified.caller.agent().as_str(), until);
                }
                Ok(identified.caller)
            }
            Err(nobody) => {
                let method = match &nobody {
                    Unidentified::Unauthenticated(why) => {
                        tracing::debug!(target: "identity", why, "refused");
                        "none"
                    }
                    Unidentified::SelfAsserted(_) => "self_asserted",
                    Unidentified::Unmapped(_) => "unmapped",
                };
                self.engine.tally().unauthenticated(method);
                Err(status::unidentified(&nobody))
            }
        }
    }
}

/// The caller's `grpc-timeout`; one that can't be read is as good as none.
fn timeout(headers: &HeaderMap) -> Duration {
    let parse = |text: &str| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u64>().ok().filter(|_| is_number)?;
        match unit {
            "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
            "M" => Some(Duration::from_secs(number.saturating_mul(60))),
            "S" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_millis(number)),
            "u" => Some(Duration::from_micros(number)),
            "n" => Some(Duration::from_nanos(number)),
            _ => None,
        }
    };
    let value = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
    value.and_then(parse).unwrap_or(limits::REQUEST_DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &'static str) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", http::HeaderValue::from_static(value));
        timeout(&headers)
    }

    #[test]
    fn reads_every_unit_and_nothing_else() {
        assert_eq!(of("1S"), Duration::from_secs(1));
        assert_eq!(of("150m"), Duration::from_millis(150));
        assert_eq!(of("99999999n"), Duration::from_nanos(99_999_999));
        for bad in ["", "S", "1", "1x", "-1S", "999999999S", "1 S"] {
            assert_eq!(of(bad), limits::REQUEST_DEADLINE, "{bad}");
        }
    }
}
