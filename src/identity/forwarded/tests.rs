use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::{Map, Value, json};

use super::*;
use crate::dev_folder::private_file;
use crate::domain::agent::AgentName;
use crate::domain::caller::IdentityMethod;

const NOW: Timestamp = Timestamp::from_seconds(1_780_000_000);
const ISSUER: &str = "https://remit.example";

fn forwarding(ttl_seconds: u64) -> Forwarding {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("forward.key");
    private_file::create(&key, &KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem()).unwrap();
    let config = Config { signing_key: Some(key), issuer: Some(ISSUER.to_owned()), ttl_seconds, ..Config::default() };
    Forwarding::new(&config, NOW).unwrap()
}

fn identity(method: IdentityMethod) -> VerifiedIdentity {
    VerifiedIdentity {
        agent: AgentName::parse("agent-deployer").unwrap(),
        subject: "user-7".into(),
        method,
        issuer: "https://idp.example".into(),
        claims: Arc::new(Map::from_iter([("team".to_owned(), json!(["a", "b"]))])),
        verified_at: NOW,
    }
}

fn introduction<'a>(identity: &'a VerifiedIdentity, chain: &'a [Arc<str>]) -> Introduction<'a> {
    Introduction { identity, audience: "svc-gate", chain, on_behalf_of: Some("jwt:https://idp.example#u"), id: "d-1" }
}

fn told(forwarding: &Forwarding, jwt: &str) -> Map<String, Value> {
    forwarding.signer().unwrap().open(JwtType::ForwardedIdentity, jwt, NOW).unwrap()
}

#[test]
fn says_who_how_for_whom_and_for_how_long() {
    let forwarding = forwarding(60);
    let identity = identity(IdentityMethod::Jwt);
    let chain = ["agent-coordinator", "agent-analyst", "agent-deployer"].map(Arc::from);
    let jwt = forwarding.sign(&introduction(&identity, &chain), NOW).unwrap();
    let now = NOW.seconds();
    let wanted = json!({
        "iss": ISSUER, "aud": "svc-gate", "iat": now, "exp": now + 60, "jti": "d-1",
        "sub": "user-7", "idp": "https://idp.example", "agent": "agent-deployer", "method": "JWT",
        "verified_at": now, "is_self_asserted": false, "claims": {"team": ["a", "b"]},
        "act": {"sub": "agent-deployer", "act": {"sub": "agent-analyst", "act": {"sub": "agent-coordinator"}}},
        "obo": "jwt:https://idp.example#u",
    });
    assert_eq!(Value::Object(told(&forwarding, &jwt)), wanted);
}

#[test]
fn what_is_not_there_is_not_told() {
    let forwarding = forwarding(60);
    let identity = VerifiedIdentity { claims: Arc::default(), ..identity(IdentityMethod::Spiffe) };
    for chain in [&[][..], &["agent-deployer".into()]] {
        let introduction = Introduction { on_behalf_of: None, ..introduction(&identity, chain) };
        let told = told(&forwarding, &forwarding.sign(&introduction, NOW).unwrap());
        assert!(["act", "obo", "claims"].iter().all(|name| !told.contains_key(*name)), "{told:?}");
    }
}

#[test]
fn the_receiver_learns_who_it_is_and_that_it_was_forwarded() {
    let forwarding = forwarding(60);
    let shown = identity(IdentityMethod::Jwt);
    let jwt = forwarding.sign(&introduction(&shown, &[]), NOW).unwrap();
    let wanted = VerifiedIdentity { method: IdentityMethod::Forwarded, ..shown };
    assert_eq!(forwarding.verify_for("svc-gate", &jwt, NOW), Ok(wanted.clone()));
    assert!(!wanted.is_self_asserted());
    assert!(forwarding.verify_for("svc-other", &jwt, NOW).is_err(), "another receiver");
    assert!(forwarding.verify(&jwt, NOW).is_err(), "Remit is not the receiver");
    let for_remit = Introduction { audience: ISSUER, ..introduction(&wanted, &[]) };
    assert!(forwarding.verify(&forwarding.sign(&for_remit, NOW).unwrap(), NOW).is_ok());
}

#[test]
fn as_a_callers_own_evidence_it_tells_of_nobody_else() {
    let forwarding = forwarding(60);
    let of = |method, chain: &[&str], user| {
        let (identity, chain) = (identity(method), chain.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>());
        let told = Introduction { audience: ISSUER, on_behalf_of: user, ..introduction(&identity, &chain) };
        let jwt = forwarding.sign(&told, NOW).unwrap();
        assert!(forwarding.verify(&jwt, NOW).is_ok());
        forwarding.verify_own(&jwt, NOW)
    };
    let (alone, chain) = (&["agent-deployer"][..], &["agent-coordinator", "agent-deployer"][..]);
    assert_eq!(of(IdentityMethod::Jwt, alone, None), Ok(()));
    assert!(of(IdentityMethod::Jwt, chain, None).is_err(), "the chain would be forgotten");
    assert!(of(IdentityMethod::Jwt, alone, Some("jwt:https://idp.example#u")).is_err(), "so would the user");
    assert!(of(IdentityMethod::EnforcementPoint, alone, None).is_err(), "and whose word it was");
}

#[test]
fn what_nobody_verified_is_never_signed() {
    let forwarding = forwarding(60);
    let name = identity(IdentityMethod::SelfAsserted);
    assert_eq!(forwarding.sign(&introduction(&name, &[]), NOW), Err(Unsigned::SelfAsserted));
}

