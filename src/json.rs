//! JSON from strangers, read strictly: a name that stands twice, text after the end and deep nesting are refused, so
//! that no two readers see different things in it (RFC 8259 §4, RFC 8725 §2.5).

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, Map, Number, Value};

/// Why a text is not taken as JSON. It shows no part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidJson(String);

impl fmt::Display for InvalidJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidJson {}

/// Reads a value of at most `levels` levels of objects and lists; a number or a string alone has none.
///
/// # Errors
/// Where it stops being JSON, or that it has a name twice or too many levels.
pub fn parse(text: &[u8], levels: usize) -> Result<Value, InvalidJson> {
    let mut deserializer = Deserializer::from_slice(text);
    let value = Level(levels).deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => error.to_string(),
            serde_json::error::Category::Eof => "it ends too early".to_owned(),
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => {
                format!("no JSON at line {} column {}", error.line(), error.column())
            }
        };
        InvalidJson(what)
    })
}

/// The same, where only an object will do.
///
/// # Errors
/// As [`parse`], or that it is no object.
pub fn parse_object(text: &[u8], levels: usize) -> Result<Map<String, Value>, InvalidJson> {
    match parse(text, levels)? {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(InvalidJson("it is no object".to_owned()))
        }
    }
}

/// A value that may have so many levels.
#[derive(Clone, Copy)]
struct Level(usize);

impl Level {
    fn below<E: serde::de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("it has too many levels"))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(below)?;
            if object.insert(name, value).is_some() {
                return Err(serde::de::Error::custom("a name stands twice in one object"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        for text in ["null", "[1,-2,3.5,true,\"x\"]", r#"{"a":{"b":[{}]},"c":18446744073709551615}"#, " \"a\\u0062\" "]
        {
            assert_eq!(parse(text.as_bytes(), 4).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn refuses_a_name_that_stands_twice_at_any_level_and_however_it_is_written() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            let error = parse(text.as_bytes(), 8).unwrap_err().to_string();
            assert!(error.starts_with("a name stands twice in one object"), "{error}");
        }
    }

    #[test]
    fn refuses_more_levels_than_asked_for() {
        assert!(parse(b"[[]]", 2).is_ok());
        assert!(parse(b"[[[]]]", 2).unwrap_err().to_string().starts_with("it has too many levels"));
        assert!(parse(b"1", 0).is_ok());
    }

    #[test]
    fn refuses_what_is_no_json_and_shows_no_part_of_it() {
        for text in ["", "{", "secret", "1 secret", "{\"a\":1,}", "[1e999]", "\"\\ud800\"", "\u{feff}1"] {
            let error = parse(text.as_bytes(), 8).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(parse(b"\"\xff\"", 1).is_err());
        assert!(parse_object(b"[]", 1).is_err());
    }
}
