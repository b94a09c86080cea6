//! `/v1/check`: for proxies that ask over HTTP (nginx `auth_request`, Caddy `forward_auth`). They pass the client's headers on
//! as they came, and Caddy their query too: so what the operator says stands in the path, the headers that the proxy must set
//! are such that nothing passes without them, and the client's certificate is believed of proxies that the settings name.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

use super::Pages;
use crate::domain::limits;
use crate::door::Door;
use crate::proxied::{Body, Headers, Held, OUR_HEADERS, Passed, Refused, Route, Verdict};
use crate::transport::Peer;

/// The client's request, in the proxy's words.
const SAID: [&str; 3] = ["x-forwarded-method", "x-forwarded-uri", "x-forwarded-host"];
const MISSING: &str = "the proxy has to set x-forwarded-method, x-forwarded-uri and x-forwarded-host, each once";
/// Headers of the question itself, and not of the client's request.
const NOT_ITS_OWN: [&str; 3] = ["host", "content-length", "connection"];
/// What stands before the operator's words.
const PATH: &str = "/v1/check/";

/// 200 with headers for the request to go on with, or a refusal.
pub(super) async fn check(
    State(pages): State<Pages>,
    peer: Option<Extension<Arc<Peer>>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let peer = peer.as_ref().map(|Extension(peer)| peer);
    let operator = operator(&uri);
    let held = |certificate: Option<&str>| held(&headers, uri.query().unwrap_or_default(), &operator, certificate);
    // Only the proxy's own certificate says who it is: credentials among the headers are its client's.
    let enter = |door: &Door| door.enter(peer, &HeaderMap::new(), limits::REQUEST_DEADLINE).map(Arc::new);
    let verdict = pages.gatekeeper.check(enter, held).await;
    match &verdict {
        Verdict::Passed(passed) => self::passed(passed),
        Verdict::Refused(refused) => self::refused(refused),
    }
}

/// What the operator says. It stands in the path: the query is the client's where the proxy keeps it.
fn operator(uri: &Uri) -> Vec<(String, String)> {
    let words = uri.path().strip_prefix(PATH).unwrap_or_default();
    form_urlencoded::parse(words.as_bytes()).into_owned().collect()
}

/// The request that is held. `certificate`: the header that tells its client's certificate, URL-encoded PEM or DER in
/// base64, if this proxy is believed to set one.
///
/// # Errors
/// The proxy does not say what it must, says it twice, or would let through what only Remit says.
fn held<'a>(
    headers: &'a HeaderMap,
    query: &str,
    operator: &'a [(String, String)],
    certificate: Option<&str>,
) -> Result<Held<'a>, &'static str> {
    let [method, target, host] = SAID.map(|name| said(headers, name));
    let (method, target, host) = (method?.ok_or(MISSING)?, target?.ok_or(MISSING)?, host?.ok_or(MISSING)?);
    if !query.is_empty() && target.split_once('?').is_none_or(|(_, clients)| clients != query) {
        return Err("the URL has a query that is not the request's: what the operator says stands in the path");
    }
    let is_own = |name: &str| !NOT_ITS_OWN.contains(&name) && certificate != Some(name);
    let own = headers.iter().filter(|(name, _)| is_own(name.as_str()));
    let own = Headers::new(own.map(|(name, value)| (name.as_str(), value.as_bytes())));
    if own.ours().any(|name| !OUR_HEADERS.contains(&name)) {
        return Err("it has a header under x-remit- that the proxy would let through");
    }
    Ok(Held {
        method,
        target,
        host,
        headers: own,
        body: Body::Unknown("the proxy sends no bodies"),
        source_principal: "",
        source_certificate: certificate.map(|name| said(headers, name)).transpose()?.flatten().unwrap_or_default(),
        destination_principal: "",
        route: route(operator)?,
    })
}

