//! What the scripts answer.

use redis::Value;

use super::trouble::Trouble;
use crate::state::Refused;

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is no primary.
    Replica,
    /// Another epoch is in force than the node knows.
    Epoch(String),
    /// An epoch has begun, and nothing is answered for so long, in milliseconds.
    Wait(u64),
    /// The request began in an earlier epoch.
    Strange,
    /// The token would outlive what is kept of revocations by the store's clock.
    Clocks,
    /// Another word on the quarantine came meanwhile: its version.
    Changed(u64),
    /// The token is not held.
    Fenced,
    /// The token was revoked; the name is the agent's whose tokens were, or empty.
    Revoked(String),
    /// No use is left.
    Exhausted,
    /// Fewer uses are left than were asked for.
    Few(u32),
    /// No more than so many can be remembered.
    Full(usize),
    /// Done, or asked: so many uses are left.
    Left(u32),
    /// What changed.
    News(News),
    /// A page of what nodes keep a copy of.
    Page(Page),
    /// Nothing is known of the id.
    Unknown,
    /// This is.
    Known(Held),
}

/// What changed since the node last heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    /// The script's own answer.
    pub(super) number: u64,
    /// Tokens of other issuers made up to this second are refused.
    pub(super) fence: u64,
    /// The number of the last revocation.
    pub(super) counter: u64,
    /// The number of the last change.
    pub(super) changes: u64,
    /// The changes, at most a bounded number of them.
    pub(super) entries: Vec<Entry>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number.
    pub(super) change: u64,
    /// What.
    pub(super) kind: Kind,
    /// Of which agent or id; empty for all.
    pub(super) name: String,
    /// The revocation's number, or the second up to which an unknown id is kept.
    pub(super) number: u64,
    /// When, in seconds of the store's clock.
    pub(super) at: u64,
    /// Of a quarantine.
    pub(super) version: u64,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An agent's tokens are revoked.
    Agent,
    /// All tokens are.
    All,
    /// An agent is under quarantine, and its tokens are revoked.
    Quarantine,
    /// It no longer is.
    Reinstate,
    /// An unknown id is revoked.
    Unknown,
}

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The number of the last change when it was read.
    pub(super) changes: u64,
    /// Where to go on; `0` at the end.
    pub(super) next: String,
    /// Names and what belongs to each.
    pub(super) entries: Vec<(String, String)>,
}

/// A token as the store has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) left: u32,
    pub(super) expires_at: u64,
    /// Ids of 16 bytes each.
    pub(super) ancestors: Vec<u8>,
    pub(super) chain: Vec<String>,
    pub(super) is_revoked: bool,
    pub(super) capabilities: Vec<String>,
}

impl Reply {
    /// Takes an answer apart; none if it is not one.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let [word, rest @ ..] = items(value)? else { return None };
        Some(match (text(word)?.as_str(), rest) {
            ("replica", []) => Self::Replica,
            ("epoch", [id]) => Self::Epoch(text(id)?),
            ("wait", [millis, _id]) => Self::Wait(number(millis)?),
            ("strange", []) => Self::Strange,
            ("clocks", []) => Self::Clocks,
            ("changed", [version]) => Self::Changed(number(version)?),
            ("fenced", []) => Self::Fenced,
            ("revoked", [by]) => Self::Revoked(text(by)?),
            ("exhausted", []) => Self::Exhausted,
            ("few", [left]) => Self::Few(number(left)?.try_into().ok()?),
            ("full", [room]) => Self::Full(number(room)?.try_into().ok()?),
            ("left", [left]) => Self::Left(number(left)?.try_into().ok()?),
            ("news", [asked, fence, counter, changes, entries]) => Self::News(News {
                number: number(asked)?,
                fence: number(fence)?,
                counter: number(counter)?,
                changes: number(changes)?,
                entries: items(entries)?.iter().map(Entry::read).collect::<Option<_>>()?,
            }),
            ("page", [changes, next, entries]) => {
                Self::Page(Page { changes: number(changes)?, next: text(next)?, entries: pairs(entries)? })
            }
            ("none", []) => Self::Unknown,
            ("known", [left, expires_at, ancestors, chain, revoked, capabilities]) => Self::Known(Held {
                left: number(left)?.try_into().ok()?,
                expires_at: number(expires_at)?,
                ancestors: bytes(ancestors)?.to_vec(),
                chain: lines(chain)?,
                is_revoked: number(revoked)? != 0,
                capabilities: lines(capabilities)?,
            }),
            _ => return None,
        })
    }
}

