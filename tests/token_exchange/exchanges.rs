//! A token exchange is a delegation.

use std::borrow::Cow;
use std::time::Duration;

use proptest::prelude::*;
use remit::domain::chain::Wish;
use remit::domain::reason::Reason;
use remit::domain::resource::Pattern;
use remit::events::{Filter, Item, MessageType, Since};
use serde_json::json;

use crate::face::{ACCESS_TOKEN, CAPABILITY, EXCHANGE, Face, ID_TOKEN, JWT, encoded, form};
use crate::harness::NOW;

#[test]
fn a_holder_delegates_to_the_actor() {
    let face = Face::new(false);
    let (parent, actor) = (face.workers_token(3), face.agent_jwt("tool"));
    let answer = face.exchange(
        "worker",
        &[
            ("subject_token", &parent),
            ("subject_token_type", CAPABILITY),
            ("actor_token", &actor),
            ("actor_token_type", JWT),
            ("audience", "gate"),
        ],
    );
    let token = answer.token();
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body = &answer.body;
    assert_eq!((&body["issued_token_type"], &body["token_type"]), (&json!(CAPABILITY), &json!("N_A")));
    assert_eq!((&body["expires_in"], &body["scope"]), (&json!(100), &json!("get")), "the actor's token ends first");
    assert!(body.get("refresh_token").is_none());
    let seen = face.introspect("tool", &token);
    assert_eq!((&seen["sub"], &seen["client_id"]), (&json!("gateway"), &json!("tool")));
    assert_eq!(seen["act"], json!({"sub": "tool", "act": {"sub": "worker"}}));
    assert_eq!((&seen["aud"], &seen["remaining_uses"]), (&json!(["gate"]), &json!(1)));
    assert_eq!(face.introspect("worker", &parent)["remaining_uses"], 2, "the use was moved");
}

#[test]
fn l2_nobody_exchanges_another_holders_token() {
    let face = Face::new(false);
    let (parent, actor) = (face.workers_token(1), face.agent_jwt("tool"));
    let fields = [
        ("subject_token", parent.as_str()),
        ("subject_token_type", CAPABILITY),
        ("actor_token", &actor),
        ("actor_token_type", JWT),
    ];
    assert_eq!(face.exchange("gateway", &fields).error(), ("invalid_request", "TOKEN_WRONG_HOLDER"));
    assert_eq!(face.exchange("tool", &fields).error(), ("invalid_request", "TOKEN_WRONG_HOLDER"));
}

#[test]
fn without_an_actor_token_the_client_would_delegate_to_itself() {
    let face = Face::new(false);
    let (parent, alice) = (face.workers_token(1), face.jwt("alice", None, &json!({})));
    let by_token = face.exchange("worker", &[("subject_token", &parent), ("subject_token_type", CAPABILITY)]);
    assert_eq!(by_token.error(), ("invalid_request", "DELEGATION_CYCLE"));
    let by_user = face.exchange("gateway", &[("subject_token", &alice), ("subject_token_type", JWT)]);
    assert_eq!(by_user.error(), ("invalid_request", "DELEGATION_CYCLE"));
}

#[test]
fn a_user_stands_behind_the_chain_that_the_client_starts() {
    let face = Face::new(false);
    let (alice, actor) = (face.jwt("alice", None, &json!({})), face.agent_jwt("worker"));
    let fields = [
        ("subject_token", alice.as_str()),
        ("subject_token_type", ACCESS_TOKEN),
        ("actor_token", &actor),
        ("actor_token_type", ACCESS_TOKEN),
    ];
    let token = face.exchange("gateway", &fields).token();
    let seen = face.introspect("worker", &token);
    assert_eq!(seen["sub"], "jwt:https://idp.example#alice");
    assert_eq!(seen["act"], json!({"sub": "worker", "act": {"sub": "gateway"}}));
    // Who may start no chain starts none for a user either.
    assert_eq!(face.exchange("tool", &fields).error(), ("unauthorized_client", "DELEGATION_NOT_ALLOWED"));
}

