//! Values of the tree as words of the domain: each reader says what it wanted and where, and the rest is read on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jsonc_parser::ast::{Object, ObjectProp, Value};

use super::diagnostics::{Finding, Findings, Span, closest_key, finding, quoted};
use super::document::{kind, span};
use super::draft::At;
use crate::domain::agent::{AgentName, InvalidName};
use crate::domain::capability::Capability;
use crate::domain::condition::Expression;
use crate::domain::resource::Pattern;

/// Where in the document a value is, for messages: `delegation_rules.agent-a.max_resources[2]`.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    /// The document itself.
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// The value of a key here.
    pub(super) fn key(&'p self, key: &'p str) -> Self {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    /// An item of the list here.
    pub(super) fn index(&'p self, index: usize) -> Self {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Root => {}
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(quoted(key).trim_matches('`'));
            }
            Step::Index(index) => {
                out.push('[');
                out.push_str(&index.to_string());
                out.push(']');
            }
        }
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        if text.is_empty() { f.write_str("the policy") } else { write!(f, "`{text}`") }
    }
}

/// Keys that an object may have.
pub(super) struct Keys {
    pub(super) known: &'static [&'static str],
}

/// Reads values and keeps what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) findings: Findings<'a>,
    /// Conditions that are compiled already, by their text.
    pub(super) expressions: HashMap<String, Arc<Expression>>,
    agents: HashSet<AgentName>,
    capabilities: HashSet<Capability>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(findings: Findings<'a>) -> Self {
        Self { findings, expressions: HashMap::new(), agents: HashSet::new(), capabilities: HashSet::new() }
    }

    /// Refuses a value for what it is.
    pub(super) fn refuse(&mut self, at: Span, path: &Path<'_>, what: impl std::fmt::Display) {
        self.findings.error_with(at, |_| finding(format!("{path}: {what}")));
    }

    fn wrong_type(&mut self, path: &Path<'_>, value: &Value<'_>, wanted: &str) {
        self.refuse(span(value), path, format_args!("expected {wanted}, found {}", kind(value)));
    }

    /// Refuses keys that the object may not have.
    pub(super) fn check_keys(&mut self, path: &Path<'_>, object: &Object<'_>, keys: &Keys) {
        for property in &object.properties {
            let key = property.name.as_str();
            if !keys.known.contains(&key) {
                self.findings.error_with(span(&property.name), |_| stranger(path, key, keys));
            }
        }
    }

    /// The value as an object that has no other keys than these.
    pub(super) fn object<'v, 't>(
        &mut self,
        path: &Path<'_>,
        value: &'v Value<'t>,
        keys: &Keys,
    ) -> Option<&'v Object<'t>> {
        let Value::Object(object) = value else {
            let wanted = format!("an object with {}", listed(keys.known));
            self.wrong_type(path, value, &wanted);
            return None;
        };
        self.check_keys(path, object, keys);
        Some(object)
    }

    /// The value as an object whose keys are names.
    pub(super) fn map<'v, 't>(&mut self, path: &Path<'_>, value: &'v Value<'t>) -> &'v [ObjectProp<'t>] {
        if let Value::Object(object) = value {
            return &object.properties;
        }
        self.wrong_type(path, value, "an object");
        &[]
    }

    /// The value of a key that must be there.
    pub(super) fn required<'v, 't>(
        &mut self,
        path: &Path<'_>,
        object: &'v Object<'t>,
        key: &str,
    ) -> Option<&'v Value<'t>> {
        let found = object.get(key).map(|property| &property.value);
        if found.is_none() {
            // The whole object would be marked; its opening brace says where it is.
            let start = object.range.start;
            self.refuse(start..start.saturating_add(1), path, format_args!("`{key}` is missing"));
        }
        found
    }

    /// The value as a list of what `item` reads.
    pub(super) fn list<'v, 't, T>(
        &mut self,
        path: &Path<'_>,
        value: &'v Value<'t>,
        wanted: &str,
        mut item: impl FnMut(&mut Self, &Path<'_>, &'v Value<'t>) -> Option<T>,
    ) -> Vec<T> {
        let Value::Array(array) = value else {
            self.wrong_type(path, value, wanted);
            return Vec::new();
        };
        let items = array.elements.iter().enumerate();
        items.filter_map(|(index, value)| item(self, &path.index(index), value)).collect()
    }

    /// The value as a whole number of this range.
    pub(super) fn integer(
        &mut self,
        path: &Path<'_>,
        value: &Value<'_>,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        let Value::NumberLit(number) = value else {
            self.wrong_type(path, value, &wanted());
            return None;
        };
        let parsed = number.value.parse::<u64>().ok().filter(|parsed| range.contains(parsed));
        if parsed.is_none() {
            self.refuse(span(value), path, format_args!("expected {}, found {}", wanted(), quoted(number.value)));
        }
        parsed
    }

    /// The value as text.
    pub(super) fn text<'v>(&mut self, path: &Path<'_>, value: &'v Value<'_>, wanted: &str) -> Option<&'v str> {
        if let Value::StringLit(text) = value {
            return Some(text.value.as_ref());
        }
        self.wrong_type(path, value, wanted);
        None
    }

    /// The text as an agent's name, shared with the others of its kind.
    pub(super) fn agent_name(&mut self, path: &Path<'_>, text: &str, at: Span) -> Option<At<AgentName>> {
        let known = self.agents.get(text).cloned();
        let name = known.map_or_else(|| AgentName::parse(text), Ok);
        let name = self.named(path, text, at, "an agent's name", name)?;
        if !self.agents.contains(&name.value) {
            self.agents.insert(name.value.clone());
        }
        Some(name)
    }

    /// The value as an agent's name.
    pub(super) fn agent(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<At<AgentName>> {
        let text = self.text(path, value, "an agent's name")?;
        self.agent_name(path, text, span(value))
    }

    /// The value as a list of agents' names. A name that is there twice is a warning and counts once.
    pub(super) fn agents(&mut self, path: &Path<'_>, value: &Value<'_>) -> Vec<At<AgentName>> {
        let list = self.list(path, value, "a list of agents' names", Self::agent);
        self.once(path, list)
    }

    /// The value as a list of capabilities, likewise.
    pub(super) fn capabilities(&mut self, path: &Path<'_>, value: &Value<'_>) -> Vec<At<Capability>> {
        let list = self.list(path, value, "a list of capabilities", Self::capability);
        self.once(path, list)
    }

    /// The value as a list of resource patterns, likewise.
    pub(super) fn patterns(&mut self, path: &Path<'_>, value: &Value<'_>) -> Vec<At<Pattern<'static>>> {
        let list = self.list(path, value, "a list of resource patterns", Self::pattern);
        self.once(path, list)
    }

    fn capability(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<At<Capability>> {
        let text = self.text(path, value, "a capability")?;
        let known = self.capabilities.get(text).cloned();
        let capability = known.map_or_else(|| Capability::parse(text), Ok);
        let capability = self.named(path, text, span(value), "a capability", capability)?;
        if !self.capabilities.contains(&capability.value) {
            self.capabilities.insert(capability.value.clone());
        }
        Some(capability)
    }

    fn pattern(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<At<Pattern<'static>>> {
        let text = self.text(path, value, "a resource pattern")?;
        let pattern = if text == "*" { Ok(Pattern::everything()) } else { Pattern::parse(text.to_owned()) };
        match pattern {
            Ok(value_read) => Some(At { value: value_read, span: span(value) }),
            Err(invalid) => {
                let what = format!("{} is not a resource pattern: {invalid}", quoted(text));
                self.refuse(span(value), path, what);
                None
            }
        }
    }

    fn named<T>(
        &mut self,
        path: &Path<'_>,
        text: &str,
        at: Span,
        wanted: &str,
        read: Result<T, InvalidName>,
    ) -> Option<At<T>> {
        match read {
            Ok(value) => Some(At { value, span: at }),
            Err(invalid) => {
                self.refuse(at, path, format_args!("{} is not {wanted}: {invalid}", quoted(text)));
                None
            }
        }
    }

    fn once<T: std::hash::Hash + Eq + Clone + std::fmt::Display>(
        &mut self,
        path: &Path<'_>,
        list: Vec<At<T>>,
    ) -> Vec<At<T>> {
        let mut seen: HashSet<T> = HashSet::with_capacity(list.len());
        let mut kept = list;
        kept.retain(|item| {
            let is_new = seen.insert(item.value.clone());
            if !is_new {
                let twice = || finding(format!("{path}: {} is listed twice", quoted(&item.value.to_string())));
                self.findings.warning_with(item.span.clone(), twice);
            }
            is_new
        });
        kept
    }
}

