//! What routes do to a request after it was decided about.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::reading::{field, items, may_be_set, plain_name, text};

/// Fields that leave the request as it was decided about: what is no such field, and none of [`ACTING`], can't be judged.
const HARMLESS: [&str; 43] = [
    "append_x_forwarded_host",
    "cluster",
    "cluster_header",
    "cluster_not_found_response_code",
    "cluster_specifier_plugin",
    "cors",
    "decorator",
    "direct_response",
    "domains",
    "flush_timeout",
    "hash_policy",
    "idle_timeout",
    "include_attempt_count_in_response",
    "include_request_attempt_count",
    "include_vh_rate_limits",
    "internal_only_headers",
    "match",
    "max_direct_response_body_size_bytes",
    "max_grpc_timeout",
    "max_stream_duration",
    "metadata",
    "metadata_match",
    "name",
    "per_request_buffer_limit_bytes",
    "priority",
    "rate_limits",
    "redirect",
    "request_body_buffer_limit",
    "request_headers_to_add",
    "request_headers_to_remove",
    "require_tls",
    "response_headers_to_add",
    "response_headers_to_remove",
    "route",
    "routes",
    "stat_prefix",
    "timeout",
    "tracing",
    "typed_per_filter_config",
    "validate_clusters",
    "virtual_clusters",
    "virtual_hosts",
    "weighted_clusters",
];
/// Fields that act on it, and how.
const ACTING: [(&str, &str); 13] = [
    ("prefix_rewrite", "the service gets another path than was decided about"),
    ("regex_rewrite", "the service gets another path than was decided about"),
    ("path_rewrite", "the service gets another path than was decided about"),
    ("path_rewrite_policy", "the service gets another path than was decided about"),
    ("host_rewrite_literal", "the service gets another host than was decided about"),
    ("auto_host_rewrite", "the service gets another host than was decided about"),
    ("host_rewrite_header", "the client may choose the host that the service gets"),
    ("host_rewrite_path_regex", "the client may choose the host that the service gets"),
    ("request_mirror_policies", "another service gets the request too, with its signed identity"),
    ("retry_policy", "one decision, and one use of a token, is good for several requests"),
    ("hedge_policy", "one decision, and one use of a token, is good for several requests"),
    ("upgrade_configs", "the upgrade alone is asked about, what is said after it is not"),
    ("internal_redirect_policy", "the service's answer sends the request elsewhere: see that it is asked about again"),
];
/// What a header that a route sets may be read as: an order of Envoy's own, or another method or path.
const ORDERS: [&str; 8] = [
    "x-envoy-",
    "x-http-method",
    "x-method",
    "x-original-",
    "x-override-",
    "x-rewrite-",
    "x-forwarded-client",
    "authorization",
];

/// Judges the routes of a manager that asks: the table itself, its virtual hosts, their routes and what those do.
pub(super) fn look(report: &mut Report, manager: &Value, place: &str) {
    let Some(table) = field(manager, "route_config") else { return };
    let place = format!("{place}.route_config");
    one(report, table, &place);
    virtual_hosts(report, table, &place);
}

fn virtual_hosts(report: &mut Report, table: &Value, place: &str) {
    for (number, host) in items(table, "virtual_hosts").enumerate() {
        let place = format!("{place}.virtual_hosts[{number}]");
        one(report, host, &place);
        for (number, route) in items(host, "routes").enumerate() {
            let place = format!("{place}.routes[{number}]");
            one(report, route, &place);
            let Some(action) = field(route, "route") else { continue };
            let place = format!("{place}.route");
            one(report, action, &place);
            let weighted = field(action, "weighted_clusters").into_iter().flat_map(|list| items(list, "clusters"));
            for cluster in weighted {
                added_headers(report, cluster, &place);
                if field(cluster, "host_rewrite_literal").is_some() {
                    let what = "host_rewrite_literal: the service gets another host than was decided about";
                    report.warn(&place, what, LOOK);
                }
            }
        }
    }
}

const LOOK: &str = "remove it, or be sure that what was decided about is what the service serves";

fn one(report: &mut Report, value: &Value, place: &str) {
    added_headers(report, value, place);
    for (name, what) in ACTING {
        if may_be_set(value, name) {
            report.warn(place, format!("{name}: {what}"), LOOK);
        }
    }
    let Some(object) = value.as_object() else { return };
    let is_known = |name: &str| HARMLESS.contains(&name) || ACTING.iter().any(|(acting, _)| *acting == name);
    for name in object.keys().filter(|name| !is_known(&plain_name(name))) {
        let what = format!("can't judge whether {name} changes what was decided about: look at it yourself");
        report.warn(place, what, LOOK);
    }
}

/// Headers that are set after Remit's own.
fn added_headers(report: &mut Report, value: &Value, place: &str) {
    for added in items(value, "request_headers_to_add") {
        let Some(name) = field(added, "header").and_then(|header| text(header, "key")) else { continue };
        let name = name.to_ascii_lowercase().replace(|mark: char| !mark.is_ascii_alphanumeric(), "-");
        if name.starts_with("x-remit-") {
            let what = format!("request_headers_to_add sets {name}, which the service takes for Remit's own word");
            report.fatal(place, what, "set nothing under x-remit-…");
        } else if ORDERS.iter().any(|order| name.starts_with(order)) {
            let what = format!(
                "request_headers_to_add sets {name}: the service may serve another request than was decided about"
            );
            report.warn(place, what, LOOK);
        }
    }
}
