//! Agents and resources as the outside names them, by a type and an id; what searches range over, and what the policy
//! says of each.
//!
//! One name has one spelling: a name with a `:` is its type, the first `:`, and its id; a name without one has the
//! [bare type](Kind::bare_type) of its kind.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::agent::AgentName;
use super::capability::Capability;

/// What a type and an id name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An agent.
    Subject,
    /// What is acted on.
    Resource,
}

/// Why a type and an id name nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidEntity {
    /// The type is empty.
    NoType,
    /// The type has a `:`, where the id would begin.
    ColonInType,
    /// The id is empty.
    NoId,
    /// The id of a bare type has a `:`, and would have another type.
    ColonInBareId(Kind),
}

impl std::fmt::Display for InvalidEntity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoType => f.write_str("the type is empty"),
            Self::ColonInType => f.write_str("a type has no `:`: what comes after it belongs to the id"),
            Self::NoId => f.write_str("the id is empty"),
            Self::ColonInBareId(kind) => {
                write!(f, "the id of type `{}` has no `:`: what comes before it is the type", kind.bare_type())
            }
        }
    }
}

impl std::error::Error for InvalidEntity {}

impl Kind {
    /// The type of a name without a `:`.
    #[must_use]
    pub const fn bare_type(self) -> &'static str {
        match self {
            Self::Subject => "agent",
            Self::Resource => "resource",
        }
    }

    /// The agent's name, or the whole resource, that a type and an id stand for.
    ///
    /// # Errors
    /// They stand for nothing, or another type and id would stand for the same.
    pub fn name<'a>(self, type_name: &str, id: &'a str) -> Result<Cow<'a, str>, InvalidEntity> {
        self.check_type(type_name)?;
        if id.is_empty() {
            return Err(InvalidEntity::NoId);
        }
        if type_name != self.bare_type() {
            return Ok(Cow::Owned(format!("{type_name}:{id}")));
        }
        if id.contains(':') { Err(InvalidEntity::ColonInBareId(self)) } else { Ok(Cow::Borrowed(id)) }
    }

    /// Whether the text can be a type.
    ///
    /// # Errors
    /// Why it is none.
    pub fn check_type(self, type_name: &str) -> Result<(), InvalidEntity> {
        if type_name.is_empty() {
            return Err(InvalidEntity::NoType);
        }
        if type_name.contains(':') {
            return Err(InvalidEntity::ColonInType);
        }
        Ok(())
    }

    /// The type and the id that stand for this name; none if none do.
    #[must_use]
    pub fn typed(self, name: &str) -> Option<(&str, &str)> {
        let (type_name, id) = match name.split_once(':') {
            Some((type_name, _)) if type_name == self.bare_type() => return None,
            Some(parts) => parts,
            None => (self.bare_type(), name),
        };
        (!type_name.is_empty() && !id.is_empty()).then_some((type_name, id))
    }
}

/// What the policy file lists in `entities`: names, each once, with their properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Agents.
    pub subjects: Vec<(AgentName, Map<String, Value>)>,
    /// Whole resources.
    pub resources: Vec<(Box<str>, Map<String, Value>)>,
    /// What may be done.
    pub actions: Vec<Capability>,
}

/// What searches range over, in one order, and the properties of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entities {
    subjects: BTreeMap<Box<str>, Vec<AgentName>>,
    resources: BTreeMap<Box<str>, Vec<Box<str>>>,
    actions: Vec<Capability>,
    subject_properties: HashMap<AgentName, Map<String, Value>>,
    resource_properties: HashMap<Box<str>, Map<String, Value>>,
}

