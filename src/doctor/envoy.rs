//! Envoy's own settings.

use serde_json::Value;

use super::{Report, field, is_message, is_set, milliseconds, text};

const EXT_AUTHZ: &str = "ext_authz.v3.ExtAuthz";
const EXT_AUTHZ_PER_ROUTE: &str = "ext_authz.v3.ExtAuthzPerRoute";
/// Filters that may stand before the one that asks: they refuse or measure, and act on nothing.
const EARLY: [&str; 10] = [
    "envoy.filters.http.jwt_authn",
    "envoy.filters.http.rbac",
    "envoy.filters.http.cors",
    "envoy.filters.http.csrf",
    "envoy.filters.http.health_check",
    "envoy.filters.http.local_ratelimit",
    "envoy.filters.http.ratelimit",
    "envoy.filters.http.grpc_stats",
    "envoy.filters.http.ip_tagging",
    "envoy.filters.http.buffer",
];
/// Remit takes 1 MiB for a request with its headers.
const BODY_BYTES: u64 = 768 * 1024;

pub(super) fn look(report: &mut Report, value: &Value, place: &str) {
    if is_message(value, EXT_AUTHZ) {
        report.authorizers = report.authorizers.saturating_add(1);
        authorizer(report, value, place);
    }
    if is_message(value, EXT_AUTHZ_PER_ROUTE) && is_set(value, "disabled") {
        report.fatal(
            place,
            "this route is not asked about",
            "remove disabled, or be sure that the route is for everybody",
        );
    }
    if is_message(value, "http_connection_manager.v3.HttpConnectionManager") && asks(value) {
        connection_manager(report, value, place);
    }
    if field(value, "filters").and_then(Value::as_array).is_some_and(|filters| filters.iter().any(holds_asking_manager))
    {
        filter_chain(report, value, place);
    }
    if field(value, "clusters").is_some() {
        clusters(report, value, place);
    }
}

fn authorizer(report: &mut Report, value: &Value, place: &str) {
    if is_set(value, "failure_mode_allow") {
        report.fatal(
            place,
            "failure_mode_allow lets requests pass when Remit does not answer",
            "failure_mode_allow: false",
        );
    }
    if field(value, "filter_enabled").is_some() {
        report.fatal(place, "filter_enabled: some requests are not asked about", "remove filter_enabled");
    }
    if is_set(value, "clear_route_cache") {
        report.warn(
            place,
            "clear_route_cache: a header of the answer may choose a route that is not guarded",
            "remove clear_route_cache",
        );
    }
    if field(value, "http_service").is_some() {
        report.fatal(place, "http_service takes any 200 for leave to pass", "ask over grpc_service");
    } else if let Some(service) = field(value, "grpc_service") {
        match milliseconds(service, "timeout") {
            None => report.warn(place, "grpc_service has no timeout: it is 200 ms", "timeout: 0.5s"),
            Some(timeout) if timeout < 50.0 => {
                report.warn(
                    place,
                    "grpc_service's timeout is under 50 ms: what is late is refused and may cost a use",
                    "timeout: 0.5s",
                );
            }
            Some(_) => {}
        }
    }
    let status = field(value, "status_on_error").and_then(|status| field(status, "code"));
    if status.is_some_and(|code| matches!(code.as_u64(), Some(200..=399)) || code.as_str() == Some("OK")) {
        report.fatal(place, "status_on_error is a success", "status_on_error: { code: ServiceUnavailable }");
    }
    if !is_set(value, "encode_raw_headers") {
        report.warn(
            place,
            "a header that is there twice is merged, and bytes that are no UTF-8 are lost",
            "encode_raw_headers: true",
        );
    }
    if !is_set(value, "include_peer_certificate") {
        report.warn(place, "a certificate with two URIs is told as one of the first", "include_peer_certificate: true");
    }
    if let Some(body) = field(value, "with_request_body") {
        with_body(report, body, place);
    }
}

fn with_body(report: &mut Report, body: &Value, place: &str) {
    if is_set(body, "allow_partial_message") {
        report.warn(
            place,
            "allow_partial_message: rules that need the body deny what was cut",
            "allow_partial_message: false",
        );
    }
    if !is_set(body, "pack_as_bytes") {
        report.warn(
            place,
            "a body that is no UTF-8 makes the whole question unreadable, and denies",
            "pack_as_bytes: true",
        );
    }
    if field(body, "max_request_bytes").and_then(Value::as_u64).is_some_and(|bytes| bytes > BODY_BYTES) {
        report.warn(
            place,
            "max_request_bytes: Remit takes 1 MiB for a request with its headers",
            "max_request_bytes: 65536",
        );
    }
}

fn asks(manager: &Value) -> bool {
    http_filters(manager).any(is_authorizer)
}

fn http_filters(manager: &Value) -> impl Iterator<Item = &Value> {
    field(manager, "http_filters").and_then(Value::as_array).into_iter().flatten()
}

fn is_authorizer(filter: &Value) -> bool {
    field(filter, "typed_config").is_some_and(|config| is_message(config, EXT_AUTHZ))
}

