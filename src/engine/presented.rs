//! A token that was presented, as the ledger is asked about it.

use std::borrow::Cow;

use super::Engine;
use crate::domain::policy::Policy;
use crate::domain::reason::Denial;
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::keyring::VerifiedToken;
use crate::state::{Foreign, TokenRecord};

impl Engine {
    /// Notes the caller's own id of a request that reaches the ledger; whether the same came a moment ago for this token.
    pub(super) fn is_retry(&self, caller: &str, request_id: &str, token: TokenId, now: Timestamp) -> bool {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        if request_id.is_empty() {
            return false;
        }
        // Two that meet by chance hide one reuse attempt.
        let mut hasher = DefaultHasher::new();
        (caller, request_id, token).hash(&mut hasher);
        self.recent.saw(hasher.finish(), now)
    }

    /// A token of another issuer is taken only while its replay can be refused after any crash.
    pub(super) fn may_be_foreign(&self, token: &VerifiedToken<'_>, began: Timestamp) -> Result<(), Denial> {
        if !token.claims().is_foreign() {
            return Ok(());
        }
        self.state.accepts_foreign(began).map_err(|refused| refused.denial())
    }
}

/// The token as the ledger is asked about it.
pub(super) fn token_record<'a>(token: &'a VerifiedToken<'_>) -> TokenRecord<'a> {
    let claims = token.claims();
    TokenRecord {
        id: token.id(),
        tag: token.tag(),
        ancestors: &claims.ancestors,
        chain: &claims.chain,
        max_uses: claims.max_uses,
        expires_at: claims.expires_at,
        foreign: claims.is_foreign().then_some(Foreign { issued_at: claims.issued_at }),
    }
}

/// What the ledger remembers that the root of a foreign token's chain was given: as much of it as policy names, so that
/// other issuers' names don't pile up here. For a token of ours the ledger knows it.
pub(super) fn root_given<'a>(policy: &Policy, token: &'a VerifiedToken<'_>) -> Vec<Cow<'a, str>> {
    let claims = token.claims();
    let Some(issuer) = policy.agent(&claims.issuer).filter(|_| claims.is_foreign()) else { return Vec::new() };
    let is_named = |capability: &str| {
        let by_rule = issuer.rule.as_ref().is_some_and(|rule| rule.capabilities.contains(capability));
        by_rule || issuer.grants.iter().any(|grant| grant.capabilities.contains(capability))
    };
    let named = claims.capabilities.iter().filter(|capability| is_named(capability));
    named.map(|capability| Cow::Borrowed(capability.as_ref())).collect()
}
