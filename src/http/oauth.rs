//! The OAuth face: token exchange (RFC 8693), introspection (RFC 7662), revocation (RFC 7009), metadata (RFC 8414).
//!
//! Everything is decided by the engine's own verbs; this is how OAuth's clients ask for them.

mod actors;
mod client;
mod evidence;
mod exchange;
mod form;
mod introspect;
mod metadata;
mod offline;
mod refusal;
mod request;
mod revoke;
mod token;
mod token_type;
mod wishes;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::door::Door;

/// How the OAuth face was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[http] offline_jwt`: whether JWTs are made that nobody counts.
    pub offline_jwt: bool,
    /// Whether the listener asks clients for certificates.
    pub asks_for_certificates: bool,
}

/// What the endpoints answer from.
#[derive(Clone)]
struct OAuth {
    door: Door,
    issuer: Option<Arc<str>>,
    settings: Settings,
}

/// The endpoints. `public_url` is the issuer and the base of every address; without it there is no metadata, no
/// offline JWT and no `private_key_jwt`.
pub(super) fn routes(door: Door, public_url: Option<Arc<str>>, settings: Settings) -> Router {
    Router::new()
        .route("/oauth2/token", post(token::exchange))
        .route("/oauth2/introspect", post(introspect::introspect))
        .route("/oauth2/revoke", post(revoke::revoke))
        .route(metadata::WELL_KNOWN, get(metadata::document))
        .with_state(OAuth { door, issuer: public_url, settings })
}

impl OAuth {
    /// Who Remit is to OAuth's clients.
    fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whom a client's assertion may be for (RFC 7523 §3): Remit, or its token endpoint.
    fn audiences(&self) -> Vec<String> {
        let issuer = self.issuer();
        issuer.into_iter().flat_map(|issuer| [issuer.to_owned(), format!("{issuer}/oauth2/token")]).collect()
    }
}
