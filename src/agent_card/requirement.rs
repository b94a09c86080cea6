//! What a card requires of its callers: any one of a list, and of that all schemes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{InvalidCard, Shape};

/// Where version 1.0 has the list.
pub(super) const V1_MEMBER: &str = "securityRequirements";
/// Where version 0.3 has it.
const V03_MEMBER: &str = "security";

/// Schemes that are needed together, each with its scopes.
pub(super) type Requirement = BTreeMap<String, Vec<String>>;

/// Any one of these is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requirements {
    pub(super) list: Vec<Requirement>,
}

impl Requirements {
    /// Those of a card or a skill, if it has any. A card may have them in both shapes, if they say the same.
    ///
    /// # Errors
    /// They are not of their form, or name a scheme that is not declared.
    pub(super) fn read(
        owner: &Map<String, Value>,
        place: &str,
        declared: &BTreeSet<String>,
    ) -> Result<Option<Self>, InvalidCard> {
        let v1 = read(owner, V1_MEMBER, place, declared, requirement_v1)?;
        let v03 = read(owner, V03_MEMBER, place, declared, scopes_by_scheme_v03)?;
        match (v1, v03) {
            (Some(v1), Some(v03)) if v1 != v03 => {
                let why = format!("it says something else than {V03_MEMBER}: leave one of them away");
                Err(InvalidCard::new(format!("{place}{V1_MEMBER}"), why))
            }
            (v1, v03) => Ok(v1.or(v03).map(|list| Self { list })),
        }
    }

    /// The same for those that were read from the owner: what is of this shape alone stays to the letter.
    pub(super) fn rewrite(&self, owner: &mut Map<String, Value>, shape: Shape) {
        let (member, other) = members(shape);
        if !owner.contains_key(member) || owner.contains_key(other) {
            self.write(owner, shape);
        }
    }

    /// Puts them where this shape has them, and nowhere else.
    pub(super) fn write(&self, owner: &mut Map<String, Value>, shape: Shape) {
        let (member, other) = members(shape);
        owner.remove(other);
        let list = self.list.iter().map(|requirement| match shape {
            Shape::V1 => {
                let schemes: Map<String, Value> =
                    requirement.iter().map(|(name, scopes)| (name.clone(), json!({"list": scopes}))).collect();
                json!({"schemes": schemes})
            }
            Shape::V03 => json!(requirement),
        });
        owner.insert(member.to_owned(), list.collect());
    }
}

/// Where this shape has them, and where the other does.
const fn members(shape: Shape) -> (&'static str, &'static str) {
    match shape {
        Shape::V1 => (V1_MEMBER, V03_MEMBER),
        Shape::V03 => (V03_MEMBER, V1_MEMBER),
    }
}

fn read(
    owner: &Map<String, Value>,
    member: &str,
    place: &str,
    declared: &BTreeSet<String>,
    one: fn(&Value) -> Result<Requirement, String>,
) -> Result<Option<Vec<Requirement>>, InvalidCard> {
    let place = format!("{place}{member}");
    let list = match owner.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(InvalidCard::new(place, "it has to be a list")),
    };
    let read = |(index, value): (usize, &Value)| {
        let requirement = one(value).and_then(|requirement| known(requirement, declared));
        requirement.map_err(|why| InvalidCard::new(format!("{place}[{index}]"), why))
    };
    list.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

fn known(requirement: Requirement, declared: &BTreeSet<String>) -> Result<Requirement, String> {
    match requirement.keys().find(|name| !declared.contains(*name)) {
        Some(name) => Err(format!("it names the scheme {name}, which securitySchemes doesn't declare")),
        None => Ok(requirement),
    }
}

/// `{"schemes": {"a": {"list": ["scope"]}}}`; `ProtoJSON` leaves away what is empty.
fn requirement_v1(value: &Value) -> Result<Requirement, String> {
    let object = value.as_object().ok_or("it has to be an object")?;
    let schemes = match only(object, "schemes")? {
        None => return Ok(Requirement::new()),
        Some(schemes) => schemes.as_object().ok_or("schemes has to be an object")?,
    };
    let one = |(name, scopes): (&String, &Value)| {
        let object = scopes.as_object().ok_or_else(|| format!("{name} has to be an object with a list"))?;
        Ok((name.clone(), only(object, "list")?.map_or(Ok(Vec::new()), texts)?))
    };
    schemes.iter().map(one).collect()
}

/// `{"a": ["scope"]}`.
fn scopes_by_scheme_v03(value: &Value) -> Result<Requirement, String> {
    let object = value.as_object().ok_or("it has to be an object")?;
    object.iter().map(|(name, scopes)| Ok((name.clone(), texts(scopes)?))).collect()
}

/// The one member that may be there. Any other would be lost.
fn only<'a>(object: &'a Map<String, Value>, member: &str) -> Result<Option<&'a Value>, String> {
    match object.keys().find(|name| *name != member) {
        Some(name) => Err(format!("it has a member {name}: only {member} belongs here")),
        None => Ok(object.get(member)),
    }
}

fn texts(value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = value.as_array().and_then(|list| list.iter().map(text).collect());
    list.ok_or_else(|| "scopes have to be a list of texts".to_owned())
}
