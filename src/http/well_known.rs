//! What others may know of Remit without being known to it.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::Pages;
use crate::identity::signing::Published;

/// The keys under which Remit's JWTs are good (RFC 7517 §5). They may be kept for as long as a new key waits before it
/// signs.
pub(super) async fn keys(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let forwarding = &pages.door.identity().sources().forwarding;
    let Some(published) = forwarding.published(pages.door.engine().clock().now()) else {
        return (StatusCode::NOT_FOUND, "no signing key is configured\n").into_response();
    };
    let Published { body, tag, max_age } = published;
    let tag = format!("\"{tag}\"");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|value| value.split(',')).any(|value| {
        let value = value.trim();
        value == "*" || value.strip_prefix("W/").unwrap_or(value) == tag
    });
    let about = [(header::CACHE_CONTROL, format!("public, max-age={}", max_age.as_secs())), (header::ETAG, tag)];
    if is_known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(header::CONTENT_TYPE, "application/jwk-set+json")], body).into_response()
}
