//! The door, as gRPC comes to it: the caller's deadline, and refusals as statuses.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tonic::{Request, Status};

use super::status;
use crate::domain::limits;
use crate::door::{Door, TurnedAway, Visit};
use crate::transport::Peer;

/// Lets a request in.
pub(super) fn enter<T>(door: &Door, request: &Request<T>) -> Result<Arc<Visit>, Status> {
    visit(door, request).map_err(|turned_away| refusal(&turned_away))
}

/// The visit that began at the entrance; a new one where the request did not come by it, or where policy or revocations
/// changed while its message came: a message that is held back is not judged by what held before.
pub(super) fn visit<T>(door: &Door, request: &Request<T>) -> Result<Arc<Visit>, TurnedAway> {
    match request.extensions().get::<Arc<Visit>>() {
        Some(visit) if door.engine().is_current(&visit.beginning) => Ok(Arc::clone(visit)),
        _ => {
            let headers = request.metadata().as_ref();
            door.enter(request.extensions().get::<Arc<Peer>>(), headers, timeout(headers)).map(Arc::new)
        }
    }
}

/// The status of a request that is not let in.
pub(super) fn refusal(turned_away: &TurnedAway) -> Status {
    match turned_away {
        TurnedAway::Overloaded => status::overloaded(),
        TurnedAway::Nobody(nobody) => status::unidentified(nobody),
    }
}

/// The caller's `grpc-timeout`; one that can't be read is as good as none.
pub(super) fn timeout(headers: &HeaderMap) -> Duration {
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
