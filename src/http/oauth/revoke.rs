//! `POST /oauth2/revoke` (RFC 7009): this token is over, and everything that was delegated from it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use zeroize::Zeroizing;

use super::refusal::{Error, Refusal};
use super::request::Asked;
use super::{OAuth, client};
use crate::domain::reason::{Denial, Reason};
use crate::engine::{Revocation, RevokeTarget};

pub(super) async fn revoke(State(oauth): State<OAuth>, request: Request) -> Response {
    match answer(&oauth, request).await {
        Ok(()) => {
            let mut response = StatusCode::OK.into_response();
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// `token_type_hint` is passed over: there is one kind of token that can be revoked.
async fn answer(oauth: &OAuth, request: Request) -> Result<(), Refusal> {
    let asked = Asked::read(request).await?;
    let visit = client::enter(oauth, &asked)?;
    let token = asked.form.required("token")?;
    if is_jwt(token) {
        let why = "a JWT can't be revoked here: an offline one ends by itself, and others are for their issuers";
        return Err(Refusal::new(Error::UnsupportedTokenType, why));
    }
    let (engine, token) = (Arc::clone(oauth.door.engine()), Zeroizing::new(token.to_owned()));
    // It is done and recorded also where the client goes away meanwhile.
    let done = tokio::spawn(async move {
        let revocation = Revocation { target: RevokeTarget::Token(&token), note: "" };
        engine.revoke_traced(&visit.caller, &revocation, visit.beginning.trace()).await.map(|_| ())
    });
    let stopping = |_| Err(Denial::new(Reason::StateUnavailable, "the service is stopping: ask again"));
    done.await.unwrap_or_else(stopping).or_else(|denial| told(&denial))
}

/// A capability token has two parts, a JWT three.
fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3
}

/// A token that nobody knows, that is over, or that is not the client's is answered like one that was revoked, so that
/// nobody can find out which (RFC 7009 §2.2). Only where the token may still be good, the client is told.
fn told(denial: &Denial) -> Result<(), Refusal> {
    match denial.reason() {
        Reason::RequestMalformed
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
        | Reason::CallerNotAuthorized => Ok(()),
        Reason::CapacityExhausted
        | Reason::PolicyStale
        | Reason::StateUnavailable
        | Reason::AuditUnavailable
        | Reason::DeadlineExceeded => {
            Err(Refusal::new(Error::Unavailable, denial.message().clone()).because(denial.reason()))
        }
        Reason::Allowed
        | Reason::CapabilityNotGranted
        | Reason::ResourceNotGranted
        | Reason::ResourceNotCanonical
        | Reason::AgentUnknown
        | Reason::AgentQuarantined
        | Reason::IdentitySelfAsserted
        | Reason::IdentityUnmapped
        | Reason::CallerNotEnforcementPoint
        | Reason::CommunicationNotAllowed
        | Reason::DelegationNotAllowed
        | Reason::DelegationDepthExceeded
        | Reason::DelegationCycle
        | Reason::DelegationWidens
        | Reason::UsesNotAllowed
        | Reason::LifetimeNotAllowed
        | Reason::ConditionNotMet
        | Reason::RateLimited => Err(denial.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_still_be_good_is_never_answered_as_revoked() {
        for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::Allowed) {
            let quiet = told(&Denial::new(*reason, "why")).is_ok();
            let is_of_the_token = reason.as_str().starts_with("TOKEN_")
                || matches!(reason, Reason::RequestMalformed | Reason::CallerNotAuthorized);
            assert_eq!(quiet, is_of_the_token, "{reason}");
        }
    }
}
