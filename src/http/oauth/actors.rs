//! Who acts for whom in what is shown to others: `sub`, and the `act` chain (RFC 8693 §4.1).

use serde_json::{Value, json};

use super::exchange::Party;

/// The subject of a chain, and the nested actors, the current one outermost.
pub(super) struct Acting {
    /// The user behind the chain; without one its root.
    pub(super) subject: String,
    /// Always there for a chain of two agents.
    pub(super) act: Option<Value>,
}

/// What a chain is to an outsider. `earlier` acted before its root, the last of them first.
pub(super) fn acting<'a>(
    chain: impl Iterator<Item = &'a str>,
    on_behalf_of: Option<&str>,
    earlier: &[Party],
) -> Acting {
    let mut agents = chain.peekable();
    let subject = match on_behalf_of {
        Some(user) => user.to_owned(),
        None => agents.next().unwrap_or_default().to_owned(),
    };
    let before = earlier.iter().rev().map(Party::to_act);
    let actors = before.chain(agents.map(|agent| json!({ "sub": agent })));
    let act = actors.fold(None, |inner: Option<Value>, mut actor| {
        if let (Some(inner), Some(members)) = (inner, actor.as_object_mut()) {
            members.insert("act".to_owned(), inner);
        }
        Some(actor)
    });
    Acting { subject, act }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_actor_is_outermost_and_the_subject_is_no_actor() {
        let Acting { subject, act } = acting(["a", "b", "c"].into_iter(), None, &[]);
        assert_eq!((subject.as_str(), act), ("a", Some(json!({"sub": "c", "act": {"sub": "b"}}))));
    }

    #[test]
    fn with_a_user_behind_it_every_agent_is_an_actor() {
        let Acting { subject, act } = acting(["a", "b"].into_iter(), Some("user:x"), &[]);
        assert_eq!((subject.as_str(), act), ("user:x", Some(json!({"sub": "b", "act": {"sub": "a"}}))));
    }

    #[test]
    fn actors_of_before_stay_innermost() {
        let party = |subject: &str| Party { issuer: "https://i".into(), subject: subject.into() };
        let Acting { act, .. } = acting(["a", "b"].into_iter(), Some("user:x"), &[party("y"), party("z")]);
        let expected = json!({"sub": "b", "act": {"sub": "a", "act":
            {"iss": "https://i", "sub": "y", "act": {"iss": "https://i", "sub": "z"}}}});
        assert_eq!(act, Some(expected));
    }
}
