//! From objects to communication rules.

use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::object::{Action, Operation, Rule, Selector, Source, Spec, To, When};
use super::{AGENT_LABEL, CALLED, CALLER, Names};
use crate::domain::agent::AgentName;
use crate::domain::limits::METHOD_BYTES;
use crate::domain::policy::CommunicationRule;
use crate::domain::resource::Pattern;

/// Rules at most. One rule of Istio's becomes as many as it has callers times workloads times operations, so that a
/// short text could become a long policy.
const RULES: usize = 20_000;

/// The rules that say what objects allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The rules, each once.
    pub rules: Vec<CommunicationRule>,
    /// What they don't say, with its place.
    pub unsaid: Vec<String>,
}

/// The rules that say what these `AuthorizationPolicy` objects allow. A `CUSTOM` action that asks `provider` is Remit's own.
#[must_use]
pub fn import(objects: &[Value], names: &Names<'_>, provider: &str) -> Imported {
    let mut import = Import { names, provider, rules: Vec::new(), unsaid: Vec::new(), place: String::new() };
    let namespace = objects.first().map(namespace);
    let mut denies_by_default = false;
    for object in objects {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without name");
        name.clone_into(&mut import.place);
        if Some(self::namespace(object)) == namespace {
            denies_by_default |= import.object(object);
        } else {
            import.leave_out("it is in another namespace than the first: import one namespace at a time");
        }
    }
    if !denies_by_default {
        import.place = String::from("all objects");
        import.leave_out(
            "Istio lets every call pass to workloads that no ALLOW selects; communication_rules let none pass",
        );
    }
    Imported { rules: import.rules, unsaid: import.unsaid }
}

impl Imported {
    /// `{"communication_rules": […]}`, as a policy file has it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"communication_rules": self.rules.iter().map(rule_to_json).collect::<Vec<_>>()})
    }
}

fn rule_to_json(rule: &CommunicationRule) -> Value {
    let CommunicationRule { from, to, methods, paths } = rule;
    let side = |agent: &Option<AgentName>| json!(agent.as_ref().map_or("*", AgentName::as_str));
    let mut object = Map::from_iter([("from".to_owned(), side(from)), ("to".to_owned(), side(to))]);
    if let Some(methods) = methods {
        object.insert("methods".to_owned(), json!(methods));
    }
    if let Some(paths) = paths {
        object.insert("paths".to_owned(), paths.iter().map(Pattern::as_str).collect());
    }
    Value::Object(object)
}

fn namespace(object: &Value) -> &str {
    object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default()
}

/// Any, or one.
type Side = Option<AgentName>;

/// What a rule asks of callers and workloads beside its lists.
#[derive(Default)]
struct Asked {
    /// Each has one that the caller's principal has to match.
    callers: Vec<Vec<String>>,
    called: Option<Vec<AgentName>>,
}

struct Import<'a> {
    names: &'a Names<'a>,
    provider: &'a str,
    rules: Vec<CommunicationRule>,
    unsaid: Vec<String>,
    place: String,
}

