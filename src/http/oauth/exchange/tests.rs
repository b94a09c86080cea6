//! The laundering matrix: a subject with or without `act` and `may_act`, an actor that is there, wrong or absent.

use crate::domain::time::Timestamp;
use crate::policy_file::{ExtraRoles, compile};

use super::*;

const IDP: &str = "https://idp.example";
const REMIT: &str = "https://remit.example";
/// What the subject and the actor's token leave, in seconds.
const SUBJECT_END: u64 = 200;
const ACTOR_END: u64 = 100;

fn policy() -> Policy {
    let text = r#"{
        "max_delegation_depth": 2,
        "delegation_rules": {
            "gateway": {"can_delegate_to": ["worker"], "max_capability_set": ["get"]},
            "worker": {"max_capability_set": ["get"]}, "other": {"max_capability_set": ["get"]}
        },
        "principals": {"jwt:https://idp.example#gateway": "gateway"}
    }"#;
    compile("policy.json", text.as_bytes(), &ExtraRoles::default(), |_| String::new(), 1).unwrap().policy
}

fn identity(agent: &str, method: IdentityMethod) -> Arc<VerifiedIdentity> {
    Arc::new(VerifiedIdentity {
        agent: AgentName::parse(agent).unwrap(),
        subject: agent.into(),
        method,
        issuer: if method == IdentityMethod::Jwt { IDP.into() } else { "CN=ca".into() },
        claims: Arc::default(),
        verified_at: Timestamp::from_seconds(0),
    })
}

/// The client `gateway`, which has a certificate.
fn client() -> Caller {
    Caller::new(identity("gateway", IdentityMethod::Spiffe), true)
}

fn subject(agent: Option<&str>, act: Option<Value>, may_act: Option<Value>) -> Subject<'static> {
    Subject::Jwt(SubjectJwt {
        names_user: false,
        issuer: IDP.into(),
        subject: agent.unwrap_or("alice").into(),
        agent: agent.map(|agent| Caller::new(identity(agent, IdentityMethod::Jwt), false)),
        act,
        may_act,
        expires_at: SUBJECT_END,
    })
}

fn an_actor(agent: &str) -> Actor {
    Actor { identity: identity(agent, IdentityMethod::Jwt), has_act: false, expires_at: ACTOR_END }
}

/// From, to, on whose behalf, how many actors of before.
type Told = (String, String, Option<String>, usize);

fn planned(subject: Subject<'_>, actor: Option<Actor>, is_offline: bool) -> Result<Told, Error> {
    let (policy, client) = (policy(), client());
    let names = Names { policy: &policy, issuer: Some(REMIT) };
    let plan = plan(Shown { client: &client, subject, actor, is_offline }, names);
    let plan = plan.map_err(|refusal| refusal.error())?;
    Ok((plan.from.agent().to_string(), plan.to.to_string(), plan.on_behalf_of, plan.earlier.len()))
}

fn told(from: &str, to: &str, user: Option<&str>) -> Told {
    (from.to_owned(), to.to_owned(), user.map(ToOwned::to_owned), 0)
}

const ALICE: Option<&str> = Some("jwt:https://idp.example#alice");
const REFUSED: Result<Told, Error> = Err(Error::InvalidRequest);

#[test]
fn who_delegates_to_whom() {
    let capability = || Subject::Capability("x.y");
    assert_eq!(planned(capability(), Some(an_actor("worker")), false), Ok(told("gateway", "worker", None)));
    assert_eq!(
        planned(capability(), None, false),
        Ok(told("gateway", "gateway", None)),
        "the engine refuses the cycle"
    );
    assert_eq!(
        planned(subject(Some("gateway"), None, None), Some(an_actor("worker")), false),
        Ok(told("gateway", "worker", None))
    );
    assert_eq!(planned(subject(Some("other"), None, None), None, false), Ok(told("other", "gateway", None)));
    assert_eq!(
        planned(subject(Some("other"), None, None), Some(an_actor("gateway")), false),
        Ok(told("other", "gateway", None))
    );
    let third = planned(subject(Some("other"), None, None), Some(an_actor("worker")), false);
    assert_eq!(third, Err(Error::UnauthorizedClient), "the client is no party");
    assert_eq!(
        planned(subject(None, None, None), Some(an_actor("worker")), false),
        Ok(told("gateway", "worker", ALICE))
    );
    assert_eq!(planned(subject(None, None, None), None, false), Ok(told("gateway", "gateway", ALICE)));
}

