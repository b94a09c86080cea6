//! Envoy's door, from the message to the answer: what implementers get wrong there, point by point, and that its answers
//! are the engine's own. Points that are about one file are tested beside it; the real Envoy is in `tests/life`.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;
    use prost::Message as _;
    use remit::api::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
    use remit::api::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request as About};
    use remit::api::envoy::service::auth::v3::authorization_server::Authorization as _;
    use remit::api::envoy::service::auth::v3::check_response::HttpResponse;
    use remit::api::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse};
    use remit::domain::agent::AgentName;
    use remit::domain::caller::Caller;
    use remit::door::Door;
    use remit::engine::{Action, AgentCall, AuthorizeRequest, Engine};
    use remit::grpc::{DecisionService, ExtAuthz};
    use remit::identity::api_key::{ApiKeys, line_for, new_key};
    use remit::identity::{Config, Identity, Sources};
    use remit::proxied::{Config as RulesConfig, Gatekeeper, RuleConfig, Rules};
    use tokio_util::sync::CancellationToken;
    use tonic::Request;
    use tower::ServiceExt as _;

    use crate::harness::audit::AuditLog;
    use crate::harness::figures::{assure, questions as how_many, runner, seed};
    use crate::harness::{PATIENCE, Setup, World, wish};

    const POLICY: &str = r#"{
        "delegation_rules": {
            "coordinator": {"can_delegate_to": ["deployer", "analyst"], "max_capability_set": ["get", "apply"],
                            "trusted_pairs": ["deployer", "analyst"]},
            "deployer": {"max_capability_set": ["get", "apply"], "max_resources": ["prod/*"]},
            "analyst": {"max_capability_set": ["get"]}
        },
        "token": {"max_uses_trusted_pair": 1000000},
        "enforcement_points": [
            {"agent": "gate", "destinations": ["store"]},
            {"agent": "mesh", "agents": ["deployer"], "destinations": ["store"]}
        ],
        "communication_rules": [
            {"from": "coordinator", "to": "*", "methods": ["POST"], "paths": ["/v1/delegate"]},
            {"from": "deployer", "to": "gate", "methods": ["GET"], "paths": ["/v1/*"]},
            {"from": "deployer", "to": "store"},
            {"from": "analyst", "to": "*"},
            {"from": "deployer", "to": "mesh"}
        ],
        "quarantined": ["rogue"]
    }"#;
    const AGENTS: [&str; 7] = ["coordinator", "deployer", "analyst", "gate", "mesh", "rogue", "stranger"];

    /// The door, the engine behind it, and keys of its callers.
    struct Gate {
        engine: Arc<Engine>,
        door: Door,
        service: ExtAuthz,
        tokens: Vec<String>,
        runtime: tokio::runtime::Runtime,
        _keys: tempfile::NamedTempFile,
    }

    fn key_of(agent: &str) -> String {
        new_key(&format!("{agent:0>40}")).to_string()
    }

    impl Gate {
        fn open() -> Self {
            Self::of(Setup { audit: AuditLog::none(), ..Setup::policy(POLICY) })
        }

        fn of(setup: Setup) -> Self {
            let world = World::of(setup);
            let mint = |to: &str, uses: u32, resources: &[&str]| {
                let mut wish = wish(to, &["get"], resources);
                wish.max_uses = Some(uses);
                world.delegate(&world.caller("coordinator"), &world.root(wish)).outcome.unwrap().token
            };
            let tokens = vec![
                mint("deployer", 1_000_000, &["prod/*"]),
                mint("analyst", 1_000_000, &["*"]),
                mint("deployer", 1, &["prod/*"]),
                "not.a-token".to_owned(),
                String::new(),
            ];
            let keys = tempfile::NamedTempFile::new().unwrap();
            let line = |agent: &&str| line_for(agent, &AgentName::parse(agent).unwrap(), &key_of(agent));
            std::fs::write(keys.path(), AGENTS.iter().map(line).map(|line| line + "\n").collect::<String>()).unwrap();
            let api_keys = ApiKeys::read(keys.path().to_owned()).unwrap();
            let identity = Identity::new(Config::default(), false).unwrap();
            let identity = Arc::new(identity.with_sources(Sources { api_keys, ..Sources::default() }));
            let rule =
                RuleConfig { path: "/rpc".to_owned(), rpc: Some(vec!["ping".to_owned()]), ..RuleConfig::default() };
            let guard = RuleConfig {
                path: "/guarded".to_owned(),
                methods: Some(vec!["GET".to_owned()]),
                capability: Some("get".to_owned()),
                resource: Some("prod/web".to_owned()),
                ..RuleConfig::default()
            };
            let rules = Rules::new(&RulesConfig { rules: vec![rule, guard], ..RulesConfig::default() }).unwrap();
            let engine = Arc::new(world.engine);
            let door = Door::new(Arc::clone(&engine), identity, 1);
            let service = ExtAuthz::new(Gatekeeper::new(door.clone(), Arc::new(rules)));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Self { engine, door, service, tokens, runtime, _keys: keys }
        }

        /// The same service once more, for a listener.
        fn again(&self) -> ExtAuthz {
            ExtAuthz::new(Gatekeeper::new(self.door.clone(), Arc::default()))
        }

        /// Asks as this agent; the answer is checked to agree with itself, as every answer must.
        fn ask(&self, caller: &str, request: CheckRequest) -> CheckResponse {
            self.ask_with(caller, request, "5S")
        }

        fn ask_with(&self, caller: &str, request: CheckRequest, timeout: &'static str) -> CheckResponse {
            let mut request = Request::new(request);
            request.metadata_mut().insert("x-api-key", key_of(caller).parse().unwrap());
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
            let answer = self.runtime.block_on(self.service.check(request));
            let answer =
                answer.unwrap_or_else(|status| panic!("a gRPC error may be leave to pass: {status}")).into_inner();
            agrees(&answer);
            answer
        }
    }

    /// The status is there and says what the rest says: code 0 and an OK, or another code and a refusal that is no success.
    fn agrees(answer: &CheckResponse) {
        let code = answer.status.as_ref().unwrap().code;
        match answer.http_response.as_ref().unwrap() {
            HttpResponse::OkResponse(_) => assert_eq!(code, 0),
            HttpResponse::DeniedResponse(denied) => {
                assert_ne!(code, 0);
                assert!([401, 403, 429, 503].contains(&denied.status.as_ref().unwrap().code));
            }
        }
        let read = CheckResponse::decode(answer.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.status.unwrap().code, code);
    }

    fn denied(answer: &CheckResponse) -> &DeniedHttpResponse {
        match answer.http_response.as_ref().unwrap() {
            HttpResponse::DeniedResponse(denied) => denied,
            HttpResponse::OkResponse(_) => panic!("it passed"),
        }
    }

    fn body(answer: &CheckResponse) -> serde_json::Value {
        serde_json::from_str(&denied(answer).body).unwrap()
    }

    fn refusal(answer: &CheckResponse) -> (i32, String) {
        (denied(answer).status.as_ref().unwrap().code, body(answer)["reason"].as_str().unwrap().to_owned())
    }

    fn metadata(answer: &CheckResponse, name: &str) -> String {
        let value = answer.dynamic_metadata.as_ref().unwrap().fields.get(name).unwrap().kind.clone().unwrap();
        let prost_types::value::Kind::StringValue(text) = value else { panic!("{name} is no text") };
        text
    }

    fn about(agent: &str, path: &str, headers: &[(&str, &str)]) -> CheckRequest {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let http = HttpRequest {
            method: "GET".to_owned(),
            path: path.to_owned(),
            host: "h".to_owned(),
            size: -1,
            headers,
            ..HttpRequest::default()
        };
        let principal = format!("spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa");
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(Peer { principal, certificate: String::new() }),
                request: Some(About { http: Some(http) }),
                ..AttributeContext::default()
            }),
        }
    }

    fn http(request: &mut CheckRequest) -> &mut HttpRequest {
        request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
    }

    fn with(mut request: CheckRequest, extensions: &[(&str, &str)]) -> CheckRequest {
        let attributes = request.attributes.as_mut().unwrap();
        attributes.context_extensions =
            extensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        request
    }

    #[test]
    fn c01_an_empty_request_gets_a_whole_refusal() {
        let gate = Gate::open();
        let empty = [
            CheckRequest::default(),
            CheckRequest { attributes: Some(AttributeContext::default()) },
            CheckRequest {
                attributes: Some(AttributeContext {
                    request: Some(About { http: None }),
                    ..AttributeContext::default()
                }),
            },
        ];
        for request in empty {
            let counted = gate.ask("analyst", request.clone());
            assert_eq!(refusal(&counted), (403, "CALLER_NOT_ENFORCEMENT_POINT".to_owned()));
            assert_eq!(refusal(&gate.ask("gate", request)), (403, "REQUEST_MALFORMED".to_owned()));
        }
    }

    #[test]
    fn c01_a_message_larger_than_any_is_refused_in_an_answer() {
        let gate = Gate::open();
        let mut huge = about("analyst", "/a", &[]);
        http(&mut huge).raw_body = vec![b'x'; 2 * 1024 * 1024];
        let message = huge.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let request = axum::http::Request::post("/envoy.service.auth.v3.Authorization/Check")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-api-key", key_of("gate"))
            .body(axum::body::Body::from(frame))
            .unwrap();
        let body = gate.runtime.block_on(async {
            let (_, health) = remit::grpc::health().await;
            let decisions = DecisionService::new(gate.door.clone(), CancellationToken::new());
            let routes = remit::grpc::decision_routes(decisions, gate.again(), health, false).unwrap();
            let answer = routes.oneshot(request).await.unwrap();
            assert_eq!(answer.headers().get("grpc-status"), None);
            axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 65536).await.unwrap()
        });
        let answer = CheckResponse::decode(body.get(5..).unwrap()).unwrap();
        agrees(&answer);
        assert_eq!(refusal(&answer), (403, "REQUEST_MALFORMED".to_owned()));
    }

    #[test]
    fn c08_the_client_is_told_the_reason_and_nothing_of_the_policy() {
        let gate = Gate::open();
        let refused = gate.ask("gate", about("deployer", "/a", &[]));
        assert_eq!(body(&refused)["message"], "No rule lets the one agent call the other.");
        let detail = metadata(&refused, "message");
        assert!(detail.contains("deployer") && !denied(&refused).body.contains("deployer"), "{detail}");
    }

    #[test]
    fn a_token_with_a_call_that_spends_none_is_refused() {
        let gate = Gate::open();
        let token = gate.tokens[1].as_str();
        let refused = gate.ask("gate", about("analyst", "/a", &[("x-remit-token", token)]));
        assert_eq!(refusal(&refused), (403, "REQUEST_MALFORMED".to_owned()));
        assert!(metadata(&refused, "message").contains("leave it out"));
        assert_eq!(gate.ask("gate", about("analyst", "/a", &[])).status.unwrap().code, 0);
    }

    #[test]
    fn a_guarded_path_is_no_call_by_another_method() {
        let gate = Gate::open();
        for method in ["HEAD", "DELETE", "PUT"] {
            let mut request = about("analyst", "/guarded", &[]);
            http(&mut request).method = method.to_owned();
            assert_eq!(refusal(&gate.ask("gate", request)), (403, "CAPABILITY_NOT_GRANTED".to_owned()), "{method}");
        }
    }

    #[test]
    fn c03_what_can_not_be_decided_is_refused_in_an_answer() {
        let gate = Gate::open();
        let late = gate.ask_with("gate", about("analyst", "/a", &[]), "0m");
        assert_eq!(refusal(&late), (503, "DEADLINE_EXCEEDED".to_owned()));
        let mut nobody = Request::new(about("analyst", "/a", &[]));
        nobody.metadata_mut().insert("x-api-key", "remit_wrong".parse().unwrap());
        let answer = gate.runtime.block_on(gate.service.check(nobody)).unwrap().into_inner();
        agrees(&answer);
        assert_eq!(refusal(&answer), (403, "CALLER_NOT_ENFORCEMENT_POINT".to_owned()));
    }

    fn options(answer: &CheckResponse) -> Vec<HeaderValueOption> {
        match answer.http_response.clone().unwrap() {
            HttpResponse::OkResponse(ok) => ok.headers,
            HttpResponse::DeniedResponse(denied) => denied.headers,
        }
    }

    #[test]
    fn c04_c08_headers_replace_in_both_ways_of_saying_so_and_are_plain() {
        let gate = Gate::open();
        let passed = gate.ask("gate", about("analyst", "/a", &[]));
        let refused = gate.ask("gate", about("deployer", "/a", &[]));
        for option in options(&passed).into_iter().chain(options(&refused)) {
            assert_eq!((option.append, option.append_action), (Some(false), 2));
            let HeaderValue { key, value, raw_value } = option.header.unwrap();
            assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{key}");
            assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{value}");
            assert!(raw_value.is_empty());
        }
    }

    #[test]
    fn c05_c15_what_is_ours_and_not_set_is_removed_and_envoys_orders_too() {
        let gate = Gate::open();
        let clients = [("x-remit-identity", "i"), ("x-remit-agent", "a"), ("x-remit-new", "n"), ("x-mine", "m")];
        let answer = gate.ask("gate", about("analyst", "/a", &clients));
        let HttpResponse::OkResponse(ok) = answer.http_response.clone().unwrap() else { panic!("it was refused") };
        let ours = ok.headers_to_remove.iter().filter(|name| name.starts_with("x-remit-")).collect::<Vec<_>>();
        assert_eq!(ours, ["x-remit-identity", "x-remit-new", "x-remit-token"]);
        let orders = "retry-on retry-grpc-on max-retries retriable-status-codes retriable-header-names \
            hedge-on-per-try-timeout upstream-rq-per-try-timeout-ms upstream-rq-timeout-ms original-path";
        for name in orders.split_whitespace() {
            assert!(ok.headers_to_remove.contains(&format!("x-envoy-{name}")), "{name}");
        }
        let set = options(&answer).into_iter().map(|option| option.header.unwrap().key).collect::<Vec<_>>();
        assert_eq!(set, ["x-remit-agent", "x-remit-decision-id", "x-remit-chain"]);
    }

    #[test]
    fn c06_the_decision_is_metadata_of_every_answer() {
        let gate = Gate::open();
        let passed = gate.ask("gate", about("analyst", "/a", &[]));
        assert_eq!((metadata(&passed, "decision").as_str(), metadata(&passed, "agent").as_str()), ("ALLOW", "analyst"));
        let refused = gate.ask("gate", about("deployer", "/a", &[]));
        assert_eq!(metadata(&refused, "decision"), "DENY");
        assert_eq!(metadata(&refused, "decision_id"), body(&refused)["decision_id"].as_str().unwrap());
    }

    #[test]
    fn c07_a_refusal_has_headers_of_its_own_alone() {
        let gate = Gate::open();
        let sent = [("x-remit-agent", "a"), ("x-mine", "m"), ("set-cookie", "c")];
        let refused = gate.ask("gate", about("deployer", "/a", &sent));
        let names = options(&refused).into_iter().map(|option| option.header.unwrap().key).collect::<Vec<_>>();
        assert_eq!(names, ["content-type"]);
    }

    #[test]
    fn c18_what_other_filters_wrote_is_not_read() {
        let gate = Gate::open();
        let mut bytes = about("deployer", "/a", &[]).encode_to_vec();
        // One more piece of `attributes`, with a `metadata_context` (field 11) and a `tls_session` (field 12).
        bytes.extend([0x0a, 0x0a, 0x5a, 0x02, 0x0a, 0x00, 0x62, 0x04, 0x0a, 0x02, b'a', b'b']);
        let request = CheckRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.encode_to_vec().len(), about("deployer", "/a", &[]).encode_to_vec().len());
        assert_eq!(refusal(&gate.ask("gate", request)).1, "COMMUNICATION_NOT_ALLOWED");
    }

    #[test]
    fn c08_a_refusal_is_short_and_shows_no_token() {
        let gate = Gate::open();
        let token = "e".repeat(3000);
        let request = about("analyst", &format!("/{}", "a".repeat(5000)), &[("x-remit-token", &token)]);
        let answer = gate.ask("gate", request);
        assert!(denied(&answer).body.len() < 2048 && !denied(&answer).body.contains(&token));
    }

    #[test]
    fn c10_a_principal_with_a_nul_or_of_another_form_is_nobody() {
        let gate = Gate::open();
        for principal in ["", "spiffe://x/y\0z", "spiffe://x/y,spiffe://x/z", "analyst", "CN=analyst"] {
            let mut request = about("analyst", "/a", &[]);
            request.attributes.as_mut().unwrap().source =
                Some(Peer { principal: principal.to_owned(), certificate: String::new() });
            let (status, _) = refusal(&gate.ask("gate", request));
            assert!([401, 403].contains(&status), "{principal:?}");
        }
    }

    #[test]
    fn c12_headers_are_read_in_both_forms_and_in_both_at_once_not_at_all() {
        let gate = Gate::open();
        let token = gate.tokens[0].as_str();
        let extensions = [("remit-capability", "get"), ("remit-resource", "prod/web"), ("remit-destination", "store")];
        let merged = with(about("deployer", "/a", &[("x-remit-token", token)]), &extensions);
        assert_eq!(gate.ask("gate", merged.clone()).status.unwrap().code, 0);
        let raw = |values: &[&[u8]]| {
            let mut request = with(about("deployer", "/a", &[]), &extensions);
            let header = |value: &&[u8]| HeaderValue {
                key: "X-Remit-Token".to_owned(),
                value: String::new(),
                raw_value: value.to_vec(),
            };
            http(&mut request).header_map = Some(HeaderMap { headers: values.iter().map(header).collect() });
            request
        };
        assert_eq!(gate.ask("gate", raw(&[token.as_bytes()])).status.unwrap().code, 0);
        for twice in [raw(&[token.as_bytes(), token.as_bytes()]), raw(&[token.as_bytes(), b""]), raw(&[b"\xff"])] {
            assert_eq!(refusal(&gate.ask("gate", twice)), (403, "REQUEST_MALFORMED".to_owned()));
        }
        let mut both = raw(&[b"other"]);
        http(&mut both).headers = http(&mut merged.clone()).headers.clone();
        assert_eq!(refusal(&gate.ask("gate", both)), (403, "REQUEST_MALFORMED".to_owned()));
    }

    #[test]
    fn c15_what_a_client_can_forge_changes_nothing() {
        let gate = Gate::open();
        for name in
            ["x-envoy-original-path", "x-forwarded-proto", "x-forwarded-for", "x-request-id", "x-forwarded-host"]
        {
            let answer = gate.ask("gate", about("deployer", "/a", &[(name, "/v1/x")]));
            assert_eq!(refusal(&answer), (403, "COMMUNICATION_NOT_ALLOWED".to_owned()), "{name}");
        }
        // One id for two uses of a token hides the second from nobody.
        let extensions = [("remit-capability", "get"), ("remit-resource", "prod/web"), ("remit-destination", "store")];
        let ask = || {
            let mut request = with(about("deployer", "/a", &[("x-remit-token", &gate.tokens[2])]), &extensions);
            http(&mut request).id = "one".to_owned();
            gate.ask("gate", request)
        };
        assert_eq!(ask().status.unwrap().code, 0);
        assert_eq!(refusal(&ask()).1, "TOKEN_USES_EXHAUSTED");
    }

    #[test]
    fn c17_extensions_are_bound_to_the_callers_entry_and_go_together() {
        let gate = Gate::open();
        let ask = |caller: &str, extensions: &[(&str, &str)]| {
            gate.ask(caller, with(about("deployer", "/v2", &[]), extensions))
        };
        assert_eq!(ask("gate", &[("remit-destination", "store")]).status.unwrap().code, 0);
        for destination in ["mesh", "analyst", "", "stranger"] {
            let answer = ask("gate", &[("remit-destination", destination)]);
            assert_eq!(refusal(&answer).1, "CALLER_NOT_ENFORCEMENT_POINT", "{destination}");
        }
        for lone in [[("remit-capability", "get")], [("remit-resource", "prod/web")]] {
            assert_eq!(refusal(&ask("gate", &lone)).1, "REQUEST_MALFORMED");
        }
        let other = gate.ask("mesh", about("analyst", "/a", &[]));
        assert_eq!(refusal(&other).1, "CALLER_NOT_ENFORCEMENT_POINT", "mesh is limited to deployer");
    }

    #[test]
    fn c17_only_enforcement_points_are_answered_and_others_leave_no_trace() {
        let gate = Gate::open();
        for caller in ["deployer", "analyst", "rogue", "stranger"] {
            let answer = gate.ask(caller, about(caller, "/a", &[]));
            assert_eq!(refusal(&answer), (403, "CALLER_NOT_ENFORCEMENT_POINT".to_owned()));
        }
        assert_eq!(gate.engine.events().numbers().sequence, {
            let fresh = Gate::open();
            fresh.engine.events().numbers().sequence
        });
    }

    #[test]
    fn c17_the_destinations_certificate_counts_where_the_entry_lists_it() {
        let gate = Gate::open();
        let ask = |principal: &str| {
            let mut request = about("deployer", "/v2", &[]);
            let principal = format!("spiffe://cluster.local/ns/ai-agents/sa/{principal}-sa");
            request.attributes.as_mut().unwrap().destination = Some(Peer { principal, certificate: String::new() });
            gate.ask("gate", request)
        };
        assert_eq!(ask("store").status.unwrap().code, 0);
        assert_eq!(refusal(&ask("mesh")).1, "COMMUNICATION_NOT_ALLOWED", "then it is the caller itself");
    }

    /// A question, by places in the lists.
    #[derive(Clone, Debug)]
    struct Question {
        caller: &'static str,
        agent: &'static str,
        destination: Option<&'static str>,
        wanted: Option<(&'static str, &'static str)>,
        token: usize,
        method: &'static str,
        path: &'static str,
    }

    fn questions() -> impl Strategy<Value = Question> {
        let wanted = prop::sample::select(vec!["get", "get", "apply"]);
        let resource = prop::sample::select(vec!["prod/web", "prod/db/x", "dev/web", "prod/../web"]);
        (
            prop::sample::select(vec!["gate", "mesh"]),
            prop::sample::select([AGENTS.as_slice(), &["deployer", "analyst", "deployer"]].concat()),
            prop::option::weighted(0.5, prop::sample::select(vec!["store", "gate", "mesh", "analyst"])),
            prop::option::weighted(0.7, (wanted, resource)),
            0..5_usize,
            prop::sample::select(vec!["GET", "POST"]),
            prop::sample::select(vec!["/v1/x", "/v2", "/", "/v1//x"]),
        )
            .prop_map(|(caller, agent, destination, wanted, token, method, path)| Question {
                caller,
                agent,
                destination,
                wanted,
                token,
                method,
                path,
            })
    }

    /// The engine's own answer, spending nothing.
    fn in_process(gate: &Gate, question: &Question) -> Result<(), String> {
        let call = AgentCall { method: question.method, path: question.path };
        let token = gate.tokens[question.token].as_str();
        let (action, token) = match question.wanted {
            Some((capability, resource)) => (Action::UseByCall(capability, resource, call), Some(token)),
            None => (Action::Call(call), None),
        };
        let policy = gate.engine.policy();
        let now = gate.engine.clock().now();
        let headers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-remit-agent"),
            question.caller.parse().unwrap(),
        )]);
        let named = Identity::new(Config::default(), true).unwrap();
        let identity = named.identify_request(None, &headers, &policy.policy, now).unwrap().caller.identity().clone();
        let request = AuthorizeRequest {
            action,
            token: token.filter(|token| !token.is_empty()),
            agent: Some(question.agent),
            agent_evidence: None,
            destination: question.destination,
            given: remit::domain::facts::Given::default(),
            dry_run: true,
            request_id: "",
            deadline: now.after(PATIENCE),
        };
        let decision = gate.runtime.block_on(gate.engine.authorize(&Caller::new(identity, true), &request));
        decision.outcome.map_err(|denial| format!("{}: {}", denial.reason(), denial.message()))
    }

    fn at_the_door(gate: &Gate, question: &Question) -> Result<(), String> {
        let token = gate.tokens[question.token].as_str();
        let token = question.wanted.map(|_| ("x-remit-token", token));
        let mut request = about(question.agent, question.path, token.as_slice());
        http(&mut request).method = question.method.to_owned();
        let mut extensions = HashMap::new();
        if let Some((capability, resource)) = question.wanted {
            extensions.extend([("remit-capability", capability), ("remit-resource", resource)]);
        }
        extensions.extend(question.destination.map(|name| ("remit-destination", name)));
        let request = with(request, &extensions.into_iter().collect::<Vec<_>>());
        let answer = gate.ask(question.caller, request);
        if answer.status.as_ref().unwrap().code == 0 {
            return Ok(());
        }
        Err(format!("{}: {}", metadata(&answer, "reason"), metadata(&answer, "message")))
    }

    #[test]
    fn l11_the_proxys_door_gives_the_engines_answer() {
        let gate = Gate::open();
        let allowed = std::cell::Cell::new(0_usize);
        let outcome = runner(how_many()).run(&questions(), |question| {
            let expected = in_process(&gate, &question);
            allowed.set(allowed.get() + usize::from(expected.is_ok()));
            prop_assert_eq!(at_the_door(&gate, &question), expected);
            Ok(())
        });
        outcome.unwrap();
        assert!(allowed.get() > 50, "some are allowed: {}", allowed.get());
        let figures = [("questions", how_many().into()), ("allowed", allowed.get().into()), ("seed", seed().into())];
        assure("ext_authz against in process", &figures);
    }

    #[test]
    fn c01_c03_no_message_whatever_gets_an_error_or_half_an_answer() {
        let gate = Gate::open();
        let text = || prop_oneof!["[ -~]{0,20}", Just("/a".to_owned()), Just("GET".to_owned()), any::<String>()];
        let message = (
            (text(), text(), text(), text()),
            prop::collection::vec((text(), prop::collection::vec(any::<u8>(), 0..20)), 0..4),
            prop::collection::hash_map(text(), text(), 0..3),
            prop::collection::vec(any::<u8>(), 0..40),
            any::<i64>(),
        );
        let outcome =
            runner(how_many() / 2).run(&message, |((method, path, host, principal), raw, headers, raw_body, size)| {
                let mut request = about("analyst", "/a", &[]);
                let header = |(key, raw_value)| HeaderValue { key, value: String::new(), raw_value };
                let header_map = Some(HeaderMap { headers: raw.into_iter().map(header).collect() });
                let body = String::new();
                *http(&mut request) =
                    HttpRequest { id: String::new(), method, path, host, headers, header_map, raw_body, body, size };
                gate.ask("gate", request.clone());
                request.attributes.as_mut().unwrap().source = Some(Peer { certificate: principal.clone(), principal });
                gate.ask("gate", request);
                Ok(())
            });
        outcome.unwrap();
    }
}
