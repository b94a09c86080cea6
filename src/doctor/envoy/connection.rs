//! The connection manager that holds the filter.

use serde_json::Value;

use super::reach::Guard;
use super::{afterwards, authorizer, filters, reach};
use crate::doctor::Report;
use crate::doctor::asking::{self, Asks};
use crate::doctor::reading::{every_object, field, is_set, items, may_be_set, number, word};

/// Whether one of its filters asks.
pub(super) fn asks(manager: &Value) -> bool {
    items(manager, "http_filters").any(|filter| asking::asks(filter) != Asks::No)
}

pub(super) fn look(report: &mut Report, value: &Value, place: &str) {
    let is_asking = asks(value);
    let chain = items(value, "http_filters").collect::<Vec<_>>();
    let guard = match (is_asking, filters::removes_our_trailers(&chain)) {
        (false, _) => Guard::None,
        (true, false) => Guard::Headers,
        (true, true) => Guard::HeadersAndTrailers,
    };
    reach::manager(report, value, place, guard);
    if !is_asking {
        return;
    }
    filters::look(report, &chain, place);
    afterwards::look(report, value, place);
    client(report, value, place);
    other_filters(report, value, place);
    certificate_header(report, value, place);
    paths(report, value, place);
    lengths(report, value, place);
    for routes in ["rds", "scoped_routes"].into_iter().filter(|name| field(value, name).is_some()) {
        let what = format!("can't judge the routes, which come by {routes}: look at them yourself");
        report.warn(place, what, "no route disables ext_authz");
    }
}

/// What a client may do by the connection's own settings.
fn client(report: &mut Report, value: &Value, place: &str) {
    let protocol = |name| field(value, name).into_iter();
    let settings: [(bool, &str, &'static str); 5] = [
        (
            field(value, "internal_address_config").is_some(),
            "internal_address_config: clients there give Envoy orders by x-envoy-…, of which Remit removes those that it knows",
            "remove internal_address_config, or let it cover no client",
        ),
        (
            protocol("http_protocol_options").any(|options| may_be_set(options, "enable_trailers")),
            "enable_trailers: ext_authz does not see trailers",
            "remove enable_trailers, or remove x-remit-… from trailers",
        ),
        (
            may_be_set(value, "strip_any_host_port") || may_be_set(value, "strip_matching_host_port"),
            "strip_any_host_port, strip_matching_host_port: hosts that only the port separates are one",
            "remove both",
        ),
        (
            ["http2_protocol_options", "http3_protocol_options"].iter().any(|name| {
                protocol(name).any(|options| {
                    may_be_set(options, "allow_connect") || may_be_set(options, "allow_extended_connect")
                })
            }),
            "allow_connect: what goes through a tunnel is not asked about",
            "remove allow_connect",
        ),
        (
            items(value, "upgrade_configs").next().is_some(),
            "upgrade_configs: the upgrade alone is asked about, what is said after it is not",
            "remove upgrade_configs, or be sure that the upgrade is what is to be decided",
        ),
    ];
    for (_, what, fix) in settings.into_iter().filter(|(is_there, ..)| *is_there) {
        report.warn(place, what, fix);
    }
}

/// An upgrade may have filters of its own.
fn other_filters(report: &mut Report, value: &Value, place: &str) {
    for upgrade in items(value, "upgrade_configs") {
        let mut own = items(upgrade, "filters").peekable();
        if own.peek().is_some() && !own.any(|filter| asking::asks(filter) == Asks::Plainly) {
            report.fatal(
                place,
                "an upgrade has filters of its own, without ext_authz",
                "remove upgrade_configs.filters",
            );
        }
    }
}

fn certificate_header(report: &mut Report, value: &Value, place: &str) {
    let Some(details) = word(value, "forward_client_cert_details") else { return };
    let name = match details.as_str() {
        "SANITIZE" | "SANITIZE_SET" | "0" | "3" => return,
        "1" => "FORWARD_ONLY",
        "2" => "APPEND_FORWARD",
        "4" => "ALWAYS_FORWARD_ONLY",
        other => other,
    };
    let what = format!("forward_client_cert_details: {name} lets clients write x-forwarded-client-cert");
    report.fatal(place, what, "forward_client_cert_details: SANITIZE");
}

fn paths(report: &mut Report, value: &Value, place: &str) {
    if !is_set(value, "normalize_path") {
        report.warn(place, "a route may match another path than the service reads", "normalize_path: true");
    }
    let slashes = word(value, "path_with_escaped_slashes_action");
    let refused = ["REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD", "2", "3", "4"];
    if !slashes.is_some_and(|action| refused.contains(&action.as_str())) {
        report.warn(
            place,
            "%2f and %5c reach routes and Remit, which refuses them",
            "path_with_escaped_slashes_action: REJECT_REQUEST",
        );
    }
    let underscores = field(value, "common_http_protocol_options");
    let underscores = underscores.and_then(|options| word(options, "headers_with_underscores_action"));
    if !underscores.is_some_and(|action| ["REJECT_REQUEST", "DROP_HEADER", "1", "2"].contains(&action.as_str())) {
        report.warn(
            place,
            "x_remit_agent is x-remit-agent to some services",
            "headers_with_underscores_action: REJECT_REQUEST",
        );
    }
}

/// Headers and body together have to fit.
fn lengths(report: &mut Report, value: &Value, place: &str) {
    let Some(headers) = number(value, "max_request_headers_kb") else { return };
    let mut body = 0;
    every_object(value, crate::doctor::LEVELS, &mut |value| {
        let own = field(value, "with_request_body").and_then(|body| number(body, "max_request_bytes"));
        body = body.max(own.unwrap_or(0));
    });
    if headers.saturating_mul(1024).saturating_add(body) > authorizer::REQUEST_BYTES {
        report.warn(
            place,
            "max_request_headers_kb with max_request_bytes: Remit takes 1 MiB for both",
            "max_request_headers_kb: 60",
        );
    }
}
