//! From a refusal to an OAuth error (RFC 6749 §5.2): the one place where reasons meet error codes.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::domain::reason::{Denial, Reason};
use crate::door::TurnedAway;
use crate::identity::Unidentified;

/// An error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// A parameter is missing, stands twice or is not of its form; or a token is not acceptable (RFC 8693 §2.2.2).
    InvalidRequest,
    /// The client is nobody.
    InvalidClient,
    /// Capabilities that are beyond what may be given.
    InvalidScope,
    /// Resources or an audience that are beyond what may be given (RFC 8707 §2).
    InvalidTarget,
    /// The client may not ask this.
    UnauthorizedClient,
    /// Only token exchange is offered.
    UnsupportedGrantType,
    /// A token of a kind that can't be revoked (RFC 7009 §2.2.1).
    UnsupportedTokenType,
    /// Come back more slowly.
    TooMany,
    /// Come back in a moment.
    Unavailable,
}

/// Why there is no answer. The description is safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    error: Error,
    description: Cow<'static, str>,
    reason: Option<Reason>,
    wait: Option<Duration>,
}

impl Error {
    const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::TooMany | Self::Unavailable => "temporarily_unavailable",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidRequest
            | Self::InvalidScope
            | Self::InvalidTarget
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType
            | Self::UnsupportedTokenType => StatusCode::BAD_REQUEST,
        }
    }

    /// The error that says most of this reason.
    pub(super) const fn of(reason: Reason) -> Self {
        match reason {
            // `Allowed` is no refusal; whoever gets here with it gets nothing.
            Reason::Allowed
            | Reason::RequestMalformed
            | Reason::TokenRequired
            | Reason::TokenMalformed
            | Reason::TokenSealInvalid
            | Reason::TokenExpired
            | Reason::TokenNotYetValid
            | Reason::TokenLifetimeTooLong
            | Reason::TokenWrongHolder
            | Reason::TokenWrongAudience
            | Reason::TokenRevoked
            | Reason::TokenFenced
            | Reason::TokenUsesExhausted
            | Reason::TokenNotDelegatable
            | Reason::DelegationDepthExceeded
            | Reason::DelegationCycle
            | Reason::UsesNotAllowed
            | Reason::LifetimeNotAllowed => Self::InvalidRequest,
            Reason::CapabilityNotGranted | Reason::DelegationWidens => Self::InvalidScope,
            Reason::ResourceNotGranted | Reason::ResourceNotCanonical => Self::InvalidTarget,
            Reason::IdentitySelfAsserted | Reason::IdentityUnmapped => Self::InvalidClient,
            Reason::AgentUnknown
            | Reason::AgentQuarantined
            | Reason::CallerNotEnforcementPoint
            | Reason::CallerNotAuthorized
            | Reason::CommunicationNotAllowed
            | Reason::DelegationNotAllowed
            | Reason::ConditionNotMet => Self::UnauthorizedClient,
            Reason::RateLimited => Self::TooMany,
            Reason::CapacityExhausted
            | Reason::PolicyStale
            | Reason::StateUnavailable
            | Reason::AuditUnavailable
            | Reason::DeadlineExceeded => Self::Unavailable,
        }
    }
}

impl Refusal {
    pub(super) fn new(error: Error, description: impl Into<Cow<'static, str>>) -> Self {
        Self { error, description: description.into(), reason: None, wait: None }
    }

    /// Which error it is.
    #[cfg(test)]
    pub(super) const fn error(&self) -> Error {
        self.error
    }

    /// What is told of it.
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    /// The same as the audit log tells it. Where Remit has no reason of its own, the request was not of its form.
    pub(super) fn denial(&self) -> Denial {
        Denial::new(self.reason.unwrap_or(Reason::RequestMalformed), self.description.clone())
    }

    /// The same, with the reason that Remit has for it.
    pub(super) fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        let reason = denial.reason();
        let refusal = Self::new(Error::of(reason), denial.message().clone()).because(reason);
        Self { wait: denial.wait(), ..refusal }
    }
}

impl From<TurnedAway> for Refusal {
    fn from(turned_away: TurnedAway) -> Self {
        match turned_away {
            TurnedAway::Overloaded => Self::new(Error::Unavailable, "too many requests at once: come back in a moment"),
            // What is wrong with evidence is for the log alone.
            TurnedAway::Nobody(Unidentified::Unauthenticated(_)) => {
                Self::new(Error::InvalidClient, "the client is not authenticated")
            }
            TurnedAway::Nobody(Unidentified::SelfAsserted(denial) | Unidentified::Unmapped(denial)) => (&denial).into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { error, description, reason, wait } = self;
        let mut body = json!({ "error": error.code(), "error_description": plain(&description) });
        if let (Some(reason), Some(body)) = (reason, body.as_object_mut()) {
            body.insert("remit_reason".to_owned(), reason.as_str().into());
        }
        let mut response = (error.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if error == Error::InvalidClient {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"remit\""));
        }
        if matches!(error, Error::TooMany | Error::Unavailable) {
            // Whole seconds (RFC 9110 §10.2.3), rounded up.
            let seconds = wait.map_or(1, |wait| wait.as_secs().saturating_add(1));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An `error_description` has printable ASCII without quotes and backslash (RFC 6749 §5.2).
fn plain(text: &str) -> String {
    let plain = |character: char| match character {
        '"' | '\\' => '\'',
        ' '..='~' => character,
        _ => '?',
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_error_and_none_is_a_success() {
        for reason in Reason::ALL {
            assert!(Error::of(*reason).status().as_u16() >= 400, "{reason}");
        }
    }

    #[test]
    fn a_refusal_is_never_kept_and_says_when_to_come_back() {
        let denial = Denial::new(Reason::RateLimited, "slowly").retry_after(Duration::from_millis(1500));
        let response = Refusal::from(&denial).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn a_client_that_is_nobody_learns_how_to_be_somebody_and_nothing_else() {
        let nobody = TurnedAway::Nobody(Unidentified::Unauthenticated("the API key is not known"));
        let refusal = Refusal::from(nobody);
        assert!(!refusal.description.contains("API key"));
        let response = refusal.into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn a_description_has_no_quotes_and_no_controls() {
        assert_eq!(plain("a \"b\" \\ \n é"), "a 'b' ' ? ?");
    }
}
