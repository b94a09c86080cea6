//! From communication rules to objects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{AGENT_LABEL, CALLER, Names};
use crate::domain::agent::AgentName;
use crate::domain::policy::CommunicationRule;
use crate::domain::resource::Pattern;

/// A label's value, in bytes (Kubernetes, "Labels and Selectors").
const LABEL_BYTES: usize = 63;

/// Where the objects go, and who is asked.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The namespace of the agents.
    pub namespace: &'a str,
    /// The provider in Istio's mesh configuration that is Remit.
    pub provider: &'a str,
}

/// The objects that say the same as the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// The question to Remit, the TLS without which nobody has a name, the denial by default, then one object for each
    /// called agent.
    pub objects: Vec<Value>,
    /// What they don't say; each is left out, so that Istio refuses what the rules would let pass.
    pub unsaid: Vec<String>,
}

/// The rules as objects. Without rules (`None`) nothing but the question to Remit, and the TLS that it needs: calls are not
/// checked further then.
#[must_use]
pub fn export(rules: Option<&[CommunicationRule]>, names: &Names<'_>, target: Target<'_>) -> Exported {
    let mut export = Export { names, target, unsaid: Vec::new() };
    let ask = json!({"action": "CUSTOM", "provider": {"name": target.provider}, "rules": [{}]});
    let mut objects = vec![export.object("remit-ask", &ask), export.strict()];
    if let Some(rules) = rules {
        objects.push(export.object("remit-deny-by-default", &json!({})));
        objects.extend(export.allowed(rules));
    }
    Exported { objects, unsaid: export.unsaid }
}

struct Export<'a> {
    names: &'a Names<'a>,
    target: Target<'a>,
    unsaid: Vec<String>,
}

impl Export<'_> {
    fn object(&self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": name, "namespace": self.target.namespace},
            "spec": spec,
        })
    }

    /// Without it a request may come in plain text, and then has no sender.
    fn strict(&self) -> Value {
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "remit-strict", "namespace": self.target.namespace},
            "spec": {"mtls": {"mode": "STRICT"}},
        })
    }

    fn allowed(&mut self, rules: &[CommunicationRule]) -> Vec<Value> {
        let mut by_called: BTreeMap<Option<&AgentName>, Vec<Value>> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let place = format!("communication_rules[{number}]");
            if let Some(to) = rule.to.as_ref().filter(|to| !is_label(to.as_str())) {
                self.leave_out(&place, format_args!("{to} can't be the value of a label, which selects the workload"));
                continue;
            }
            let istio = self.rule(rule, &place);
            by_called.entry(rule.to.as_ref()).or_default().extend(istio);
        }
        let by_called = by_called.into_iter().filter(|(_, rules)| !rules.is_empty()).enumerate();
        by_called.map(|(number, (to, rules))| self.object_for(number, to, &rules)).collect()
    }

    fn object_for(&self, number: usize, to: Option<&AgentName>, rules: &[Value]) -> Value {
        let Some(to) = to else {
            return self.object("remit-any-agent", &json!({"action": "ALLOW", "rules": rules}));
        };
        let labels = BTreeMap::from([(AGENT_LABEL, to.as_str())]);
        let spec = json!({"action": "ALLOW", "selector": {"matchLabels": labels}, "rules": rules});
        let name =
            if is_dns_label(to.as_str()) { format!("remit-agent-{to}") } else { format!("remit-number-{number}") };
        self.object(&name, &spec)
    }

    /// The rule as Istio's rules; none if it never fits, or can't be said.
    fn rule(&mut self, rule: &CommunicationRule, place: &str) -> Vec<Value> {
        let Some(operation) = self.operation(rule, place) else { return Vec::new() };
        let mut callers = self.callers(rule.from.as_ref(), place);
        if let Some(operation) = operation {
            for caller in callers.iter_mut().filter_map(Value::as_object_mut) {
                caller.insert("to".to_owned(), json!([{"operation": operation}]));
            }
        }
        callers
    }

    /// Rules with their callers alone.
    fn callers(&mut self, from: Option<&AgentName>, place: &str) -> Vec<Value> {
        let Some(agent) = from else { return self.any_agent(place) };
        for identity in self.names.unknown_to_istio(agent) {
            self.leave_out(place, format_args!("{agent} is also {identity}, and Istio knows SPIFFE IDs alone"));
        }
        let principals = self.names.principals(agent);
        if principals.is_empty() {
            self.leave_out(place, format_args!("{agent} has no SPIFFE ID by templates or principals"));
            return Vec::new();
        }
        vec![from_principals(&principals)]
    }

    fn any_agent(&mut self, place: &str) -> Vec<Value> {
        let mut rules = Vec::new();
        for form in self.names.forms() {
            let mut rule = from_principals(&[format!("{}*", form.begin)]);
            if let Some(rule) = rule.as_object_mut().filter(|_| !form.end.is_empty()) {
                // A principal is matched by its beginning or its end: for both, both are asked.
                rule.insert("when".to_owned(), json!([{"key": CALLER, "values": [format!("*{}", form.end)]}]));
            }
            rules.push(rule);
        }
        let stated = self.names.stated();
        if !stated.is_empty() {
            rules.push(from_principals(&stated));
        }
        if rules.is_empty() {
            self.leave_out(place, "any agent: there are no templates of SPIFFE IDs");
        }
        rules
    }

    /// Methods and paths: none if nothing fits, an inner none if everything does.
    #[expect(clippy::option_option, reason = "nothing and everything are both no operation, and not the same")]
    fn operation(&mut self, rule: &CommunicationRule, place: &str) -> Option<Option<Value>> {
        let mut operation = serde_json::Map::new();
        if let Some(methods) = &rule.methods {
            if methods.is_empty() {
                return None;
            }
            operation.insert("methods".to_owned(), json!(methods));
        }
        if let Some(paths) = &rule.paths
            && !paths.iter().any(|path| path.as_str() == "*")
        {
            let paths: Vec<&str> = paths.iter().filter_map(|path| self.path(path, place)).collect();
            if paths.is_empty() {
                return None;
            }
            operation.insert("paths".to_owned(), json!(paths));
        }
        Some((!operation.is_empty()).then_some(Value::Object(operation)))
    }

    fn path<'p>(&mut self, path: &'p Pattern<'_>, place: &str) -> Option<&'p str> {
        let text = path.as_str();
        if !text.starts_with('/') {
            // It covers no path here either.
            return None;
        }
        if text.contains(['{', '}']) {
            self.leave_out(place, format_args!("the path {text}: Istio takes {{ and }} for places of a template"));
            return None;
        }
        Some(text)
    }

    fn leave_out(&mut self, place: &str, what: impl std::fmt::Display) {
        self.unsaid.push(format!("{place}: {what}"));
    }
}

fn from_principals<T: serde::Serialize>(principals: &[T]) -> Value {
    json!({"from": [{"source": {"principals": principals}}]})
}

fn is_label(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_BYTES && edge(bytes.first()) && edge(bytes.last()) && text.bytes().all(inside)
}

/// Whether it can be part of an object's name as it is.
fn is_dns_label(text: &str) -> bool {
    is_label(text) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
