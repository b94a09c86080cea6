//! Facts as protobuf's `Struct` and as JSON.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Number};

use crate::domain::facts::{Fact, Facts, Part};

/// A message's facts are turned into JSON only where a condition looks at them.
impl Facts for Struct {
    fn to_map(&self) -> Map<String, serde_json::Value> {
        self.fields.iter().map(|(name, value)| (name.clone(), json(value))).collect()
    }
}

impl Fact for Value {
    fn part(&self) -> Part<'_, Self> {
        match &self.kind {
            None | Some(Kind::NullValue(_) | Kind::NumberValue(_) | Kind::BoolValue(_)) => Part::Plain,
            Some(Kind::StringValue(text)) => Part::Text(text),
            Some(Kind::ListValue(list)) => Part::List(&list.values),
            Some(Kind::StructValue(object)) => {
                Part::Members(Box::new(object.fields.iter().map(|(name, value)| (name.as_str(), value))))
            }
        }
    }
}

/// JSON as a `Struct`, which has no other numbers than doubles.
pub(in crate::grpc) fn structure(map: &Map<String, serde_json::Value>) -> Struct {
    Struct { fields: map.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect() }
}

fn json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        // What is not finite is no JSON number, and compares with nothing.
        Some(Kind::NumberValue(number)) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::BoolValue(is_so)) => Json::Bool(*is_so),
        Some(Kind::StructValue(fields)) => Json::Object(fields.to_map()),
        Some(Kind::ListValue(list)) => Json::Array(list.values.iter().map(json).collect()),
    }
}

fn protobuf(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(is_so) => Kind::BoolValue(*is_so),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(protobuf).collect() }),
        Json::Object(fields) => Kind::StructValue(structure(fields)),
    };
    Value { kind: Some(kind) }
}
