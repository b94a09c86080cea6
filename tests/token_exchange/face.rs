//! The face, and those who ask it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prometheus::Registry;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use remit::domain::agent::AgentName;
use remit::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use remit::domain::chain::Wish;
use remit::door::Door;
use remit::engine::{DelegateRequest, Delegation, Engine};
use remit::http::{Pages, oauth, routes};
use remit::identity::forwarded::{Forwarding, Introduction};
use remit::identity::jwt::{Audience, ClientConfig, Clients, Config as Issuer, Issuers};
use remit::identity::{Config, Identity, SELF_ASSERTED_HEADER, Sources, forwarded};
use remit::readiness::Condition;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use url::form_urlencoded::Serializer;

use crate::harness::audit::AuditLog;
use crate::harness::{NOW, PATIENCE, Setup, World};

pub(crate) const IDP: &str = "https://idp.example";
pub(crate) const REMIT: &str = "https://remit.example";
pub(crate) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const CAPABILITY: &str = "urn:remit:token-type:capability";
pub(crate) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub(crate) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(crate) const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// `gateway` begins chains and trusts `worker`; `tool` takes what `worker` hands on.
const POLICY: &str = r#"{
    "max_delegation_depth": 2,
    "token": {"max_uses_trusted_pair": 1000000, "default_ttl_seconds": 200},
    "delegation_rules": {
        "gateway": {"can_delegate_to": ["worker", "clerk"], "max_capability_set": ["get", "put"], "trusted_pairs": ["worker"]},
        "worker": {"can_delegate_to": ["tool"], "max_capability_set": ["get", "put"], "max_resources": ["prod/*", "https://h/*"],
            "rate_limit": {"per_second": 100000, "burst": 100000}},
        "tool": {"max_capability_set": ["get"]}
    },
    "auditors": ["eye"]
}"#;

/// Signs as somebody: an identity provider, or a client.
pub(crate) struct Signer {
    key: EncodingKey,
    pub(crate) jwks: String,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let point = pair.der_bytes();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": part(1..33), "y": part(33..65)});
        Self { key: EncodingKey::from_ec_der(&pair.serialize_der()), jwks: json!({"keys": [jwk]}).to_string() }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &self.key).unwrap()
    }
}

/// The face with everything behind it.
pub(crate) struct Face {
    pub(crate) engine: Arc<Engine>,
    pub(crate) idp: Signer,
    pub(crate) worker_key: Signer,
    identity: Arc<Identity>,
    router: Router,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The token that was granted.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body["access_token"].as_str().unwrap().to_owned()
    }

    /// The error's code and Remit's reason for it.
    #[track_caller]
    pub(crate) fn error(&self) -> (&str, &str) {
        assert!(self.status.is_client_error() || self.status.is_server_error(), "{}", self.body);
        assert_eq!(self.headers["cache-control"], "no-store");
        (self.body["error"].as_str().unwrap(), self.body["remit_reason"].as_str().unwrap_or_default())
    }
}

impl Face {
    pub(crate) fn new(offline_jwt: bool) -> Self {
        Self::under(POLICY, offline_jwt)
    }

    /// With offline JWTs, and these members in the policy beside.
    pub(crate) fn with_policy(members: &str) -> Self {
        let (open, rest) = POLICY.split_at(1);
        Self::under(&format!("{open}{members},{rest}"), true)
    }

