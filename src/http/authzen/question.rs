//! One evaluation, taken apart.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::domain::agent::AgentName;
use crate::domain::capability::Capability;
use crate::domain::entities::Kind;
use crate::domain::facts::{Facts, Given, Oversized, within_bounds};
use crate::domain::time::Timestamp;
use crate::engine::{Action, AuthorizeRequest};

/// The member of `context` that holds the token. Neither conditions nor logs see it.
const TOKEN: &str = "remit_token";

/// A member that is missing, or not of its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    member: Cow<'static, str>,
    why: Cow<'static, str>,
}

impl Malformed {
    pub(super) fn new(member: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self { member: member.into(), why: why.into() }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.member, self.why)
    }
}

/// What an evaluation says, over what the batch says for all of its evaluations.
#[derive(Clone, Copy)]
pub(super) struct Stated<'a> {
    own: &'a Map<String, Value>,
    defaults: Option<&'a Map<String, Value>>,
}

/// `subject`, `resource` or `action`: an object that stands in place of the default, which is asked only for what
/// names it.
#[derive(Clone, Copy)]
struct Entity<'a> {
    member: &'static str,
    object: &'a Map<String, Value>,
    default: Option<&'a Map<String, Value>>,
}

/// A question, taken apart. It has no `Debug`: it holds a token.
pub(super) struct Question<'a> {
    pub(super) agent: Cow<'a, str>,
    pub(super) capability: &'a str,
    pub(super) resource: Cow<'a, str>,
    pub(super) subject_properties: Properties<'a>,
    pub(super) action_properties: Properties<'a>,
    pub(super) resource_properties: Properties<'a>,
    pub(super) context: Option<Context<'a>>,
}

/// `context`, whose token is no fact.
pub(super) struct Context<'a> {
    object: &'a Map<String, Value>,
    token: Option<&'a str>,
}

impl Facts for Context<'_> {
    fn to_map(&self) -> Map<String, Value> {
        self.facts().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

impl<'a> Stated<'a> {
    /// An evaluation on its own.
    pub(super) fn alone(own: &'a Map<String, Value>) -> Self {
        Self { own, defaults: None }
    }

    /// One of a batch.
    pub(super) fn in_batch(own: &'a Map<String, Value>, defaults: &'a Map<String, Value>) -> Self {
        Self { own, defaults: Some(defaults) }
    }

    fn entity(&self, member: &'static str) -> Result<Entity<'a>, Malformed> {
        let default = self.defaults.and_then(|defaults| defaults.get(member));
        let default = default.map(|value| object(member, value)).transpose()?;
        match (self.own.get(member), default) {
            (Some(own), default) => Ok(Entity { member, object: object(member, own)?, default }),
            (None, Some(default)) => Ok(Entity { member, object: default, default: None }),
            (None, None) => Err(Malformed::new(member, "it is missing")),
        }
    }

    pub(super) fn subject(&self) -> Result<Named<'a>, Malformed> {
        let (name, properties) = self.entity("subject")?.typed(Kind::Subject)?;
        AgentName::check(&name).map_err(|invalid| Malformed::new("subject.id", invalid.to_string()))?;
        Ok((name, properties))
    }

    pub(super) fn resource(&self) -> Result<Named<'a>, Malformed> {
        self.entity("resource")?.typed(Kind::Resource)
    }

    /// The type alone, for a search that looks for the ids.
    pub(super) fn type_of(&self, kind: Kind, member: &'static str) -> Result<&'a str, Malformed> {
        let type_name = self.entity(member)?.text("type")?;
        kind.check_type(type_name).map_err(|invalid| Malformed::new(format!("{member}.type"), invalid.to_string()))?;
        Ok(type_name)
    }

    pub(super) fn action(&self) -> Result<(&'a str, Properties<'a>), Malformed> {
        let action = self.entity("action")?;
        let name = action.text("name")?;
        Capability::check(name).map_err(|invalid| Malformed::new("action.name", invalid.to_string()))?;
        Ok((name, action.properties()?))
    }

    pub(super) fn context(&self) -> Result<Option<Context<'a>>, Malformed> {
        let inherited = || self.defaults.and_then(|defaults| defaults.get("context"));
        self.own.get("context").or_else(inherited).map(Context::parse).transpose()
    }
}

