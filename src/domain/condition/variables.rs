//! The variables of a condition, made from a request when a condition first names them.

use std::collections::HashMap;

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, Env};
use serde_json::{Map, Value};

use super::Circumstances;
use super::shape::Shape;
use crate::domain::entities::Kind;
use crate::domain::facts::Facts;

/// Levels of a value: deeper ones would take stack. Doors let no context in that is nearly as deep.
const LEVELS: usize = 32;
/// Bytes of a string that are looked at in one step.
const BYTES_A_STEP: usize = 16;

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    Agent,
    Subject,
    Action,
    Resource,
    Chain,
    Depth,
    OnBehalfOf,
    Claims,
    Context,
    Now,
}

impl Variable {
    pub(super) const ALL: [Self; 10] = [
        Self::Agent,
        Self::Subject,
        Self::Action,
        Self::Resource,
        Self::Chain,
        Self::Depth,
        Self::OnBehalfOf,
        Self::Claims,
        Self::Context,
        Self::Now,
    ];

    /// As it is written.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Subject => "subject",
            Self::Action => "action",
            Self::Resource => "resource",
            Self::Chain => "chain",
            Self::Depth => "depth",
            Self::OnBehalfOf => "obo",
            Self::Claims => "claims",
            Self::Context => "context",
            Self::Now => "now",
        }
    }

    pub(super) const fn shape(self) -> Shape {
        match self {
            Self::Agent | Self::OnBehalfOf => Shape::Text,
            Self::Subject | Self::Resource => Shape::Entity,
            Self::Action => Shape::Named,
            Self::Chain => Shape::Texts,
            Self::Depth => Shape::Int,
            Self::Claims | Self::Context => Shape::Map,
            Self::Now => Shape::Time,
        }
    }
}

type Made = Box<dyn Val>;

/// The value was not made: it has too many levels, or too much of it for the steps that are left.
pub(super) struct TooLarge;

/// Puts the variable in, and returns how many steps it takes to look at all of it.
pub(super) fn put(
    variable: Variable,
    from: &Circumstances<'_>,
    env: &Env,
    context: &mut Context<'_, '_>,
) -> Result<u64, TooLarge> {
    let mut maker = Maker { size: 0 };
    let value = maker.value_of(variable, from, env)?;
    context.add_variable_as_val(variable.name(), value);
    Ok(maker.size)
}

/// Makes values, and measures them.
struct Maker {
    size: u64,
}

impl Maker {
    fn value_of(&mut self, variable: Variable, from: &Circumstances<'_>, env: &Env) -> Result<Made, TooLarge> {
        Ok(match variable {
            Variable::Agent => self.text(from.agent),
            Variable::Subject => {
                let properties = self.properties(from.subject_properties, from.given.subject)?;
                let bare = (Kind::Subject.bare_type(), from.agent);
                let (kind, id) = Kind::Subject.typed(from.agent).unwrap_or(bare);
                self.size = self.size.saturating_add(steps(id));
                self.object([("type", self::text(kind)), ("id", self::text(id)), ("properties", properties)])
            }
            Variable::Action => {
                let properties = self.properties(None, from.given.action)?;
                let name = from.wanted.map_or("", |wanted| wanted.capability);
                self.object([("name", self::text(name)), ("properties", properties)])
            }
            Variable::Resource => {
                let properties = self.properties(from.resource_properties, from.given.resource)?;
                let (kind, id) = from.wanted.map_or(("", ""), |wanted| wanted.resource.typed());
                self.size = self.size.saturating_add(steps(id));
                self.object([("type", self::text(kind)), ("id", self::text(id)), ("properties", properties)])
            }
            Variable::Chain => {
                let names = from.chain.iter().map(|name| self.text(name)).collect::<Vec<_>>();
                Box::new(CelList::from(names))
            }
            Variable::Depth => {
                let hops = from.chain.len().saturating_sub(1);
                Box::new(CelInt::from(i64::try_from(hops).unwrap_or(i64::MAX)))
            }
            Variable::OnBehalfOf => self.text(from.on_behalf_of),
            Variable::Claims => self.map(from.claims.into_iter().flatten())?,
            Variable::Context => self.properties(None, from.given.context)?,
            Variable::Now => moment(from.now.seconds(), env),
        })
    }

    /// What policy says of a thing, and over it what the request says.
    fn properties(&mut self, known: Option<&Map<String, Value>>, sent: Option<&dyn Facts>) -> Result<Made, TooLarge> {
        let sent = sent.map(Facts::to_map).unwrap_or_default();
        let known = known.into_iter().flatten().filter(|(name, _)| !sent.contains_key(*name));
        self.map(known.chain(&sent))
    }

    fn map<'j>(&mut self, members: impl Iterator<Item = (&'j String, &'j Value)>) -> Result<Made, TooLarge> {
        self.map_within(members, LEVELS)
    }

    fn map_within<'j>(
        &mut self,
        members: impl Iterator<Item = (&'j String, &'j Value)>,
        levels: usize,
    ) -> Result<Made, TooLarge> {
        let mut map = HashMap::<CelMapKey<'static>, Made>::new();
        for (name, value) in members {
            self.size = self.size.saturating_add(steps(name));
            map.insert(CelMapKey::String(CelString::from(name.clone())), self.json(value, levels)?);
        }
        Ok(Box::new(CelMap::from(map)))
    }

    /// Every number is a double, as it is where facts come as protobuf: the doors must not differ.
    fn json(&mut self, value: &Value, levels: usize) -> Result<Made, TooLarge> {
        let below = levels.checked_sub(1).ok_or(TooLarge)?;
        self.size = self.size.saturating_add(1);
        Ok(match value {
            Value::Null => Box::new(CelNull),
            Value::Bool(is_so) => Box::new(CelBool::from(*is_so)),
            Value::Number(number) => Box::new(CelDouble::from(number.as_f64().ok_or(TooLarge)?)),
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                let items = items.iter().map(|item| self.json(item, below)).collect::<Result<Vec<_>, _>>()?;
                Box::new(CelList::from(items))
            }
            Value::Object(members) => self.map_within(members.iter(), below)?,
        })
    }

    fn text(&mut self, text: &str) -> Made {
        self.size = self.size.saturating_add(steps(text));
        self::text(text)
    }

    fn object<const N: usize>(&mut self, members: [(&'static str, Made); N]) -> Made {
        self.size = self.size.saturating_add(u64::try_from(N).unwrap_or(u64::MAX));
        let members = members.map(|(name, value)| (CelMapKey::String(CelString::from(name)), value));
        Box::new(CelMap::from(HashMap::from(members)))
    }
}

fn text(text: &str) -> Made {
    Box::new(CelString::from(text.to_owned()))
}

fn steps(text: &str) -> u64 {
    let parts = text.len().checked_div(BYTES_A_STEP).unwrap_or_default();
    u64::try_from(parts).unwrap_or(u64::MAX).saturating_add(1)
}

/// A timestamp in whole seconds; null, with which nothing compares, if it could not be made.
fn moment(seconds: u64, env: &Env) -> Made {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let argument: [CowVal<'_, '_>; 1] = [CowVal::owned(CelInt::from(seconds))];
    let made = env.find_overload("timestamp", &argument).and_then(|make| make(argument.into()).ok());
    made.map_or_else(|| -> Made { Box::new(CelNull) }, CowVal::into_owned)
}
