//! The HTTP face: decisions for `AuthZEN` clients and for proxies, OAuth, events, metrics, health, published keys.

mod authenticate;
mod authzen;
mod body;
mod check;
mod events;
mod health;
mod metrics;
pub mod oauth;
mod refusal;
mod request_id;
mod well_known;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};
use tokio_util::sync::CancellationToken;

use crate::door::Door;
use crate::proxied::Gatekeeper;
use crate::readiness::Examine;

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    /// Who asks; behind it stands the engine.
    pub door: Door,
    /// What answers proxies.
    pub gatekeeper: Gatekeeper,
    /// How the process is doing.
    pub examine: Examine,
    /// The counters.
    pub registry: prometheus::Registry,
    /// Scheme, host and port at which others reach these pages; without it no address is published.
    pub public_url: Option<Arc<str>>,
    /// How the OAuth face was configured.
    pub oauth: oauth::Settings,
    /// Streams end when the service does.
    pub drain: CancellationToken,
}

/// The pages of the HTTP listener. Metrics, health and what is well-known need no identity; only auditors see readiness
/// in detail.
pub fn routes(pages: Pages) -> Router {
    let oauth = oauth::routes(pages.door.clone(), pages.public_url.clone(), pages.oauth);
    Router::new()
        .route("/metrics", get(metrics::page))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/.well-known/jwks.json", get(well_known::keys))
        .route("/v1/events", get(events::stream))
        .route("/v1/check", any(check::check))
        .route("/v1/check/{*words}", any(check::check))
        .merge(authzen::routes())
        .with_state(pages)
        .merge(oauth)
}
