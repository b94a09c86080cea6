//! What in a proxy's configuration would open a hole, or close everything.
//!
//! It reads what it is given and no more: what a control plane adds, it can't know.

mod asking;
mod envoy;
mod istio;
mod reading;
mod survey;

use serde_json::Value;

use survey::Survey;

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
    examine_all(&[(String::new(), text.to_owned())])
}

/// The same of several files, as names and texts, each of which may say what another needs.
///
/// # Errors
/// One is no YAML, or none has anything in it that a proxy asks by.
pub fn examine_all(files: &[(String, String)]) -> Result<Vec<Finding>, NotLookedAt> {
    let mut places = Vec::new();
    let mut documents = Vec::new();
    for (name, text) in files {
        let read = read(text).map_err(|why| NotLookedAt(named(&[name, &why])))?;
        for (number, document) in (1_usize..).zip(&read) {
            let number = if read.len() > 1 { format!("document {number}") } else { String::new() };
            places.push(named(&[if files.len() > 1 { name } else { "" }, &number]));
            documents.push(document.clone());
        }
    }
    let mut report = Report { survey: Survey::of(&documents, LEVELS), ..Report::default() };
    for (document, place) in documents.iter().zip(&places) {
        report.walk(document, place, LEVELS);
    }
    if report.authorizers == 0 {
        let what = "it has no ext_authz filter and no ext_authz provider: nothing would be asked".to_owned();
        return Err(NotLookedAt(what));
    }
    envoy::conclude(&mut report);
    istio::conclude(&mut report);
    report.findings.sort_by_key(|finding| !finding.is_fatal);
    Ok(report.findings)
}

fn read(text: &str) -> Result<Vec<Value>, String> {
    if text.len() > BYTES {
        return Err(format!("it has more than {BYTES} bytes"));
    }
    let documents = serde_saphyr::from_multiple::<Value>(text).map_err(|error| format!("it is no YAML: {error}"))?;
    Ok(documents.into_iter().map(|document| reading::unwrapped(document, LEVELS)).collect())
}

/// The parts that are there.
fn named(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(": ")
}

/// What was found so far.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    /// Filters, providers and policies that ask.
    authorizers: usize,
    /// What one part of the file says of another.
    survey: Survey,
    /// Ways in, and what is behind them.
    doors: Vec<envoy::Door>,
    /// The clusters that are asked and stand in the file.
    seen_clusters: Vec<String>,
}

impl Report {
    /// Looks at a value and at everything in it.
    fn walk(&mut self, value: &Value, place: &str, levels: usize) {
        let Some(below) = levels.checked_sub(1) else {
            self.warn(place, "can't judge what is nested deeper than this: look at it yourself", "nest it less deeply");
            return;
        };
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
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn fatal(&mut self, place: &str, what: impl Into<String>, fix: &'static str) {
        self.findings.push(Finding { is_fatal: true, place: place.to_owned(), what: what.into(), fix });
    }

    fn warn(&mut self, place: &str, what: impl Into<String>, fix: &'static str) {
        self.findings.push(Finding { is_fatal: false, place: place.to_owned(), what: what.into(), fix });
    }
}

#[cfg(test)]
mod tests;