impl Entities {
    /// Ranges over these agents and what is listed.
    #[must_use]
    pub fn new<'a>(agents: impl Iterator<Item = &'a AgentName>, listed: Listed) -> Self {
        let Listed { subjects, resources, mut actions } = listed;
        actions.sort_unstable();
        let names = resources.iter().map(|(name, _)| name.clone());
        Self {
            subjects: by_type(Kind::Subject, agents.cloned(), AgentName::as_str),
            resources: by_type(Kind::Resource, names, AsRef::as_ref),
            actions,
            subject_properties: subjects.into_iter().filter(|(_, properties)| !properties.is_empty()).collect(),
            resource_properties: resources.into_iter().filter(|(_, properties)| !properties.is_empty()).collect(),
        }
    }

    /// The agents of a type, sorted.
    #[must_use]
    pub fn subjects(&self, type_name: &str) -> &[AgentName] {
        self.subjects.get(type_name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The whole resources of a type, sorted.
    #[must_use]
    pub fn resources(&self, type_name: &str) -> &[Box<str>] {
        self.resources.get(type_name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Resources of all types.
    #[must_use]
    pub fn resource_count(&self) -> usize {
        self.resources.values().map(Vec::len).sum()
    }

    /// The actions, sorted.
    #[must_use]
    pub fn actions(&self) -> &[Capability] {
        &self.actions
    }

    /// What the policy says of an agent, or of a whole resource; none if it says nothing.
    #[must_use]
    pub fn properties_of(&self, kind: Kind, name: &str) -> Option<&Map<String, Value>> {
        match kind {
            Kind::Subject => self.subject_properties.get(name),
            Kind::Resource => self.resource_properties.get(name),
        }
    }
}

/// Names by their type, sorted. What no type and id stand for could not be answered, and is left out.
fn by_type<T: Ord>(kind: Kind, names: impl Iterator<Item = T>, text: fn(&T) -> &str) -> BTreeMap<Box<str>, Vec<T>> {
    let mut sorted = BTreeMap::<Box<str>, Vec<T>>::new();
    for name in names {
        let Some(type_name) = kind.typed(text(&name)).map(|(type_name, _)| type_name) else { continue };
        if let Some(of_type) = sorted.get_mut(type_name) {
            of_type.push(name);
        } else {
            sorted.insert(type_name.into(), vec![name]);
        }
    }
    for of_type in sorted.values_mut() {
        of_type.sort_unstable();
    }
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bare_type_stands_for_its_id_and_any_other_for_both() {
        assert_eq!(Kind::Subject.name("agent", "agent-deployer").unwrap(), "agent-deployer");
        assert_eq!(Kind::Subject.name("user", "alice@example.com").unwrap(), "user:alice@example.com");
        assert_eq!(Kind::Resource.name("resource", "/data/x").unwrap(), "/data/x");
        assert_eq!(Kind::Resource.name("k8s", "//prod/web").unwrap(), "k8s://prod/web");
        assert_eq!(Kind::Resource.name("agent", "x").unwrap(), "agent:x");
    }

    #[test]
    fn what_could_be_written_twice_is_refused() {
        assert_eq!(Kind::Subject.name("agent", "user:alice"), Err(InvalidEntity::ColonInBareId(Kind::Subject)));
        assert_eq!(Kind::Resource.name("resource", "db:x"), Err(InvalidEntity::ColonInBareId(Kind::Resource)));
        assert_eq!(Kind::Subject.name("a:b", "c"), Err(InvalidEntity::ColonInType));
        assert_eq!(Kind::Subject.name("", "c"), Err(InvalidEntity::NoType));
        assert_eq!(Kind::Subject.name("user", ""), Err(InvalidEntity::NoId));
        assert_eq!(Kind::Subject.typed("agent:x"), None);
        assert_eq!(Kind::Subject.typed(":x"), None);
        assert_eq!(Kind::Subject.typed("x:"), None);
    }

    proptest! {
        #[test]
        fn a_name_has_one_spelling(type_name in "[a:r]{0,2}|agent|resource", id in "[a:/]{0,3}") {
            for kind in [Kind::Subject, Kind::Resource] {
                if let Ok(name) = kind.name(&type_name, &id) {
                    prop_assert_eq!(kind.typed(&name), Some((type_name.as_str(), id.as_str())));
                }
                let text = format!("{type_name}{id}");
                if let Some((type_name, id)) = kind.typed(&text) {
                    prop_assert_eq!(kind.name(type_name, id).unwrap(), text.as_str());
                }
            }
        }
    }

    #[test]
    fn searches_range_over_each_type_in_order() {
        let agents = ["b", "user:z", "a", "user:y", "agent:never"].map(|name| AgentName::parse(name).unwrap());
        let property = Map::from_iter([("status".to_owned(), Value::from("active"))]);
        let listed = Listed {
            resources: vec![("db:y".into(), Map::new()), ("db:x".into(), property.clone()), ("/d".into(), Map::new())],
            ..Listed::default()
        };
        let entities = Entities::new(agents.iter(), listed);
        let names = |type_name| entities.subjects(type_name).iter().map(AgentName::as_str).collect::<Vec<_>>();
        assert_eq!((names("agent"), names("user"), names("group")), (vec!["a", "b"], vec!["user:y", "user:z"], vec![]));
        assert_eq!(entities.resources("db"), [Box::<str>::from("db:x"), Box::<str>::from("db:y")]);
        assert_eq!(entities.resources("resource"), [Box::<str>::from("/d")]);
        assert_eq!(entities.properties_of(Kind::Resource, "db:x"), Some(&property));
        assert_eq!(entities.properties_of(Kind::Resource, "db:y"), None);
        assert_eq!(entities.properties_of(Kind::Subject, "db:x"), None);
    }
}
