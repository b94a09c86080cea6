//! Who comes late, slowly or too often: what it asks costs the others nothing.
//!
//! Where something takes long the engine's clock moves on at each look, as if every check did.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use remit::api as pb;
    use remit::api::policy_decision_service_server::PolicyDecisionService as _;
    use remit::door::Door;
    use remit::grpc::DecisionService;
    use remit::http::{self, oauth};
    use remit::identity::{Config, Identity, SELF_ASSERTED_HEADER};
    use remit::proxied::Gatekeeper;
    use remit::readiness::Condition;
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use remit::domain::reason::{Denial, Reason};
    use remit::domain::time::Timestamp;
    use remit::engine::{AuthorizeRequest, DelegateRequest, SearchRequest, Sought};

    use crate::harness::{Setup, World, wish};

    const POLICY: &str = r#"{
        "delegation_rules": {
            "coordinator": {"can_delegate_to": ["deployer"], "max_capability_set": ["get"], "trusted_pairs": ["deployer"]},
            "deployer": {"max_capability_set": ["get"]}
        },
        "grants": [{"agent": "coordinator", "capabilities": ["get"], "resources": ["x/*"]}]
    }"#;
    /// What the engine takes between two looks at the clock.
    const STEP: Duration = Duration::from_secs(1);

    fn slow(policy: &str) -> World {
        World::of(Setup { tick: STEP, ..Setup::policy(policy) })
    }

    /// So many looks at the clock after the next one there is no time left.
    fn after_looks(world: &World, looks: u32) -> Timestamp {
        world.now().after(STEP.saturating_mul(looks.saturating_add(1)))
    }

    fn reason(outcome: &Result<(), Denial>) -> Reason {
        outcome.as_ref().map_or_else(Denial::reason, |()| Reason::Allowed)
    }

    #[test]
    fn a_use_is_not_spent_when_the_checks_took_all_the_time() {
        let world = slow(POLICY);
        let root =
            DelegateRequest { deadline: after_looks(&world, 100), ..world.root(wish("deployer", &["get"], &["x/*"])) };
        let token = world.delegate(&world.caller("coordinator"), &root).outcome.unwrap().token;
        let deployer = world.caller("deployer");
        let mut answers = Vec::new();
        // The later looks at the clock are each late in turn; the token has one use.
        for looks in 0..6 {
            let ask = AuthorizeRequest { token: Some(&token), ..world.ask("get", "x/y") };
            let ask = AuthorizeRequest { deadline: after_looks(&world, looks), ..ask };
            answers.push(reason(&world.authorize(&deployer, &ask).outcome));
        }
        // The question's beginning, before the conditions, before the use.
        let late = Reason::DeadlineExceeded;
        assert_eq!(
            answers,
            [late, late, late, Reason::Allowed, Reason::TokenUsesExhausted, Reason::TokenUsesExhausted]
        );
    }

    #[test]
    fn a_token_is_not_minted_when_the_checks_took_all_the_time() {
        let world = slow(POLICY);
        let coordinator = world.caller("coordinator");
        let mut answers = Vec::new();
        for looks in 0..4 {
            let request = world.root(wish("deployer", &["get"], &["x/*"]));
            let request = DelegateRequest { deadline: after_looks(&world, looks), ..request };
            answers.push(reason(&world.delegate(&coordinator, &request).outcome.map(|_| ())));
        }
        let late = Reason::DeadlineExceeded;
        assert_eq!(answers, [late, late, Reason::Allowed, Reason::Allowed]);
    }

    #[test]
    fn conditions_are_not_evaluated_for_what_is_late() {
        let policy =
            POLICY.replace(r#""resources": ["x/*"]}"#, r#""resources": ["x/*"], "when": "context.env == 'eu'"}"#);
        let world = slow(&policy);
        let coordinator = world.caller("coordinator");
        let ask = |looks| {
            let ask = world.ask("get", "x/y");
            let ask = AuthorizeRequest { deadline: after_looks(&world, looks), ..ask };
            reason(&world.authorize(&coordinator, &ask).outcome)
        };
        assert_eq!(ask(1), Reason::DeadlineExceeded);
        assert_eq!(ask(2), Reason::ConditionNotMet);
    }

    /// `coordinator` may have 40 resources, `deployer` and `rogue` none.
    fn searched(more: &str) -> String {
        let resources = (0..40).map(|at| json!({"type": "resource", "id": format!("x/{at}")})).collect::<Vec<_>>();
        let entities = json!({ "resources": resources });
        let more = format!(r#""quarantined": ["rogue"], {more} "entities": {entities},"#);
        POLICY.replacen('{', &format!("{{{more}"), 1)
    }

    /// Which of the resources may this agent get?
    fn resources<'a>(question: AuthorizeRequest<'a>, agent: &'a str, from: usize) -> SearchRequest<'a> {
        let question = AuthorizeRequest { agent: Some(agent), ..question };
        SearchRequest { sought: Sought::Resources("resource"), question, from, most: 100 }
    }

    #[test]
    fn a_search_ends_its_page_when_its_time_is_over() {
        let world = slow(&searched(""));
        let deployer = world.caller("deployer");
        let mut from = 0;
        let mut pages = 0;
        loop {
            let question = world.ask("get", "");
            // Half of the looks are for one that is denied, the others for the page.
            let question = AuthorizeRequest { deadline: after_looks(&world, 20), ..question };
            let found = world.search(&deployer, &resources(question, "deployer", from)).outcome.unwrap();
            assert!(found.names.is_empty());
            pages += 1;
            let Some(next) = found.next else { break };
            assert!(next > from && next < from + 20, "{from} to {next}");
            from = next;
        }
        assert!(pages > 2, "{pages}");
        let question = world.ask("get", "");
        let question = AuthorizeRequest { deadline: after_looks(&world, 1), ..question };
        let late = world.search(&deployer, &resources(question, "deployer", 0)).outcome.unwrap_err();
        assert_eq!(late.reason(), Reason::DeadlineExceeded, "not one was looked at");
    }

    #[test]
    fn searches_that_find_nothing_are_held_together() {
        let mut world = World::of(Setup::policy(searched("")));
        let ask = |world: &World, caller: &str, agent: &str| {
            let searched = world.search(&world.caller(caller), &resources(world.ask("get", ""), agent, 0));
            searched.outcome.map(|found| found.names.len()).map_err(|denial| denial.reason())
        };
        for _ in 0..300 {
            assert_eq!(ask(&world, "deployer", "deployer"), Ok(0));
            assert_eq!(ask(&world, "rogue", "rogue"), Err(Reason::AgentQuarantined));
            assert_eq!(ask(&world, "deployer", "coordinator"), Err(Reason::CallerNotEnforcementPoint));
            assert_eq!(ask(&world, "nobody", "nobody"), Err(Reason::AgentUnknown));
        }
        let lines = world.events();
        let told = lines.iter().map(|event| (event["caller"].as_str().unwrap(), event["reason"].as_str().unwrap()));
        let mut told = told.collect::<Vec<_>>();
        told.sort_unstable();
        let wanted = [
            ("deployer", "ALLOWED"),
            ("deployer", "CALLER_NOT_ENFORCEMENT_POINT"),
            ("nobody", "AGENT_UNKNOWN"),
            ("rogue", "AGENT_QUARANTINED"),
        ];
        assert_eq!(told, wanted);
        assert_eq!(ask(&world, "coordinator", "coordinator"), Ok(40));
        assert_eq!(ask(&world, "coordinator", "coordinator"), Ok(40));
        assert_eq!(world.events().len(), 2, "what is found is told each time");
    }

    #[test]
    fn a_search_takes_one_of_the_callers_rate() {
        let rate = r#""rate_limits": {"authorize": {"per_second": 1, "burst": 2}},"#;
        let world = World::of(Setup::policy(searched(rate)));
        let coordinator = world.caller("coordinator");
        let ask = || world.search(&coordinator, &resources(world.ask("get", ""), "coordinator", 0)).outcome;
        assert_eq!(ask().unwrap().names.len(), 40, "it is one, whatever it looks at");
        assert!(ask().is_ok());
        assert_eq!(ask().unwrap_err().reason(), Reason::RateLimited);
    }

    /// The doors of a world, which let in who says its name.
    struct Doors {
        router: axum::Router,
        service: DecisionService,
        runtime: tokio::runtime::Runtime,
    }

    impl Doors {
        fn of(world: World) -> Self {
            let identity = Arc::new(Identity::new(Config::default(), true).unwrap());
            let door = Door::new(Arc::new(world.engine), identity, 1);
            let service = DecisionService::new(door.clone(), tokio_util::sync::CancellationToken::new());
            let router = http::routes(http::Pages {
                gatekeeper: Gatekeeper::new(door.clone(), Arc::default()),
                door,
                examine: Arc::new(|| -> Condition { panic!("nobody asks") }),
                registry: prometheus::Registry::new(),
                public_url: None,
                oauth: oauth::Settings::default(),
                drain: tokio_util::sync::CancellationToken::new(),
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Self { router, service, runtime }
        }
    }

    async fn post(router: axum::Router, path: &str, agent: Option<&str>, body: Body) -> (StatusCode, Value) {
        let request = Request::post(format!("/access/v1/{path}")).header("content-type", "application/json");
        let request = agent.into_iter().fold(request, |request, agent| request.header(SELF_ASSERTED_HEADER, agent));
        let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, body) = (response.status(), to_bytes(response.into_body(), usize::MAX).await.unwrap());
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn evaluation(capability: &str) -> Value {
        json!({
            "subject": {"type": "agent", "id": "coordinator"},
            "action": {"name": capability},
            "resource": {"type": "resource", "id": "x/y"},
        })
    }

    #[test]
    fn what_is_late_in_a_batch_is_denied_in_its_place() {
        let doors = Doors::of(World::of(Setup { tick: Duration::from_millis(50), ..Setup::policy(POLICY) }));
        let mut body = evaluation("delete");
        body["evaluations"] = json!(vec![json!({}); 60]);
        let answer = post(doors.router.clone(), "evaluations", Some("coordinator"), body.to_string().into());
        let (status, answer) = doors.runtime.block_on(answer);
        assert_eq!(status, StatusCode::OK);
        let answers = answer["evaluations"].as_array().unwrap();
        let reasons = answers.iter().map(|answer| answer["context"]["reason"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(reasons.len(), 60);
        assert_eq!((reasons[0], reasons[59]), ("CAPABILITY_NOT_GRANTED", "DEADLINE_EXCEEDED"));
    }

    #[test]
    fn what_is_late_in_a_batch_over_grpc_is_denied_in_its_place() {
        let doors = Doors::of(World::of(Setup { tick: Duration::from_millis(50), ..Setup::policy(POLICY) }));
        let said = |reason: i32| pb::Reason::try_from(reason).unwrap();
        let ask = pb::AuthorizeRequest {
            capability: "delete".to_owned(),
            resource: "x/y".to_owned(),
            ..pb::AuthorizeRequest::default()
        };
        let mut request = tonic::Request::new(pb::BatchAuthorizeRequest { requests: vec![ask; 60] });
        request.metadata_mut().insert(SELF_ASSERTED_HEADER, "coordinator".parse().unwrap());
        let answers = doors.runtime.block_on(doors.service.batch_authorize(request)).unwrap().into_inner().responses;
        assert_eq!(answers.len(), 60);
        assert_eq!(said(answers[0].reason), pb::Reason::CapabilityNotGranted);
        assert_eq!(said(answers[59].reason), pb::Reason::DeadlineExceeded);

        let wish = pb::DelegateRequest {
            to_agent: "deployer".to_owned(),
            capabilities: vec!["delete".to_owned()],
            resources: vec!["x/y".to_owned()],
            ..pb::DelegateRequest::default()
        };
        let mut request = tonic::Request::new(pb::BatchDelegateRequest { requests: vec![wish; 60] });
        request.metadata_mut().insert(SELF_ASSERTED_HEADER, "coordinator".parse().unwrap());
        let answers = doors.runtime.block_on(doors.service.batch_delegate(request)).unwrap().into_inner().results;
        let reasons = answers.into_iter().map(|answer| match answer.result.unwrap() {
            pb::batch_delegate_response::result::Result::Refused(refusal) => said(refusal.reason),
            pb::batch_delegate_response::result::Result::Delegated(_) => panic!("it is not granted"),
        });
        let reasons = reasons.collect::<Vec<_>>();
        assert_ne!(reasons[0], pb::Reason::DeadlineExceeded);
        assert_eq!((reasons.len(), reasons[59]), (60, pb::Reason::DeadlineExceeded));
    }

    fn endless() -> Body {
        Body::from_stream(tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>())
    }

    #[test]
    fn bodies_that_do_not_come_take_no_place_from_others() {
        let doors = Doors::of(World::of(Setup::policy(POLICY)));
        doors.runtime.block_on(async {
            for _ in 0..1500 {
                tokio::spawn(post(doors.router.clone(), "evaluation", Some("deployer"), endless()));
            }
            tokio::task::yield_now().await;
            let body = evaluation("get").to_string();
            let (status, answer) = post(doors.router.clone(), "evaluation", Some("coordinator"), body.into()).await;
            assert_eq!((status, &answer["decision"]), (StatusCode::OK, &json!(true)));
        });
    }

    #[test]
    fn a_body_of_nobody_is_not_read() {
        let doors = Doors::of(World::of(Setup::policy(POLICY)));
        let answer = doors.runtime.block_on(post(doors.router.clone(), "evaluation", None, endless()));
        assert_eq!(answer.0, StatusCode::UNAUTHORIZED, "and it is not waited for: 408");
    }
}
