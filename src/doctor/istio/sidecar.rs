//! The sidecar's own TLS: before services it has to be strict, and before Remit's port it has to be away.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::reading::{at, every_object, field, number, text};

const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const INJECT: &str = "sidecar.istio.io/inject";

pub(super) fn peer_authentication(report: &mut Report, object: &Value, place: &str) {
    let Some(spec) = field(object, "spec") else { return };
    let ports = field(spec, "portLevelMtls").and_then(Value::as_object);
    let ports = ports.into_iter().flatten();
    // Before Remit's own port the sidecar has to stand aside: Remit does the TLS.
    let ports: Vec<&Value> = ports
        .filter(|(port, part)| !(is_asked(report, port) && mode(part) == "DISABLE"))
        .map(|(_, part)| part)
        .collect();
    for mode in std::iter::once(spec).chain(ports).map(mode).filter(|mode| *mode != "STRICT" && *mode != "UNSET") {
        let what = format!("mTLS is {mode}: a request without a client certificate has no sender");
        report.fatal(place, what, "mtls: { mode: STRICT }");
    }
}

fn is_asked(report: &Report, port: &str) -> bool {
    port.parse().is_ok_and(|port| report.survey.is_asked_port(port))
}

fn mode(part: &Value) -> &str {
    text(field(part, "mtls").unwrap_or(part), "mode").unwrap_or("UNSET")
}

/// No `PeerAuthentication` is `PERMISSIVE`.
pub(super) fn conclude(report: &mut Report, policies: &[Value]) {
    let strict: Vec<Value> = report.survey.of_kind("PeerAuthentication");
    let strict: Vec<&Value> = strict.iter().filter(|object| is_strict(object)).collect();
    let fix = "PeerAuthentication in the mesh's root namespace with mtls: { mode: STRICT }";
    let asking: Vec<&Value> = policies.iter().filter(|policy| super::policy::is_custom(policy)).collect();
    if asking.is_empty() && strict.is_empty() {
        let what = "can't judge mTLS: no PeerAuthentication that is STRICT for all is in this file, and without one it is PERMISSIVE";
        report.warn("PeerAuthentication", what, fix);
    }
    for policy in asking {
        let own = namespace(policy);
        let is_covered = strict.iter().any(|object| {
            let there = namespace(object);
            there.is_none() || there == Some("istio-system") || there == own
        });
        if !is_covered {
            let what = format!(
                "no PeerAuthentication is STRICT for the namespace {}: a request without a client certificate has no sender",
                own.unwrap_or("default")
            );
            report.fatal("PeerAuthentication", what, fix);
        }
    }
}

fn is_strict(object: &Value) -> bool {
    field(object, "spec").is_some_and(|spec| field(spec, "selector").is_none() && mode(spec) == "STRICT")
}

fn namespace(object: &Value) -> Option<&str> {
    at(object, &["metadata", "namespace"]).and_then(Value::as_str)
}

/// A workload that listens where a provider asks: Remit's own.
pub(super) fn workload(report: &mut Report, object: &Value, place: &str) {
    let pod = at(object, &["spec", "template"]).unwrap_or(object);
    let mut listens = Vec::new();
    every_object(field(pod, "spec").unwrap_or(pod), crate::doctor::LEVELS, &mut |value| {
        listens.extend(number(value, "containerPort"));
    });
    listens.retain(|port| report.survey.is_asked_port(*port));
    let name = at(object, &["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
    if listens.is_empty() || !is_remit(report, pod, name) {
        return;
    }
    let excluded = mark(pod, EXCLUDED).unwrap_or_default();
    let is_excluded = |port: &u64| excluded.split(',').any(|one| one.trim() == "*" || one.trim() == port.to_string());
    if listens.iter().all(is_excluded) || stands_aside(report, &listens) {
        return;
    }
    let fix = "sidecar.istio.io/inject: \"false\", or traffic.sidecar.istio.io/excludeInboundPorts with Remit's port";
    let what = "Remit's port is inside the sidecar's own TLS: Remit has to see who asks";
    match mark(pod, INJECT).as_deref() {
        Some("false") => {}
        Some(_) => report.fatal(place, what, fix),
        None if namespaces_inject(report) => report.fatal(place, what, fix),
        None => report.warn(place, format!("can't judge whether {what}: look at it yourself"), fix),
    }
}

/// Whether a provider asks this workload: by its own name, or by that of a Service that selects it.
fn is_remit(report: &Report, pod: &Value, name: &str) -> bool {
    let asked: Vec<&str> = report.survey.services.iter().filter_map(|(host, _)| host.split('.').next()).collect();
    let selects = |service: &Value| {
        let selector = at(service, &["spec", "selector"]).and_then(Value::as_object);
        selector.is_some_and(|labels| {
            let label = |name: &String| at(pod, &["metadata", "labels"]).and_then(|labels| labels.get(name));
            !labels.is_empty() && labels.iter().all(|(name, value)| label(name) == Some(value))
        })
    };
    let is_asked = |service: &Value| {
        at(service, &["metadata", "name"]).and_then(Value::as_str).is_some_and(|name| asked.contains(&name))
    };
    asked.contains(&name)
        || report.survey.of_kind("Service").iter().any(|service| is_asked(service) && selects(service))
}

/// Whether a `PeerAuthentication` takes the sidecar's TLS away from these ports.
fn stands_aside(report: &Report, ports: &[u64]) -> bool {
    let objects = report.survey.of_kind("PeerAuthentication");
    ports.iter().all(|port| {
        let port = port.to_string();
        objects
            .iter()
            .filter_map(|object| at(object, &["spec", "portLevelMtls", &port]))
            .any(|part| mode(part) == "DISABLE")
    })
}

/// A label or an annotation.
fn mark(pod: &Value, name: &str) -> Option<String> {
    let metadata = field(pod, "metadata")?;
    let marks = ["labels", "annotations"].into_iter().filter_map(|list| field(metadata, list)?.get(name));
    marks.map(|mark| mark.as_str().map_or_else(|| mark.to_string(), str::to_owned)).next()
}

fn namespaces_inject(report: &Report) -> bool {
    report.survey.of_kind("Namespace").iter().any(|namespace| {
        let labels = at(namespace, &["metadata", "labels"]);
        labels.is_some_and(|labels| {
            text(labels, "istio-injection") == Some("enabled") || labels.get("istio.io/rev").is_some()
        })
    })
}