#[test]
fn an_agents_jwt_delegates_to_the_client_that_shows_it() {
    let face = Face::new(false);
    let gateway = face.agent_jwt("gateway");
    let fields = [("subject_token", gateway.as_str()), ("subject_token_type", JWT)];
    let token = face.exchange("worker", &fields).token();
    let seen = face.introspect("worker", &token);
    assert_eq!((&seen["sub"], &seen["act"]), (&json!("gateway"), &json!({"sub": "worker"})));
    let clerk = face.agent_jwt("clerk");
    let third = [fields[0], fields[1], ("actor_token", &clerk), ("actor_token_type", JWT)];
    assert_eq!(face.exchange("worker", &third).error().0, "unauthorized_client");
}

#[test]
fn an_id_token_is_for_the_client_that_it_was_issued_to() {
    let face = Face::new(false);
    let actor = face.agent_jwt("worker");
    let id_token = |audience: &str| face.jwt("alice", Some("worker"), &json!({"aud": audience, "nonce": "n"}));
    let with = |token: &str, kind: &str| {
        let fields = [
            ("subject_token", token),
            ("subject_token_type", kind),
            ("actor_token", &actor),
            ("actor_token_type", JWT),
        ];
        face.exchange("gateway", &fields)
    };
    let token = with(&id_token("gateway"), ID_TOKEN).token();
    assert_eq!(face.introspect("worker", &token)["sub"], "jwt:https://idp.example#alice", "whatever agent it names");
    assert_eq!(with(&id_token("worker"), ID_TOKEN).error().0, "invalid_request");
    assert_eq!(with(&id_token("remit"), JWT).error().0, "invalid_request", "it is no access token");
    assert_eq!(with(&face.jwt("alice", None, &json!({})), ID_TOKEN).error().0, "invalid_request");
}

#[test]
fn an_identity_that_remit_signed_for_the_client_names_the_actor() {
    let face = Face::new(false);
    let parent = face.workers_token(9);
    let with = |identity: &str, kind: &str| {
        let fields = [
            ("subject_token", parent.as_str()),
            ("subject_token_type", CAPABILITY),
            ("actor_token", identity),
            ("actor_token_type", kind),
        ];
        face.exchange("worker", &fields)
    };
    let identity = "urn:remit:token-type:identity";
    let answer = with(&face.forwarded("tool", "worker", &[]), identity);
    assert_eq!(face.introspect("tool", &answer.token())["client_id"], "tool");
    assert_eq!(answer.body["expires_in"], 60, "it ends with the identity");
    assert_eq!(with(&face.forwarded("tool", "gateway", &[]), identity).error().0, "invalid_request", "for another");
    assert_eq!(with(&face.forwarded("tool", "worker", &[]), JWT).error().0, "invalid_request", "of another type");
    let in_a_chain = face.forwarded("tool", "worker", &["gateway", "tool"]);
    assert_eq!(with(&in_a_chain, identity).error().0, "invalid_request", "its chain would be lost");
}

#[test]
fn laundering_is_refused_over_the_wire_too() {
    let face = Face::new(false);
    let actor = face.agent_jwt("worker");
    let with = |more: serde_json::Value, actor: Option<&str>| {
        let alice = face.jwt("alice", None, &more);
        let mut fields = vec![("subject_token", alice.as_str()), ("subject_token_type", JWT)];
        fields.extend(actor.iter().flat_map(|actor| [("actor_token", *actor), ("actor_token_type", JWT)]));
        face.exchange("gateway", &fields).status.as_u16()
    };
    let gateway = json!({"iss": "https://remit.example", "sub": "gateway"});
    assert_eq!(with(json!({"may_act": {"sub": "worker"}}), Some(&actor)), 200);
    assert_eq!(with(json!({"may_act": {"sub": "worker"}}), None), 400);
    assert_eq!(with(json!({"may_act": {"sub": "tool"}}), Some(&actor)), 400);
    assert_eq!(with(json!({"act": gateway}), Some(&actor)), 200);
    assert_eq!(with(json!({"act": {"sub": "worker"}}), Some(&actor)), 400);
    let acted = face.jwt("worker", Some("worker"), &json!({"act": {"sub": "x"}}));
    assert_eq!(with(json!({}), Some(&acted)), 400);
}