#[test]
fn a_user_behind_an_agents_jwt_is_carried_on() {
    let with_user = |agent: &str| match subject(Some(agent), None, None) {
        Subject::Jwt(jwt) => Subject::Jwt(SubjectJwt { subject: "alice".into(), names_user: true, ..jwt }),
        capability @ Subject::Capability(_) => capability,
    };
    assert_eq!(planned(with_user("gateway"), Some(an_actor("worker")), false), Ok(told("gateway", "worker", ALICE)));
    assert_eq!(planned(with_user("other"), None, false), Ok(told("other", "gateway", ALICE)));
}

#[test]
fn the_laundering_matrix() {
    let gateway = || json!({"iss": REMIT, "sub": "gateway"});
    let worker = || json!({"sub": "worker"});
    let stranger = || json!({"sub": "x-stranger"});
    let good = || Ok(told("gateway", "worker", ALICE));
    let alone = || Ok(told("gateway", "gateway", ALICE));
    // act, may_act, then what becomes of it with the actor that is meant, with a wrong one, and without one.
    #[rustfmt::skip]
    let matrix = [
        (None,             None,             good(),  Ok(told("gateway", "other", ALICE)), alone()),
        (None,             Some(worker()),   good(),  REFUSED,                         REFUSED),
        (None,             Some(gateway()),  REFUSED, REFUSED,                         alone()),
        (None,             Some(stranger()), REFUSED, REFUSED,                         REFUSED),
        (Some(gateway()),  None,             good(),  Ok(told("gateway", "other", ALICE)), alone()),
        (Some(gateway()),  Some(worker()),   good(),  REFUSED,                         REFUSED),
        (Some(gateway()),  Some(gateway()),  REFUSED, REFUSED,                         alone()),
        (Some(gateway()),  Some(stranger()), REFUSED, REFUSED,                         REFUSED),
        (Some(worker()),   None,             REFUSED, REFUSED,                         REFUSED),
        (Some(worker()),   Some(worker()),   REFUSED, REFUSED,                         REFUSED),
        (Some(stranger()), None,             REFUSED, REFUSED,                         REFUSED),
        (Some(stranger()), Some(gateway()),  REFUSED, REFUSED,                         REFUSED),
    ];
    for (act, may_act, meant, wrong, absent) in matrix {
        let with = |actor| planned(subject(None, act.clone(), may_act.clone()), actor, false);
        assert_eq!(with(Some(an_actor("worker"))), meant, "act {act:?} may_act {may_act:?}, the actor");
        assert_eq!(with(Some(an_actor("other"))), wrong, "act {act:?} may_act {may_act:?}, a wrong actor");
        assert_eq!(with(None), absent, "act {act:?} may_act {may_act:?}, no actor");
    }
}

#[test]
fn an_agent_that_is_acted_for_gives_no_authority_of_its_own() {
    let acted_for = subject(Some("other"), Some(json!({"iss": REMIT, "sub": "gateway"})), None);
    let user = Some("jwt:https://idp.example#other");
    assert_eq!(planned(acted_for, Some(an_actor("worker")), false), Ok(told("gateway", "worker", user)));
}

#[test]
fn an_actor_that_somebody_acts_for_is_refused() {
    for subject in [Subject::Capability("x.y"), subject(None, None, None), subject(Some("gateway"), None, None)] {
        let actor = Actor { has_act: true, ..an_actor("worker") };
        assert_eq!(planned(subject, Some(actor), false), REFUSED);
    }
}

