//! Pages of a search: how much, and from where on.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value};

use super::question::{Malformed, object};
use crate::domain::limits;
use crate::domain::policy::PolicyId;
use crate::engine::Sought;

/// A place in the policy's list, bound to the search and the policy that it is a place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) from: usize,
    pub(super) most: usize,
    of: u64,
}

impl Page {
    /// The page that the body asks for.
    pub(super) fn parse(body: &Map<String, Value>, sought: Sought<'_>, policy: &PolicyId) -> Result<Self, Malformed> {
        let of = fingerprint(body, sought, policy);
        let Some(page) = body.get("page") else { return Ok(Self { from: 0, most: limits::SEARCH_RESULTS, of }) };
        let page = object("page", page)?;
        let most = match page.get("limit") {
            None => limits::SEARCH_RESULTS,
            Some(limit) => {
                let limit = limit.as_u64().ok_or_else(|| Malformed::new("page.limit", "it is no whole number"))?;
                usize::try_from(limit).unwrap_or(usize::MAX).min(limits::SEARCH_CANDIDATES)
            }
        };
        let from = match page.get("token") {
            None => 0,
            Some(Value::String(token)) if token.is_empty() => 0,
            Some(Value::String(token)) => place(token, of)?,
            Some(_) => return Err(Malformed::new("page.token", "it is no string")),
        };
        Ok(Self { from, most, of })
    }

    /// What the client sends for the page that begins here; empty after the last.
    pub(super) fn token(&self, next: Option<usize>) -> String {
        next.map(|from| format!("{from:x}.{:016x}", self.of)).unwrap_or_default()
    }
}

fn place(token: &str, of: u64) -> Result<usize, Malformed> {
    let parts = token.split_once('.').and_then(|(from, of)| {
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let is_ours = hex(from) && hex(of) && of.len() == 16;
        is_ours.then(|| Some((usize::from_str_radix(from, 16).ok()?, u64::from_str_radix(of, 16).ok()?))).flatten()
    });
    match parts {
        Some((from, its)) if its == of => Ok(from),
        Some(_) => Err(Malformed::new(
            "page.token",
            "it is of another search, or the policy changed: ask the same as for the page before, or begin again",
        )),
        None => Err(Malformed::new("page.token", "it is none that was given out")),
    }
}

/// What two requests for pages of one search have in common. It guards against slips, not against attacks: whoever
/// makes one up is answered no more than by the search from its beginning.
fn fingerprint(body: &Map<String, Value>, sought: Sought<'_>, policy: &PolicyId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sought, &policy.digest).hash(&mut hasher);
    for (name, value) in body.iter().filter(|(name, _)| *name != "page") {
        (name, value).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SOUGHT: Sought<'static> = Sought::Subjects("user");

    fn policy(digest: &str) -> PolicyId {
        PolicyId { revision: 1, digest: digest.into() }
    }

    fn parse(body: &Value) -> Result<Page, Malformed> {
        Page::parse(body.as_object().unwrap(), SOUGHT, &policy("d"))
    }

    fn body(page: &Value) -> Value {
        json!({"action": {"name": "read"}, "page": page})
    }

    #[test]
    fn a_page_goes_on_where_the_one_before_ended() {
        let first = parse(&body(&json!({"limit": 2}))).unwrap();
        assert_eq!((first.from, first.most), (0, 2));
        let second = parse(&body(&json!({"token": first.token(Some(17))}))).unwrap();
        assert_eq!((second.from, second.most), (17, 100));
        assert_eq!(second.token(None), "");
        assert_eq!(parse(&json!({})).unwrap().most, 100);
        assert_eq!(parse(&body(&json!({"limit": 1_000_000}))).unwrap().most, 1000);
        assert_eq!(parse(&body(&json!({"limit": 0, "token": ""}))).unwrap().most, 0);
    }

    #[test]
    fn a_token_is_good_for_its_search_and_policy_alone() {
        let token = parse(&body(&json!({}))).unwrap().token(Some(1));
        let with = json!({"action": {"name": "write"}, "page": {"token": token}});
        assert!(parse(&with).unwrap_err().to_string().contains("another search"));
        let same = body(&json!({"token": token}));
        let same = same.as_object().unwrap();
        assert!(Page::parse(same, SOUGHT, &policy("d")).is_ok());
        assert!(Page::parse(same, SOUGHT, &policy("e")).is_err());
        assert!(Page::parse(same, Sought::Subjects("agent"), &policy("d")).is_err());
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for bad in [
            json!("x"),
            json!({"limit": -1}),
            json!({"limit": 1.5}),
            json!({"limit": "1"}),
            json!({"token": 1}),
            json!({"token": "x"}),
            json!({"token": "+1.0000000000000000"}),
            json!({"token": "1.1"}),
            json!({"token": "fffffffffffffffff.0000000000000000"}),
        ] {
            assert!(parse(&body(&bad)).is_err(), "{bad}");
        }
    }
}
