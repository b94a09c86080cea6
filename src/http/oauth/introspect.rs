//! `POST /oauth2/introspect` (RFC 7662): what is in this token, and is it still good? Spends nothing.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::actors::{Acting, acting};
use super::refusal::Refusal;
use super::request::Asked;
use super::{OAuth, client};
use crate::engine::{Introspected, Introspection, TokenTarget};

pub(super) async fn introspect(State(oauth): State<OAuth>, request: Request) -> Response {
    match answer(&oauth, request).await {
        Ok(told) => {
            let mut response = Json(told).into_response();
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// `token_type_hint` is passed over: there is one kind of token to look at.
async fn answer(oauth: &OAuth, request: Request) -> Result<Value, Refusal> {
    let asked = Asked::read(request).await?;
    let visit = client::enter(oauth, &asked)?;
    let token = asked.form.required("token")?;
    // Whoever may not see a token learns as much as of one that there isn't (RFC 7662 §2.2).
    let seen = oauth.door.engine().introspect(&visit.caller, TokenTarget::Token(token)).await;
    Ok(match seen {
        Ok(Introspection { active: Ok(()), token: Some(token) }) => Value::Object(described(oauth, &token)),
        Ok(Introspection { active: _, token: _ }) | Err(_) => json!({ "active": false }),
    })
}

fn described(oauth: &OAuth, token: &Introspected) -> Map<String, Value> {
    let chain = token.chain.iter().map(String::as_str);
    let Acting { subject, act } = acting(chain, token.on_behalf_of.as_deref(), &[]);
    let mut told = Map::new();
    let mut say = |name: &str, value: Value| told.insert(name.to_owned(), value);
    say("active", true.into());
    say("sub", subject.into());
    say("client_id", token.chain.last().cloned().unwrap_or_default().into());
    say("scope", token.capabilities.join(" ").into());
    say("token_type", "N_A".into());
    say("iat", token.issued_at.into());
    say("exp", token.expires_at.into());
    say("remaining_uses", token.left.into());
    say("max_uses", token.max_uses.into());
    say("delegatable", token.delegatable.into());
    say("remit_resource", json!(token.resources));
    let optional = [
        ("iss", oauth.issuer().map(Value::from)),
        ("jti", token.id.map(|id| id.to_string().into())),
        ("act", act),
        ("aud", (!token.audience.is_empty()).then(|| json!(token.audience))),
        ("max_depth", token.max_depth.map(Value::from)),
        ("task", token.task.clone().map(Value::from)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            say(name, value);
        }
    }
    told
}