#[test]
fn what_is_beyond_the_limits_is_refused_by_its_reason() {
    let face = Face::new(false);
    let (parent, actor, clerk) = (face.workers_token(9), face.agent_jwt("tool"), face.agent_jwt("clerk"));
    let with = |more: &[(&str, &str)]| {
        let mut fields = vec![("subject_token", parent.as_str()), ("subject_token_type", CAPABILITY)];
        if !more.iter().any(|(name, _)| *name == "actor_token") {
            fields.push(("actor_token", &actor));
        }
        fields.push(("actor_token_type", JWT));
        fields.extend(more);
        let answer = face.exchange("worker", &fields);
        let (error, reason) = answer.error();
        (error.to_owned(), reason.to_owned())
    };
    let told = |error: &str, reason: &str| (error.to_owned(), reason.to_owned());
    assert_eq!(with(&[("scope", "delete")]), told("invalid_scope", "CAPABILITY_NOT_GRANTED"));
    assert_eq!(with(&[("scope", "put")]), told("invalid_scope", "CAPABILITY_NOT_GRANTED"));
    assert_eq!(with(&[("remit_resource", "dev/web")]), told("invalid_target", "RESOURCE_NOT_GRANTED"));
    assert_eq!(with(&[("resource", "https://h/x")]), told("invalid_scope", "DELEGATION_WIDENS"));
    assert_eq!(with(&[("remit_resource", "prod/../x")]), told("invalid_target", "RESOURCE_NOT_CANONICAL"));
    assert_eq!(with(&[("actor_token", &clerk)]), told("unauthorized_client", "DELEGATION_NOT_ALLOWED"));
    assert_eq!(with(&[("remit_max_uses", "2")]), told("invalid_request", "USES_NOT_ALLOWED"));
    assert_eq!(with(&[("remit_ttl_seconds", "150")]), told("invalid_request", "LIFETIME_NOT_ALLOWED"));
    assert_eq!(face.introspect("worker", &parent)["remaining_uses"], 9, "nothing was spent");
}

#[test]
fn a_chain_grows_by_exchanges_up_to_its_depth() {
    let face = Face::new(false);
    let (gateway, tool, clerk) = (face.agent_jwt("gateway"), face.agent_jwt("tool"), face.agent_jwt("clerk"));
    let hand_on = ("remit_delegatable", "true");
    let first = [("subject_token", gateway.as_str()), ("subject_token_type", JWT), hand_on];
    let first = face.exchange("worker", &first).token();
    let next = |token, actor| {
        [
            ("subject_token", token),
            ("subject_token_type", CAPABILITY),
            ("actor_token", actor),
            ("actor_token_type", JWT),
            hand_on,
        ]
    };
    let second = face.exchange("worker", &next(&first, &tool)).token();
    let third = face.exchange("tool", &next(&second, &clerk));
    assert_eq!(third.error(), ("invalid_request", "DELEGATION_DEPTH_EXCEEDED"));
}

#[test]
fn a_request_that_is_not_of_its_form_is_told_so() {
    let face = Face::new(false);
    let (parent, actor) = (face.workers_token(9), face.agent_jwt("tool"));
    let (subject, kind) = (("subject_token", parent.as_str()), ("subject_token_type", CAPABILITY));
    let unsupported = face.post("/oauth2/token", "worker", &[("grant_type", "client_credentials")]);
    assert_eq!(unsupported.error().0, "unsupported_grant_type");
    assert_eq!(face.post("/oauth2/token", "worker", &[]).error().0, "invalid_request");
    for fields in [
        vec![kind],
        vec![subject],
        vec![subject, ("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")],
        vec![subject, ("subject_token_type", JWT)],
        vec![subject, kind, ("actor_token", &actor)],
        vec![subject, kind, ("actor_token_type", JWT)],
        vec![subject, kind, ("actor_token", &actor), ("actor_token_type", ID_TOKEN)],
        vec![subject, kind, ("actor_token", &parent), ("actor_token_type", CAPABILITY)],
        vec![subject, kind, ("actor_token", "x.y.z"), ("actor_token_type", JWT)],
        vec![subject, kind, subject],
        vec![subject, kind, ("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")],
        vec![subject, kind, ("requested_token_type", ACCESS_TOKEN)],
    ] {
        assert_eq!(face.exchange("worker", &fields).error().0, "invalid_request", "{:?}", fields.last());
    }
    let alice = face.jwt("alice", None, &json!({}));
    let as_actor = vec![subject, kind, ("actor_token", alice.as_str()), ("actor_token_type", JWT)];
    assert_eq!(face.exchange("worker", &as_actor).error().0, "invalid_request", "a user is no actor");
}

