//! How sidecars reach Remit.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::reading::{at, field, items, may_be_set, number, text, word};

const FIX: &str = "tls: { mode: ISTIO_MUTUAL } for Remit's port, or MUTUAL with a certificate of the sidecar's own";

pub(super) fn destination_rule(report: &mut Report, rule: &Value, place: &str) {
    if !is_ours(report, rule) {
        return;
    }
    let Some(spec) = field(rule, "spec") else { return };
    for policy in std::iter::once(spec).chain(items(spec, "subsets")).filter_map(|part| field(part, "trafficPolicy")) {
        let ports = items(policy, "portLevelSettings");
        let ports = ports.filter(|settings| {
            let port = field(settings, "port").and_then(|port| number(port, "number"));
            port.is_some_and(|port| report.survey.is_asked_port(port))
        });
        let found: Vec<&Value> = std::iter::once(policy).chain(ports).filter_map(|part| field(part, "tls")).collect();
        for tls in found {
            judge(report, tls, place);
        }
    }
}

fn is_ours(report: &Report, rule: &Value) -> bool {
    at(rule, &["spec", "host"]).and_then(Value::as_str).is_some_and(|host| report.survey.is_asked_host(host))
}

fn judge(report: &mut Report, tls: &Value, place: &str) {
    match word(tls, "mode").as_deref() {
        None | Some("DISABLE" | "0") => report.fatal(place, "Remit is asked without TLS: it answers nobody", FIX),
        Some("SIMPLE" | "1") => {
            let what = "tls SIMPLE: the sidecar shows no certificate, and Remit answers enforcement points alone";
            report.fatal(place, what, FIX);
        }
        Some("MUTUAL" | "2") => {
            if text(tls, "caCertificates").is_none() && text(tls, "credentialName").is_none() {
                report.fatal(place, "Remit's own certificate is not verified: anybody there may answer", FIX);
            }
            if items(tls, "subjectAltNames").next().is_none() {
                let what =
                    "without subjectAltNames whoever has a certificate of the same authority may answer for Remit";
                report.fatal(place, what, "subjectAltNames: [remit.remit.svc]");
            }
        }
        Some("ISTIO_MUTUAL" | "3") => {}
        Some(other) => {
            let what = format!("can't judge tls {other} on the way to Remit: look at it yourself");
            report.warn(place, what, FIX);
        }
    }
    if may_be_set(tls, "insecureSkipVerify") {
        report.fatal(place, "insecureSkipVerify: anybody there may answer for Remit", "insecureSkipVerify: false");
    }
}

pub(super) fn conclude(report: &mut Report) {
    let rules = report.survey.of_kind("DestinationRule");
    if !report.survey.services.is_empty() && !rules.iter().any(|rule| is_ours(report, rule)) {
        let what =
            "can't judge how sidecars reach Remit: no DestinationRule for it is in this file, look at it yourself";
        report.warn("DestinationRule", what, FIX);
    }
}
