//! The same answer at every door: in process, over gRPC, in a batch, over `AuthZEN`, for thousands of random requests.
//! The command line is a gRPC client; `tests/life` sees to it.
//!
//! `REMIT_QUESTIONS` sets how many are asked (2,000), `REMIT_SEED` which ones (1).

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::StatusCode;
    use proptest::prelude::*;
    use remit::api as pb;
    use remit::api::policy_decision_service_server::PolicyDecisionService as _;
    use remit::domain::chain::Wish;
    use remit::domain::entities::Kind;
    use remit::domain::facts::Given;
    use remit::domain::reason::{Denial, Reason};
    use remit::door::Door;
    use remit::engine::{Action, AgentCall, AuthorizeRequest, Engine};
    use remit::grpc::DecisionService;
    use remit::http;
    use remit::identity::{Config, Identity, SELF_ASSERTED_HEADER};
    use remit::proxied::Gatekeeper;
    use remit::readiness::{Condition, Examine};
    use serde_json::{Map, Value, json};
    use tokio_util::sync::CancellationToken;
    use tonic::Request;
    use tower::ServiceExt as _;

    use crate::harness::audit::AuditLog;
    use crate::harness::figures::{assure, questions as how_many, runner, seed};
    use crate::harness::{PATIENCE, Setup, World, wish};

    const POLICY: &str = r#"{
        "delegation_rules": {
            "coordinator": {"can_delegate_to": ["deployer", "analyst", "user:alice"], "max_capability_set": ["get", "apply"],
                "trusted_pairs": ["deployer", "analyst", "user:alice"]},
            "deployer": {"can_delegate_to": ["validator"], "max_capability_set": ["get", "apply"], "max_resources": ["prod/*"]},
            "analyst": {"max_capability_set": ["get"]}
        },
        "token": {"max_uses_trusted_pair": 1000000},
        "enforcement_points": ["gate", {"agent": "mesh", "agents": ["deployer"], "destinations": ["store"]}],
        "communication_rules": [
            {"from": "coordinator", "to": "*"},
            {"from": "deployer", "to": "gate", "methods": ["GET"], "paths": ["/v1/*"]}
        ],
        "quarantined": ["rogue"],
        "conditions": [{"capabilities": ["apply"], "require": "!has(context.hour) || context.hour < 17"}],
        "entities": {
            "resources": [{"type": "resource", "id": "prod/web"}, {"type": "resource", "id": "prod/db/x"},
                {"type": "resource", "id": "dev/web"}, {"type": "db", "id": "orders"}, {"type": "db", "id": "//x/y"}],
            "actions": ["get", "apply", "delete"]
        }
    }"#;

    const AGENTS: [&str; 9] =
        ["coordinator", "deployer", "analyst", "validator", "gate", "mesh", "rogue", "stranger", "user:alice"];
    const CAPABILITIES: [&str; 4] = ["get", "apply", "delete", ""];
    const RESOURCES: [&str; 9] =
        ["prod/web", "prod/db/x", "dev/web", "db:orders", "db://x/y", "prod/../web", "prod/", "*", ""];

    /// What a question says beside the rest: nothing, an hour that will do, one that won't, and one that is none.
    fn context(place: usize) -> Map<String, Value> {
        let hour = [Value::Null, json!(9), json!(20), json!("nine")][place].clone();
        if hour.is_null() { Map::new() } else { Map::from_iter([("hour".to_owned(), hour)]) }
    }

    /// The same as a message has it.
    fn structure(context: &Map<String, Value>) -> prost_types::Struct {
        use prost_types::value::Kind;
        let kind = |value: &Value| match value.as_f64() {
            Some(number) => Kind::NumberValue(number),
            None => Kind::StringValue(value.as_str().unwrap().to_owned()),
        };
        let fields = context.iter().map(|(name, value)| (name.clone(), prost_types::Value { kind: Some(kind(value)) }));
        prost_types::Struct { fields: fields.collect() }
    }

    /// The doors on one engine, and tokens of its agents; a text that is none, and none at all.
    struct Doors {
        engine: Arc<Engine>,
        service: DecisionService,
        router: axum::Router,
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
        context: usize,
    }

    impl Doors {
        fn open() -> Self {
            let world = World::of(Setup { audit: AuditLog::none(), ..Setup::policy(POLICY) });
            let mint = |from: &str, to: &str, capabilities: &[&str], resources: &[&str], uses: u32| {
                let request = world.root(Wish { max_uses: Some(uses), ..wish(to, capabilities, resources) });
                world.delegate(&world.caller(from), &request).outcome.unwrap().token
            };
            let mut tokens = vec![
                mint("coordinator", "deployer", &["get", "apply"], &["prod/*"], 1_000_000),
                mint("coordinator", "deployer", &["get"], &["prod/web"], 1_000_000),
                mint("coordinator", "analyst", &["get"], &["*"], 1_000_000),
                mint("coordinator", "user:alice", &["get"], &["db:*"], 1_000_000),
            ];
            let spent = mint("coordinator", "deployer", &["get"], &["prod/*"], 1);
            let ask = AuthorizeRequest { token: Some(&spent), ..world.ask("get", "prod/web") };
            assert!(world.authorize(&world.caller("deployer"), &ask).outcome.is_ok());
            tokens.extend([spent, "not.a-token".to_owned(), String::new()]);

            let engine = Arc::new(world.engine);
            let identity = Arc::new(Identity::new(Config::default(), true).unwrap());
            let door = Door::new(Arc::clone(&engine), identity, 1);
            let service = DecisionService::new(door.clone(), CancellationToken::new());
            let examine: Examine = Arc::new(Condition::default);
            let registry = prometheus::Registry::new();
            let gatekeeper = Gatekeeper::new(door.clone(), Arc::default());
            let router = http::routes(http::Pages {
                door,
                gatekeeper,
                examine,
                registry,
                public_url: None,
                oauth: http::oauth::Settings::default(),
                drain: tokio_util::sync::CancellationToken::new(),
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Self { engine, service, router, tokens, runtime }
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
                context: Some(structure(&context(question.context))),
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
            let said = context(question.context);
            let request = AuthorizeRequest {
                action,
                token: (!message.token.is_empty()).then_some(message.token.as_str()),
                agent: question.agent.and_then(|place| present(AGENTS[place])),
                agent_evidence: None,
                destination: question.destination.and_then(|place| present(AGENTS[place])),
                given: Given { context: Some(&said), ..Given::default() },
                dry_run: true,
                request_id: "",
                deadline: self.engine.clock().now().after(PATIENCE),
            };
            let policy = self.engine.policy();
            let mut headers = ::http::HeaderMap::new();
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

        /// What `AuthZEN` has words for: a use, by an agent that is named.
        fn evaluation(&self, question: &Question) -> Value {
            let entity = |kind: Kind, name: &str| {
                let (type_name, id) = kind.typed(name).unwrap_or((kind.bare_type(), name));
                json!({ "type": type_name, "id": id })
            };
            let mut said = context(question.context);
            said.insert("remit_token".to_owned(), json!(self.tokens[question.token]));
            json!({
                "subject": entity(Kind::Subject, AGENTS[question.agent.unwrap_or(0)]),
                "action": { "name": CAPABILITIES[question.capability] },
                "resource": entity(Kind::Resource, RESOURCES[question.resource]),
                "context": said,
            })
        }

        /// Its status and body.
        fn post(&self, path: &str, question: &Question, body: &Value) -> (StatusCode, Value) {
            let request = ::http::Request::post(path)
                .header(SELF_ASSERTED_HEADER, AGENTS[question.caller])
                .header("content-type", "application/json")
                .body(axum::body::Body::from(body.to_string()))
                .unwrap();
            self.runtime.block_on(async {
                let response = self.router.clone().oneshot(request).await.unwrap();
                let status = response.status();
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                (status, serde_json::from_slice(&body).unwrap())
            })
        }

        /// On its own, and as one of a batch that says everything but the action for all.
        fn authzen(&self, question: &Question) -> (StatusCode, Value, Value) {
            let mut body = self.evaluation(question);
            let (status, alone) = self.post("/access/v1/evaluation", question, &body);
            let action = body.as_object_mut().unwrap().remove("action");
            body["evaluations"] = json!([{ "action": action }]);
            let (batched, answers) = self.post("/access/v1/evaluations", question, &body);
            assert_eq!(batched, StatusCode::OK, "{answers}");
            (status, alone, answers["evaluations"][0].clone())
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
            0..RESOURCES.len(),
            0..7_usize,
            call,
            0..4_usize,
        )
            .prop_map(|(caller, agent, destination, capability, resource, token, call, context)| Question {
                caller,
                agent,
                destination,
                capability,
                resource,
                token,
                call,
                context,
            })
    }

    fn verdict(answer: &pb::AuthorizeResponse) -> Result<(), (Reason, String)> {
        let name = pb::Reason::try_from(answer.reason).unwrap().as_str_name();
        let reason = Reason::from_name(name.strip_prefix("REASON_").unwrap()).unwrap();
        let allowed = answer.decision == i32::from(pb::Decision::Allow);
        assert_eq!(allowed, reason == Reason::Allowed);
        if allowed { Ok(()) } else { Err((reason, answer.message.clone())) }
    }

    /// What the three searches find for a question, each with what gRPC says of every name that they range over.
    fn searched(doors: &Doors, question: &Question) -> [(Vec<Value>, Vec<Value>); 3] {
        let whole = doors.evaluation(question);
        let search = |what: &str| {
            let (status, page) = doors.post(&format!("/access/v1/search/{what}"), question, &whole);
            assert_eq!(status, StatusCode::OK, "{page}");
            page["results"].as_array().unwrap().clone()
        };
        let is_allowed = |question: &Question| verdict(&doors.batch(question)).is_ok();
        let of_type = |member: &str, name: &Value| name["type"] == whole[member]["type"];
        let mut subjects = (0..AGENTS.len()).map(|agent| Question { agent: Some(agent), ..question.clone() });
        let mut resources = (0..5).map(|resource| Question { resource, ..question.clone() });
        let mut actions = (0..3).map(|capability| Question { capability, ..question.clone() });
        let allowed = |asked: &mut dyn Iterator<Item = Question>, member: &str| {
            let allowed = asked.filter(is_allowed).map(|question| doors.evaluation(&question)[member].clone());
            let mut names = allowed.filter(|name| member == "action" || of_type(member, name)).collect::<Vec<_>>();
            names.sort_by_key(ToString::to_string);
            names
        };
        let sorted = |mut names: Vec<Value>| {
            names.sort_by_key(ToString::to_string);
            names
        };
        [
            (sorted(search("subject")), allowed(&mut subjects, "subject")),
            (sorted(search("resource")), allowed(&mut resources, "resource")),
            (sorted(search("action")), allowed(&mut actions, "action")),
        ]
    }

    #[test]
    fn a_search_finds_exactly_what_is_allowed() {
        let doors = Doors::open();
        let asked = how_many() / 4;
        let found = std::cell::Cell::new(0_usize);
        let outcome = runner(asked).run(&questions(), |question| {
            let question = in_authzens_words(&question);
            let question =
                Question { capability: question.capability % 3, resource: question.resource % 5, ..question };
            for (names, allowed) in searched(&doors, &question) {
                prop_assert_eq!(&names, &allowed);
                found.set(found.get() + names.len());
            }
            Ok(())
        });
        outcome.unwrap();
        assert!(found.get() > 20, "only {} are found", found.get());
        let figures = [("searches", json!(3 * asked)), ("found", json!(found.get())), ("seed", json!(seed()))];
        assure("AuthZEN searches against gRPC", &figures);
    }

    fn said(answer: &Value) -> Result<(), (Reason, String)> {
        let text = |member: &str| answer["context"][member].as_str().unwrap_or_default();
        let reason = Reason::from_name(text("reason")).unwrap();
        assert_eq!(answer["decision"], json!(reason == Reason::Allowed));
        if reason == Reason::Allowed { Ok(()) } else { Err((reason, text("message").to_owned())) }
    }

    /// Without a call or a destination, which `AuthZEN` has no words for. Those with a call become questions about a
    /// token in its holder's hands, so that some are allowed.
    fn in_authzens_words(question: &Question) -> Question {
        let (agent, call) = (question.agent.unwrap_or(0), question.call);
        let plain = Question { agent: Some(agent), destination: None, call: None, ..question.clone() };
        let Some((by_gate, get)) = call else { return plain };
        let token = plain.token % 4;
        let holder = [1, 1, 2, 8][token];
        let caller = if by_gate { 4 } else { holder };
        Question { caller, agent: Some(holder), capability: usize::from(!get), token, ..plain }
    }

    #[test]
    fn l11_authzen_gives_the_same_decisions_as_grpc() {
        let doors = Doors::open();
        let asked = how_many();
        let allowed = std::cell::Cell::new(0_u32);
        let outcome = runner(asked).run(&questions(), |question| {
            let question = in_authzens_words(&question);
            let wanted = verdict(&doors.batch(&question));
            let (status, alone, batched) = doors.authzen(&question);
            if let Err((Reason::RequestMalformed, _)) = &wanted {
                prop_assert_eq!(status, StatusCode::BAD_REQUEST);
                prop_assert_eq!(&alone["reason"], "REQUEST_MALFORMED");
                prop_assert_eq!(said(&batched).unwrap_err().0, Reason::RequestMalformed);
            } else {
                prop_assert_eq!(status, StatusCode::OK);
                prop_assert_eq!(said(&alone), wanted.clone());
                prop_assert_eq!(said(&batched), wanted.clone());
            }
            allowed.set(allowed.get() + u32::from(wanted.is_ok()));
            Ok(())
        });
        outcome.unwrap();
        assert!(allowed.get() > 20, "only {} are allowed", allowed.get());
        let figures = [("questions", json!(asked)), ("allowed", json!(allowed.get())), ("seed", json!(seed()))];
        assure("AuthZEN, alone and in a batch, against gRPC", &figures);
    }

    #[test]
    fn l11_every_door_gives_the_same_answer() {
        let doors = Doors::open();
        let asked = how_many();
        let allowed = std::cell::Cell::new(0_u32);
        let outcome = runner(asked).run(&questions(), |question| {
            // Of wholly random ones next to none is allowed.
            let question = if question.context < 2 { in_authzens_words(&question) } else { question };
            let batch = verdict(&doors.batch(&question));
            allowed.set(allowed.get() + u32::from(batch.is_ok()));
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
        assert!(allowed.get() > 20, "only {} are allowed", allowed.get());
        for token in [0, 1] {
            let ask = Question {
                caller: 1,
                agent: None,
                destination: None,
                capability: 0,
                resource: 0,
                token,
                call: None,
                context: 0,
            };
            assert_eq!(verdict(&doors.batch(&ask)), Ok(()), "some are allowed");
        }
        let figures = [("questions", json!(asked)), ("allowed", json!(allowed.get())), ("seed", json!(seed()))];
        assure("gRPC, its batch, and in process", &figures);
    }
}