/// What is said of a subject, a resource or an action.
type Properties<'a> = Option<&'a Map<String, Value>>;
/// The name that a type and an id stand for, and the properties that came with them.
pub(super) type Named<'a> = (Cow<'a, str>, Properties<'a>);

impl<'a> Entity<'a> {
    fn text(&self, part: &'static str) -> Result<&'a str, Malformed> {
        let value = self.object.get(part).or_else(|| self.default.and_then(|default| default.get(part)));
        let malformed = |why: &'static str| Malformed::new(format!("{}.{part}", self.member), why);
        match value {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(malformed("it is no string")),
            None => Err(malformed("it is missing")),
        }
    }

    fn typed(&self, kind: Kind) -> Result<Named<'a>, Malformed> {
        let name = kind.name(self.text("type")?, self.text("id")?);
        let name = name.map_err(|invalid| Malformed::new(self.member, invalid.to_string()))?;
        Ok((name, self.properties()?))
    }

    fn properties(&self) -> Result<Properties<'a>, Malformed> {
        let Some(value) = self.object.get("properties") else { return Ok(None) };
        let member = || format!("{}.properties", self.member);
        let Value::Object(properties) = value else { return Err(Malformed::new(member(), "it is no object")) };
        bounded(properties.iter()).map_err(|oversized| Malformed::new(member(), oversized.to_string()))?;
        Ok(Some(properties))
    }
}

impl<'a> Context<'a> {
    fn parse(value: &'a Value) -> Result<Self, Malformed> {
        let object = object("context", value)?;
        let token = match object.get(TOKEN) {
            None => None,
            Some(Value::String(token)) => Some(token.as_str()).filter(|token| !token.is_empty()),
            Some(_) => return Err(Malformed::new("context.remit_token", "it is no string")),
        };
        let context = Self { object, token };
        bounded(context.facts()).map_err(|oversized| Malformed::new("context", oversized.to_string()))?;
        Ok(context)
    }

    fn facts(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.object.iter().filter(|(name, _)| *name != TOKEN)
    }
}

impl<'a> Question<'a> {
    pub(super) fn parse(stated: &Stated<'a>) -> Result<Self, Malformed> {
        let (agent, subject_properties) = stated.subject()?;
        let (capability, action_properties) = stated.action()?;
        let (resource, resource_properties) = stated.resource()?;
        let context = stated.context()?;
        Ok(Self { agent, capability, resource, subject_properties, action_properties, resource_properties, context })
    }

    pub(super) fn token(&self) -> Option<&'a str> {
        self.context.as_ref().and_then(|context| context.token)
    }

    /// The question as the engine takes it.
    pub(super) fn asked<'q>(&'q self, request_id: &'q str, deadline: Timestamp) -> AuthorizeRequest<'q> {
        let facts = |properties: Option<&'q Map<String, Value>>| properties.map(|facts| -> &dyn Facts { facts });
        AuthorizeRequest {
            action: Action::Use(self.capability, &self.resource),
            token: self.token(),
            agent: Some(&self.agent),
            agent_evidence: None,
            destination: None,
            given: Given {
                context: self.context.as_ref().map(|facts| -> &dyn Facts { facts }),
                subject: facts(self.subject_properties),
                action: facts(self.action_properties),
                resource: facts(self.resource_properties),
            },
            dry_run: false,
            request_id,
            deadline,
        }
    }
}

pub(super) fn object<'a>(member: &'static str, value: &'a Value) -> Result<&'a Map<String, Value>, Malformed> {
    match value {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Malformed::new(member, "it is no object"))
        }
    }
}

