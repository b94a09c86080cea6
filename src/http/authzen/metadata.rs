//! `/.well-known/authzen-configuration`: where to find the rest.

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::http::Pages;

/// It changes with the configuration, which takes a restart.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// The metadata, if the configuration says where this service is. The request's `Host` doesn't.
pub(super) async fn page(State(pages): State<Pages>) -> Response {
    let Some(base) = pages.public_url.as_deref() else { return StatusCode::NOT_FOUND.into_response() };
    let at = |path: &str| format!("{base}{path}");
    let metadata = json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": at(super::EVALUATION),
        "access_evaluations_endpoint": at(super::EVALUATIONS),
        "search_subject_endpoint": at(super::SEARCH_SUBJECT),
        "search_resource_endpoint": at(super::SEARCH_RESOURCE),
        "search_action_endpoint": at(super::SEARCH_ACTION),
    });
    ([(CACHE_CONTROL, CACHED)], Json(metadata)).into_response()
}
