//! What is said of a request beside what is decided: untrusted, and seen by the policy's conditions alone.

use serde_json::{Map, Value};

use super::limits::{CONTEXT_BYTES, CONTEXT_DEPTH};

/// Facts in whichever form they came; made into JSON only where a condition looks at them.
pub trait Facts: Send + Sync {
    /// The facts by name.
    fn to_map(&self) -> Map<String, Value>;
}

impl Facts for Map<String, Value> {
    fn to_map(&self) -> Map<String, Value> {
        self.clone()
    }
}

/// The facts that came with a request. Nobody vouches for them but the caller.
#[derive(Clone, Copy, Default)]
pub struct Given<'a> {
    /// Of the request as a whole.
    pub context: Option<&'a dyn Facts>,
    /// Of the agent that acts.
    pub subject: Option<&'a dyn Facts>,
    /// Of the action.
    pub action: Option<&'a dyn Facts>,
    /// Of what it is done to.
    pub resource: Option<&'a dyn Facts>,
}

/// What each value counts, beside the bytes of a string: a number's size.
const VALUE_BYTES: usize = 8;

/// One fact, in whichever form it came.
pub trait Fact: Sized {
    /// It, looked at.
    fn part(&self) -> Part<'_, Self>;
}

/// A fact, looked at.
pub enum Part<'a, F> {
    /// A number, true or false, or null.
    Plain,
    /// A string.
    Text(&'a str),
    /// A list.
    List(&'a [F]),
    /// Facts by name.
    Members(Box<dyn Iterator<Item = (&'a str, &'a F)> + 'a>),
}

/// Why facts are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversized {
    /// They have more than [`CONTEXT_BYTES`].
    Bytes,
    /// They have more than [`CONTEXT_DEPTH`] levels.
    Levels,
}

impl std::fmt::Display for Oversized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes => write!(f, "at most {CONTEXT_BYTES} bytes, {VALUE_BYTES} for each value beside its text"),
            Self::Levels => write!(f, "at most {CONTEXT_DEPTH} levels"),
        }
    }
}

impl std::error::Error for Oversized {}

impl Fact for Value {
    fn part(&self) -> Part<'_, Self> {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => Part::Plain,
            Self::String(text) => Part::Text(text),
            Self::Array(items) => Part::List(items),
            Self::Object(members) => {
                Part::Members(Box::new(members.iter().map(|(name, value)| (name.as_str(), value))))
            }
        }
    }
}

/// Whether facts are of a bearable size, measured alike in whichever form they came: the bytes of names and strings, and
/// eight for each value. It looks no further than the bounds go.
///
/// # Errors
/// Says which bound they exceed.
pub fn within_bounds<'a, F: Fact + 'a>(facts: impl Iterator<Item = (&'a str, &'a F)>) -> Result<(), Oversized> {
    let mut room = CONTEXT_BYTES;
    facts.into_iter().try_for_each(|(name, fact)| {
        take(&mut room, name.len())?;
        fits(fact, &mut room, CONTEXT_DEPTH)
    })
}

fn fits<F: Fact>(fact: &F, room: &mut usize, levels: usize) -> Result<(), Oversized> {
    let below = levels.checked_sub(1).ok_or(Oversized::Levels)?;
    take(room, VALUE_BYTES)?;
    match fact.part() {
        Part::Plain => Ok(()),
        Part::Text(text) => take(room, text.len()),
        Part::List(items) => items.iter().try_for_each(|item| fits(item, room, below)),
        Part::Members(mut members) => members.try_for_each(|(name, value)| {
            take(room, name.len())?;
            fits(value, room, below)
        }),
    }
}

fn take(room: &mut usize, bytes: usize) -> Result<(), Oversized> {
    *room = room.checked_sub(bytes).ok_or(Oversized::Bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured(facts: &Value) -> Result<(), Oversized> {
        within_bounds(facts.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value)))
    }

    #[test]
    fn names_and_strings_count_their_bytes_and_every_value_eight() {
        for (fits, exceeds) in [
            (json!({"x": "a".repeat(8192 - 9)}), json!({"x": "a".repeat(8192 - 8)})),
            (json!({"a".repeat(8192 - 8): null}), json!({"a".repeat(8192 - 7): null})),
            (json!({"": vec![0; 1023]}), json!({"": vec![0; 1024]})),
            (json!({"": vec![1e300; 1023]}), json!({"": vec![json!({}); 1024]})),
        ] {
            assert_eq!(measured(&fits), Ok(()));
            assert_eq!(measured(&exceeds), Err(Oversized::Bytes));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(measured(&json!({"a": [[[[[[[1]]]]]]]})), Ok(()));
        assert_eq!(measured(&json!({"a": [[[[[[[[1]]]]]]]]})), Err(Oversized::Levels));
    }
}