const CAPABILITIES: [&str; 3] = ["get", "put", "delete"];
const RESOURCES: [&str; 5] = ["prod/web", "prod/*", "dev/web", "*", "https://h/a"];

/// What is wished for: places in the lists above, uses, lifetime, whether it may be handed on, where it is for.
type Asked = (Vec<&'static str>, Vec<&'static str>, Option<u32>, Option<u64>, bool, Option<&'static str>);

fn asked() -> impl Strategy<Value = Asked> {
    (
        proptest::sample::subsequence(CAPABILITIES.to_vec(), 1..=3),
        proptest::sample::subsequence(RESOURCES.to_vec(), 1..=3),
        proptest::option::of(1..3_u32),
        proptest::option::of(prop_oneof![1..100_u64, 150..400_u64]),
        any::<bool>(),
        proptest::option::of(Just("gate")),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same wish in process: the same answer, and a token that is in nothing wider. Only its life is shorter, by
    /// the actor's token.
    #[test]
    fn an_exchange_never_yields_more_than_attenuate_gives((cap, res, uses, ttl, delegatable, place) in asked()) {
        thread_local! {
            static FACE: (Face, String, String) = {
                let face = Face::new(false);
                let (parent, actor) = (face.workers_token(1_000_000), face.agent_jwt("tool"));
                (face, parent, actor)
            };
        }
        FACE.with(|(face, parent, actor)| {
            let wish = Wish {
                to: "tool",
                capabilities: cap.iter().map(|name| Cow::Borrowed(*name)).collect(),
                resources: res.iter().map(|text| Pattern::parse(*text).unwrap()).collect(),
                max_uses: uses,
                ttl_seconds: ttl,
                max_depth: None,
                delegatable,
                audience: place.iter().map(|name| Cow::Borrowed(*name)).collect(),
                task: None,
                on_behalf_of: None,
            };
            let direct = face.delegate("worker", Some(parent), wish).outcome;
            let (scope, uses, ttl) = (cap.join(" "), uses.map(|n| n.to_string()), ttl.map(|n| n.to_string()));
            let mut fields = vec![("subject_token", parent.as_str()), ("subject_token_type", CAPABILITY)];
            fields.extend([("actor_token", actor.as_str()), ("actor_token_type", JWT), ("scope", &scope)]);
            fields.extend(res.iter().map(|text| ("remit_resource", *text)));
            fields.extend(uses.iter().map(|text| ("remit_max_uses", text.as_str())));
            fields.extend(ttl.iter().map(|text| ("remit_ttl_seconds", text.as_str())));
            fields.extend(place.iter().map(|name| ("audience", *name)));
            fields.push(("remit_delegatable", if delegatable { "true" } else { "false" }));
            let answer = face.exchange("worker", &fields);
            match direct {
                Err(denial) => prop_assert_eq!(answer.error().1, denial.reason().as_str()),
                Ok(_) if answer.status != 200 => prop_assert_eq!(answer.error().1, "LIFETIME_NOT_ALLOWED"),
                Ok(minted) => {
                    let seen = face.introspect("tool", &answer.token());
                    prop_assert_eq!(&seen["scope"], &json!(minted.capabilities.join(" ")));
                    prop_assert_eq!(&seen["remit_resource"], &json!(minted.resources));
                    prop_assert_eq!(&seen["max_uses"], &json!(minted.max_uses));
                    prop_assert!(seen["exp"].as_u64().unwrap() <= minted.expires_at.seconds());
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn an_exchange_that_is_refused_stands_in_the_audit_log() {
    let face = Face::new(false);
    let mut watch = face.engine.events().subscribe(Since::Now, Filter::default()).unwrap();
    let alice = face.jwt("alice", None, &json!({"may_act": {"sub": "tool"}}));
    let canary = format!("{}canary", face.workers_token(1));
    for _ in 0..20 {
        let not_a_jwt = face.exchange("clerk", &[("subject_token", &canary), ("subject_token_type", JWT)]);
        assert_eq!(not_a_jwt.error().0, "invalid_request");
        let not_named = face.exchange("gateway", &[("subject_token", &alice), ("subject_token_type", JWT)]);
        assert_eq!(not_named.error().1, "DELEGATION_NOT_ALLOWED");
        let fields = [("subject_token", canary.as_str()), ("subject_token_type", CAPABILITY), ("scope", "get get")];
        assert_eq!(face.exchange("worker", &fields).error().0, "invalid_scope");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut told = Vec::new();
    while told.len() < 4 {
        let Some(Item::Event(event)) = runtime.block_on(watch.next()) else { continue };
        assert_eq!(event.message_type, MessageType::Delegate);
        assert!(!format!("{event:?}").contains("canary"), "{event:?}");
        told.push((event.caller.to_string(), event.from_agent.to_string(), event.reason, event.chain.len()));
    }
    let refused = |who: &str, reason| (who.to_owned(), who.to_owned(), reason, 1);
    assert_eq!(told[0].2, Reason::Allowed, "the token that is shown");
    let wanted = [
        refused("clerk", Reason::RequestMalformed),
        refused("gateway", Reason::DelegationNotAllowed),
        refused("worker", Reason::RequestMalformed),
    ];
    assert_eq!(told[1..], wanted, "one each, and not twenty");
}

/// The longest lifetime of a token under that policy, in seconds.
const LATER: u64 = 300;
/// One attempt is enough.
const QUICK_TO_QUARANTINE: &str =
    r#""quarantine_after": {"escalation_attempts": 1, "reuse_attempts": 1, "window_seconds": 60}"#;

/// So quick, and it has run for so long that wishes beyond an agent's own set count.
fn quick_to_quarantine() -> Face {
    let face = Face::with_policy(QUICK_TO_QUARANTINE);
    face.engine.clock().advance(Duration::from_secs(LATER));
    face
}

/// What the provider says then.
fn later_jwt(face: &Face, subject: &str, agent: &str) -> String {
    face.jwt(subject, Some(agent), &json!({"iat": NOW + LATER, "exp": NOW + LATER + 100}))
}

#[test]
fn who_asks_for_too_much_is_quarantined_and_not_whose_evidence_it_shows() {
    let face = quick_to_quarantine();
    let gateway = later_jwt(&face, "gateway", "gateway");
    let fields = [
        ("grant_type", EXCHANGE),
        ("scope", "drop"),
        ("remit_resource", "prod/web"),
        ("subject_token", gateway.as_str()),
        ("subject_token_type", JWT),
    ];
    let by_name = face.post("/oauth2/token", "worker", &fields);
    assert_eq!(by_name.error(), ("invalid_scope", "CAPABILITY_NOT_GRANTED"));
    let taken = || face.engine.quarantines(&face.engine.policy().policy);
    assert!(taken().is_empty(), "a name is nobody's word");
    let bearer = format!("Bearer {}", later_jwt(&face, "worker", "worker"));
    let by_token = form("/oauth2/token", &fields).header("authorization", bearer);
    assert_eq!(
        face.send(by_token.body(encoded(&fields)).unwrap()).error(),
        ("invalid_scope", "CAPABILITY_NOT_GRANTED")
    );
    assert_eq!(taken().into_iter().collect::<Vec<_>>(), [("worker".to_owned(), vec!["automatic"])]);
}

#[test]
fn a_gateway_that_passes_on_what_users_wish_is_not_quarantined_by_its_users() {
    let face = quick_to_quarantine();
    let bearer = format!("Bearer {}", later_jwt(&face, "gateway", "gateway"));
    let alice = later_jwt(&face, "alice", "gateway");
    let actor = later_jwt(&face, "worker", "worker");
    let own = later_jwt(&face, "gateway", "gateway");
    let refused_for = |subject: &str| {
        let fields = [
            ("grant_type", EXCHANGE),
            ("scope", "drop"),
            ("remit_resource", "prod/web"),
            ("subject_token", subject),
            ("subject_token_type", JWT),
            ("actor_token", actor.as_str()),
            ("actor_token_type", JWT),
        ];
        let asked = form("/oauth2/token", &fields).header("authorization", bearer.as_str());
        let answer = face.send(asked.body(encoded(&fields)).unwrap());
        assert_eq!(answer.error(), ("invalid_scope", "CAPABILITY_NOT_GRANTED"));
        face.engine.quarantines(&face.engine.policy().policy).into_keys().collect::<Vec<_>>()
    };
    for _ in 0..3 {
        assert!(refused_for(&alice).is_empty(), "it is the user's wish");
    }
    assert_eq!(refused_for(&own), ["gateway"], "it is its own");
}
