//! Offline JWTs: one use, one place, a minute; and never taken back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use remit::domain::token::TokenId;
use remit::engine::TokenTarget;
use serde_json::{Value, json};

use crate::face::{ACCESS_TOKEN, Answer, CAPABILITY, Face, JWT, REMIT};
use crate::harness::NOW;

fn part(token: &str, place: usize) -> Value {
    let text = token.split('.').nth(place).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

fn offline(face: &Face, parent: &str, actor: &str, more: &[(&str, &str)]) -> Answer {
    let mut fields = vec![("subject_token", parent), ("subject_token_type", CAPABILITY)];
    fields.extend([("actor_token", actor), ("actor_token_type", JWT), ("requested_token_type", ACCESS_TOKEN)]);
    fields.extend(more);
    face.exchange("worker", &fields)
}

#[test]
fn an_offline_jwt_is_an_access_token_that_says_everything() {
    let face = Face::new(true);
    let (parent, actor) = (face.workers_token(3), face.agent_jwt("tool"));
    let answer = offline(&face, &parent, &actor, &[("audience", "https://shop.example")]);
    let token = answer.token();
    assert_eq!(answer.body["issued_token_type"], ACCESS_TOKEN);
    assert_eq!((&answer.body["token_type"], &answer.body["expires_in"]), (&json!("Bearer"), &json!(60)));
    assert_eq!(part(&token, 0)["typ"], "at+jwt");
    let mut claims = part(&token, 1);
    let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
    let expected = json!({
        "iss": REMIT, "sub": "gateway", "aud": "https://shop.example", "client_id": "worker", "scope": "get",
        "remit_resource": ["prod/web"], "iat": NOW, "exp": NOW + 60,
        "act": {"sub": "tool", "act": {"sub": "worker"}},
    });
    assert_eq!(claims, expected);
    assert_eq!(face.introspect("worker", &parent)["remaining_uses"], 2, "a use is spent at the exchange");
    let id = TokenId::parse(jti.as_str().unwrap()).unwrap();
    assert_eq!(
        face.engine.state().ledger().unwrap().look_up(id).map(|known| known.left),
        Some(0),
        "and nobody can spend it again"
    );
    let _: TokenTarget<'_> = TokenTarget::Id(id);
}

#[test]
fn each_offline_jwt_costs_a_use() {
    let face = Face::new(true);
    let (parent, actor) = (face.workers_token(2), face.agent_jwt("tool"));
    let audience = [("audience", "shop")];
    offline(&face, &parent, &actor, &audience).token();
    offline(&face, &parent, &actor, &audience).token();
    let third = offline(&face, &parent, &actor, &audience);
    assert_eq!(third.error(), ("invalid_request", "TOKEN_USES_EXHAUSTED"));
}

#[test]
fn an_offline_jwt_is_for_one_place_and_one_use() {
    let face = Face::new(true);
    let (parent, actor) = (face.workers_token(9), face.agent_jwt("tool"));
    let error = |more: &[(&str, &str)]| offline(&face, &parent, &actor, more).error().0.to_owned();
    let shop = ("audience", "shop");
    assert_eq!(error(&[]), "invalid_target");
    assert_eq!(error(&[shop, ("audience", "store")]), "invalid_target");
    assert_eq!(error(&[shop, ("remit_max_uses", "2")]), "invalid_request");
    assert_eq!(error(&[shop, ("remit_delegatable", "true")]), "invalid_request");
    assert_eq!(error(&[shop, ("remit_ttl_seconds", "61")]), "invalid_request");
    assert_eq!(face.introspect("worker", &parent)["remaining_uses"], 9, "nothing was spent");
}

#[test]
fn an_offline_jwt_is_for_nothing_that_conditions_are_about() {
    let grant = |when: &str| {
        format!(r#""grants": [{{"agent": "gateway", "capabilities": ["get", "put"], "resources": ["*"]{when}}}]"#)
    };
    for (members, place) in [
        (r#""conditions": [{"require": "true"}]"#.to_owned(), Some("conditions[0].require")),
        (
            r#""conditions": [{"capabilities": ["put"], "require": "true"}, {"resources": ["prod/web"], "require": "1 == 1"}]"#
                .to_owned(),
            Some("conditions[1].require"),
        ),
        (r#""conditions": [{"capabilities": ["put"], "require": "false"}]"#.to_owned(), None),
        (r#""conditions": [{"capabilities": ["get"], "resources": ["dev/*"], "require": "false"}]"#.to_owned(), None),
        (grant(r#", "when": "context.approved""#), Some("grants[0].when")),
        (grant(""), None),
    ] {
        let face = Face::with_policy(&members);
        let (parent, actor) = (face.workers_token(3), face.agent_jwt("tool"));
        let answer = offline(&face, &parent, &actor, &[("audience", "shop")]);
        let left = &face.introspect("worker", &parent)["remaining_uses"];
        if let Some(place) = place {
            assert_eq!(answer.error(), ("unauthorized_client", "CONDITION_NOT_MET"), "{members}");
            assert!(answer.body["error_description"].as_str().unwrap().contains(place), "{}", answer.body);
            assert_eq!(left, 3, "nothing was spent");
            // A token is asked for at each use, and can be had.
            let fields = [("subject_token", parent.as_str()), ("subject_token_type", CAPABILITY)];
            let actor = [("actor_token", actor.as_str()), ("actor_token_type", JWT)];
            face.exchange("worker", &[fields, actor].concat()).token();
        } else {
            answer.token();
            assert_eq!(left, 2, "{members}");
        }
    }
}

#[test]
fn remit_takes_no_offline_jwt_back() {
    let face = Face::new(true);
    let (parent, actor) = (face.workers_token(3), face.agent_jwt("tool"));
    let token = offline(&face, &parent, &actor, &[("audience", "remit")]).token();
    let as_subject = [
        ("subject_token", token.as_str()),
        ("subject_token_type", JWT),
        ("actor_token", &actor),
        ("actor_token_type", JWT),
    ];
    assert_eq!(face.exchange("gateway", &as_subject).error().0, "invalid_request");
    let as_actor = [
        ("subject_token", parent.as_str()),
        ("subject_token_type", CAPABILITY),
        ("actor_token", &token),
        ("actor_token_type", JWT),
    ];
    assert_eq!(face.exchange("worker", &as_actor).error().0, "invalid_request");
    assert_eq!(face.introspect("worker", &token), json!({"active": false}));
    let identity = [as_actor[0], as_actor[1], as_actor[2], ("actor_token_type", "urn:remit:token-type:identity")];
    assert_eq!(face.exchange("worker", &identity).error().0, "invalid_request");
}

#[test]
fn an_offline_jwt_keeps_every_actor() {
    let face = Face::new(true);
    let act = json!({"iss": REMIT, "sub": "gateway", "act": {"sub": "x-first"}});
    let (alice, actor) = (face.jwt("alice", None, &json!({"act": act})), face.agent_jwt("worker"));
    let fields = [
        ("subject_token", alice.as_str()),
        ("subject_token_type", JWT),
        ("actor_token", &actor),
        ("actor_token_type", JWT),
        ("requested_token_type", JWT),
        ("audience", "shop"),
    ];
    let answer = face.exchange("gateway", &fields);
    let claims = part(&answer.token(), 1);
    assert_eq!(claims["sub"], "jwt:https://idp.example#alice");
    let first = json!({"iss": "https://idp.example", "sub": "x-first"});
    assert_eq!(claims["act"], json!({"sub": "worker", "act": {"sub": "gateway", "act": first}}));
    assert_eq!((&answer.body["issued_token_type"], &answer.body["token_type"]), (&json!(JWT), &json!("N_A")));
}
