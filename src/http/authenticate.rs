//! Through the door, for HTTP.

use std::sync::Arc;

use axum::http::request::Parts;

use super::refusal::Refusal;
use crate::domain::limits;
use crate::door::{Door, TurnedAway, Visit};
use crate::transport::Peer;

/// Lets a request in. It has until [`limits::REQUEST_DEADLINE`]: HTTP has no header that says how long its client waits.
pub(super) fn enter(door: &Door, request: &Parts) -> Result<Visit, Refusal> {
    let visit = door.enter(peer(request), &request.headers, limits::REQUEST_DEADLINE);
    visit.map_err(|turned_away| match turned_away {
        TurnedAway::Overloaded => Refusal::overloaded(),
        TurnedAway::Nobody(nobody) => Refusal::unidentified(&nobody),
    })
}

/// Whether somebody asks, without letting it in.
pub(super) fn is_somebody(door: &Door, request: &Parts) -> Result<(), Refusal> {
    let engine = door.engine();
    let caller = door.identify(peer(request), &request.headers, &engine.policy(), engine.clock().now());
    caller.map(|_| ()).map_err(|nobody| Refusal::unidentified(&nobody))
}

/// What the connection knows of its other end.
pub(super) fn peer(request: &Parts) -> Option<&Arc<Peer>> {
    request.extensions.get::<Arc<Peer>>()
}