fn bounded<'a>(facts: impl Iterator<Item = (&'a String, &'a Value)>) -> Result<(), Oversized> {
    within_bounds(facts.map(|(name, value)| (name.as_str(), value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("no object") };
        object
    }

    fn good() -> Value {
        json!({
            "subject": {"type": "user", "id": "alice", "properties": {"role": "admin"}},
            "action": {"name": "read", "properties": {"soft": true}},
            "resource": {"type": "record", "id": "record-1"},
            "context": {"remit_token": "secret", "ip": "192.0.2.1"},
            "ignored": 1,
        })
    }

    fn malformed(edit: impl FnOnce(&mut Value)) -> String {
        let mut body = good();
        edit(&mut body);
        Question::parse(&Stated::alone(&map(body))).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_subject_is_an_agent_an_action_a_capability_and_the_token_no_fact() {
        let body = map(good());
        let question = Question::parse(&Stated::alone(&body)).unwrap();
        let asked = question.asked("id-1", Timestamp::from_seconds(9));
        assert_eq!(asked.agent, Some("user:alice"));
        assert!(matches!(asked.action, Action::Use("read", "record:record-1")));
        assert_eq!((asked.token, asked.request_id, asked.dry_run), (Some("secret"), "id-1", false));
        assert_eq!(Value::Object(asked.given.context.unwrap().to_map()), json!({"ip": "192.0.2.1"}));
        assert_eq!(Value::Object(asked.given.subject.unwrap().to_map()), json!({"role": "admin"}));
        assert_eq!(Value::Object(asked.given.action.unwrap().to_map()), json!({"soft": true}));
        assert!(asked.given.resource.is_none());
    }

    #[test]
    fn a_member_that_is_missing_or_of_another_type_is_named() {
        let deep = json!({"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}, "b": [[[[[[[[1]]]]]]]]}});
        for (part, value, wanted) in [
            ("subject", json!("alice"), "subject: it is no object"),
            ("subject", json!({"id": "a"}), "subject.type: it is missing"),
            ("subject", json!({"type": "user"}), "subject.id: it is missing"),
            ("subject", json!({"type": "user", "id": 1}), "subject.id: it is no string"),
            ("subject", json!({"type": "user", "id": ""}), "subject: the id is empty"),
            ("subject", json!({"type": "a:b", "id": "c"}), "subject: a type has no `:`"),
            ("subject", json!({"type": "agent", "id": "a:b"}), "subject: the id of type `agent` has no `:`"),
            ("subject", json!({"type": "user", "id": "al ice"}), "subject.id: the character at byte 7"),
            ("subject", json!({"type": "user", "id": "a", "properties": []}), "subject.properties: it is no object"),
            ("action", json!({}), "action.name: it is missing"),
            ("action", json!({"name": 123}), "action.name: it is no string"),
            ("action", json!({"name": "read file"}), "action.name: the character at byte 4"),
            ("resource", json!({"type": "record"}), "resource.id: it is missing"),
            ("resource", json!({"type": "resource", "id": "db:x"}), "resource: the id of type `resource` has no `:`"),
            ("resource", Value::Null, "resource: it is no object"),
            ("context", json!([]), "context: it is no object"),
            ("context", json!({"remit_token": 1}), "context.remit_token: it is no string"),
            ("context", json!({"x": "a".repeat(8192)}), "context: at most 8192 bytes"),
            ("context", deep, "context: at most 8 levels"),
        ] {
            let said = malformed(|body| body[part] = value);
            assert!(said.starts_with(wanted), "{part}: {said}");
        }
        for part in ["subject", "action", "resource"] {
            let said = malformed(|body| drop(body.as_object_mut().unwrap().remove(part)));
            assert_eq!(said, format!("{part}: it is missing"));
        }
        assert_eq!(malformed(|body| drop(body.as_object_mut().unwrap().remove("context"))), "");
        assert_eq!(malformed(|body| body["context"] = json!({"remit_token": "t".repeat(9000)})), "");
    }

    #[test]
    fn what_an_evaluation_says_stands_in_place_of_the_default() {
        let defaults = map(good());
        let own = map(json!({"subject": {"id": "bob"}, "context": {"ip": "192.0.2.2"}}));
        let question = Question::parse(&Stated::in_batch(&own, &defaults)).unwrap();
        assert_eq!((question.agent.as_ref(), question.resource.as_ref()), ("user:bob", "record:record-1"));
        assert_eq!(question.subject_properties, None, "properties are not mixed");
        assert_eq!(question.action_properties, Some(&map(json!({"soft": true}))));
        let context = question.context.unwrap();
        assert_eq!((context.token, Value::Object(context.to_map())), (None, json!({"ip": "192.0.2.2"})));
        let own = map(json!({"resource": {"type": "db", "id": "x"}}));
        let question = Question::parse(&Stated::in_batch(&own, &defaults)).unwrap();
        assert_eq!((question.resource.as_ref(), question.context.unwrap().token), ("db:x", Some("secret")));
    }
}
