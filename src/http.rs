//! The HTTP face: metrics, liveness, readiness, published keys.

mod health;
mod metrics;
mod well_known;

use axum::Router;
use axum::routing::get;

use crate::door::Door;
use crate::readiness::Examine;

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    /// Who asks; behind it stands the engine.
    pub door: Door,
    /// How the process is doing.
    pub examine: Examine,
    /// The counters.
    pub registry: prometheus::Registry,
}

/// The pages of the HTTP listener. None of these needs an identity; only auditors see readiness in detail.
pub fn routes(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics::page))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/.well-known/jwks.json", get(well_known::keys))
        .with_state(pages)
}
