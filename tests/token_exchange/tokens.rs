//! Introspection, revocation, metadata.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use crate::face::{CAPABILITY, Face, JWT, REMIT};
use crate::harness::NOW;

#[test]
fn a_token_is_shown_to_those_it_concerns() {
    let face = Face::new(false);
    let token = face.workers_token(3);
    assert_eq!(
        face.introspect("eye", &token),
        json!({"active": false}),
        "an auditor needs evidence that may hold the role"
    );
    for agent in ["worker", "gateway"] {
        let seen = face.introspect(agent, &token);
        assert_eq!(seen["active"], true, "{agent}");
        let expected = [
            ("scope", json!("get put")),
            ("client_id", json!("worker")),
            ("token_type", json!("N_A")),
            ("iss", json!(REMIT)),
            ("iat", json!(NOW)),
            ("exp", json!(NOW + 200)),
            ("remaining_uses", json!(3)),
            ("remit_resource", json!(["prod/*"])),
        ];
        for (name, value) in expected {
            assert_eq!(seen[name], value, "{name}");
        }
        assert!(seen.get("aud").is_none(), "it is for anywhere");
    }
    assert_eq!(face.introspect("worker", &token)["remaining_uses"], 3, "looking spends nothing");
}

#[test]
fn what_is_not_good_and_what_is_not_yours_look_the_same() {
    let face = Face::new(false);
    let (mine, revoked) = (face.workers_token(1), face.workers_token(1));
    assert_eq!(face.post("/oauth2/revoke", "worker", &[("token", &revoked)]).status, StatusCode::OK);
    let altered = format!("{}{}", mine.split_at(mine.len() - 1).0, if mine.ends_with('0') { '1' } else { '0' });
    let nothing = json!({"active": false});
    assert_eq!(face.introspect("tool", &mine), nothing, "not in its chain");
    assert_eq!(face.introspect("stranger", &mine), nothing, "not in the policy");
    for token in [revoked.as_str(), altered.as_str(), "x", "x.y", "x.y.z", &face.agent_jwt("worker")] {
        assert_eq!(face.introspect("worker", token), nothing);
    }
    face.engine.clock().advance(std::time::Duration::from_secs(200));
    assert_eq!(face.introspect("worker", &mine), nothing, "expired");
    assert_eq!(face.post("/oauth2/introspect", "worker", &[]).error().0, "invalid_request");
    let hinted = face.post("/oauth2/introspect", "worker", &[("token", "x"), ("token_type_hint", "whatever")]);
    assert_eq!(hinted.status, StatusCode::OK);
}

#[test]
fn revoking_ends_what_was_exchanged_from_it() {
    let face = Face::new(false);
    let (parent, actor) = (face.workers_token(3), face.agent_jwt("tool"));
    let fields = [
        ("subject_token", parent.as_str()),
        ("subject_token_type", CAPABILITY),
        ("actor_token", &actor),
        ("actor_token_type", JWT),
    ];
    let child = face.exchange("worker", &fields).token();
    let other = face.post("/oauth2/revoke", "tool", &[("token", &parent)]);
    assert_eq!((other.status, other.body), (StatusCode::OK, serde_json::Value::Null), "not the client's: no oracle");
    assert_eq!(face.introspect("tool", &child)["active"], true, "and no effect");
    for _ in 0..2 {
        let answer = face.post("/oauth2/revoke", "worker", &[("token", &parent), ("token_type_hint", "x")]);
        assert_eq!((answer.status, answer.body), (StatusCode::OK, serde_json::Value::Null));
    }
    assert_eq!(face.introspect("tool", &child), json!({"active": false}));
    assert_eq!(face.exchange("worker", &fields).error(), ("invalid_request", "TOKEN_REVOKED"));
}

#[test]
fn what_nobody_knows_counts_as_revoked_and_what_can_t_be_is_told() {
    let face = Face::new(false);
    for token in ["x", "x.y", "no-token-at-all"] {
        assert_eq!(face.post("/oauth2/revoke", "worker", &[("token", token)]).status, StatusCode::OK, "{token}");
    }
    // A file's final newline, which is no part of the token that was meant.
    assert_eq!(face.post("/oauth2/revoke", "worker", &[("token", "x.y\n")]).error().0, "invalid_request");
    assert_eq!(face.post("/oauth2/revoke", "worker", &[]).error().0, "invalid_request");
    let jwt = face.agent_jwt("worker");
    assert_eq!(face.post("/oauth2/revoke", "worker", &[("token", &jwt)]).error().0, "unsupported_token_type");
}

#[test]
fn metadata_says_what_is_true() {
    let face = Face::new(false);
    let ask = |path: &str| face.send(Request::get(path).header("host", "evil.example").body(Body::empty()).unwrap());
    let document = ask("/.well-known/oauth-authorization-server").body;
    assert_eq!(document["issuer"], REMIT);
    assert_eq!(document["token_endpoint"], format!("{REMIT}/oauth2/token"));
    assert_eq!(document["introspection_endpoint"], format!("{REMIT}/oauth2/introspect"));
    assert_eq!(document["revocation_endpoint"], format!("{REMIT}/oauth2/revoke"));
    assert_eq!(document["jwks_uri"], format!("{REMIT}/.well-known/jwks.json"));
    assert_eq!(document["response_types_supported"], json!([]));
    assert_eq!(document["token_endpoint_auth_methods_supported"], json!(["private_key_jwt"]));
    assert!(!document["token_endpoint_auth_signing_alg_values_supported"].to_string().contains("none"));
    assert_eq!(ask("/.well-known/jwks.json").status, StatusCode::OK);
    assert_eq!(ask("/.well-known/openid-configuration").status, StatusCode::NOT_FOUND, "it is no OpenID provider");
}
