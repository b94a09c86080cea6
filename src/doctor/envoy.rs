//! Envoy's own settings.

mod afterwards;
mod authorizer;
mod connection;
mod filters;
mod reach;
mod routes;
mod tls;

use serde_json::Value;

use super::Report;
use super::asking::{EXT_AUTHZ, EXT_AUTHZ_PER_ROUTE, MANAGER};
use super::reading::{field, is_message, items, text};
pub(super) use reach::Door;

pub(super) fn look(report: &mut Report, value: &Value, place: &str) {
    if is_message(value, EXT_AUTHZ) {
        report.authorizers = report.authorizers.saturating_add(1);
        authorizer::look(report, value, place);
    }
    if is_message(value, EXT_AUTHZ_PER_ROUTE) {
        routes::per_route(report, value, place);
    }
    if let Some(Value::Object(overrides)) = field(value, "typed_per_filter_config") {
        for (filter, settings) in overrides {
            routes::look(report, filter, settings, &format!("{place}.typed_per_filter_config.{filter}"));
        }
    }
    if is_message(value, MANAGER) {
        connection::look(report, value, place);
    }
    if let Some(resources) = field(value, "dynamic_resources") {
        for name in ["lds_config", "cds_config"].into_iter().filter(|name| field(resources, name).is_some()) {
            let what = format!("can't judge what comes by {name}: look at it yourself");
            let place =
                if place.is_empty() { "dynamic_resources".to_owned() } else { format!("{place}.dynamic_resources") };
            report.warn(&place, what, "give doctor what it says, as a file");
        }
    }
    if is_message(value, "tcp_proxy.v3.TcpProxy") {
        reach::tcp(report, value, place);
    }
    if items(value, "filters").any(holds_asking_manager) {
        tls::downstream(report, value, place);
    }
    if is_message(value, "cluster.v3.Cluster") {
        tls::asked_cluster(report, value, place);
    }
    for cluster in items(value, "clusters").filter(|cluster| !is_message(cluster, "cluster.v3.Cluster")) {
        let name = text(cluster, "name").unwrap_or_default();
        let place = if place.is_empty() { format!("clusters: {name}") } else { format!("{place}.clusters: {name}") };
        tls::asked_cluster(report, cluster, &place);
    }
}

/// What can be said only when everything was seen.
pub(super) fn conclude(report: &mut Report) {
    reach::conclude(report);
    let mut missing = report.survey.asked_clusters.clone();
    missing.retain(|name| !report.seen_clusters.contains(name));
    missing.sort();
    missing.dedup();
    for name in missing {
        let what =
            format!("can't judge the cluster {name}, which is asked: it isn't in this file, look at it yourself");
        report.warn(
            "clusters",
            what,
            "TLS with a certificate of Envoy's own, trusted_ca, match_typed_subject_alt_names",
        );
    }
}

fn holds_asking_manager(filter: &Value) -> bool {
    field(filter, "typed_config").is_some_and(connection::asks)
}
