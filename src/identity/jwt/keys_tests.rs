//! Which keys of a set are used.

use serde_json::{Value, json};

use super::compact;
use super::config::Algorithm;
use super::keys::{KeySet, Unverified};
use super::testing::{SIGNER, Signer, claims, key_set};

fn parse(keys: &[Value]) -> Result<KeySet, String> {
    KeySet::parse(&key_set(keys), &Algorithm::ALL).map_err(|error| error.to_string())
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

/// How many keys of this one are used.
fn usable(jwk: Value) -> usize {
    parse(&[jwk]).unwrap().len()
}

#[test]
fn two_keys_of_one_name_refuse_the_set() {
    let other = Signer::new(Algorithm::Es256, "key-1");
    assert_eq!(parse(&[SIGNER.jwk(), other.jwk()]).err().unwrap(), "two keys of the set have the same kid");
    // Even where one of them would not be used.
    let unused = with(other.jwk(), "use", "enc".into());
    assert!(parse(&[SIGNER.jwk(), unused]).is_err());
}

#[test]
fn what_is_no_set_is_refused() {
    for text in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[7]}", "{\"keys\":[],\"keys\":[]}", "<html>"] {
        assert!(KeySet::parse(text.as_bytes(), &Algorithm::ALL).is_err(), "{text}");
    }
    let many: Vec<Value> = (0..65).map(|number| json!({"kid": number.to_string(), "kty": "EC"})).collect();
    assert_eq!(parse(&many).err().unwrap(), "the key set has more than 64 keys");
    assert!(parse(&many[..64]).is_ok());
}

#[test]
fn keys_of_other_kinds_uses_and_algorithms_are_passed_over() {
    let jwk = || SIGNER.jwk();
    assert_eq!(usable(jwk()), 1);
    for (name, value) in [
        ("kty", json!("XYZ")),
        ("kty", json!(null)),
        ("crv", json!("Ed448")),
        ("crv", json!("X25519")),
        ("use", json!("enc")),
        ("use", json!(7)),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!([])),
        ("key_ops", json!("verify")),
        ("alg", json!("ES256")),
        ("alg", json!("none")),
        ("alg", json!(7)),
        ("kid", json!(7)),
        ("kid", json!("")),
        ("kid", json!("x".repeat(257))),
        ("x", json!("AAAA")),
        ("x", json!(7)),
    ] {
        assert_eq!(usable(with(jwk(), name, value.clone())), 0, "{name} {value}");
    }
    assert_eq!(usable(with(jwk(), "key_ops", json!(["verify", "sign"]))), 1);
    let good = KeySet::parse(&key_set(&[jwk(), json!({"kty": "XYZ"})]), &Algorithm::ALL).unwrap();
    assert_eq!(good.len(), 1, "the others still count");
    assert_eq!(KeySet::parse(&key_set(&[jwk()]), &[Algorithm::Es256]).unwrap().len(), 0);
}

#[test]
fn private_and_secret_keys_are_never_used() {
    assert_eq!(usable(with(SIGNER.jwk(), "d", "AAAA".into())), 0);
    assert_eq!(usable(json!({"kty": "oct", "alg": "HS256", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"})), 0);
}

#[test]
fn an_ec_key_is_of_its_algorithms_curve() {
    let p256 = Signer::new(Algorithm::Es256, "k").jwk();
    assert_eq!(usable(p256.clone()), 1);
    for (name, value) in [("crv", "P-384"), ("crv", "P-521"), ("crv", "secp256k1"), ("alg", "ES384"), ("kty", "OKP")] {
        assert_eq!(usable(with(p256.clone(), name, value.into())), 0, "{name} {value}");
    }
    let y = p256["y"].as_str().unwrap();
    assert_eq!(usable(with(p256.clone(), "y", format!("{y}AA").into())), 0);
}

#[test]
fn an_rsa_key_is_long_enough_and_its_exponent_a_true_one() {
    let rsa = Signer::new(Algorithm::Rs256, "k").jwk();
    assert_eq!(usable(rsa.clone()), 1);
    let n = rsa["n"].as_str().unwrap();
    for (name, value) in [
        ("e", "AQ".to_owned()),
        ("e", "AA".to_owned()),
        ("e", "Ag".to_owned()),
        ("e", String::new()),
        ("e", "AQAAAAAB".to_owned()),
        ("n", String::new()),
        ("n", n.chars().take(n.len() / 2).collect()),
        ("n", "_".repeat(1368)),
        ("alg", "RSA-OAEP".to_owned()),
        ("alg", "RS512".to_owned()),
        ("alg", "ES256".to_owned()),
    ] {
        assert_eq!(usable(with(rsa.clone(), name, value.as_str().into())), 0, "{name} {value}");
    }
}

#[test]
fn an_rsa_key_that_names_no_algorithm_is_good_for_one() {
    let rs256 = Signer::new(Algorithm::Rs256, "k");
    let ps256 = rs256.also(Algorithm::Ps256, "k");
    let mut jwk = rs256.jwk();
    jwk.as_object_mut().unwrap().remove("alg");
    let verify = |algorithms: &[Algorithm], signer: &Signer| {
        let token = signer.sign(&claims());
        KeySet::parse(&key_set(&[jwk.clone()]), algorithms).unwrap().verify(&compact::parse(&token).unwrap())
    };
    assert_eq!(verify(&Algorithm::ALL, &rs256), Ok(()));
    assert!(matches!(verify(&Algorithm::ALL, &ps256), Err(Unverified::Forged(_))));
    assert_eq!(verify(&[Algorithm::Ps256], &ps256), Ok(()));
    assert!(matches!(verify(&[Algorithm::Ps256], &rs256), Err(Unverified::Forged(_))));
}
