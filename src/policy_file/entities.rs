//! The section `entities`: what searches range over, with what is known of each.

use jsonc_parser::ast::{Array, Object, Value};
use serde_json::Map;

use super::document::span;
use super::draft::{At, EntitiesDraft, EntityDraft};
use super::reading::{Keys, Path, Reader};
use crate::domain::entities::{InvalidEntity, Kind};
use crate::domain::limits::{CONTEXT_BYTES, CONTEXT_DEPTH, ENTITIES};
use crate::domain::resource::Resource;

const LISTS: Keys = Keys { known: &["subjects", "resources", "actions"], not_yet: &[] };
const ENTITY: Keys = Keys { known: &["type", "id", "properties"], not_yet: &[] };

impl Reader<'_> {
    /// The value as the three lists, none of them required.
    pub(super) fn entities(&mut self, path: &Path<'_>, value: &Value<'_>) -> EntitiesDraft {
        let Some(lists) = self.object(path, value, &LISTS) else { return EntitiesDraft::default() };
        let value = |key: &str| lists.get(key).map(|property| &property.value);
        for (key, list) in LISTS.known.iter().filter_map(|key| Some((key, value(key)?))) {
            self.check_length(&path.key(key), list);
        }
        EntitiesDraft {
            subjects: value("subjects")
                .map(|list| self.list(&path.key("subjects"), list, "a list of subjects", Self::subject))
                .unwrap_or_default(),
            resources: value("resources")
                .map(|list| self.list(&path.key("resources"), list, "a list of resources", Self::resource))
                .unwrap_or_default(),
            actions: value("actions").map(|list| self.capabilities(&path.key("actions"), list)).unwrap_or_default(),
        }
    }

    fn check_length(&mut self, path: &Path<'_>, list: &Value<'_>) {
        if let Value::Array(Array { elements, .. }) = list
            && let Some(first_too_many) = elements.get(ENTITIES)
        {
            self.refuse(span(first_too_many), path, format_args!("more than {ENTITIES} of them"));
        }
    }

    fn subject(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<EntityDraft<crate::domain::agent::AgentName>> {
        let (name, properties) = self.entity(path, value, Kind::Subject)?;
        let name = self.agent_name(path, &name.value, name.span)?;
        Some(EntityDraft { name, properties })
    }

    fn resource(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<EntityDraft<Box<str>>> {
        let (name, properties) = self.entity(path, value, Kind::Resource)?;
        if let Err(invalid) = Resource::parse(&name.value) {
            let what = format!("{} is not a resource: {invalid}", super::diagnostics::quoted(&name.value));
            self.refuse(name.span, path, what);
            return None;
        }
        Some(EntityDraft { name: At { value: name.value.into(), span: name.span }, properties })
    }

    /// The name that type and id stand for, with the id's place.
    fn entity(
        &mut self,
        path: &Path<'_>,
        value: &Value<'_>,
        kind: Kind,
    ) -> Option<(At<String>, Map<String, serde_json::Value>)> {
        let entity = self.object(path, value, &ENTITY)?;
        let (type_value, id_value) = (self.required(path, entity, "type"), self.required(path, entity, "id"));
        let type_name = type_value.and_then(|value| self.text(&path.key("type"), value, "a type's name"));
        let id = id_value.and_then(|value| self.text(&path.key("id"), value, "an id"));
        let properties = match entity.get("properties") {
            Some(property) => self.properties(&path.key("properties"), &property.value)?,
            None => Map::new(),
        };
        let (type_value, id_value) = (type_value?, id_value?);
        match kind.name(type_name?, id?) {
            Ok(name) => Some((At { value: name.into_owned(), span: span(id_value) }, properties)),
            Err(invalid) => {
                let at = match invalid {
                    InvalidEntity::NoType | InvalidEntity::ColonInType => type_value,
                    InvalidEntity::NoId | InvalidEntity::ColonInBareId(_) => id_value,
                };
                self.refuse(span(at), path, invalid);
                None
            }
        }
    }

    /// The value as an object of a bearable size. Its keys are the operator's own.
    fn properties(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<Map<String, serde_json::Value>> {
        let Value::Object(object) = value else {
            self.map(path, value);
            return None;
        };
        let at = span(value);
        let length = at.end.saturating_sub(at.start);
        if length > CONTEXT_BYTES {
            let what = format!("properties of {length} bytes, and at most {CONTEXT_BYTES} may be");
            self.refuse(at.start..at.start.saturating_add(1), path, what);
            return None;
        }
        let properties = map(object, CONTEXT_DEPTH);
        if properties.is_none() {
            let what = format!("more than {CONTEXT_DEPTH} levels, or a number out of range");
            self.refuse(at.start..at.start.saturating_add(1), path, what);
        }
        properties
    }
}

/// The object, if it has no more than `levels` levels and its numbers can be held.
fn map(object: &Object<'_>, levels: usize) -> Option<Map<String, serde_json::Value>> {
    let properties = object.properties.iter();
    properties.map(|property| Some((property.name.as_str().to_owned(), json(&property.value, levels)?))).collect()
}

fn json(value: &Value<'_>, levels: usize) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    let below = levels.checked_sub(1)?;
    Some(match value {
        Value::StringLit(text) => Json::String(text.value.as_ref().to_owned()),
        Value::NumberLit(number) => Json::Number(number.value.parse().ok()?),
        Value::BooleanLit(flag) => Json::Bool(flag.value),
        Value::NullKeyword(_) => Json::Null,
        Value::Object(object) => Json::Object(map(object, below)?),
        Value::Array(array) => Json::Array(array.elements.iter().map(|item| json(item, below)).collect::<Option<_>>()?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::entities::Kind;
    use crate::policy_file::diagnostics::cases::{Case, are_shown_at_their_place, compiled};

    const BAD: &[Case] = &[
        ("{\"entities\": «[]»}", "`entities`: expected an object with `subjects`, `resources`, `actions`", ""),
        ("{\"entities\": {«\"subject\"»: []}}", "unknown key `entities.subject`", "did you mean `subjects`?"),
        ("{\"entities\": {\"subjects\": «{}»}}", "`entities.subjects`: expected a list of subjects", ""),
        ("{\"entities\": {\"subjects\": [«{»\"id\": \"a\"}]}}", "`entities.subjects[0]`: `type` is missing", ""),
        ("{\"entities\": {\"resources\": [«{»\"type\": \"a\"}]}}", "`entities.resources[0]`: `id` is missing", ""),
        ("{\"entities\": {\"subjects\": [{\"type\": «1», \"id\": \"a\"}]}}", "expected a type's name", ""),
        ("{\"entities\": {\"subjects\": [{\"type\": «\"a:b\"», \"id\": \"a\"}]}}", "a type has no `:`", ""),
        ("{\"entities\": {\"subjects\": [{\"type\": «\"\"», \"id\": \"a\"}]}}", "the type is empty", ""),
        ("{\"entities\": {\"subjects\": [{\"type\": \"user\", \"id\": «\"\"»}]}}", "the id is empty", ""),
        ("{\"entities\": {\"subjects\": [{\"type\": \"agent\", \"id\": «\"user:a\"»}]}}", "the id of type `agent`", ""),
        ("{\"entities\": {\"subjects\": [{\"type\": \"user\", \"id\": «\"al ice\"»}]}}", "is not an agent's name", ""),
        (
            "{\"entities\": {\"subjects\": [{\"type\": \"user\", \"id\": \"a\"}, {\"type\": \"user\", \"id\": «\"a\"»}]}}",
            "`user:a` is listed twice",
            "it is first on line 1",
        ),
        ("{\"entities\": {\"resources\": [{\"type\": \"db\", \"id\": «\"*\"»}]}}", "`db:*` is not a resource", ""),
        ("{\"entities\": {\"resources\": [{\"type\": \"resource\", \"id\": «\"/a/\"»}]}}", "an empty segment", ""),
        (
            "{\"entities\": {\"resources\": [{\"type\": \"db\", \"id\": \"x\"},\n {\"type\": \"db\", \"id\": «\"x\"»}]}}",
            "`db:x` is listed twice",
            "it is first on line 1",
        ),
        ("{\"entities\": {\"actions\": [«\"read file\"»]}}", "is not a capability", ""),
        (
            "{\"entities\": {\"resources\": [{\"type\": \"db\", \"id\": \"x\", \"properties\": «[]»}]}}",
            "`entities.resources[0].properties`: expected an object",
            "",
        ),
        (
            "{\"entities\": {\"resources\": [{\"type\": \"db\", \"id\": \"x\", \"properties\": «{»\"a\": [[[[[[[[1]]]]]]]]}}]}}",
            "more than 8 levels",
            "",
        ),
    ];

    #[test]
    fn what_is_not_an_entity_is_refused_at_its_place() {
        are_shown_at_their_place(BAD);
    }

    #[test]
    fn entities_are_named_and_have_properties() {
        let policy = compiled(
            r#"{"entities": {
                "subjects": [{"type": "user", "id": "bob", "properties": {"role": "admin", "n": [1, 2.5, null, true]}},
                             {"type": "agent", "id": "svc"}],
                "resources": [{"type": "record", "id": "record-1", "properties": {"status": "active"}},
                              {"type": "resource", "id": "/data/x"}],
                "actions": ["write", "read"]}}"#,
        )
        .unwrap()
        .policy;
        assert!(policy.agent("user:bob").is_some() && policy.agent("svc").is_some(), "who is listed is known");
        let role = policy.entities.properties_of(Kind::Subject, "user:bob").unwrap();
        assert_eq!(serde_json::Value::Object(role.clone()), json!({"role": "admin", "n": [1, 2.5, null, true]}));
        assert!(policy.entities.properties_of(Kind::Resource, "record:record-1").is_some());
        assert_eq!(policy.entities.resources("resource"), [Box::<str>::from("/data/x")]);
        let actions = policy.entities.actions().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(actions, ["read", "write"]);
    }

    #[test]
    fn what_the_documents_show_compiles() {
        for page in [include_str!("../../docs/policy.md"), include_str!("../../docs/authzen.md")] {
            let example = page.split("```json\n").map(|part| part.split("```").next().unwrap());
            let example =
                example.filter(|text| text.starts_with('{')).find(|text| text.contains("\"entities\"")).unwrap();
            assert!(compiled(example).unwrap().policy.entities.resource_count() > 0);
        }
    }

    #[test]
    fn properties_are_bounded() {
        let text = |length: usize| {
            let long = "a".repeat(length);
            format!(r#"{{"entities": {{"subjects": [{{"type": "u", "id": "b", "properties": {{"x": "{long}"}}}}]}}}}"#)
        };
        assert!(compiled(&text(8000)).is_ok());
        assert!(compiled(&text(9000)).unwrap_err().to_string().contains("at most 8192 may be"));
    }
}
