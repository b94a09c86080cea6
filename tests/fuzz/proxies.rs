//! What proxies hand over: requests, as Envoy tells them, and `x-forwarded-client-cert`.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use remit::api::envoy::config::core::v3::{HeaderMap, HeaderValue};
use remit::api::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request as About};
use remit::api::envoy::service::auth::v3::authorization_server::Authorization as _;
use remit::api::envoy::service::auth::v3::check_response::HttpResponse;
use remit::api::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse, OkHttpResponse};
use remit::domain::agent::AgentName;
use remit::door::Door;
use remit::engine::Engine;
use remit::grpc::ExtAuthz;
use remit::identity::api_key::{ApiKeys, line_for, new_key};
use remit::identity::{Config, Identity, Sources};
use remit::proxied::{Config as RulesConfig, Gatekeeper, Rules};
use tonic::Request;

use crate::campaign::{Outcome, Target};
use crate::harness::audit::AuditLog;
use crate::harness::{Setup, World, wish};

const POLICY: &str = r#"{
    "delegation_rules": {
        "coordinator": {"can_delegate_to": ["deployer", "analyst"], "max_capability_set": ["get"],
                        "trusted_pairs": ["deployer", "analyst"]},
        "deployer": {"max_capability_set": ["get"], "max_resources": ["prod/*"]},
        "analyst": {"max_capability_set": ["get"]}
    },
    "token": {"max_uses_trusted_pair": 4000000000},
    "enforcement_points": ["gate", "mesh"],
    "communication_rules": [
        {"from": "coordinator", "to": "deployer"},
        {"from": "coordinator", "to": "analyst"},
        {"from": "deployer", "to": "gate", "methods": ["GET"], "paths": ["/v1/*"]}
    ]
}"#;

