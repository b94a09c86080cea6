//! The caller's own id of a request: `X-Request-ID`, given back with the answer.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::refusal::Refusal;
use crate::domain::token::is_free_text;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id; empty if the caller gave none.
#[derive(Clone, Default)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Leaves the id with the request and gives it back with the answer, whatever that is. One that can't be carried and
/// shown is refused: half of it would be another id.
pub(super) async fn echo(mut request: Request, next: Next) -> Response {
    let mut values = request.headers().get_all(HEADER).iter();
    let Some(value) = values.next().cloned() else {
        request.extensions_mut().insert(RequestId::default());
        return next.run(request).await;
    };
    let text = value.to_str().ok().filter(|text| is_free_text(text));
    let (Some(text), None) = (text, values.next()) else {
        return Refusal::malformed("x-request-id: at most 256 printable ASCII characters, once").into_response();
    };
    let id = RequestId(text.into());
    request.extensions_mut().insert(id);
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, value);
    response
}
