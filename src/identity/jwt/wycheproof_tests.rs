//! Wycheproof's vectors of JSON Web Signatures and Keys, as far as they concern what is taken here: no symmetric
//! keys, and five algorithms.

use std::path::Path;

use serde_json::Value;

use super::compact::{self, Compact};
use super::config::Algorithm;
use super::keys::KeySet;

fn groups(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wycheproof").join(file);
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let Value::Array(groups) = file["testGroups"].take() else { panic!("no groups") };
    groups
}

/// The group's public keys as a set. Some groups have only the private ones: the public half is in them.
fn key_set(group: &Value) -> Value {
    let keys = if group["public"].is_null() { &group["private"] } else { &group["public"] };
    let mut set = if keys["keys"].is_null() { serde_json::json!({"keys": [keys]}) } else { keys.clone() };
    for key in set["keys"].as_array_mut().unwrap() {
        let is_symmetric = key["kty"] == "oct";
        for member in ["d", "p", "q", "dp", "dq", "qi"].into_iter().filter(|_| !is_symmetric) {
            key.as_object_mut().unwrap().remove(member);
        }
    }
    set
}

fn is_taken(group: &Value, jws: &str) -> bool {
    let Ok(keys) = KeySet::parse(key_set(group).to_string().as_bytes(), &Algorithm::ALL) else { return false };
    compact::parse(jws).is_ok_and(|token: Compact<'_>| keys.verify(&token).is_ok())
}

/// Whether key and token are of one algorithm that is taken here.
fn is_ours(group: &Value, jws: &str) -> bool {
    let Ok(token) = compact::parse(jws) else { return false };
    let set = key_set(group);
    let name = token.header.algorithm.name();
    set["keys"].as_array().unwrap().iter().any(|key| key["alg"].as_str() == Some(name))
}

/// How many are taken, and how many refused.
fn run(file: &str) -> (usize, usize) {
    let mut outcomes = Vec::new();
    for group in groups(file) {
        for test in group["tests"].as_array().unwrap() {
            let jws = test["jws"].as_str().unwrap();
            let wanted = test["result"] == "valid" && is_ours(&group, jws);
            assert_eq!(is_taken(&group, jws), wanted, "{file} {}: {}", test["tcId"], test["comment"]);
            outcomes.push(wanted);
        }
    }
    let taken = outcomes.iter().filter(|taken| **taken).count();
    let refused = outcomes.len().saturating_sub(taken);
    println!("ASSURE {{\"what\": \"Wycheproof\", \"file\": {file:?}, \"good\": {taken}, \"bad\": {refused}}}");
    (taken, refused)
}

#[test]
fn signatures_are_taken_and_refused_as_wycheproof_says() {
    let (taken, refused) = run("json_web_signature_test.json");
    assert_eq!((taken, refused), (16, 385));
}

#[test]
fn keys_are_taken_and_refused_as_wycheproof_says() {
    let (taken, refused) = run("json_web_key_test.json");
    assert_eq!((taken, refused), (1, 25));
}