fn route(operator: &[(String, String)]) -> Result<Route<'_>, &'static str> {
    let mut route = Route::default();
    for (name, value) in operator {
        let place = match name.as_str() {
            "capability" => &mut route.capability,
            "resource" => &mut route.resource,
            "destination" => &mut route.destination,
            _ => return Err("the URL says something other than capability, resource and destination"),
        };
        if place.replace(value).is_some() {
            return Err("the URL says something twice");
        }
    }
    Ok(route)
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

    const CERTIFICATE: &str = "x-remit-client-certificate";

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn of(headers: &[(&'static str, &'static str)], uri: &'static str) -> Result<(), &'static str> {
        let uri = Uri::from_static(uri);
        held(&map(headers), uri.query().unwrap_or_default(), &operator(&uri), None).map(|_| ())
    }

    const WHOLE: [(&str, &str); 3] =
        [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/a?b=1"), ("x-forwarded-host", "h")];

    #[test]
    fn c20_nothing_is_read_without_what_the_proxy_has_to_say() {
        assert!(of(&WHOLE, "/v1/check").is_ok());
        for missing in WHOLE {
            let others = WHOLE.into_iter().filter(|known| *known != missing).collect::<Vec<_>>();
            assert!(of(&others, "/v1/check").is_err(), "{missing:?}");
            assert!(of(&[WHOLE.as_slice(), &[missing]].concat(), "/v1/check").is_err(), "twice {missing:?}");
        }
    }

    #[test]
    fn c20_what_the_operator_says_is_said_once_and_in_the_path() {
        assert!(of(&WHOLE, "/v1/check/capability=a&resource=/b&destination=c").is_ok());
        for bad in ["capability=a&capability=b", "capabilty=a", "/capability=a"] {
            let uri = Uri::try_from(format!("/v1/check/{bad}")).unwrap();
            assert!(held(&map(&WHOLE), "", &operator(&uri), None).is_err(), "{bad}");
        }
        let said = operator(&Uri::from_static("/v1/check/capability=a&resource=/b%20c"));
        let route = route(&said).unwrap();
        assert_eq!((route.capability, route.resource, route.destination), (Some("a"), Some("/b c"), None));
    }

    #[test]
    fn c20_the_clients_query_says_nothing_for_the_operator() {
        let asked = [WHOLE[0], ("x-forwarded-uri", "/a?capability=c&resource=r"), WHOLE[2]];
        let uri = Uri::from_static("/v1/check?capability=c&resource=r");
        assert!(operator(&uri).is_empty());
        assert!(of(&asked, "/v1/check?capability=c&resource=r").is_ok());
        assert!(of(&WHOLE, "/v1/check?b=1").is_ok());
        for other in ["/v1/check?capability=c&resource=r", "/v1/check?b=2", "/v1/check/capability=a?resource=r"] {
            assert!(of(&WHOLE, other).is_err(), "{other}");
        }
    }

    #[test]
    fn c20_a_certificate_counts_only_in_the_header_that_the_proxy_is_known_to_set() {
        let told = map(&[WHOLE.as_slice(), &[("x-client", "c")]].concat());
        let certificate =
            |header: Option<&str>| held(&told, "", &[], header).map(|held| held.source_certificate.to_owned());
        assert_eq!(certificate(None).as_deref(), Ok(""));
        assert_eq!(certificate(Some(CERTIFICATE)).as_deref(), Ok(""));
        assert_eq!(certificate(Some("x-client")).as_deref(), Ok("c"));
    }

    #[test]
    fn c20_names_of_ours_that_the_proxy_would_let_through_deny() {
        for known in OUR_HEADERS {
            assert!(of(&[WHOLE.as_slice(), &[(known, "a")]].concat(), "/v1/check").is_ok(), "{known}");
        }
        for other in ["x-remit-new", "x_remit_agent", "x-remit_agent", CERTIFICATE] {
            assert!(of(&[WHOLE.as_slice(), &[(other, "a")]].concat(), "/v1/check").is_err(), "{other}");
        }
    }
}
