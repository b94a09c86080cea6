//! The HTTP face: decisions for `AuthZEN` clients, metrics, liveness, readiness.

mod authenticate;
mod authzen;
mod body;
mod health;
mod metrics;
mod refusal;
mod request_id;

use std::sync::Arc;

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
    /// Scheme, host and port at which others reach these pages; without it no address is published.
    pub public_url: Option<Arc<str>>,
}

/// The pages of the HTTP listener. Metrics, health and what is well-known need no identity; only auditors see readiness
/// in detail.
pub fn routes(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics::page))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .merge(authzen::routes())
        .with_state(pages)
}