    fn under(policy: &str, offline_jwt: bool) -> Self {
        let world = World::of(Setup { audit: AuditLog::none(), ..Setup::policy(policy) });
        let now = world.now();
        let engine = Arc::new(world.engine);
        let folder = tempfile::tempdir().unwrap();
        let (idp, worker_key) = (Signer::new(), Signer::new());
        let issuer = Issuer {
            issuer: IDP.to_owned(),
            audience: Audience(vec!["remit".to_owned()]),
            jwks_uri: Some(format!("{IDP}/keys")),
            agent_claim: Some("agent".to_owned()),
            id_tokens: true,
            ..Issuer::default()
        };
        let issuers = Issuers::new(&[issuer]).unwrap();
        issuers.install(IDP, idp.jwks.as_bytes(), now).unwrap();
        let jwks_file = folder.path().join("worker.json");
        std::fs::write(&jwks_file, &worker_key.jwks).unwrap();
        let started = remit::domain::time::Timestamp::from_seconds(NOW - 60);
        let clients = Clients::read(&[ClientConfig { agent: "worker".to_owned(), jwks_file }], started).unwrap();
        let sources = Sources { issuers, clients, forwarding: forwarding(folder.path(), now), ..Sources::default() };
        let identity = Arc::new(Identity::new(Config::default(), true).unwrap().with_sources(sources));
        let door = Door::new(Arc::clone(&engine), Arc::clone(&identity), 1);
        let pages = Pages {
            gatekeeper: remit::proxied::Gatekeeper::new(door.clone(), Arc::default()),
            door,
            examine: Arc::new(|| -> Condition { panic!("nobody asks") }),
            registry: Registry::new(),
            public_url: Some(REMIT.into()),
            oauth: oauth::Settings { offline_jwt, asks_for_certificates: false },
            drain: tokio_util::sync::CancellationToken::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { engine, idp, worker_key, identity, router: routes(pages), runtime, _folder: folder }
    }

    /// Sends a request.
    pub(crate) fn send(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
            let bytes = to_bytes(body, usize::MAX).await.unwrap();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Answer { status: parts.status, headers: parts.headers, body }
        })
    }

    /// Posts a form as this agent.
    pub(crate) fn post(&self, path: &str, agent: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(form(path, fields).header(SELF_ASSERTED_HEADER, agent).body(encoded(fields)).unwrap())
    }

    /// Exchanges as this agent, for `get` on `prod/web` unless the fields say otherwise.
    pub(crate) fn exchange(&self, agent: &str, fields: &[(&str, &str)]) -> Answer {
        let has = |name: &str| fields.iter().any(|(known, _)| *known == name);
        let mut all = vec![("grant_type", EXCHANGE)];
        if !has("scope") {
            all.push(("scope", "get"));
        }
        if !has("resource") && !has("remit_resource") {
            all.push(("remit_resource", "prod/web"));
        }
        all.extend(fields);
        self.post("/oauth2/token", agent, &all)
    }

    /// Introspects as this agent.
    pub(crate) fn introspect(&self, agent: &str, token: &str) -> Value {
        let answer = self.post("/oauth2/introspect", agent, &[("token", token)]);
        assert_eq!((answer.status, &answer.headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
        answer.body
    }

    /// A token that the gateway gives the worker in process, to hand on.
    pub(crate) fn workers_token(&self, max_uses: u32) -> String {
        let wish = crate::harness::wish("worker", &["get", "put"], &["prod/*"]);
        let wish = Wish { delegatable: true, max_uses: Some(max_uses), ..wish };
        self.delegate("gateway", None, wish).outcome.unwrap().token
    }

    /// Delegates in process.
    pub(crate) fn delegate(&self, agent: &str, parent: Option<&str>, wish: Wish<'_>) -> Delegation {
        let now = self.engine.clock().now();
        let caller = Caller::new(Arc::new(self.by_certificate(agent)), true);
        let deadline = now.after(PATIENCE);
        let request = DelegateRequest { wish, parent, request_id: "", deadline, expires_by: None, exchange: None };
        self.runtime.block_on(self.engine.delegate(&caller, &request))
    }

    fn by_certificate(&self, agent: &str) -> VerifiedIdentity {
        VerifiedIdentity {
            agent: AgentName::parse(agent).unwrap(),
            subject: agent.into(),
            method: IdentityMethod::Spiffe,
            issuer: "CN=ca".into(),
            claims: Arc::default(),
            verified_at: self.engine.clock().now(),
        }
    }

    /// Remit's word to the audience that this agent asked it, in this chain.
    pub(crate) fn forwarded(&self, agent: &str, audience: &str, chain: &[&str]) -> String {
        let (identity, chain) =
            (self.by_certificate(agent), chain.iter().map(|name| (*name).into()).collect::<Vec<_>>());
        let introduction = Introduction { identity: &identity, audience, chain: &chain, on_behalf_of: None, id: "1" };
        self.identity.sources().forwarding.sign(&introduction, self.engine.clock().now()).unwrap()
    }

    /// The provider's word that this is `subject`, and an agent if it has a name.
    pub(crate) fn jwt(&self, subject: &str, agent: Option<&str>, more: &Value) -> String {
        let mut claims = json!({"iss": IDP, "sub": subject, "aud": "remit", "iat": NOW - 10, "exp": NOW + 100});
        if let Some(agent) = agent {
            claims["agent"] = agent.into();
        }
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.idp.sign(&claims)
    }

    /// The provider's word that this is an agent.
    pub(crate) fn agent_jwt(&self, agent: &str) -> String {
        self.jwt(agent, Some(agent), &json!({}))
    }
}

/// A form that says this, still without its body.
pub(crate) fn form(path: &str, _fields: &[(&str, &str)]) -> axum::http::request::Builder {
    Request::post(path).header("content-type", "application/x-www-form-urlencoded")
}

pub(crate) fn encoded(fields: &[(&str, &str)]) -> Body {
    Body::from(Serializer::new(String::new()).extend_pairs(fields).finish())
}

fn forwarding(folder: &std::path::Path, now: remit::domain::time::Timestamp) -> Forwarding {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("forward.key");
    std::fs::write(&path, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = forwarded::Config { signing_key: Some(path), issuer: Some(REMIT.to_owned()), ..Default::default() };
    Forwarding::new(&config, now).unwrap()
}