impl Reply {
    /// The uses that are left, or why the token is refused.
    pub(super) fn left(self) -> Result<u32, Refused> {
        match self {
            Self::Left(left) => Ok(left),
            Self::Fenced => Err(Refused::Fenced),
            Self::Revoked(by) => Err(Refused::Revoked { by: by.into() }),
            Self::Exhausted => Err(Refused::Exhausted),
            Self::Few(left) => Err(Refused::TooManyUses { left }),
            Self::Full(capacity) => Err(Refused::RevocationsFull { capacity }),
            Self::Replica
            | Self::Epoch(_)
            | Self::Wait(_)
            | Self::Strange
            | Self::Clocks
            | Self::Changed(_)
            | Self::News(_)
            | Self::Page(_)
            | Self::Unknown
            | Self::Known(_) => Err(self.unexpected().refused()),
        }
    }

    /// What changed, and with it what was asked for.
    pub(super) fn news(self) -> Result<News, Refused> {
        match self {
            Self::News(news) => Ok(news),
            Self::Full(capacity) => Err(Refused::RevocationsFull { capacity }),
            Self::Replica
            | Self::Epoch(_)
            | Self::Wait(_)
            | Self::Strange
            | Self::Clocks
            | Self::Changed(_)
            | Self::Fenced
            | Self::Revoked(_)
            | Self::Exhausted
            | Self::Few(_)
            | Self::Left(_)
            | Self::Page(_)
            | Self::Unknown
            | Self::Known(_) => Err(self.unexpected().refused()),
        }
    }

    /// That a script gave an answer that isn't its own.
    pub(super) fn unexpected(&self) -> Trouble {
        Trouble::Odd(format!("{self:?}").chars().take(120).collect())
    }
}

impl Entry {
    fn read(value: &Value) -> Option<Self> {
        let [id, fields] = items(value)? else { return None };
        let id = text(id)?;
        let (change, _) = id.split_once('-')?;
        let fields = pairs(fields)?;
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let count = |name: &str| field(name)?.parse::<u64>().ok();
        let kind = match field("k")? {
            "agent" => Kind::Agent,
            "all" => Kind::All,
            "quarantine" => Kind::Quarantine,
            "reinstate" => Kind::Reinstate,
            "unknown" => Kind::Unknown,
            _ => return None,
        };
        Some(Self {
            change: change.parse().ok()?,
            kind,
            name: field("a")?.to_owned(),
            number: count("n")?,
            at: count("t")?,
            version: count("v")?,
        })
    }
}

fn items(value: &Value) -> Option<&[Value]> {
    if let Value::Array(items) = value { Some(items) } else { None }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

fn text(value: &Value) -> Option<String> {
    String::from_utf8(bytes(value)?.to_vec()).ok()
}

fn number(value: &Value) -> Option<u64> {
    if let Value::Int(number) = value { u64::try_from(*number).ok() } else { None }
}

/// A list of names and what belongs to each, one after the other.
pub(super) fn pairs(value: &Value) -> Option<Vec<(String, String)>> {
    let (pairs, []) = items(value)?.as_chunks() else { return None };
    pairs.iter().map(|[name, value]| Some((text(name)?, text(value)?))).collect()
}

fn lines(value: &Value) -> Option<Vec<String>> {
    Some(text(value)?.lines().map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn an_answer_that_is_none_is_not_taken_for_one() {
        let odd = [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![]),
            Value::Array(vec![word("left")]),
            Value::Array(vec![word("left"), Value::Int(-1)]),
            Value::Array(vec![word("left"), Value::Int(1 << 40)]),
            Value::Array(vec![word("allowed"), Value::Int(1)]),
            Value::Array(vec![word("fenced"), Value::Int(1)]),
        ];
        assert!(odd.iter().all(|value| Reply::read(value).is_none()));
        assert_eq!(Reply::read(&Value::Array(vec![word("left"), Value::Int(3)])), Some(Reply::Left(3)));
    }

    #[test]
    fn a_change_is_read_with_all_its_fields_or_not_at_all() {
        let fields = ["k", "agent", "a", "deployer", "n", "7", "t", "1800000000", "v", "0"];
        let entry = |fields: &[&str]| {
            Value::Array(vec![word("12-0"), Value::Array(fields.iter().map(|field| word(field)).collect())])
        };
        let read = Entry::read(&entry(&fields)).unwrap();
        assert_eq!((read.change, read.kind, read.name.as_str()), (12, Kind::Agent, "deployer"));
        assert_eq!((read.number, read.at, read.version), (7, 1_800_000_000, 0));
        assert!(Entry::read(&entry(&fields[..8])).is_none());
        assert!(Entry::read(&entry(&fields[..9])).is_none());
    }
}