fn stranger(path: &Path<'_>, key: &str, keys: &Keys) -> Finding {
    let whole = path.key(key);
    let found = finding(format!("unknown key {whole}"));
    match closest_key(key, keys.known) {
        Some(meant) => found.help(format!("did you mean `{meant}`?")),
        None => found.help(format!("the keys here are {}", listed(keys.known))),
    }
}

fn listed(keys: &[&str]) -> String {
    let quoted: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use crate::policy_file::diagnostics::cases::{Case, are_shown_at_their_place};

    const BAD: &[Case] = &[
        (
            "{\n  «\"max_delegation_dept\"»: 2\n}",
            "unknown key `max_delegation_dept`",
            "did you mean `max_delegation_depth`?",
        ),
        ("{«\"max_depth\"»: 2}", "unknown key `max_depth`", "did you mean `max_delegation_depth`?"),
        ("{«\"Quarantined\"»: []}", "unknown key `Quarantined`", "did you mean `quarantined`?"),
        ("{«\"zzz\"»: []}", "unknown key `zzz`", "the keys here are `max_delegation_depth`, "),
        ("{«\"\\u001b[31m\"»: []}", "unknown key `\\u{1b}[31m`", ""),
        (
            "{\"delegation_rules\": {\"a\": {«\"can_delegate\"»: []}}}",
            "unknown key `delegation_rules.a.can_delegate`",
            "did you mean `can_delegate_to`?",
        ),
        ("{\"token\": {«\"max_ttl\"»: 3}}", "unknown key `token.max_ttl`", "did you mean `max_ttl_seconds`?"),
        ("{«\"quarantine_afte\"»: {}}", "unknown key `quarantine_afte`", "did you mean `quarantine_after`?"),
    ];

    #[test]
    fn keys_that_are_not_acted_on_are_refused() {
        are_shown_at_their_place(BAD);
    }
}
