//! A real engine, driven in process, in the words of the oracle.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, KeyInit as _, Mac as _};
use remit::digest::sha256_hex;
use remit::domain::agent::AgentName;
use remit::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use remit::domain::chain;
use remit::domain::facts::Given;
use remit::domain::resource::Pattern;
use remit::domain::time::Timestamp;
use remit::domain::token::TokenId;
use remit::engine::chance::Chance;
use remit::engine::clock::Clock;
use remit::engine::{
    Action, AgentCall, AuthorizeRequest, Decision, DelegateRequest, Delegation, Engine, InForce, Parts, Tally,
};
use remit::events::{AuditConfig, Events, EventsConfig};
use remit::keyring::{Key, Keyring};
use remit::policy_file::{ExtraRoles, compile};
use remit::state::{Capacity, State};
use serde_json::{Map, Value, json};

use crate::words::{Ask, Policy, Wish};

/// When every world begins, in seconds.
pub const START: u64 = 1_700_000_000;
pub const OWN_KEY: &[u8] = b"0123456789abcdef0123456789abcdef own";
pub const FOREIGN_KEY: &[u8] = b"0123456789abcdef0123456789abcdef foreign";

pub struct World {
    pub engine: Engine,
    pub clock: Clock,
}

impl World {
    pub fn new(policy: &str) -> Self {
        Self::with_clock(policy, Clock::simulated(Timestamp::from_seconds(START)), 1)
    }

    /// One process after another on the same machine: the clock goes on, the seed of chance differs.
    pub fn with_clock(policy: &str, clock: Clock, seed: u64) -> Self {
        let keys = vec![Key::new(OWN_KEY, false).unwrap(), Key::new(FOREIGN_KEY, true).unwrap()];
        let engine = Engine::new(Parts {
            clock: clock.clone(),
            chance: Chance::seeded(seed),
            keyring: Keyring::new(keys).unwrap(),
            policy: in_force(policy, 1),
            state: State::in_memory(Capacity { entries: 100_000, per_agent: 100_000 }, clock.now()),
            events: events(),
            tally: Tally::new(&prometheus::Registry::new()).unwrap(),
            max_policy_age: None,
        });
        Self { engine, clock }
    }

    pub async fn authorize(&self, ask: &Ask, token: Option<&str>) -> Decision {
        let action = match (&ask.wanted, &ask.call) {
            (Some((capability, resource)), None) => Action::Use(capability, resource),
            (None, Some((method, path))) => Action::Call(AgentCall { method, path }),
            (Some((capability, resource)), Some((method, path))) => {
                Action::UseByCall(capability, resource, AgentCall { method, path })
            }
            (None, None) => panic!("a question asks for something"),
        };
        let request = AuthorizeRequest {
            action,
            token,
            agent: ask.agent.as_deref(),
            agent_evidence: None,
            destination: ask.destination.as_deref(),
            given: Given::default(),
            dry_run: ask.dry_run,
            request_id: "",
            deadline: self.deadline(ask.late),
        };
        self.engine.authorize(&caller(&ask.caller), &request).await
    }

    pub async fn delegate(&self, wish: &Wish, parent: Option<&str>) -> Delegation {
        let patterns = wish.res.iter().map(|text| Pattern::parse(text.as_str()).unwrap());
        let request = DelegateRequest {
            wish: chain::Wish {
                to: &wish.to,
                capabilities: wish.cap.iter().map(|text| text.as_str().into()).collect(),
                resources: patterns.collect(),
                max_uses: wish.uses.map(|uses| u32::try_from(uses).unwrap()),
                ttl_seconds: wish.ttl,
                max_depth: wish.max_depth.map(|depth| u8::try_from(depth).unwrap()),
                delegatable: wish.delegatable,
                audience: wish.aud.iter().map(|text| text.as_str().into()).collect(),
                task: None,
                on_behalf_of: None,
            },
            parent,
            request_id: "",
            deadline: self.deadline(wish.late),
            expires_by: None,
            exchange: None,
        };
        self.engine.delegate(&caller(&wish.caller), &request).await
    }