fn connection_manager(report: &mut Report, value: &Value, place: &str) {
    for filter in http_filters(value) {
        if is_authorizer(filter) {
            if is_set(filter, "disabled") {
                report.fatal(place, "the ext_authz filter is disabled", "remove disabled");
            }
            break;
        }
        let name = text(filter, "name").unwrap_or_default();
        if !EARLY.contains(&name) {
            report.fatal(place, format!("the filter {name} acts before ext_authz"), "move ext_authz before it");
        }
    }
    match text(value, "forward_client_cert_details") {
        None | Some("SANITIZE" | "SANITIZE_SET") => {}
        Some(details) => {
            let what = format!("forward_client_cert_details: {details} lets clients write x-forwarded-client-cert");
            report.fatal(place, what, "forward_client_cert_details: SANITIZE");
        }
    }
    if !is_set(value, "normalize_path") {
        report.warn(place, "a route may match another path than the service reads", "normalize_path: true");
    }
    if matches!(
        text(value, "path_with_escaped_slashes_action"),
        None | Some("KEEP_UNCHANGED" | "IMPLEMENTATION_SPECIFIC_DEFAULT")
    ) {
        report.warn(
            place,
            "%2f and %5c reach routes and Remit, which refuses them",
            "path_with_escaped_slashes_action: REJECT_REQUEST",
        );
    }
    let underscores = field(value, "common_http_protocol_options");
    if underscores
        .and_then(|options| text(options, "headers_with_underscores_action"))
        .is_none_or(|action| action == "ALLOW")
    {
        report.warn(
            place,
            "x_remit_agent is x-remit-agent to some services",
            "headers_with_underscores_action: REJECT_REQUEST",
        );
    }
}

fn holds_asking_manager(filter: &Value) -> bool {
    field(filter, "typed_config").is_some_and(asks)
}

fn filter_chain(report: &mut Report, value: &Value, place: &str) {
    let tls = field(value, "transport_socket").and_then(|socket| field(socket, "typed_config"));
    match tls {
        Some(tls) if !is_set(tls, "require_client_certificate") => {
            report.fatal(
                place,
                "no client certificate is required: who sends a request is not known",
                "require_client_certificate: true",
            );
        }
        Some(tls) if !tls.to_string().contains("trusted_ca") && !tls.to_string().contains("validation_context_sds") => {
            report.fatal(place, "client certificates are not verified", "validation_context: { trusted_ca: … }");
        }
        Some(_) => {}
        None => report.fatal(
            place,
            "without TLS nobody has a name",
            "transport_socket: DownstreamTlsContext with require_client_certificate",
        ),
    }
}

/// The clusters that authorizers ask.
fn clusters(report: &mut Report, value: &Value, place: &str) {
    let mut asked = Vec::new();
    names_of_asked(value, &mut asked, super::LEVELS);
    let clusters = field(value, "clusters").and_then(Value::as_array).into_iter().flatten();
    for cluster in clusters.filter(|cluster| text(cluster, "name").is_some_and(|name| asked.contains(&name))) {
        let name = text(cluster, "name").unwrap_or_default();
        let place = &if place.is_empty() { format!("clusters: {name}") } else { format!("{place}.clusters: {name}") };
        let tls = field(cluster, "transport_socket").and_then(|socket| field(socket, "typed_config"));
        let Some(tls) = tls.and_then(|tls| field(tls, "common_tls_context")) else {
            report.fatal(
                place,
                "Remit is asked without TLS: it answers nobody",
                "transport_socket: UpstreamTlsContext",
            );
            continue;
        };
        if field(tls, "tls_certificates").or_else(|| field(tls, "tls_certificate_sds_secret_configs")).is_none() {
            report.fatal(
                place,
                "Envoy shows no certificate of its own: Remit answers enforcement points alone",
                "tls_certificates: …",
            );
        }
        if !tls.to_string().contains("trusted_ca") && !tls.to_string().contains("validation_context_sds") {
            report.fatal(
                place,
                "Remit's own certificate is not verified: anybody there may answer",
                "validation_context: { trusted_ca: …, match_typed_subject_alt_names: … }",
            );
        }
        let newest = field(tls, "tls_params").and_then(|tls| text(tls, "tls_maximum_protocol_version"));
        if newest != Some("TLSv1_3") {
            report.fatal(
                place,
                "Envoy speaks TLS 1.2 at most as a client, and Remit 1.3: every request is refused",
                "tls_maximum_protocol_version: TLSv1_3",
            );
        }
    }
}

fn names_of_asked<'v>(value: &'v Value, names: &mut Vec<&'v str>, levels: usize) {
    let Some(below) = levels.checked_sub(1) else { return };
    if is_message(value, EXT_AUTHZ) {
        let service = field(value, "grpc_service").and_then(|service| field(service, "envoy_grpc"));
        names.extend(service.and_then(|service| text(service, "cluster_name")));
    }
    match value {
        Value::Object(object) => object.values().for_each(|value| names_of_asked(value, names, below)),
        Value::Array(items) => items.iter().for_each(|value| names_of_asked(value, names, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
