use super::*;
use crate::domain::reason::Reason;
use crate::events::{AuditConfig, Brief, Events, EventsConfig, Long};

const DAY: u64 = 86_400;

struct Trial {
    baseline: Baseline,
    events: Events,
}

impl Trial {
    fn new() -> Self {
        let events = Events::start(&AuditConfig::default(), &EventsConfig::default(), 1, Timestamp::default).unwrap();
        Self { baseline: Baseline::new(&Config { baseline: true, ..Config::default() }), events }
    }

    fn event(&self, agent: &str, seconds: u64) -> Event {
        let at = Timestamp::from_seconds(1_000_000).after(Duration::from_secs(seconds));
        let id = self.events.decision_id();
        let mut event = Event::new(MessageType::CapabilityRequest, Outcome::Accepted, Reason::Allowed, id, at);
        event.from_agent = agent.into();
        event.to_agent = agent.into();
        event
    }

    fn uses(&mut self, capability: &str, resource: &str, seconds: u64) -> Vec<String> {
        let mut event = self.event("a", seconds);
        event.capabilities = vec![Brief::copied(capability)];
        event.resource = Long::copied(resource);
        self.told(&event)
    }

    fn told(&mut self, event: &Event) -> Vec<String> {
        let told = self.baseline.saw(event).into_iter();
        told.map(|Anomaly { agent, kind, value, .. }| format!("{agent} {} {value}", kind.as_str())).collect()
    }
}

const NOTHING: [String; 0] = [];

#[test]
fn what_came_up_while_learning_is_usual_and_what_comes_later_is_told() {
    let mut trial = Trial::new();
    assert_eq!(trial.uses("get", "prod/web", 0), NOTHING);
    assert_eq!(trial.uses("set", "/data/a", DAY - 1), NOTHING);
    assert_eq!(trial.uses("get", "prod/db", DAY), NOTHING, "below the same point");
    assert_eq!(trial.uses("set", "prod/web", DAY), NOTHING, "each for itself");
    assert_eq!(trial.uses("drop", "prod/web", DAY + 1), ["a capability drop"]);
    assert_eq!(trial.uses("get", "dev/web", DAY + 2), ["a resource dev"]);
    let mut elsewhere = trial.event("a", DAY + 3);
    elsewhere.to_agent = "b".into();
    assert_eq!(trial.told(&elsewhere), ["a target b"]);
}

#[test]
fn the_same_is_told_once_an_hour_until_it_is_usual() {
    let mut trial = Trial::new();
    trial.uses("get", "prod/web", 0);
    let told: Vec<u64> =
        (DAY..3 * DAY).step_by(600).filter(|at| !trial.uses("drop", "prod/web", *at).is_empty()).collect();
    assert_eq!(told.len(), 24);
    assert!(told.windows(2).all(|pair| pair[1] - pair[0] == 3600));
}

#[test]
fn what_was_refused_or_only_tried_was_not_done() {
    let mut trial = Trial::new();
    trial.uses("get", "prod/web", 0);
    let mut refused = trial.event("a", DAY);
    refused.capabilities = vec![Brief::copied("drop")];
    refused.outcome = Outcome::Denied;
    let mut tried = refused.clone();
    (tried.outcome, tried.dry_run) = (Outcome::Accepted, true);
    assert_eq!((trial.told(&refused), trial.told(&tried)), (vec![], vec![]));
    let mut anomaly = trial.event("a", DAY);
    anomaly.message_type = MessageType::Anomaly;
    anomaly.capabilities = vec![Brief::copied("drop")];
    assert_eq!(trial.told(&anomaly), NOTHING, "and what is told of it is not its doing");
    assert_eq!(trial.uses("drop", "prod/web", DAY), ["a capability drop"]);
}

#[test]
fn a_delegation_has_several_capabilities_and_resources() {
    let mut trial = Trial::new();
    trial.uses("get", "prod/web", 0);
    let mut event = trial.event("a", DAY);
    event.message_type = MessageType::Delegate;
    event.to_agent = "b".into();
    event.capabilities = ["get", "set", "drop"].map(Brief::copied).to_vec();
    event.resource = Long::copied("prod/* k8s://dev/x/y record:7 *");
    let told = trial.told(&event);
    let wanted = [
        "a capability set",
        "a capability drop",
        "a resource k8s://dev",
        "a resource record:",
        "a resource *",
        "a target b",
    ];
    assert_eq!(told, wanted);
}

#[test]
fn far_more_requests_than_ever_are_told_once() {
    let mut trial = Trial::new();
    let minute = |trial: &mut Trial, start: u64, requests: u64| -> Vec<String> {
        (0..requests).flat_map(|_| trial.told(&trial.event("a", start))).collect()
    };
    for start in (0..DAY).step_by(3600) {
        assert_eq!(minute(&mut trial, start, 20), NOTHING);
    }
    assert_eq!(minute(&mut trial, DAY, 150), NOTHING, "no more than ten times the usual");
    let told = minute(&mut trial, DAY + 3600, 1600);
    assert_eq!(told, ["a rate 1501"], "the minute before was of 150");
    assert_eq!(minute(&mut trial, DAY + 3660, 1600), NOTHING, "told within the hour, and usual by now");
}

#[test]
fn few_requests_are_never_far_too_many_and_repeated_denials_count_each() {
    let mut trial = Trial::new();
    trial.uses("get", "prod/web", 0);
    let ninety_nine = (0..99).flat_map(|_| trial.told(&trial.event("a", DAY))).collect::<Vec<_>>();
    assert_eq!(ninety_nine, NOTHING);
    assert_eq!(trial.told(&trial.event("a", DAY)), ["a rate 100"]);
}

#[test]
fn it_is_bounded() {
    let mut trial = Trial::new();
    for number in 0..3 * limits::BASELINE_VALUES {
        trial.uses(&format!("c{number}"), &format!("p{number}/x"), 0);
    }
    assert_eq!(trial.baseline.agents["a"].capabilities.0.len(), limits::BASELINE_VALUES);
    assert_eq!(trial.baseline.agents["a"].resources.0.len(), limits::BASELINE_VALUES);
    for number in 0..limits::BASELINE_AGENTS + 100 {
        let event = trial.event(&format!("agent-{number}"), 1);
        trial.told(&event);
    }
    assert_eq!(trial.baseline.agents.len(), limits::BASELINE_AGENTS);
    let later = trial.event("new", DAY + 1);
    trial.told(&later);
    assert_eq!(trial.baseline.agents.len(), 1, "those of whom nothing was heard made room");
}

#[test]
fn a_resource_stands_below_a_point() {
    for (resource, point) in [
        ("prod/web", "prod"),
        ("/data/reports/q3.pdf", "/data"),
        ("/data", "/data"),
        ("orders", "orders"),
        ("db:orders", "db:"),
        ("record:a/b", "record:a"),
        ("k8s://prod/deployments/web", "k8s://prod"),
        ("k8s:/prod/x", "k8s:/prod"),
        ("prod/*", "prod"),
        ("*", "*"),
        ("", ""),
    ] {
        assert_eq!(point_of(resource), point, "{resource}");
    }
}
