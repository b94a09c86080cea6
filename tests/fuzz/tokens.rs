//! Tokens: as a text that anybody may send, and what an issuer that holds a key may have sealed.

use std::collections::BTreeSet;

use remit::domain::reason::Reason;
use remit::domain::resource::Resource;
use remit::domain::token::Claims;
use remit::keyring::{Key, Keyring};
use serde_json::Value;

use crate::campaign::{Outcome, Target};
use crate::harness::seal;
use crate::texts::has_every_member;

/// Those of `tests/vectors`: one that others hold too, and one of our own.
const SHARED: [u8; 32] = counted(0);
const OWN: [u8; 64] = counted(100);

const fn counted<const LENGTH: usize>(from: u8) -> [u8; LENGTH] {
    let mut bytes = [from; LENGTH];
    let mut at = 1;
    while at < LENGTH {
        bytes[at] = bytes[at - 1] + 1;
        at += 1;
    }
    bytes
}

fn keyring() -> Keyring {
    Keyring::new(vec![Key::new(&SHARED, true).unwrap(), Key::new(&OWN, false).unwrap()]).unwrap()
}

/// Opens it; if that succeeds, everything that it says is of its form, and it says it in one way.
fn open(keyring: &Keyring, token: &str) -> Outcome {
    let mut buffer = Vec::new();
    let opened = match keyring.open(token, &mut buffer) {
        Ok(opened) => opened,
        Err(denial) => {
            assert!(matches!(denial.reason(), Reason::TokenMalformed | Reason::TokenSealInvalid), "{denial:?}");
            return Outcome::Refused;
        }
    };
    let claims = opened.claims();
    let again = claims.to_payload();
    let read = Claims::parse(&again).unwrap();
    assert_eq!(&read, claims, "written and read again it says another thing");
    assert_eq!(read.to_payload(), again);
    assert!(claims.expires_at > claims.issued_at && claims.max_uses > 0 && (1..=16).contains(&claims.depth()));
    assert_eq!([claims.chain.last(), claims.chain.iter().rev().nth(1)], [Some(&claims.holder), Some(&claims.issuer)]);
    for pattern in &claims.resources {
        for outside in ["/data/../etc", "..", "a/./b", "", "/", "a%2fb"] {
            assert!(Resource::parse(outside).is_err_and(|_| pattern.as_str() != outside));
        }
    }
    let payload = seal::payload(token);
    same_as_another_reader(&payload, claims);
    Outcome::Accepted
}

/// What a reader who knows nothing of ours finds in the payload; the names are each there once.
fn same_as_another_reader(payload: &[u8], claims: &Claims<'_>) {
    let read: Value = serde_json::from_slice(payload).unwrap();
    assert!(has_every_member(payload, &read), "a name stands twice");
    let texts = |name: &str| -> Option<Vec<&str>> { read.get(name)?.as_array()?.iter().map(Value::as_str).collect() };
    assert_eq!((read["iss"].as_str(), read["sub"].as_str()), (Some(&*claims.issuer), Some(&*claims.holder)));
    assert_eq!(texts("cap").unwrap(), claims.capabilities);
    assert!(
        texts("res").unwrap().into_iter().eq(claims.resources.iter().map(remit::domain::resource::Pattern::as_str))
    );
    let numbers = ["max_uses", "iat", "exp"].map(|name| read[name].as_u64().unwrap());
    assert_eq!(numbers, [u64::from(claims.max_uses), claims.issued_at, claims.expires_at]);
    assert_eq!(read["delegatable"].as_bool(), Some(claims.delegatable));
    assert_eq!(read.get("jti").is_some(), claims.id.is_some());
    assert_eq!(texts("aud").unwrap_or_default(), claims.audience);
    assert!(read.get("aud").is_none() || !claims.audience.is_empty());
    if let Some(chain) = texts("chain").filter(|chain| !chain.is_empty()) {
        assert_eq!(chain, claims.chain);
    }
    let known = "iss sub cap res max_uses iat exp delegatable jti kid chain root par max_depth aud obo task";
    let known: BTreeSet<&str> = known.split(' ').collect();
    assert!(read.as_object().unwrap().keys().all(|name| known.contains(name.as_str())));
}

#[test]
fn a_token_that_opens_was_sealed_byte_for_byte() {
    let target = Target { name: "token", longest: 4200, executions: 100_000, cost: 1 };
    let keyring = keyring();
    target.run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return Outcome::Refused };
        let outcome = open(&keyring, text);
        if outcome == Outcome::Accepted {
            let payload = seal::payload(text);
            assert!([&SHARED[..], &OWN[..]].into_iter().any(|key| seal::seal(key, &payload) == text));
        }
        outcome
    });
}

#[test]
fn a_sealed_payload_that_opens_says_one_thing() {
    let target = Target { name: "claims", longest: 3000, executions: 60_000, cost: 1 };
    let keyring = keyring();
    let (mut ours, mut foreign) = (0_u64, 0_u64);
    target.run(|payload| {
        let outcomes = [&SHARED[..], &OWN[..]].map(|key| open(&keyring, &seal::seal(key, payload)));
        // Another issuer's tokens open under the key that it holds, and under no other.
        assert!(outcomes[1] == Outcome::Refused || outcomes[0] == Outcome::Accepted);
        ours += u64::from(outcomes[1] == Outcome::Accepted);
        foreign += u64::from(outcomes[0] != outcomes[1]);
        outcomes[0]
    });
    assert!(ours > 0 && foreign > 0, "{ours} and {foreign}");
}