/// Envoy's door, and good tokens by the words that stand for them in a corpus.
struct Gate {
    service: ExtAuthz,
    key: String,
    tokens: [(&'static str, String); 2],
    engine: Arc<Engine>,
    runtime: tokio::runtime::Runtime,
    _keys: tempfile::NamedTempFile,
}

impl Gate {
    fn open() -> Self {
        let world = World::of(Setup { audit: AuditLog::none(), ..Setup::policy(POLICY) });
        let mint = |to: &str, resources: &[&str]| {
            let wish = remit::domain::chain::Wish { max_uses: Some(4_000_000_000), ..wish(to, &["get"], resources) };
            world.delegate(&world.caller("coordinator"), &world.root(wish)).outcome.unwrap().token
        };
        let tokens = [("$DEPLOYER", mint("deployer", &["prod/*"])), ("$ANALYST", mint("analyst", &["*"]))];
        let key = new_key(&format!("{:0>40}", "gate")).to_string();
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), line_for("gate", &AgentName::parse("gate").unwrap(), &key) + "\n").unwrap();
        let sources = Sources { api_keys: ApiKeys::read(keys.path().to_owned()).unwrap(), ..Sources::default() };
        let identity = Arc::new(Identity::new(Config::default(), false).unwrap().with_sources(sources));
        let rules = RulesConfig { xfcc_from: vec!["mesh".to_owned()], ..RulesConfig::default() };
        let engine = Arc::new(world.engine);
        let gatekeeper =
            Gatekeeper::new(Door::new(Arc::clone(&engine), identity, 1), Arc::new(Rules::new(&rules).unwrap()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { service: ExtAuthz::new(gatekeeper), key, tokens, engine, runtime, _keys: keys }
    }

    /// Asks, and holds the answer to what every answer is: whole, and either an OK or a refusal.
    fn ask(&self, request: CheckRequest) -> CheckResponse {
        let mut request = Request::new(request);
        request.metadata_mut().insert("x-api-key", self.key.parse().unwrap());
        let answer = self.runtime.block_on(self.service.check(request));
        let answer = answer.expect("a gRPC error may be leave to pass").into_inner();
        let code = answer.status.as_ref().unwrap().code;
        match answer.http_response.as_ref().unwrap() {
            HttpResponse::OkResponse(_) => assert_eq!(code, 0),
            HttpResponse::DeniedResponse(denied) => {
                assert_ne!(code, 0);
                assert!([401, 403, 429, 503].contains(&denied.status.as_ref().unwrap().code));
            }
        }
        answer
    }
}

/// What a case says: who sent it, the request line, `@` before what the proxy says of the route, headers, an empty line
/// and a body.
#[derive(Default)]
struct Case {
    principal: String,
    method: String,
    path: String,
    extensions: HashMap<String, String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Case {
    fn read(input: &[u8]) -> Self {
        let (head, body) = match input.windows(2).position(|pair| pair == b"\n\n") {
            Some(end) => (&input[..end], &input[end + 2..]),
            None => (input, &[][..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        let principal = lines.next().map(text).unwrap_or_default();
        let request = lines.next().map(text).unwrap_or_default();
        let (method, path) = request.split_once(' ').unwrap_or_default();
        let mut case =
            Self { principal, method: method.into(), path: path.into(), body: body.to_vec(), ..Self::default() };
        for line in lines {
            let end = line.iter().skip(1).position(|byte| b":=".contains(byte)).map_or(line.len(), |end| end + 1);
            let (name, value) = (text(&line[..end]), line.get(end + 1..).unwrap_or_default());
            match name.strip_prefix('@') {
                Some(name) => drop(case.extensions.insert(name.to_owned(), text(value))),
                None => case.headers.push((name, value.to_vec())),
            }
        }
        case
    }

    fn message(&self) -> CheckRequest {
        let header = |(key, value): &(String, Vec<u8>)| HeaderValue {
            key: key.clone(),
            value: String::new(),
            raw_value: value.clone(),
        };
        let http = HttpRequest {
            method: self.method.clone(),
            path: self.path.clone(),
            host: "h".to_owned(),
            size: -1,
            header_map: Some(HeaderMap { headers: self.headers.iter().map(header).collect() }),
            raw_body: self.body.clone(),
            ..HttpRequest::default()
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(Peer { principal: self.principal.clone(), certificate: String::new() }),
                request: Some(About { http: Some(http) }),
                context_extensions: self.extensions.clone(),
                ..AttributeContext::default()
            }),
        }
    }

    fn shows(&self, token: &str) -> bool {
        self.headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("x-remit-token") && value == token.as_bytes())
    }
}

fn spiffe(agent: &str) -> String {
    format!("spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa")
}

/// Whether a request of this case may pass, said once more and otherwise: a token in its holder's hands for what it is
/// for, or a call that the one communication rule about the gate has.
fn may_pass(gate: &Gate, case: &Case) -> bool {
    let [(_, deployers), (_, analysts)] = &gate.tokens;
    let said = |name: &str| case.extensions.get(name).map_or("", String::as_str);
    let (capability, resource) = (said("remit-capability"), said("remit-resource"));
    let is_plain = |text: &str| {
        let path = text.strip_prefix('/').unwrap_or(text).split('/').all(|segment| !["", ".", ".."].contains(&segment));
        path && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"%\\;#*".contains(&byte))
    };
    if case.principal == spiffe("deployer") && capability.is_empty() && resource.is_empty() {
        let path = case.path.split('?').next().unwrap_or_default();
        return case.method == "GET" && path.strip_prefix("/v1/").is_some_and(is_plain);
    }
    let used = |agent: &str, token: &str| case.principal == spiffe(agent) && case.shows(token);
    let good = capability == "get"
        && (used("deployer", deployers) && resource.starts_with("prod/") || used("analyst", analysts));
    good && resource.len() <= 1024
}

fn removed(ok: &OkHttpResponse) -> Vec<&str> {
    let set = ok.headers.iter().filter_map(|option| option.header.as_ref()).map(|header| header.key.as_str());
    ok.headers_to_remove.iter().map(String::as_str).chain(set).collect()
}

#[test]
fn a_request_that_passes_is_one_that_may_and_takes_nothing_of_ours_along() {
    let target = Target { name: "ext-authz", longest: 3000, executions: 10_000, cost: 1 };
    let gate = Gate::open();
    target.run(|input| {
        let mut bytes = input.to_vec();
        for (word, token) in &gate.tokens {
            while let Some(at) = bytes.windows(word.len()).position(|window| window == word.as_bytes()) {
                drop(bytes.splice(at..at + word.len(), token.bytes()));
            }
        }
        let case = Case::read(&bytes);
        let answer = gate.ask(case.message());
        // A proxy is told what it said of the sender and of the route; nothing of what is in headers and body.
        let told = format!("{} {} {:?}", case.principal, case.path, case.extensions);
        let said = answer.encode_to_vec();
        for (_, token) in gate.tokens.iter().filter(|(_, token)| !told.contains(token)) {
            assert!(!said.windows(token.len()).any(|part| part == token.as_bytes()), "a token is in the answer");
        }
        let Some(HttpResponse::OkResponse(ok)) = &answer.http_response else { return Outcome::Refused };
        assert!(may_pass(&gate, &case), "it passed as {:?} {:?} {:?}", case.principal, case.path, case.extensions);
        let gone = removed(ok);
        for (name, _) in case.headers.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-remit-")) {
            assert!(gone.contains(&&*name.to_ascii_lowercase()), "{name} is the client's and passes");
        }
        Outcome::Accepted
    });
    assert!(gate.engine.state().ledger().is_some());
}

/// The one URI of the one client that the header tells of, read with nothing but a flag for "inside quotes".
fn one_uri(header: &str) -> Option<String> {
    let (mut elements, mut pairs, mut pair) = (1, Vec::new(), String::new());
    let (mut is_quoted, mut letters) = (false, header.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => pair.push(letters.next()?),
            ';' | ',' if !is_quoted => {
                elements += usize::from(letter == ',');
                pairs.push(std::mem::take(&mut pair));
            }
            _ => pair.push(letter),
        }
    }
    pairs.push(pair);
    let named =
        pairs.iter().filter_map(|pair| pair.split_once('=')).filter(|(name, _)| name.eq_ignore_ascii_case("uri"));
    let uris = named.map(|(_, value)| value.to_owned()).collect::<Vec<_>>();
    let [uri] = <[String; 1]>::try_from(uris).ok()?;
    (elements == 1 && !is_quoted && pairs.iter().all(|pair| pair.contains('='))).then_some(uri)
}

#[test]
fn a_forwarded_client_is_the_one_client_that_the_header_tells_of() {
    let target = Target { name: "xfcc", longest: 2000, executions: 10_000, cost: 1 };
    let gate = Gate::open();
    target.run(|input| {
        let header = ("x-forwarded-client-cert".to_owned(), input.to_vec());
        let case = Case {
            principal: spiffe("mesh"),
            method: "GET".to_owned(),
            path: "/v1/x".to_owned(),
            headers: vec![header],
            ..Case::default()
        };
        let answer = gate.ask(case.message());
        let Some(HttpResponse::OkResponse(_)) = &answer.http_response else { return Outcome::Refused };
        assert_eq!(std::str::from_utf8(input).ok().and_then(one_uri), Some(spiffe("deployer")));
        Outcome::Accepted
    });
}
