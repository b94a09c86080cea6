//! Reads the configuration of a proxy and names each setting that would open a hole, or close everything.
//!
//! It reads what it is given and no more: what a control plane adds, it can't know.

mod envoy;
mod istio;

use serde_json::Value;

/// A configuration's levels of maps and lists: deeper ones are not written by people.
const LEVELS: usize = 128;
/// A file's length, in bytes.
const BYTES: usize = 8 * 1024 * 1024;

/// A setting, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Something may pass that should not, or nothing passes at all.
    pub is_fatal: bool,
    /// Where, as names and numbers from the top.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to write.
    pub fix: &'static str,
}

/// Why a file can't be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLookedAt(String);

impl std::fmt::Display for NotLookedAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotLookedAt {}

/// What is wrong with an Envoy bootstrap file, or with Istio's and Kubernetes' objects: YAML, one document or several, or JSON.
///
/// # Errors
/// It is no YAML, or has nothing in it that a proxy asks by.
pub fn examine(text: &str) -> Result<Vec<Finding>, NotLookedAt> {
    if text.len() > BYTES {
        return Err(NotLookedAt(format!("it has more than {BYTES} bytes")));
    }
    let documents = serde_saphyr::from_multiple::<Value>(text);
    let documents = documents.map_err(|error| NotLookedAt(format!("it is no YAML: {error}")))?;
    let mut report = Report::default();
    for (number, document) in documents.iter().enumerate() {
        let place = if documents.len() > 1 { format!("document {}", number.saturating_add(1)) } else { String::new() };
        report.walk(document, &place, LEVELS);
    }
    if report.authorizers == 0 {
        let what = "it has no ext_authz filter and no ext_authz provider: nothing would be asked".to_owned();
        return Err(NotLookedAt(what));
    }
    report.findings.sort_by_key(|finding| !finding.is_fatal);
    Ok(report.findings)
}

/// What was found so far.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    /// Filters and providers that ask.
    authorizers: usize,
}

impl Report {
    /// Looks at a value and at everything in it.
    fn walk(&mut self, value: &Value, place: &str, levels: usize) {
        let Some(below) = levels.checked_sub(1) else { return };
        match value {
            Value::Object(object) => {
                envoy::look(self, value, place);
                istio::look(self, value, place);
                for (name, value) in object {
                    let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                    self.walk(value, &place, below);
                }
            }
            Value::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    self.walk(item, &format!("{place}[{number}]"), below);
                }
            }
            Value::String(text) => self.walk_embedded(text, place, below),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// YAML in a text, as Istio's mesh configuration is in its `ConfigMap`.
    fn walk_embedded(&mut self, text: &str, place: &str, levels: usize) {
        if text.contains("extensionProviders")
            && let Ok(value @ Value::Object(_)) = serde_saphyr::from_str::<Value>(text)
        {
            self.walk(&value, place, levels.min(LEVELS / 2));
        }
    }

    fn fatal(&mut self, place: &str, what: impl Into<String>, fix: &'static str) {
        self.findings.push(Finding { is_fatal: true, place: place.to_owned(), what: what.into(), fix });
    }

    fn warn(&mut self, place: &str, what: impl Into<String>, fix: &'static str) {
        self.findings.push(Finding { is_fatal: false, place: place.to_owned(), what: what.into(), fix });
    }
}

/// Whether this is the typed configuration of that message.
fn is_message(value: &Value, name: &str) -> bool {
    text(value, "@type").is_some_and(|kind| kind.ends_with(name))
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    field(value, name)?.as_str()
}

fn is_set(value: &Value, name: &str) -> bool {
    field(value, name).and_then(Value::as_bool).unwrap_or(false)
}

/// The field by its name in proto, or as JSON writes it: `fail_open`, `failOpen`.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    object.get(name).or_else(|| {
        let mut parts = name.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        let camel = parts.fold(first, |name, part| {
            let mut letters = part.chars();
            let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
            name + &capital.into_iter().chain(letters).collect::<String>()
        });
        object.get(&camel)
    })
}

/// A duration's text, `0.5s`, in milliseconds.
fn milliseconds(value: &Value, name: &str) -> Option<f64> {
    let seconds = text(value, name)?.strip_suffix('s')?;
    seconds.strip_suffix('m').map_or_else(|| seconds.parse().map(|seconds: f64| seconds * 1000.0), str::parse).ok()
}

#[cfg(test)]
mod tests;
