//! The objects as text, and as much of their shape as is understood.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A file's bytes, at most: a policy's bound, since it becomes part of one.
const BYTES: usize = crate::domain::limits::POLICY_BYTES;

/// Why a text has no objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotObjects(String);

impl std::fmt::Display for NotObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotObjects {}

/// The `AuthorizationPolicy` objects of a YAML text with one document or several, lists included; others are passed over.
///
/// # Errors
/// It is no YAML, too long, or has no such object.
pub fn read(text: &str) -> Result<Vec<Value>, NotObjects> {
    if text.len() > BYTES {
        return Err(NotObjects(format!("it has more than {BYTES} bytes")));
    }
    let documents = serde_saphyr::from_multiple::<Value>(text);
    let documents = documents.map_err(|error| NotObjects(format!("it is no YAML: {error}")))?;
    let mut found = Vec::new();
    for document in documents {
        match document.get("items").and_then(Value::as_array) {
            Some(items) => found.extend(items.iter().filter(|item| is_policy(item)).cloned()),
            None if is_policy(&document) => found.push(document),
            None => {}
        }
    }
    if found.is_empty() {
        return Err(NotObjects("it has no AuthorizationPolicy of security.istio.io".to_owned()));
    }
    Ok(found)
}

/// The objects as YAML, one document each.
///
/// # Errors
/// They can't be written.
pub fn write(objects: &[Value]) -> Result<String, NotObjects> {
    let one = |object: &Value| {
        // Quoted, since readers of YAML 1.1 take a bare `on` or `NO` for a boolean.
        let options = serde_saphyr::ser_options! { quote_all: true };
        serde_saphyr::to_string_with_options(object, options).map_err(|error| NotObjects(error.to_string()))
    };
    Ok(objects.iter().map(one).collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

fn is_policy(object: &Value) -> bool {
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    version.starts_with("security.istio.io/")
        && object.get("kind").and_then(Value::as_str) == Some("AuthorizationPolicy")
}

/// What an object says. What is not here is not understood, and the object is left out whole.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) selector: Option<Selector>,
    pub(super) action: Action,
    pub(super) provider: Option<Provider>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Action {
    #[default]
    Allow,
    Deny,
    Audit,
    Custom,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Selector {
    pub(super) match_labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) from: Vec<From>,
    pub(super) to: Vec<To>,
    pub(super) when: Vec<When>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct From {
    pub(super) source: Source,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Source {
    pub(super) principals: Vec<String>,
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct To {
    pub(super) operation: Operation,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Operation {
    pub(super) methods: Vec<String>,
    pub(super) paths: Vec<String>,
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct When {
    pub(super) key: String,
    pub(super) values: Vec<String>,
    pub(super) not_values: Vec<String>,
}