impl Import<'_> {
    /// Takes the object's rules over. Whether with it Istio denies by default in the whole namespace.
    fn object(&mut self, object: &Value) -> bool {
        if object.pointer("/metadata/annotations/istio.io~1dry-run").and_then(Value::as_str) == Some("true") {
            self.leave_out("it is a dry run, which decides nothing");
            return false;
        }
        let spec = match Option::<Spec>::deserialize(object.get("spec").unwrap_or(&Value::Null)) {
            Ok(spec) => spec.unwrap_or_default(),
            Err(error) => {
                self.leave_out(format_args!("it is not understood, and left out whole: {error}"));
                return false;
            }
        };
        let provider = spec.provider.map(|provider| provider.name).unwrap_or_default();
        match spec.action {
            Action::Allow => {}
            Action::Custom if provider == self.provider => return false,
            Action::Custom => {
                self.leave_out(format_args!("CUSTOM: what the provider {provider} refuses is not in the rules"));
                return false;
            }
            Action::Deny => {
                self.leave_out("DENY: rules only allow; what it refuses, they may let pass");
                return false;
            }
            Action::Audit => {
                self.leave_out("AUDIT: it decides nothing");
                return false;
            }
        }
        let whole = spec.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty());
        if let Some(selected) = self.selected(spec.selector) {
            for (number, rule) in spec.rules.iter().enumerate() {
                self.rule(rule, selected.as_ref(), number);
            }
        }
        whole
    }

    /// The agent that the object is about; an outer none if that can't be said.
    fn selected(&mut self, selector: Option<Selector>) -> Option<Side> {
        let labels = selector.unwrap_or_default().match_labels;
        let mut labels = labels.iter();
        match (labels.next(), labels.next()) {
            (None, _) => Some(None),
            (Some((key, value)), None) if key == AGENT_LABEL => self.named(value).map(Some),
            (Some(_), _) => {
                self.leave_out(format_args!("its selector: agents are selected by the label {AGENT_LABEL} alone"));
                None
            }
        }
    }

    fn rule(&mut self, rule: &Rule, selected: Option<&AgentName>, number: usize) {
        let object = self.place.clone();
        self.place = format!("{object}, rules[{number}]");
        if let Some(asked) = self.asked(&rule.when) {
            let called: Vec<Side> = match (&asked.called, selected) {
                (None, selected) => vec![selected.cloned()],
                (Some(called), None) => called.iter().cloned().map(Some).collect(),
                (Some(called), Some(selected)) => {
                    called.iter().filter(|agent| *agent == selected).cloned().map(Some).collect()
                }
            };
            let callers = self.callers(rule, &asked);
            let operations = self.operations(&rule.to);
            self.add(&callers, &called, &operations);
        }
        self.place = object;
    }

    fn add(&mut self, callers: &[Side], called: &[Side], operations: &[CommunicationRule]) {
        for from in callers {
            for to in called {
                for operation in operations {
                    let rule = CommunicationRule { from: from.clone(), to: to.clone(), ..operation.clone() };
                    if self.rules.contains(&rule) {
                        continue;
                    }
                    if self.rules.len() >= RULES {
                        self.leave_out(format_args!("it would be more than {RULES} rules"));
                        return;
                    }
                    self.rules.push(rule);
                }
            }
        }
    }

    /// The rule's conditions; none if one can't be said, and with it the rule.
    fn asked(&mut self, when: &[When]) -> Option<Asked> {
        let mut asked = Asked::default();
        for When { key, values, not_values } in when {
            if !not_values.is_empty() || values.is_empty() || ![CALLER, CALLED].contains(&key.as_str()) {
                self.leave_out(format_args!(
                    "the condition on {key}: rules know caller, called agent, method and path"
                ));
                return None;
            }
            if key == CALLER {
                asked.callers.push(values.clone());
                continue;
            }
            let called: Vec<AgentName> = values.iter().filter_map(|value| self.named(value)).collect();
            asked.called = Some(match asked.called {
                None => called,
                Some(before) => before.into_iter().filter(|agent| called.contains(agent)).collect(),
            });
        }
        Some(asked)
    }

    fn callers(&mut self, rule: &Rule, asked: &Asked) -> Vec<Side> {
        let mut conditions = asked.callers.iter();
        let listed: Vec<String> = if rule.from.is_empty() {
            match conditions.next() {
                Some(values) => values.clone(),
                None => return vec![None],
            }
        } else {
            rule.from.iter().flat_map(|from| self.principals(&from.source)).collect()
        };
        let conditions: Vec<&[String]> = conditions.map(Vec::as_slice).collect();
        listed.iter().filter_map(|principal| self.caller(principal, &conditions)).collect()
    }

    fn principals(&mut self, source: &Source) -> Vec<String> {
        let Source { principals, others } = source;
        let others: Vec<&str> = others.keys().map(String::as_str).collect();
        if !others.is_empty() || principals.is_empty() {
            let what = format!("a source with [{}]: rules know callers by principals alone", others.join(", "));
            self.leave_out(what);
            return Vec::new();
        }
        principals.clone()
    }

    /// Who this principal is, if it meets the conditions; an outer none if it is nobody, or that can't be said.
    fn caller(&mut self, principal: &str, conditions: &[&[String]]) -> Option<Side> {
        if !principal.contains('*') {
            let meets = |values: &&[String]| values.iter().any(|value| matches(value, principal));
            if !conditions.iter().all(meets) {
                return None;
            }
            let agent = self.names.agent(principal);
            if agent.is_none() {
                self.leave_out(format_args!("the principal {principal}: no template makes it an agent"));
            }
            return agent.map(Some);
        }
        if principal == "*" && conditions.is_empty() {
            return Some(None);
        }
        let forms = self.names.forms();
        let is_any = match conditions {
            [] => forms.iter().any(|form| form.end.is_empty() && principal == format!("{}*", form.begin)),
            [values] => forms.iter().any(|form| {
                let (begin, end) = (format!("{}*", form.begin), format!("*{}", form.end));
                principal == begin && values.contains(&end)
            }),
            _ => false,
        };
        if !is_any {
            self.leave_out(format_args!("the principals {principal}: rules know one agent or all"));
        }
        is_any.then_some(None)
    }

    /// Methods and paths, in rules that are otherwise empty.
    fn operations(&mut self, to: &[To]) -> Vec<CommunicationRule> {
        if to.is_empty() {
            return vec![CommunicationRule { from: None, to: None, methods: None, paths: None }];
        }
        to.iter().filter_map(|to| self.operation(&to.operation)).collect()
    }

    fn operation(&mut self, operation: &Operation) -> Option<CommunicationRule> {
        let Operation { methods, paths, others } = operation;
        if !others.is_empty() || (methods.is_empty() && paths.is_empty()) {
            let others: Vec<&str> = others.keys().map(String::as_str).collect();
            let what = format!("an operation with [{}]: rules know methods and paths alone", others.join(", "));
            self.leave_out(what);
            return None;
        }
        let methods = self.each(methods, Self::method)?;
        let paths = self.each(paths, Self::path)?;
        Some(CommunicationRule { from: None, to: None, methods, paths })
    }

    /// The list: an inner none where any will do, an outer one where nothing is left.
    #[expect(clippy::option_option, reason = "any is not the same as nothing that can be said")]
    fn each<T>(&mut self, list: &[String], one: fn(&mut Self, &str) -> Option<T>) -> Option<Option<Vec<T>>> {
        if list.is_empty() || list.iter().any(|text| text == "*") {
            return Some(None);
        }
        let said: Vec<T> = list.iter().filter_map(|text| one(self, text)).collect();
        (!said.is_empty()).then_some(Some(said))
    }

    fn method(&mut self, text: &str) -> Option<Box<str>> {
        let of_method = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let is_method = text.len() <= METHOD_BYTES && text.bytes().all(of_method);
        if !is_method {
            self.leave_out(format_args!("the method {text}: rules know whole methods in upper case"));
        }
        is_method.then(|| text.into())
    }

    fn path(&mut self, text: &str) -> Option<Pattern<'static>> {
        let pattern = Pattern::parse(text.to_owned()).ok();
        let pattern = pattern.filter(|_| text.starts_with('/') && !text.contains(['{', '}']));
        if pattern.is_none() {
            self.leave_out(format_args!("the path {text}: rules know whole paths, and all below one (/v1/*)"));
        }
        pattern
    }

    fn named(&mut self, text: &str) -> Option<AgentName> {
        let named = AgentName::parse(text).ok().filter(|_| !text.contains('*'));
        if named.is_none() {
            self.leave_out(format_args!("the workload {text:?}: that is no agent's name"));
        }
        named
    }

    fn leave_out(&mut self, what: impl std::fmt::Display) {
        self.unsaid.push(format!("{}: {what}", self.place));
    }
}

/// Istio's match of a text: whole, by its beginning, by its end, or anything.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(begin), _) => text.starts_with(begin),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => pattern == text,
    }
}
