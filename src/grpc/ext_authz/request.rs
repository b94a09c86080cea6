//! What Envoy tells of a request, as the gatekeeper takes it.

use crate::api::envoy::config::core::v3::HeaderValue;
use crate::api::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use crate::api::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use crate::proxied::{Body, Headers, Held, Route};

/// The request that is held.
///
/// # Errors
/// What is missing, or is there in two forms.
pub(super) fn held(request: &CheckRequest) -> Result<Held<'_>, &'static str> {
    let CheckRequest { attributes } = request;
    let attributes = attributes.as_ref().ok_or("the proxy tells of no request, or of one that can't be read")?;
    let AttributeContext { source, destination, request, context_extensions } = attributes;
    let http = request.as_ref().and_then(|Request { http }| http.as_ref());
    // `id` is what the client wrote in x-request-id.
    let HttpRequest { id: _, method, path, host, size, body, raw_body, .. } = http.ok_or("it is no HTTP request")?;
    let headers = http.map(headers).ok_or("it is no HTTP request")??;
    let route = |name: &str| context_extensions.get(name).map(String::as_str);
    let body = Body::of(&headers, body, raw_body, *size).unwrap_or(Body::Unknown("a header about it is there twice"));
    let (source_principal, source_certificate) = source.as_ref().map_or(("", ""), told);
    Ok(Held {
        method,
        target: path,
        host,
        headers,
        body,
        source_principal,
        source_certificate,
        destination_principal: destination.as_ref().map_or(("", ""), told).0,
        route: Route {
            capability: route("remit-capability"),
            resource: route("remit-resource"),
            destination: route("remit-destination"),
        },
    })
}

fn told(peer: &Peer) -> (&str, &str) {
    let Peer { principal, certificate } = peer;
    (principal, certificate)
}

/// The headers in the form in which they came.
fn headers(http: &HttpRequest) -> Result<Headers<'_>, &'static str> {
    let HttpRequest { headers, header_map, .. } = http;
    let raw = header_map.as_ref().map(|map| map.headers.as_slice()).unwrap_or_default();
    match (headers.is_empty(), raw) {
        (false, []) => Ok(Headers::new(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))),
        (true, raw) => {
            let is_double = |header: &HeaderValue| !header.value.is_empty() && !header.raw_value.is_empty();
            if raw.iter().any(is_double) {
                return Err("a header's value came in two forms");
            }
            Ok(Headers::new(raw.iter().map(|header| (header.key.as_str(), value(header)))))
        }
        (false, _) => Err("its headers came in two forms"),
    }
}

fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}
