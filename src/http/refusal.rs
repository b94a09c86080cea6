//! Why a request is not answered, as the client sees it.

use std::borrow::Cow;

use axum::Json;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::domain::reason::{Denial, Reason};
use crate::events::TooManySubscribers;
use crate::identity::Unidentified;

/// When a client that found no room may try again, in seconds.
const COME_BACK: HeaderValue = HeaderValue::from_static("1");
/// What a client may show (RFC 6750 §3). Certificates and API keys have no scheme of their own.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"remit\"");

/// A status other than 200. Its body is `{reason, message}`; a caller that is nobody gets no reason.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: Option<Reason>,
    message: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: Some(reason), message: message.into(), header: None }
    }

    /// The request is not of its form.
    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Reason::RequestMalformed, message)
    }

    /// More requests at once than this process takes.
    pub(super) fn overloaded() -> Self {
        let message = "too many requests at once: come back in a moment";
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, Reason::RateLimited, message);
        Self { header: Some((RETRY_AFTER, COME_BACK)), ..refusal }
    }

    /// The caller is nobody. Without any evidence it learns nothing more.
    pub(super) fn unidentified(nobody: &Unidentified) -> Self {
        let challenged = |reason, message| {
            let header = Some((WWW_AUTHENTICATE, CHALLENGE));
            Self { status: StatusCode::UNAUTHORIZED, reason, message, header }
        };
        match nobody {
            Unidentified::Unauthenticated(_) => challenged(None, "no verified identity".into()),
            Unidentified::SelfAsserted(denial) => challenged(Some(denial.reason()), denial.message().clone()),
            Unidentified::Unmapped(denial) => {
                Self::new(StatusCode::FORBIDDEN, denial.reason(), denial.message().clone())
            }
        }
    }

    /// As many watch as may. Their places are not taken for a moment, as those of requests are.
    pub(super) fn full(full: TooManySubscribers) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, Reason::CapacityExhausted, full.to_string());
        Self { header: Some((RETRY_AFTER, HeaderValue::from_static("10"))), ..refusal }
    }

    /// The caller has no right to it.
    pub(super) fn forbidden(denial: &Denial) -> Self {
        Self::new(StatusCode::FORBIDDEN, denial.reason(), denial.message().clone())
    }

    /// The caller's rate is used up.
    pub(super) fn rate_limited(denial: &Denial) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, denial.reason(), denial.message().clone());
        // Whole seconds (RFC 9110 §10.2.3), rounded up.
        let seconds = denial.wait().map_or(1, |wait| wait.as_secs().saturating_add(1));
        Self { header: Some((RETRY_AFTER, HeaderValue::from(seconds))), ..refusal }
    }

    /// Remit can't tell at the moment.
    pub(super) fn undecided(denial: &Denial) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, denial.reason(), denial.message().clone())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, reason, message, header } = self;
        let mut body = Map::new();
        body.extend(reason.map(|reason| ("reason".to_owned(), Value::from(reason.as_str()))));
        body.insert("message".to_owned(), Value::from(message.into_owned()));
        let mut response = (status, Json(Value::Object(body))).into_response();
        response.headers_mut().extend(header);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(refusal: Refusal) -> (u16, Option<String>, Option<String>) {
        let response = refusal.into_response();
        let text = |name| response.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        assert_eq!(text(CACHE_CONTROL).as_deref(), Some("no-store"));
        (response.status().as_u16(), text(WWW_AUTHENTICATE), text(RETRY_AFTER))
    }

    #[test]
    fn who_finds_no_room_is_told_when_to_come_back() {
        assert_eq!(headers(Refusal::overloaded()), (429, None, Some("1".to_owned())));
    }

    #[test]
    fn nobody_is_challenged_and_somebody_who_is_no_agent_is_not() {
        let challenge = Some("Bearer realm=\"remit\"".to_owned());
        let denial = |reason| Denial::new(reason, "why");
        for (nobody, wanted) in [
            (Unidentified::Unauthenticated("x"), (401, challenge.clone(), None)),
            (Unidentified::SelfAsserted(denial(Reason::IdentitySelfAsserted)), (401, challenge, None)),
            (Unidentified::Unmapped(denial(Reason::IdentityUnmapped)), (403, None, None)),
        ] {
            assert_eq!(headers(Refusal::unidentified(&nobody)), wanted);
        }
    }
}
