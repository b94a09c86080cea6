//! Whether an answer or an event has what is wanted, and if not, where.

use serde_json::Value;

/// Where `found` lacks something that is wanted; nothing if it has it all. `names` knows tokens and the time.
pub(crate) fn differences(place: &str, wanted: &Value, found: &Value, names: &crate::names::Names) -> Vec<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(_)) => wanted
            .iter()
            .flat_map(|(name, wanted)| {
                differences(&format!("{place}.{name}"), wanted, found.get(name).unwrap_or(&Value::Null), names)
            })
            .collect(),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => wanted
            .iter()
            .zip(found)
            .enumerate()
            .flat_map(|(index, (wanted, found))| differences(&format!("{place}[{index}]"), wanted, found, names))
            .collect(),
        (Value::String(part), found) if part.starts_with('~') => {
            let part = part.trim_start_matches('~');
            let has = found.as_str().is_some_and(|text| text.contains(part));
            if has { Vec::new() } else { vec![format!("{place}: wanted a text with {part:?}, found {found}")] }
        }
        (wanted, found) => {
            let wanted = names.resolved(wanted);
            if wanted == *found { Vec::new() } else { vec![format!("{place}: wanted {wanted}, found {found}")] }
        }
    }
}
