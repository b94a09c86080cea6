//! What verified tokens and keys are remembered for, and when no longer.

use std::time::Duration;

use serde_json::json;

use super::testing::{ISSUER, NOW, SIGNER, Signer, at, claims, config, issuers, key_set, now, with};
use super::{Algorithm, Issuers};

#[test]
fn a_verified_token_is_remembered_and_not_longer_than_60_s() {
    let issuers = issuers();
    let token = SIGNER.sign(&claims());
    let first = issuers.verify(&token, now()).unwrap();
    let again = issuers.verify(&token, at(NOW + 59)).unwrap();
    assert_eq!(again.verified_at, first.verified_at, "remembered");
    let anew = issuers.verify(&token, at(NOW + 60)).unwrap();
    assert_eq!(anew.verified_at, at(NOW + 60));
}

#[test]
fn a_remembered_token_is_over_when_it_expires() {
    let issuers = issuers();
    let token = SIGNER.sign(&with(&json!({"exp": NOW + 20})));
    assert!(issuers.verify(&token, now()).is_ok());
    assert!(issuers.verify(&token, at(NOW + 19)).is_ok());
    assert_eq!(issuers.verify(&token, at(NOW + 20)).unwrap_err(), "the JWT is expired");
}

#[test]
fn nothing_is_remembered_over_a_change_of_keys() {
    let issuers = issuers();
    let token = SIGNER.sign(&claims());
    assert!(issuers.verify(&token, now()).is_ok());
    let before = issuers.trust_revision();
    let next = Signer::new(Algorithm::EdDsa, "key-2");
    issuers.install(ISSUER, &key_set(&[SIGNER.jwk()]), at(NOW + 1)).unwrap();
    assert_eq!(issuers.trust_revision(), before, "the same keys again are no change");
    issuers.install(ISSUER, &key_set(&[next.jwk()]), at(NOW + 1)).unwrap();
    assert_ne!(issuers.trust_revision(), before);
    assert!(issuers.verify(&token, at(NOW + 1)).unwrap_err().contains("no such key"));
    assert!(issuers.verify(&next.sign(&claims()), at(NOW + 1)).is_ok());
}

#[test]
fn keys_that_are_not_known_yet_or_too_old_refuse_everything() {
    let issuers = Issuers::new(&[config()]).unwrap();
    let token = SIGNER.sign(&claims());
    assert!(issuers.verify(&token, now()).unwrap_err().contains("not known yet"));
    assert!(issuers.status(now())[0].trouble.as_ref().unwrap().contains("have not been fetched yet"));

    let fetched = NOW - 3590;
    issuers.install(ISSUER, &key_set(&[SIGNER.jwk()]), at(fetched)).unwrap();
    assert!(issuers.verify(&token, now()).is_ok());
    assert_eq!(issuers.status(now())[0].trouble, None);
    assert_eq!(issuers.status(now())[0].refreshed_at, Some(at(fetched)));
    assert!(issuers.verify(&token, at(fetched + 3599)).is_ok());
    // Remembered or not: the keys that it rests on are too old.
    assert!(issuers.verify(&token, at(fetched + 3600)).unwrap_err().contains("too old"));
    assert!(issuers.status(at(fetched + 3600))[0].trouble.as_ref().unwrap().contains("too old"));
    issuers.install(ISSUER, &key_set(&[SIGNER.jwk()]), at(fetched + 3601)).unwrap();
    assert!(issuers.verify(&token, at(fetched + 3601)).is_ok());
}

#[test]
fn a_broken_key_set_leaves_the_last_good_one() {
    let issuers = issuers();
    assert!(issuers.install(ISSUER, b"<html>", at(NOW + 1)).is_err());
    assert!(issuers.verify(&SIGNER.sign(&claims()), at(NOW + 1)).is_ok());
    assert_eq!(issuers.status(now())[0].refreshed_at, Some(now()));
}

#[test]
fn a_set_without_usable_keys_refuses_everything_and_says_so() {
    let issuers = issuers();
    issuers.install(ISSUER, b"{\"keys\":[]}", now().after(Duration::from_secs(1))).unwrap();
    assert!(issuers.verify(&SIGNER.sign(&claims()), now()).is_err());
    assert!(issuers.status(now())[0].trouble.as_ref().unwrap().contains("none of the keys can be used"));
}

#[test]
fn without_an_issuer_no_jwt_is_evidence() {
    assert_eq!(Issuers::default().verify("a.b.c", now()).unwrap_err(), "no issuer is configured");
    assert!(Issuers::new(&[]).unwrap().is_empty());
}