#[test]
fn without_a_key_nothing_is_signed_or_believed() {
    let none = Forwarding::default();
    let identity = identity(IdentityMethod::Jwt);
    assert_eq!(none.sign(&introduction(&identity, &[]), NOW), Err(Unsigned::NoKey));
    assert!(none.verify("a.b.c", NOW).is_err() && none.verify_for("x", "a.b.c", NOW).is_err());
    assert_eq!((none.published(NOW), none.reload(NOW).unwrap()), (None, false));
}

#[test]
fn another_keys_word_is_not_believed() {
    let (one, other) = (forwarding(60), forwarding(60));
    let identity = identity(IdentityMethod::Jwt);
    let jwt = one.sign(&introduction(&identity, &[]), NOW).unwrap();
    assert!(other.verify_for("svc-gate", &jwt, NOW).is_err());
}

#[test]
fn it_lives_as_long_as_configured_and_never_more_than_a_minute() {
    let identity = identity(IdentityMethod::Jwt);
    for (ttl, life) in [(5, 5), (60, 60), (900, 60)] {
        let forwarding = forwarding(ttl);
        let jwt = forwarding.sign(&introduction(&identity, &[]), NOW).unwrap();
        let at = |seconds: u64| forwarding.verify_for("svc-gate", &jwt, NOW.after(Duration::from_secs(seconds)));
        assert!(at(life - 1).is_ok());
        assert_eq!(at(life), Err("the forwarded identity has expired"));
        let earlier = |seconds| Timestamp::from_seconds(NOW.seconds() - seconds);
        assert!(forwarding.verify_for("svc-gate", &jwt, earlier(5)).is_ok(), "clocks differ");
        assert!(forwarding.verify_for("svc-gate", &jwt, earlier(6)).is_err());
    }
}

#[test]
fn a_claim_of_another_form_is_refused_though_it_is_signed() {
    let forwarding = forwarding(60);
    let identity = identity(IdentityMethod::Jwt);
    let good = told(&forwarding, &forwarding.sign(&introduction(&identity, &[]), NOW).unwrap());
    let verify = |claims: &Map<String, Value>| {
        let jwt = forwarding.signer().unwrap().sign(JwtType::ForwardedIdentity, claims, NOW).unwrap();
        forwarding.verify_for("svc-gate", &jwt, NOW)
    };
    assert!(verify(&good).is_ok());
    let now = NOW.seconds();
    let bad = [
        ("iss", json!("https://evil.example")),
        ("iss", json!([ISSUER])),
        ("aud", json!(["svc-gate"])),
        ("aud", json!("svc-gate ")),
        ("iat", json!(now + 6)),
        ("iat", json!(now - 1)),
        ("iat", json!(1_780_000_000.0)),
        ("exp", json!(now)),
        ("exp", json!(now + 61)),
        ("exp", json!((now + 60).to_string())),
        ("exp", json!(u64::MAX)),
        ("exp", json!(-1)),
        ("nbf", json!(now + 6)),
        ("nbf", json!("0")),
        ("jti", json!("")),
        ("jti", json!(1)),
        ("sub", json!(7)),
        ("idp", json!(null)),
        ("agent", json!("agent deployer")),
        ("method", json!("SELF_ASSERTED")),
        ("method", json!("jwt")),
        ("verified_at", json!("now")),
        ("claims", json!([])),
        ("is_self_asserted", json!(true)),
        ("is_self_asserted", json!("false")),
    ];
    for (name, value) in bad {
        let mut claims = good.clone();
        claims.insert(name.to_owned(), value.clone());
        assert!(verify(&claims).is_err(), "{name}: {value}");
    }
    for name in good.keys().filter(|name| !["claims", "act", "obo"].contains(&name.as_str())) {
        let mut claims = good.clone();
        claims.remove(name);
        assert!(verify(&claims).is_err(), "without {name}");
    }
}

#[test]
fn the_longest_chain_is_read_back() {
    let forwarding = forwarding(60);
    let identity = identity(IdentityMethod::Spiffe);
    let chain = (0..17).map(|hop| format!("agent-{hop}").into()).collect::<Vec<Arc<str>>>();
    let jwt = forwarding.sign(&introduction(&identity, &chain), NOW).unwrap();
    assert!(forwarding.verify_for("svc-gate", &jwt, NOW).is_ok());
}

/// The file's key signs what the file says, byte for byte: the same file is verified by another library elsewhere.
#[test]
fn signs_the_vector_that_another_library_verifies() {
    let vector: Value = serde_json::from_str(include_str!("vector.json")).unwrap();
    let text = |name: &str| vector[name].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("forward.key");
    private_file::create(&key, &text("signing_key")).unwrap();
    let config = Config { signing_key: Some(key), issuer: Some(ISSUER.to_owned()), ..Config::default() };
    let forwarding = Forwarding::new(&config, NOW).unwrap();
    let identity = identity(IdentityMethod::Jwt);
    let chain = ["agent-coordinator", "agent-deployer"].map(Arc::from);
    assert_eq!(forwarding.sign(&introduction(&identity, &chain), NOW).unwrap(), text("jwt"));
    let keys: Value = serde_json::from_str(&forwarding.published(NOW).unwrap().body).unwrap();
    assert_eq!(keys, vector["keys"]);
}
