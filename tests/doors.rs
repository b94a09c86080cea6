//! The same answer at every door: in process, over gRPC, in a batch, for thousands of random requests.
//! The command line is a gRPC client; `tests/life` sees to it.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use remit::api as pb;
    use remit::api::policy_decision_service_server::PolicyDecisionService as _;
    use remit::domain::facts::Given;
    use remit::domain::reason::{Denial, Reason};
    use remit::door::Door;
    use remit::engine::{Action, AgentCall, AuthorizeRequest, Engine};
    use remit::grpc::DecisionService;
    use remit::identity::{Config, Identity, SELF_ASSERTED_HEADER};
    use tokio_util::sync::CancellationToken;
    use tonic::Request;

    use crate::harness::audit::AuditLog;
    use crate::harness::{PATIENCE, Setup, World, wish};

    const POLICY: &str = r#"{
        "delegation_rules": {
            "coordinator": {"can_delegate_to": ["deployer", "analyst"], "max_capability_set": ["get", "apply"]},
            "deployer": {"can_delegate_to": ["validator"], "max_capability_set": ["get", "apply"], "max_resources": ["prod/*"]},
            "analyst": {"max_capability_set": ["get"]}
        },
        "enforcement_points": ["gate", {"agent": "mesh", "agents": ["deployer"], "destinations": ["store"]}],
        "communication_rules": [
            {"from": "coordinator", "to": "*"},
            {"from": "deployer", "to": "gate", "methods": ["GET"], "paths": ["/v1/*"]}
        ],
        "quarantined": ["rogue"]
    }"#;

    const AGENTS: [&str; 8] = ["coordinator", "deployer", "analyst", "validator", "gate", "mesh", "rogue", "stranger"];
    const CAPABILITIES: [&str; 4] = ["get", "apply", "delete", ""];
    const RESOURCES: [&str; 7] = ["prod/web", "prod/db/x", "dev/web", "prod/../web", "prod/", "*", ""];

    /// The doors on one engine, and tokens of its agents; a text that is none, and none at all.
    struct Doors {
        engine: Arc<Engine>,
        service: DecisionService,
        tokens: Vec<String>,
        runtime: tokio::runtime::Runtime,
    }

    /// A question, by places in the lists above.
    #[derive(Clone, Debug)]
    struct Question {
        caller: usize,
        agent: Option<usize>,
        destination: Option<usize>,
        capability: usize,
        resource: usize,
        token: usize,
        call: Option<(bool, bool)>,
    }

    impl Doors {
        fn open() -> Self {
            let world = World::of(Setup { audit: AuditLog::none(), ..Setup::policy(POLICY) });
            let mint = |from: &str, to: &str, capabilities: &[&str], resources: &[&str]| {
                let request = world.root(wish(to, capabilities, resources));
                world.delegate(&world.caller(from), &request).outcome.unwrap().token
            };
            let mut tokens = vec![
                mint("coordinator", "deployer", &["get", "apply"], &["prod/*"]),
                mint("coordinator", "deployer", &["get"], &["prod/web"]),
                mint("coordinator", "analyst", &["get"], &["*"]),
            ];
            let spent = mint("coordinator", "deployer", &["get"], &["*"].map(|_| "prod/*"));
            let ask = AuthorizeRequest { token: Some(&spent), ..world.ask("get", "prod/web") };
            assert!(world.authorize(&world.caller("deployer"), &ask).outcome.is_ok());
            tokens.extend([spent, "not.a-token".to_owned(), String::new()]);

            let engine = Arc::new(world.engine);
            let identity = Arc::new(Identity::new(Config::default(), true).unwrap());
            let service = DecisionService::new(Door::new(Arc::clone(&engine), identity, 1), CancellationToken::new());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Self { engine, service, tokens, runtime }
        }

        fn message(&self, question: &Question) -> pb::AuthorizeRequest {
            let name = |place: Option<usize>| place.map(|place| AGENTS[place].to_owned()).unwrap_or_default();
            let call =
                |text: fn(bool, bool) -> &'static str| question.call.map_or("", |(get, v1)| text(get, v1)).to_owned();
            pb::AuthorizeRequest {
                capability: CAPABILITIES[question.capability].to_owned(),
                resource: RESOURCES[question.resource].to_owned(),
                token: self.tokens[question.token].clone(),
                agent: name(question.agent),
                destination: name(question.destination),
                method: call(|get, _| if get { "GET" } else { "POST" }),
                path: call(|_, v1| if v1 { "/v1/x" } else { "/v2" }),
                dry_run: true,
                ..pb::AuthorizeRequest::default()
            }
        }

        /// In process; none where the message could not be put to the engine at all.
        fn in_process(&self, question: &Question) -> Option<Result<(), (Reason, String)>> {
            let message = self.message(question);
            let text = |text: &'static str| text;
            let wanted = match (CAPABILITIES[question.capability], RESOURCES[question.resource]) {
                ("", "") => None,
                ("", _) | (_, "") => return None,
                (capability, resource) => Some((text(capability), text(resource))),
            };
            let call = question.call.map(|(get, v1)| AgentCall {
                method: if get { "GET" } else { "POST" },
                path: if v1 { "/v1/x" } else { "/v2" },
            });
            let action = match (wanted, call) {
                (Some((capability, resource)), None) => Action::Use(capability, resource),
                (Some((capability, resource)), Some(call)) => Action::UseByCall(capability, resource, call),
                (None, Some(call)) if message.token.is_empty() => Action::Call(call),
                (None, _) => return None,
            };
            let present = |text: &'static str| (!text.is_empty()).then_some(text);
            let request = AuthorizeRequest {
                action,
                token: (!message.token.is_empty()).then_some(message.token.as_str()),
                agent: question.agent.and_then(|place| present(AGENTS[place])),
                agent_evidence: None,
                destination: question.destination.and_then(|place| present(AGENTS[place])),
                given: Given::default(),
                dry_run: true,
                request_id: "",
                deadline: self.engine.clock().now().after(PATIENCE),
            };
            let policy = self.engine.policy();
            let mut headers = http::HeaderMap::new();
            headers.insert(SELF_ASSERTED_HEADER, AGENTS[question.caller].parse().unwrap());
            let identity = Identity::new(Config::default(), true).unwrap();
            let now = self.engine.clock().now();
            let caller = identity.identify_request(None, &headers, &policy.policy, now).unwrap().caller;
            let decision = self.runtime.block_on(self.engine.authorize(&caller, &request));
            Some(decision.outcome.map_err(|denial: Denial| (denial.reason(), denial.message().to_string())))
        }

        fn request<T>(question: &Question, message: T) -> Request<T> {
            let mut request = Request::new(message);
            request.metadata_mut().insert(SELF_ASSERTED_HEADER, AGENTS[question.caller].parse().unwrap());
            request
        }

        fn unary(&self, question: &Question) -> Result<pb::AuthorizeResponse, tonic::Code> {
            let request = Self::request(question, self.message(question));
            let answer = self.runtime.block_on(self.service.authorize(request));
            answer.map(tonic::Response::into_inner).map_err(|status| status.code())
        }

        fn batch(&self, question: &Question) -> pb::AuthorizeResponse {
            let requests = vec![self.message(question); 2];
            let request = Self::request(question, pb::BatchAuthorizeRequest { requests });
            let answer = self.runtime.block_on(self.service.batch_authorize(request)).unwrap().into_inner();
            let [first, second] = <[_; 2]>::try_from(answer.responses).map_err(|answers| answers.len()).unwrap();
            assert_eq!((first.decision, first.reason), (second.decision, second.reason));
            first
        }
    }

    fn questions() -> impl Strategy<Value = Question> {
        let agent = || proptest::option::of(0..AGENTS.len());
        let call = proptest::option::weighted(0.3, (any::<bool>(), any::<bool>()));
        (
            0..AGENTS.len(),
            agent(),
            proptest::option::weighted(0.2, 0..AGENTS.len()),
            0..4_usize,
            0..7_usize,
            0..6_usize,
            call,
        )
            .prop_map(|(caller, agent, destination, capability, resource, token, call)| Question {
                caller,
                agent,
                destination,
                capability,
                resource,
                token,
                call,
            })
    }

    fn verdict(answer: &pb::AuthorizeResponse) -> Result<(), (Reason, String)> {
        let name = pb::Reason::try_from(answer.reason).unwrap().as_str_name();
        let reason = Reason::from_name(name.strip_prefix("REASON_").unwrap()).unwrap();
        let allowed = answer.decision == i32::from(pb::Decision::Allow);
        assert_eq!(allowed, reason == Reason::Allowed);
        if allowed { Ok(()) } else { Err((reason, answer.message.clone())) }
    }

    #[test]
    fn l11_every_door_gives_the_same_answer() {
        let doors = Doors::open();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4000));
        let outcome = runner.run(&questions(), |question| {
            let batch = verdict(&doors.batch(&question));
            match doors.unary(&question) {
                Ok(answer) => prop_assert_eq!(verdict(&answer), batch.clone()),
                Err(code) => {
                    prop_assert_eq!(code, tonic::Code::InvalidArgument);
                    prop_assert_eq!(batch.clone().unwrap_err().0, Reason::RequestMalformed);
                }
            }
            if let Some(decided) = doors.in_process(&question) {
                prop_assert_eq!(decided, batch);
            } else {
                prop_assert_eq!(batch.unwrap_err().0, Reason::RequestMalformed);
            }
            Ok(())
        });
        outcome.unwrap();
        for token in [0, 1] {
            let ask =
                Question { caller: 1, agent: None, destination: None, capability: 0, resource: 0, token, call: None };
            assert_eq!(verdict(&doors.batch(&ask)), Ok(()), "some are allowed");
        }
    }
}