#[test]
fn actors_of_before_are_kept_or_the_exchange_is_refused() {
    let act = |older: Value| Some(json!({"iss": REMIT, "sub": "gateway", "act": older}));
    let one = || act(json!({"sub": "x-one"}));
    let two = || act(json!({"sub": "x-one", "act": {"iss": "https://elsewhere.example", "sub": "x-two"}}));
    assert_eq!(
        planned(subject(None, one(), None), Some(an_actor("worker")), false),
        REFUSED,
        "a capability token has no place"
    );
    let (from, to, user, earlier) = planned(subject(None, one(), None), Some(an_actor("worker")), true).unwrap();
    assert_eq!((from.as_str(), to.as_str(), user.as_deref(), earlier), ("gateway", "worker", ALICE, 1));
    assert_eq!(
        planned(subject(None, two(), None), Some(an_actor("worker")), true),
        REFUSED,
        "three hops are one too many"
    );
}

#[test]
fn names_in_a_jwt_are_of_its_issuer_unless_they_say_another() {
    let named = |may_act: Value, actor| planned(subject(None, None, Some(may_act)), actor, false).is_ok();
    assert!(named(json!({"iss": IDP, "sub": "worker"}), Some(an_actor("worker"))));
    assert!(named(json!({"iss": REMIT, "sub": "worker"}), Some(an_actor("worker"))), "Remit's own name of it");
    assert!(named(json!({"iss": REMIT, "sub": "gateway"}), None), "also by a certificate");
    assert!(!named(json!({"iss": "https://elsewhere.example", "sub": "worker"}), Some(an_actor("worker"))));
    assert!(named(json!({"sub": "other"}), Some(an_actor("other"))), "by the same evidence");
    let by_certificate =
        Actor { identity: identity("other", IdentityMethod::Spiffe), has_act: false, expires_at: ACTOR_END };
    assert!(!named(json!({"sub": "other"}), Some(by_certificate)), "it is not known to the IdP by that name");
    assert!(!named(json!({"sub": "gateway"}), None), "principals map the claim that names agents, and not sub");
}

#[test]
fn a_may_act_that_is_not_understood_names_nobody() {
    for may_act in [
        json!({}),
        json!({"iss": IDP}),
        json!({"sub": 1}),
        json!({"iss": null, "sub": "worker"}),
        json!({"sub": "worker", "client_id": "x"}),
        json!("worker"),
        json!([{"sub": "worker"}]),
    ] {
        assert_eq!(
            planned(subject(None, None, Some(may_act.clone())), Some(an_actor("worker")), false),
            REFUSED,
            "{may_act}"
        );
    }
}

#[test]
fn an_act_that_is_not_understood_is_refused() {
    let deep = (0..ACTORS).fold(json!({"sub": "x"}), |inner, _| json!({"iss": REMIT, "sub": "gateway", "act": inner}));
    let broken = json!({"iss": REMIT, "sub": "gateway", "act": "x"});
    for act in [json!({}), json!({"iss": REMIT}), json!("gateway"), broken, deep] {
        assert_eq!(planned(subject(None, Some(act.clone()), None), Some(an_actor("worker")), true), REFUSED, "{act}");
    }
}

#[test]
fn nothing_outlives_what_it_was_made_from() {
    let (policy, client) = (policy(), client());
    let names = Names { policy: &policy, issuer: None };
    let end =
        |subject, actor| plan(Shown { client: &client, subject, actor, is_offline: false }, names).unwrap().expires_by;
    assert_eq!(end(subject(None, None, None), Some(an_actor("worker"))), Some(ACTOR_END));
    assert_eq!(end(subject(None, None, None), None), Some(SUBJECT_END));
    assert_eq!(end(Subject::Capability("x.y"), Some(an_actor("worker"))), Some(ACTOR_END));
    assert_eq!(end(Subject::Capability("x.y"), None), None, "the engine knows the parent's end");
}

#[test]
fn a_subject_too_long_to_be_carried_is_refused() {
    let Subject::Jwt(jwt) = subject(None, None, None) else { panic!("it is a JWT") };
    let jwt = SubjectJwt { subject: "a".repeat(250).into(), ..jwt };
    assert_eq!(planned(Subject::Jwt(jwt), Some(an_actor("worker")), false), REFUSED);
}
