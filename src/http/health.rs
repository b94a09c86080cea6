//! Liveness and readiness.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::Pages;
use crate::identity::shows_nothing;
use crate::state::StoreReport;
use crate::transport::Peer;

/// The process runs.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Requests can be answered. Auditors and administrators are told the details.
pub(super) async fn ready(
    State(pages): State<Pages>,
    peer: Option<Extension<Arc<Peer>>>,
    headers: HeaderMap,
) -> Response {
    let condition = (pages.examine)();
    let code = if condition.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let peer = peer.as_ref().map(|Extension(peer)| peer);
    if !sees_details(&pages, peer, &headers) {
        let body = if condition.is_ready() { "ready\n" } else { "not ready\n" };
        return (code, body).into_response();
    }
    let policy = pages.door.engine().policy();
    let state = pages.door.engine().state().report();
    let body = json!({
        "ready": condition.is_ready(),
        "not_ready": condition.not_ready,
        "attention": condition.attention,
        "policy_revision": policy.policy.id.revision,
        "policy_digest": policy.policy.id.digest.as_ref(),
        "policy_reload_failures": condition.policy_reload_failures,
        "state_backend": pages.door.engine().state().backend(),
        "state_waiting": state.waiting,
        "fence_seconds": pages.door.engine().state().fence().seconds(),
        "ledger_entries": pages.door.engine().state().size().map(|(entries, _)| entries),
        "store": state.store.map(store),
    });
    (code, axum::Json(body)).into_response()
}

fn store(report: StoreReport) -> serde_json::Value {
    json!({
        "up": report.is_up,
        "address": report.address,
        "epoch": report.epoch,
        "epoch_changes": report.epoch_changes,
        "reconnects": report.reconnects,
        "last_contact_seconds": report.last_contact.map(|age| age.as_secs_f64()),
        "copy_age_seconds": report.copy_age.map(|age| age.as_secs_f64()),
        "settings": report.settings.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "keys": report.keys,
    })
}

fn sees_details(pages: &Pages, peer: Option<&Arc<Peer>>, headers: &HeaderMap) -> bool {
    // Probes are nobody, and no failure to count.
    if shows_nothing(peer, headers) {
        return false;
    }
    let engine = pages.door.engine();
    let policy = engine.policy();
    let identified = pages.door.identify(peer, headers, &policy, engine.clock().now());
    identified.is_ok_and(|caller| engine.may_audit(&policy.policy, &caller).is_ok())
}
