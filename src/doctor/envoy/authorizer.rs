//! The filter that asks.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::reading::{at, field, is_set, may_be_set, milliseconds, number, word};

/// Remit takes 1 MiB for a request with its headers.
pub(super) const REQUEST_BYTES: u64 = 1024 * 1024;
/// What is left of it beside the body: headers of Envoy's default length, the client's certificate, names.
const BESIDE_BYTES: u64 = 256 * 1024;
/// Names of Envoy's `HttpStatus` that are no refusal.
const NO_REFUSAL: [&str; 19] = [
    "Continue",
    "OK",
    "Created",
    "Accepted",
    "NonAuthoritativeInformation",
    "NoContent",
    "ResetContent",
    "PartialContent",
    "MultiStatus",
    "AlreadyReported",
    "IMUsed",
    "MultipleChoices",
    "MovedPermanently",
    "Found",
    "SeeOther",
    "NotModified",
    "UseProxy",
    "TemporaryRedirect",
    "PermanentRedirect",
];

pub(super) fn look(report: &mut Report, value: &Value, place: &str) {
    passes_unasked(report, value, place);
    service(report, value, place, true);
    unheard_and_unsaid(report, value, place);
    if is_success(field(value, "status_on_error")) {
        report.fatal(place, "status_on_error is a success", "status_on_error: { code: ServiceUnavailable }");
    }
    if may_be_set(value, "clear_route_cache") {
        report.warn(
            place,
            "clear_route_cache: a header of the answer may choose a route that is not guarded",
            "remove clear_route_cache",
        );
    }
    if !is_set(value, "validate_mutations") {
        report.warn(
            place,
            "without validate_mutations a header of the answer is taken as it is",
            "validate_mutations: true",
        );
    }
    if let Some(body) = field(value, "with_request_body") {
        with_body(report, body, place);
    }
}

fn passes_unasked(report: &mut Report, value: &Value, place: &str) {
    if may_be_set(value, "failure_mode_allow") {
        report.fatal(
            place,
            "failure_mode_allow lets requests pass when Remit does not answer",
            "failure_mode_allow: false",
        );
    }
    for (name, what, fix) in [
        ("filter_enabled", "filter_enabled: some requests are not asked about", "remove filter_enabled"),
        (
            "filter_enabled_metadata",
            "filter_enabled_metadata: requests without that metadata are not asked about",
            "remove filter_enabled_metadata",
        ),
    ] {
        if field(value, name).is_some() {
            report.fatal(place, what, fix);
        }
    }
}

/// What Remit does not get to hear, and what it says and nobody hears.
fn unheard_and_unsaid(report: &mut Report, value: &Value, place: &str) {
    for (name, what, fix) in [
        (
            "allowed_headers",
            "allowed_headers: Remit does not see the other headers, and can't refuse or remove them",
            "remove allowed_headers",
        ),
        (
            "disallowed_headers",
            "disallowed_headers: Remit does not see these headers, and can't refuse or remove them",
            "remove disallowed_headers",
        ),
    ] {
        if field(value, name).is_some() {
            report.fatal(place, what, fix);
        }
    }
    if let Some(rules) = field(value, "decoder_header_mutation_rules") {
        mutation_rules(report, rules, place);
    }
    let ingestion = field(value, "enable_dynamic_metadata_ingestion").is_some();
    if (ingestion && !is_set(value, "enable_dynamic_metadata_ingestion"))
        || may_be_set(value, "disable_dynamic_metadata_ingestion")
    {
        report.warn(place, "the decision is not in dynamic metadata", "enable_dynamic_metadata_ingestion: true");
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
}

fn mutation_rules(report: &mut Report, rules: &Value, place: &str) {
    let fix = "remove decoder_header_mutation_rules";
    for name in ["disallow_all", "disallow_expression"] {
        let is_there = may_be_set(rules, name);
        if is_there {
            let what = format!(
                "decoder_header_mutation_rules.{name}: what the client says in x-remit-… is not removed or replaced"
            );
            report.fatal(place, what, fix);
        }
    }
    let known = ["disallow_all", "disallow_expression", "disallowAll", "disallowExpression"];
    let has_others = rules.as_object().is_none_or(|rules| rules.keys().any(|name| !known.contains(&name.as_str())));
    if has_others {
        let what =
            "can't judge decoder_header_mutation_rules: look at it yourself, Remit has to set and remove x-remit-…";
        report.warn(place, what, fix);
    }
}

/// How it asks. A route may leave that to the filter.
pub(super) fn service(report: &mut Report, value: &Value, place: &str, is_needed: bool) {
    if field(value, "http_service").is_some() {
        report.fatal(place, "http_service takes any 200 for leave to pass", "ask over grpc_service");
    }
    let Some(service) = field(value, "grpc_service") else {
        if is_needed && field(value, "http_service").is_none() {
            report.fatal(place, "nobody is asked: there is no grpc_service", "grpc_service: { envoy_grpc: … }");
        }
        return;
    };
    timeout(report, milliseconds(service, "timeout"), place);
    if let Some(google) = field(service, "google_grpc") {
        google_grpc(report, google, place);
    } else if at(service, &["envoy_grpc", "cluster_name"]).is_none() {
        report.warn(
            place,
            "can't judge whom grpc_service asks: look at it yourself",
            "grpc_service: { envoy_grpc: … }",
        );
    }
}

fn timeout(report: &mut Report, timeout: Option<f64>, place: &str) {
    let fix = "timeout: 0.5s";
    match timeout {
        None => report.warn(place, "grpc_service has no timeout: it is 200 ms", fix),
        Some(timeout) if (50.0..=10_000.0).contains(&timeout) => {}
        Some(timeout) if timeout < 50.0 => {
            report.warn(
                place,
                "grpc_service's timeout is under 50 ms: what is late is refused and may cost a use",
                fix,
            );
        }
        Some(_) => report.warn(place, "grpc_service's timeout is over 10 s, or no duration", fix),
    }
}

fn google_grpc(report: &mut Report, google: &Value, place: &str) {
    let Some(tls) = at(google, &["channel_credentials", "ssl_credentials"]) else {
        report.fatal(
            place,
            "google_grpc has no ssl_credentials: Remit is asked without TLS, and answers nobody",
            "ask over envoy_grpc, with a cluster that has TLS",
        );
        return;
    };
    if field(tls, "private_key").is_none() || field(tls, "cert_chain").is_none() {
        report.fatal(
            place,
            "google_grpc shows no certificate of its own: Remit answers enforcement points alone",
            "ssl_credentials: { root_certs: …, private_key: …, cert_chain: … }",
        );
    }
    if field(tls, "root_certs").is_none() {
        report.fatal(place, "google_grpc trusts every public authority to be Remit's", "ssl_credentials.root_certs");
    }
}

fn is_success(status: Option<&Value>) -> bool {
    let Some(code) = status.and_then(|status| word(status, "code")) else { return false };
    code.parse::<u16>().map_or_else(|_| NO_REFUSAL.contains(&code.as_str()), |code| (1..400).contains(&code))
}

pub(super) fn with_body(report: &mut Report, body: &Value, place: &str) {
    if may_be_set(body, "allow_partial_message") {
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
    if number(body, "max_request_bytes").is_some_and(|bytes| bytes > REQUEST_BYTES.saturating_sub(BESIDE_BYTES)) {
        report.warn(
            place,
            "max_request_bytes: Remit takes 1 MiB for a request with its headers",
            "max_request_bytes: 65536",
        );
    }
}
