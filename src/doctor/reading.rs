//! Reads a value as Envoy reads it: both spellings of a name, quoted booleans, numbers in place of names.

use serde_json::Value;

/// The value with what is packed in it laid open: a `TypedStruct` as the message that it stands for, and YAML in a
/// `ConfigMap`, as Istio's mesh configuration is, as what it says.
pub(super) fn unwrapped(value: Value, levels: usize) -> Value {
    let Some(below) = levels.checked_sub(1) else { return value };
    match value {
        Value::Object(mut object) => {
            if object.get("kind").and_then(Value::as_str) == Some("ConfigMap")
                && let Some(Value::Object(data)) = object.get_mut("data")
            {
                data.values_mut().for_each(lay_open);
            }
            let value = Value::Object(object);
            if let Value::Object(object) = plain(value) {
                return Value::Object(
                    object.into_iter().map(|(name, value)| (name, unwrapped(value, below))).collect(),
                );
            }
            Value::Null
        }
        Value::Array(items) => items.into_iter().map(|item| unwrapped(item, below)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn lay_open(value: &mut Value) {
    if let Some(text) = value.as_str()
        && let Ok(inner @ Value::Object(_)) = serde_saphyr::from_str::<Value>(text)
    {
        *value = inner;
    }
}

fn plain(value: Value) -> Value {
    if !is_message(&value, "v1.TypedStruct") && !is_message(&value, "v3.TypedStruct") {
        return value;
    }
    let kind = field(&value, "type_url").cloned();
    match (kind, field(&value, "value")) {
        (Some(kind), Some(Value::Object(inner))) => {
            let mut inner = inner.clone();
            inner.insert("@type".to_owned(), kind);
            Value::Object(inner)
        }
        (_, _) => value,
    }
}

/// Whether this is the typed configuration of that message.
pub(super) fn is_message(value: &Value, name: &str) -> bool {
    text(value, "@type").is_some_and(|kind| kind.ends_with(name))
}

/// The message's name without its package.
pub(super) fn kind(value: &Value) -> Option<&str> {
    text(value, "@type")?.rsplit(['.', '/']).next()
}

pub(super) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    field(value, name)?.as_str()
}

/// An enum's value as it is written: its name or its number.
pub(super) fn word(value: &Value, name: &str) -> Option<String> {
    let value = field(value, name)?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Whether a setting that is wanted is surely there.
pub(super) fn is_set(value: &Value, name: &str) -> bool {
    field(value, name).is_some_and(|value| *value == Value::Bool(true) || value.as_str() == Some("true"))
}

/// Whether a setting that is not wanted may be there: everything but a plain no, under any spelling of the name.
pub(super) fn may_be_set(value: &Value, name: &str) -> bool {
    spellings(value, name).any(|value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => text != "false",
        Value::Number(number) => number.as_u64() != Some(0),
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => true,
    })
}

/// A count. What can't be read is the largest one.
pub(super) fn number(value: &Value, name: &str) -> Option<u64> {
    let value = field(value, name)?;
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    Some(number.unwrap_or(u64::MAX))
}

/// The field by its name in proto, or as JSON writes it: `fail_open`, `failOpen`. Null is none.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    spellings(value, name).find(|value| !value.is_null())
}

fn spellings<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    let object = value.as_object();
    let camel = camel(name);
    let other = (camel != name).then(|| object?.get(&camel)).flatten();
    object.and_then(|object| object.get(name)).into_iter().chain(other)
}

/// A field's name as proto has it, whichever way it is written: `failOpen` is `fail_open`.
pub(super) fn plain_name(name: &str) -> String {
    name.chars().fold(String::new(), |mut plain, letter| {
        if letter.is_ascii_uppercase() {
            plain.push('_');
        }
        plain.push(letter.to_ascii_lowercase());
        plain
    })
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| {
        let mut letters = part.chars();
        let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &capital.into_iter().chain(letters).collect::<String>()
    })
}

/// The items of a list, or none.
pub(super) fn items<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    field(value, name).and_then(Value::as_array).into_iter().flatten()
}

/// The field's field and so on, down the path.
pub(super) fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| field(value, name))
}

/// A duration, `0.5s` or `500ms`, in milliseconds. What can't be read is no number, which is in no range.
pub(super) fn milliseconds(value: &Value, name: &str) -> Option<f64> {
    let value = field(value, name)?;
    let written = value.as_str().and_then(|text| text.strip_suffix('s'));
    let read = written.and_then(|text| {
        let (number, unit) = text.strip_suffix('m').map_or((text, 1000.0), |text| (text, 1.0));
        number.parse::<f64>().ok().map(|number| number * unit)
    });
    Some(read.unwrap_or(f64::NAN))
}

/// Every object in a value, itself too.
pub(super) fn every_object<'v>(value: &'v Value, levels: usize, visit: &mut impl FnMut(&'v Value)) {
    let Some(below) = levels.checked_sub(1) else { return };
    match value {
        Value::Object(object) => {
            visit(value);
            object.values().for_each(|value| every_object(value, below, visit));
        }
        Value::Array(items) => items.iter().for_each(|value| every_object(value, below, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether something in the value is such an object.
pub(super) fn holds(value: &Value, is_such: impl Fn(&Value) -> bool) -> bool {
    let mut found = false;
    every_object(value, super::LEVELS, &mut |object| found = found || is_such(object));
    found
}
