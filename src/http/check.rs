//! `/v1/check`: for proxies that ask over HTTP (nginx `auth_request`, Caddy `forward_auth`). They pass the client's headers on
//! as they came, so what the operator says stands in the URL, and the headers that the proxy must set are such that nothing
//! passes without them.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

use super::Pages;
use crate::domain::limits;
use crate::door::Door;
use crate::proxied::{Body, Headers, Held, Passed, Refused, Route, Verdict};
use crate::transport::Peer;

/// The certificate of the proxy's client: URL-encoded PEM, or DER in base64.
const CERTIFICATE: &str = "x-remit-client-certificate";
/// The client's request, in the proxy's words.
const SAID: [&str; 4] = ["x-forwarded-method", "x-forwarded-uri", "x-forwarded-host", CERTIFICATE];
const MISSING: &str = "the proxy has to set x-forwarded-method, x-forwarded-uri and x-forwarded-host, each once";
/// Headers of the question itself, and not of the client's request.
const NOT_ITS_OWN: [&str; 4] = ["host", "content-length", "connection", CERTIFICATE];

/// 200 with headers for the request to go on with, or a refusal.
pub(super) async fn check(
    State(pages): State<Pages>,
    peer: Option<Extension<Arc<Peer>>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let peer = peer.as_ref().map(|Extension(peer)| peer);
    let query = uri.query().unwrap_or_default();
    let operator = form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>();
    let verdict = match held(&headers, &operator) {
        // Only the proxy's own certificate says who it is: credentials among the headers are its client's.
        Ok(held) => {
            let enter = |door: &Door| door.enter(peer, &HeaderMap::new(), limits::REQUEST_DEADLINE).map(Arc::new);
            pages.gatekeeper.check(enter, &held).await
        }
        Err(unreadable) => pages.gatekeeper.unreadable(unreadable),
    };
    match &verdict {
        Verdict::Passed(passed) => self::passed(passed),
        Verdict::Refused(refused) => self::refused(refused),
    }
}

/// The request that is held.
///
/// # Errors
/// The proxy does not say what it must, or says it twice.
fn held<'a>(headers: &'a HeaderMap, operator: &'a [(String, String)]) -> Result<Held<'a>, &'static str> {
    let [method, target, host, certificate] = SAID.map(|name| said(headers, name));
    let mut route = Route::default();
    for (name, value) in operator {
        let place = match name.as_str() {
            "capability" => &mut route.capability,
            "resource" => &mut route.resource,
            "destination" => &mut route.destination,
            _ => return Err("the URL has a parameter other than capability, resource and destination"),
        };
        if place.replace(value).is_some() {
            return Err("the URL has a parameter twice");
        }
    }
    let own = headers.iter().filter(|(name, _)| !NOT_ITS_OWN.contains(&name.as_str()));
    Ok(Held {
        method: method?.ok_or(MISSING)?,
        target: target?.ok_or(MISSING)?,
        host: host?.ok_or(MISSING)?,
        headers: Headers::new(own.map(|(name, value)| (name.as_str(), value.as_bytes()))),
        body: Body::Unknown("the proxy sends no bodies"),
        source_principal: "",
        source_certificate: certificate?.unwrap_or_default(),
        destination_principal: "",
        route,
    })
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err("what the proxy says of the request is there twice, or is not ASCII"),
    }
}

fn passed(passed: &Passed) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in passed.set() {
        let Ok(value) = HeaderValue::from_str(value) else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        headers.insert(HeaderName::from_static(name), value);
    }
    (StatusCode::OK, headers).into_response()
}

fn refused(refused: &Refused) -> Response {
    let status = StatusCode::from_u16(refused.status().code()).unwrap_or(StatusCode::FORBIDDEN);
    let mut answer = (status, [(header::CONTENT_TYPE, "application/json")], refused.body().to_owned()).into_response();
    if let Some(seconds) = refused.retry_after_seconds() {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)], operator: &[(&str, &str)]) -> Result<(), &'static str> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect::<Vec<_>>();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        let operator =
            operator.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
        held(&map, &operator).map(|_| ())
    }

    const WHOLE: [(&str, &str); 3] =
        [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/a"), ("x-forwarded-host", "h")];

    #[test]
    fn c20_nothing_is_read_without_what_the_proxy_has_to_say() {
        assert!(of(&WHOLE, &[]).is_ok());
        for missing in WHOLE {
            let others = WHOLE.into_iter().filter(|known| *known != missing).collect::<Vec<_>>();
            assert!(of(&others, &[]).is_err(), "{missing:?}");
            assert!(of(&[WHOLE.as_slice(), &[missing]].concat(), &[]).is_err(), "twice {missing:?}");
        }
    }

    #[test]
    fn c20_what_the_operator_says_is_said_once_and_in_the_url() {
        assert!(of(&WHOLE, &[("capability", "a"), ("resource", "b"), ("destination", "c")]).is_ok());
        assert!(of(&WHOLE, &[("capability", "a"), ("capability", "b")]).is_err());
        assert!(of(&WHOLE, &[("capabilty", "a")]).is_err());
    }
}
