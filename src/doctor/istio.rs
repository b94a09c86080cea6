//! Istio's objects and its mesh configuration.

use serde_json::Value;

use super::{Report, field, is_set, text};

pub(super) fn look(report: &mut Report, value: &Value, place: &str) {
    if let Some(providers) = field(value, "extensionProviders").and_then(Value::as_array) {
        for provider in providers {
            provider_of(report, provider, place);
        }
    }
    if text(value, "kind") == Some("PeerAuthentication")
        && let Some(spec) = field(value, "spec")
    {
        let modes = std::iter::once(spec).chain(ports(spec)).filter_map(|part| mode(part));
        for mode in modes.filter(|mode| *mode != "STRICT" && *mode != "UNSET") {
            let what = format!("mTLS is {mode}: a request without a client certificate has no sender");
            report.fatal(place, what, "mtls: { mode: STRICT }");
        }
    }
}

fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    field(spec, "portLevelMtls").and_then(Value::as_object).into_iter().flat_map(|ports| ports.values())
}

fn mode(part: &Value) -> Option<&str> {
    text(field(part, "mtls").unwrap_or(part), "mode")
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
        if field(grpc, "timeout").is_none() {
            report.warn(place, "it has no timeout", "timeout: 0.5s");
        }
        if let Some(body) = field(grpc, "includeRequestBodyInCheck")
            && is_set(body, "allowPartialMessage")
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
    if is_set(provider, "failOpen") {
        report.fatal(place, "failOpen lets requests pass when Remit does not answer", "failOpen: false");
    }
    if text(provider, "statusOnError").is_some_and(|status| status.starts_with(['2', '3'])) {
        report.fatal(place, "statusOnError is a success", "statusOnError: \"503\"");
    }
}
