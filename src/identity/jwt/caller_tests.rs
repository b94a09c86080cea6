//! From a bearer JWT to a caller.

use serde_json::json;

use super::Config;
use super::testing::{ISSUER, SIGNER, claims, config, issuers_with, now, with};
use crate::domain::caller::IdentityMethod;
use crate::domain::policy::Policy;
use crate::domain::reason::Reason;
use crate::identity::{self, Evidence, Identity, Sources, Unidentified};
use crate::policy_file::{ExtraRoles, compile};

fn policy() -> Policy {
    let text = json!({
        "delegation_rules": {"agent-deployer": {}, "agent-analyst": {}},
        "principals": {format!("jwt:{ISSUER}#app-17"): "agent-analyst"},
    });
    let compiled =
        compile("policy.json", text.to_string().as_bytes(), &ExtraRoles::default(), crate::digest::sha256_hex, 1);
    compiled.unwrap_or_else(|error| panic!("{error}")).policy
}

fn identity(config: Config) -> Identity {
    let sources = Sources { issuers: issuers_with(config, &[&SIGNER]), ..Sources::default() };
    Identity::new(identity::Config::default(), true).unwrap().with_sources(sources)
}

fn bearer(token: &str) -> Evidence<'_> {
    Evidence { bearer: Some(token), ..Evidence::default() }
}

#[test]
fn the_agents_claim_is_mapped_by_principals_or_is_the_agents_name() {
    for (value, agent) in [("app-17", "agent-analyst"), ("agent-deployer", "agent-deployer")] {
        let token = SIGNER.sign(&with(&json!({"agent": value})));
        let caller = identity(config()).identify(bearer(&token), &policy(), now()).unwrap();
        let identity = caller.identity();
        assert_eq!((caller.agent().as_str(), &*identity.subject, &*identity.issuer), (agent, "user-7", ISSUER));
        assert_eq!((identity.method, identity.is_self_asserted()), (IdentityMethod::Jwt, false));
        assert_eq!(json!(*identity.claims), json!({"groups": ["ops"]}));
    }
}

#[test]
fn somebody_who_is_no_agent_is_unmapped() {
    let user_only = Config { agent_claim: None, ..config() };
    let stranger = SIGNER.sign(&with(&json!({"agent": "stranger"})));
    for (config, token) in [(config(), stranger), (user_only, SIGNER.sign(&claims()))] {
        let nobody = identity(config).identify(bearer(&token), &policy(), now()).unwrap_err();
        assert!(
            matches!(&nobody, Unidentified::Unmapped(denial) if denial.reason() == Reason::IdentityUnmapped),
            "{nobody:?}"
        );
    }
}

#[test]
fn only_a_privileged_issuers_word_is_enough_for_a_role() {
    let token = SIGNER.sign(&claims());
    let is_privileged = |config| identity(config).identify(bearer(&token), &policy(), now()).unwrap().is_privileged();
    assert!(!is_privileged(config()));
    assert!(is_privileged(Config { privileged: true, ..config() }));
}

#[test]
fn a_bad_token_is_not_passed_over_for_a_name() {
    let told = Evidence { self_asserted: Some("agent-deployer"), ..bearer("a.b.c") };
    let nobody = identity(config()).identify(told, &policy(), now()).unwrap_err();
    assert!(matches!(nobody, Unidentified::Unauthenticated(_)), "{nobody:?}");
    let token = SIGNER.sign(&claims());
    let other = Evidence { self_asserted: Some("agent-analyst"), ..bearer(&token) };
    assert!(identity(config()).identify(other, &policy(), now()).is_err());
}

#[test]
fn a_jwt_with_act_is_nobodys_own_evidence() {
    let token = SIGNER.sign(&with(&json!({"act": {"sub": "agent-analyst"}})));
    let nobody = identity(Config { privileged: true, ..config() }).identify(bearer(&token), &policy(), now());
    assert!(matches!(nobody, Err(Unidentified::Unauthenticated(why)) if why.contains("act")));
}
