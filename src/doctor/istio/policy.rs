//! The policy by which a sidecar asks: what its rules leave out is not asked about.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::reading::{at, field, items, text};

pub(super) fn is_custom(policy: &Value) -> bool {
    at(policy, &["spec", "action"]).and_then(Value::as_str) == Some("CUSTOM")
}

pub(super) fn look(report: &mut Report, policy: &Value, place: &str) {
    if !is_custom(policy) {
        return;
    }
    report.authorizers = report.authorizers.saturating_add(1);
    let Some(spec) = field(policy, "spec") else { return };
    let name = at(policy, &["metadata", "name"]).and_then(Value::as_str).unwrap_or("without a name");
    if at(spec, &["provider", "name"]).is_none() {
        report.fatal(place, format!("the policy {name} names no provider"), "provider: { name: remit }");
    }
    if items(spec, "rules").next().is_none() {
        report.fatal(place, format!("the policy {name} has no rules: nothing is asked about"), "rules: [{}]");
    }
    if items(spec, "rules").any(|rule| limits(rule).is_empty()) {
        return;
    }
    let fix = "rules: [{}], or be sure that what is left out is for everybody";
    for limit in items(spec, "rules").flat_map(limits) {
        report.fatal(place, format!("the policy {name} leaves a hole: it asks only about {limit}"), fix);
    }
}

/// What a rule asks of a request before it asks Remit.
fn limits(rule: &Value) -> Vec<String> {
    let mut limits = Vec::new();
    for (list, part) in [("to", "operation"), ("from", "source")] {
        let every: Vec<&Value> = items(rule, list).collect();
        let parts: Vec<&Value> = every.iter().filter_map(|item| field(item, part)).collect();
        if parts.len() == every.len() {
            limits.extend(parts.into_iter().flat_map(fields));
        }
    }
    for condition in items(rule, "when") {
        limits.push(format!("requests when {}", text(condition, "key").unwrap_or("something holds")));
    }
    limits
}

fn fields(part: &Value) -> Vec<String> {
    let Some(object) = part.as_object() else { return Vec::new() };
    let one = |(name, values): (&String, &Value)| {
        let list = values.as_array()?;
        let all = list.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        (!list.is_empty()).then(|| format!("{name} {}", all.collect::<Vec<_>>().join(", ")))
    };
    object.iter().filter_map(one).collect()
}
