//! Istio's objects and its mesh configuration.

mod asked;
mod policy;
mod sidecar;

use serde_json::Value;

use super::Report;
use super::reading::{field, items, may_be_set, milliseconds, text, word};

pub(super) fn look(report: &mut Report, value: &Value, place: &str) {
    if field(value, "extensionProviders").is_some() {
        for provider in items(value, "extensionProviders") {
            provider_of(report, provider, place);
        }
        normalization(report, value, place);
    }
    match text(value, "kind") {
        Some("PeerAuthentication") => sidecar::peer_authentication(report, value, place),
        Some("AuthorizationPolicy") => policy::look(report, value, place),
        Some("DestinationRule") => asked::destination_rule(report, value, place),
        Some("Deployment" | "StatefulSet" | "DaemonSet" | "Pod") => sidecar::workload(report, value, place),
        Some(_) | None => {}
    }
}

/// What can be said only when everything was seen.
pub(super) fn conclude(report: &mut Report) {
    let policies = report.survey.of_kind("AuthorizationPolicy");
    if report.survey.services.is_empty() && !policies.iter().any(policy::is_custom) {
        return;
    }
    sidecar::conclude(report, &policies);
    asked::conclude(report);
}

fn provider_of(report: &mut Report, provider: &Value, place: &str) {
    let name = text(provider, "name").unwrap_or_default();
    let place = &format!("{place}.extensionProviders: {name}");
    if let Some(http) = field(provider, "envoyExtAuthzHttp") {
        report.authorizers = report.authorizers.saturating_add(1);
        report.fatal(place, "envoyExtAuthzHttp takes any 200 for leave to pass", "envoyExtAuthzGrpc");
        fails(report, http, place);
    }
    if let Some(grpc) = field(provider, "envoyExtAuthzGrpc") {
        report.authorizers = report.authorizers.saturating_add(1);
        fails(report, grpc, place);
        if let Some(body) = field(grpc, "includeRequestBodyInCheck")
            && may_be_set(body, "allowPartialMessage")
        {
            report.warn(
                place,
                "allowPartialMessage: rules that need the body deny what was cut",
                "allowPartialMessage: false",
            );
        }
    }
}

fn fails(report: &mut Report, provider: &Value, place: &str) {
    if may_be_set(provider, "failOpen") {
        report.fatal(place, "failOpen lets requests pass when Remit does not answer", "failOpen: false");
    }
    if word(provider, "statusOnError").is_some_and(|status| status.starts_with(['1', '2', '3'])) {
        report.fatal(place, "statusOnError is a success", "statusOnError: \"503\"");
    }
    match milliseconds(provider, "timeout") {
        None => report.warn(place, "it has no timeout: it is ten minutes", "timeout: 0.5s"),
        Some(timeout) if (50.0..=10_000.0).contains(&timeout) => {}
        Some(_) => report.warn(place, "its timeout is under 50 ms, over 10 s, or can't be read", "timeout: 0.5s"),
    }
}

fn normalization(report: &mut Report, mesh: &Value, place: &str) {
    let setting = field(mesh, "pathNormalization").and_then(|paths| word(paths, "normalization"));
    let fix = "pathNormalization: { normalization: DECODE_AND_MERGE_SLASHES }";
    match setting.as_deref() {
        Some("DECODE_AND_MERGE_SLASHES" | "MERGE_SLASHES" | "3" | "4") => {}
        None | Some("BASE" | "DEFAULT" | "0" | "2") => {
            let what = "pathNormalization is BASE: // and %2f may be another path to the service than to policies";
            report.warn(place, what, fix);
        }
        Some(other) => {
            let what = format!("pathNormalization is {other}: /a/../b is another path to policies than to the service");
            report.fatal(place, what, fix);
        }
    }
}