    /// 5 ms are enough; a microsecond less is not.
    fn deadline(&self, late: bool) -> Timestamp {
        self.clock.now().after(Duration::from_micros(if late { 4_999 } else { 5_000 }))
    }

    pub fn left(&self, id: TokenId) -> Option<u32> {
        self.engine.state().ledger().unwrap().look_up(id).map(|known| known.left)
    }
}

/// One recorder for all worlds. It looks at a clock that stands still: how fast its thread is must not decide
/// anything here.
fn events() -> Events {
    static EVENTS: OnceLock<Events> = OnceLock::new();
    let config = EventsConfig { ring: 16_384, ..EventsConfig::default() };
    let start = || Events::start(&AuditConfig::default(), &config, 1, || Timestamp::from_seconds(START)).unwrap();
    EVENTS.get_or_init(start).clone()
}

pub fn in_force(policy: &str, revision: u64) -> InForce {
    let compiled = compile("policy.json", policy.as_bytes(), &ExtraRoles::default(), sha256_hex, revision)
        .unwrap_or_else(|error| panic!("{policy}\n{error}"));
    InForce {
        policy: compiled.policy,
        source: compiled.source,
        warnings: Vec::new(),
        loaded_at: Timestamp::from_seconds(START),
    }
}

pub fn caller(name: &str) -> Caller {
    let agent = name_of(name);
    let identity = VerifiedIdentity {
        subject: agent.shared(),
        agent,
        method: IdentityMethod::Mtls,
        issuer: "ca".into(),
        claims: Arc::default(),
        verified_at: Timestamp::from_seconds(START),
    };
    Caller::new(Arc::new(identity), true)
}

pub fn name_of(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

/// A token as another issuer would seal it, and the id that Remit derives for it is left to Remit.
pub fn seal(key: &[u8], payload: &str) -> String {
    let mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap().chain_update(payload).finalize().into_bytes();
    let hex = faster_hex::hex_string(&mac);
    format!("{}.{hex}", URL_SAFE.encode(payload))
}

/// The claims of a token's text.
pub fn claims(token: &str) -> Map<String, Value> {
    let payload = URL_SAFE.decode(token.split_once('.').unwrap().0).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// The policy file that says this.
pub fn policy_text(policy: &Policy) -> String {
    let rules: Map<String, Value> = policy
        .rules
        .iter()
        .map(|(agent, rule)| {
            let value = json!({
                "can_delegate_to": rule.can_delegate_to,
                "max_capability_set": rule.cap,
                "max_resources": rule.res,
                "trusted_pairs": rule.trusted,
            });
            (agent.clone(), value)
        })
        .collect();
    let mut file = json!({
        "max_delegation_depth": policy.max_depth,
        "delegation_rules": rules,
        "token": {
            "default_ttl_seconds": policy.default_ttl,
            "max_ttl_seconds": policy.max_ttl,
            "default_max_uses": policy.default_uses,
            "max_uses_trusted_pair": policy.max_uses_trusted,
        },
        "administrators": policy.administrators,
        "quarantined": policy.quarantined,
    });
    if let Some(grants) = &policy.grants {
        let grants =
            grants.iter().map(|grant| json!({"agent": grant.agent, "capabilities": grant.cap, "resources": grant.res}));
        file["grants"] = grants.collect();
    }
    if let Some(rules) = &policy.communication {
        file["communication_rules"] = rules
            .iter()
            .map(|rule| {
                let mut value = json!({"from": rule.from, "to": rule.to});
                if let Some(methods) = &rule.methods {
                    value["methods"] = json!(methods);
                }
                if let Some(paths) = &rule.paths {
                    value["paths"] = json!(paths);
                }
                value
            })
            .collect();
    }
    let points = policy.points.iter().map(|point| match &point.agents {
        None if point.destinations.is_empty() => json!(point.agent),
        None => json!({"agent": point.agent, "destinations": point.destinations}),
        Some(agents) => json!({"agent": point.agent, "destinations": point.destinations, "agents": agents}),
    });
    file["enforcement_points"] = points.collect();
    serde_json::to_string_pretty(&file).unwrap()
}
