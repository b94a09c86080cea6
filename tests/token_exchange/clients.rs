//! Who the client is.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use remit::identity::{API_KEY_HEADER, FORWARDED_HEADER, SELF_ASSERTED_HEADER};
use serde_json::{Value, json};

use crate::face::{CAPABILITY, EXCHANGE, Face, JWT, REMIT, encoded, form};
use crate::harness::NOW;

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn assertion(more: &Value) -> Value {
    let mut claims =
        json!({"iss": "worker", "sub": "worker", "aud": REMIT, "jti": "j", "iat": NOW - 1, "exp": NOW + 60});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

#[test]
fn nobody_gets_nothing_at_any_endpoint() {
    let face = Face::new(false);
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        let fields = [("token", "x"), ("grant_type", EXCHANGE)];
        let answer = face.send(form(path, &fields).body(encoded(&fields)).unwrap());
        assert_eq!(answer.error().0, "invalid_client");
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers.contains_key("www-authenticate"));
    }
}

#[test]
fn a_client_authenticates_in_one_way() {
    let face = Face::new(false);
    let (bearer, signed) =
        (format!("Bearer {}", face.agent_jwt("worker")), face.worker_key.sign(&assertion(&json!({}))));
    let assertion = [("token", "x.y"), ("client_assertion_type", ASSERTION), ("client_assertion", &signed)];
    let with = |fields: &[(&str, &str)], headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(form("/oauth2/introspect", fields), |request, (name, value)| request.header(*name, *value));
        face.send(request.body(encoded(fields)).unwrap())
    };
    let plain = [("token", "x.y")];
    assert_eq!(with(&plain, &[("authorization", &bearer)]).status, StatusCode::OK);
    assert_eq!(with(&assertion, &[("authorization", &bearer)]).error().0, "invalid_request");
    assert_eq!(with(&plain, &[("authorization", &bearer), (API_KEY_HEADER, "k")]).error().0, "invalid_request");
    assert_eq!(with(&plain, &[("authorization", &bearer), (FORWARDED_HEADER, "f")]).error().0, "invalid_client");
    assert_eq!(with(&plain, &[("authorization", "Basic d29ya2VyOng=")]).error().0, "invalid_client");
    let secret = [("token", "x"), ("client_id", "worker"), ("client_secret", "s")];
    assert_eq!(with(&secret, &[(SELF_ASSERTED_HEADER, "worker")]).error().0, "invalid_client");
    assert_eq!(with(&assertion, &[]).status, StatusCode::OK, "what was refused before did not use it up");
}

#[test]
fn private_key_jwt_is_good_once() {
    let face = Face::new(false);
    let send = |signed: &str, more: &[(&str, &str)]| {
        let mut fields = vec![("token", "x.y"), ("client_assertion_type", ASSERTION), ("client_assertion", signed)];
        fields.extend(more);
        face.send(form("/oauth2/introspect", &fields).body(encoded(&fields)).unwrap())
    };
    let signed = face.worker_key.sign(&assertion(&json!({"aud": format!("{REMIT}/oauth2/token")})));
    assert_eq!(send(&signed, &[("client_id", "worker")]).status, StatusCode::OK);
    assert_eq!(send(&signed, &[]).error().0, "invalid_client");
    for bad in [
        json!({"aud": "https://other.example"}),
        json!({"exp": NOW + 900}),
        json!({"iss": "gateway", "sub": "gateway"}),
    ] {
        let signed = face.worker_key.sign(&assertion(&bad));
        assert_eq!(send(&signed, &[]).error().0, "invalid_client");
    }
    let other = face.idp.sign(&assertion(&json!({"jti": "k"})));
    assert_eq!(send(&other, &[]).error().0, "invalid_client");
    let signed = face.worker_key.sign(&assertion(&json!({"jti": "l"})));
    assert_eq!(send(&signed, &[("client_id", "gateway")]).error().0, "invalid_client");
    let fields = [("token", "x"), ("client_assertion", signed.as_str())];
    let without_type = face.send(form("/oauth2/introspect", &fields).body(encoded(&fields)).unwrap());
    assert_eq!(without_type.error().0, "invalid_client");
}

#[test]
fn a_client_whose_jwt_says_that_somebody_acts_for_it_is_nobody() {
    let face = Face::new(false);
    let acted = face.jwt("worker", Some("worker"), &json!({"act": {"sub": "x"}}));
    let fields = [("token", "x.y")];
    let request = form("/oauth2/introspect", &fields).header("authorization", format!("Bearer {acted}"));
    assert_eq!(face.send(request.body(encoded(&fields)).unwrap()).error().0, "invalid_client");
}

#[test]
fn a_form_is_a_form_in_the_body() {
    let face = Face::new(false);
    let send = |request: axum::http::request::Builder, body: Body| {
        face.send(request.header(SELF_ASSERTED_HEADER, "worker").body(body).unwrap())
    };
    let json = Request::post("/oauth2/token").header("content-type", "application/json");
    assert_eq!(send(json, Body::from("{}")).error().0, "invalid_request");
    assert_eq!(send(Request::post("/oauth2/token"), Body::from("a=b")).error().0, "invalid_request");
    assert_eq!(send(form("/oauth2/introspect?token=x", &[]), Body::from("token=x")).error().0, "invalid_request");
    let huge = format!("token={}", "a".repeat(64 * 1024));
    assert_eq!(send(form("/oauth2/introspect", &[]), Body::from(huge)).error().0, "invalid_request");
    assert_eq!(send(form("/oauth2/introspect", &[]), Body::from("token=%ff")).error().0, "invalid_request");
    assert_eq!(send(Request::get("/oauth2/token"), Body::empty()).status, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn nothing_that_was_sent_stands_in_an_error() {
    let face = Face::new(false);
    let planted = "planted-secret";
    let fields = [
        ("subject_token", planted),
        ("subject_token_type", CAPABILITY),
        ("actor_token", planted),
        ("actor_token_type", JWT),
    ];
    let answer = face.exchange("worker", &fields);
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.body.to_string().contains(planted), "{}", answer.body);
}
