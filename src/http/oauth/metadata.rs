//! `GET /.well-known/oauth-authorization-server` (RFC 8414): what is offered here, and nothing that isn't.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::OAuth;
use super::token::GRANT_TYPE;

/// Where the metadata of an issuer without a path is (RFC 8414 §3.1); a `public_url` has none.
pub(super) const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";
/// How long it may be kept, in seconds: as long as a list of keys.
const MAX_AGE: &str = "max-age=60";

pub(super) async fn document(State(oauth): State<OAuth>) -> Response {
    let Some(issuer) = oauth.issuer() else {
        return (StatusCode::NOT_FOUND, "there is no public_url: write it in [http]\n").into_response();
    };
    let mut response = Json(described(&oauth, issuer)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(MAX_AGE));
    response
}

fn described(oauth: &OAuth, issuer: &str) -> Value {
    let endpoint = |path: &str| Value::from(format!("{issuer}{path}"));
    let sources = oauth.door.identity().sources();
    let mut methods = Vec::new();
    if oauth.settings.asks_for_certificates {
        methods.push("tls_client_auth");
    }
    let mut algorithms = None;
    if !sources.clients.is_empty() {
        methods.push("private_key_jwt");
        algorithms = Some(json!(sources.clients.algorithms()));
    }
    let mut told = Map::new();
    let mut say = |name: &str, value: Value| told.insert(name.to_owned(), value);
    say("issuer", issuer.into());
    say("response_types_supported", json!([]));
    say("grant_types_supported", json!([GRANT_TYPE]));
    for (name, path) in [("token", "/token"), ("introspection", "/introspect"), ("revocation", "/revoke")] {
        say(&format!("{name}_endpoint"), endpoint(&format!("/oauth2{path}")));
        say(&format!("{name}_endpoint_auth_methods_supported"), json!(methods));
        if let Some(algorithms) = &algorithms {
            say(&format!("{name}_endpoint_auth_signing_alg_values_supported"), algorithms.clone());
        }
    }
    if sources.forwarding.signer().is_some() {
        say("jwks_uri", endpoint("/.well-known/jwks.json"));
    }
    Value::Object(told)
}
