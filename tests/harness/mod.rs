//! A Remit in this process, for tests: a real engine with a clock that is moved by hand, seeded chance, a ledger
//! in memory and an audit log that is read back. It speaks the domain and knows no wire.
//!
//! ```ignore
//! let world = World::of(Setup::policy(r#"{"delegation_rules": …}"#));
//! let coordinator = world.caller("agent-coordinator");
//! let wish = wish("agent-deployer", &["kubectl_get"], &["prod/*"]);
//! let token = world.delegate(&coordinator, &world.root(wish)).outcome.unwrap().token;
//! let ask = AuthorizeRequest { token: Some(&token), ..world.ask("kubectl_get", "prod/web") };
//! assert!(world.authorize(&world.caller("agent-deployer"), &ask).outcome.is_ok());
//! assert_eq!(world.events().len(), 2);
//! ```
//!
//! A test crate says `#[cfg(test)] mod harness;`; one that doesn't use all of it adds
//! `#[expect(dead_code, reason = "…")]` there.

pub(crate) mod audit;
pub(crate) mod figures;
pub(crate) mod seal;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use prometheus::proto::MetricType;
use remit::digest::sha256_hex;
use remit::domain::agent::AgentName;
use remit::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use remit::domain::chain::Wish;
use remit::domain::facts::Given;
use remit::domain::reason::Denial;
use remit::domain::resource::Pattern;
use remit::domain::time::Timestamp;
use remit::engine::chance::Chance;
use remit::engine::clock::Clock;
use remit::engine::{
    Action, AuthorizeRequest, Decision, DelegateRequest, Delegation, Engine, InForce, Introspection, NotReinstated,
    Parts, Revocation, Revoked, SearchRequest, Searched, Tally, TokenTarget,
};
use remit::events::{AuditConfig, Events, EventsConfig};
use remit::keyring::{Key, Keyring};
use remit::policy_file::{ExtraRoles, PolicyError, compile};
use remit::state::{Capacity, State};

use audit::AuditLog;

/// When the ledger of a world begins, in seconds since the epoch: tokens of other issuers made up to here are fenced.
pub(crate) const FENCE: u64 = 1_795_297_893;
/// What a world's clock shows at first: 2026-11-21T21:51:43Z, ten seconds after [`FENCE`].
pub(crate) const NOW: u64 = FENCE + 10;
/// The first half of every decision's id, and the stream's name.
const PROCESS: u64 = 0xfeed;
/// A request that names no other deadline waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// What a world is made of. [`Setup::policy`] has a default for all but the policy.
pub(crate) struct Setup {
    /// The policy file's text.
    pub(crate) policy: String,
    /// Keys, the sealing one first: each of 32 equal bytes, and whether other issuers hold it too.
    pub(crate) keys: Vec<(u8, bool)>,
    /// Bounds of the ledger.
    pub(crate) capacity: Capacity,
    /// `[policy] max_age_seconds`.
    pub(crate) max_policy_age: Option<Duration>,
    /// Where events go.
    pub(crate) audit: AuditLog,
    /// How long the engine takes from one look at the clock to the next. Unless it takes no time, the recorder has a
    /// clock of its own, so that how often it looks changes nothing.
    pub(crate) tick: Duration,
    /// Where uses are counted; none: in memory, within `capacity`.
    pub(crate) state: Option<State>,
}

impl Setup {
    /// A world under this policy: one key, which other issuers hold too, room for everything, an audit file.
    pub(crate) fn policy(text: impl Into<String>) -> Self {
        Self {
            policy: text.into(),
            keys: vec![(1, true)],
            capacity: Capacity { entries: 100_000, per_agent: 100_000 },
            max_policy_age: None,
            audit: AuditLog::file(),
            tick: Duration::ZERO,
            state: None,
        }
    }
}

/// A Remit in this process.
pub(crate) struct World {
    /// The engine itself, for what the functions here don't do.
    pub(crate) engine: Engine,
    registry: Registry,
    audit: AuditLog,
    runtime: tokio::runtime::Runtime,
    /// How often the recorder looked at the clock: it begins each turn with that.
    turns: Arc<AtomicU64>,
}

impl World {
    /// A world that begins at [`NOW`].
    ///
    /// # Panics
    /// The policy can't be compiled.
    pub(crate) fn of(setup: Setup) -> Self {
        let Setup { policy, keys, capacity, max_policy_age, audit, tick, state } = setup;
        let clock = Clock::simulated(Timestamp::from_seconds(FENCE));
        let state = state.unwrap_or_else(|| State::in_memory(capacity, clock.now()));
        let settings = AuditConfig { file: audit.path(), ..AuditConfig::default() };
        let turns = Arc::new(AtomicU64::new(0));
        let ring = EventsConfig { ring: 1024, ..EventsConfig::default() };
        let events = Events::start(&settings, &ring, PROCESS, recorders_clock(&clock, &turns));
        let clock = if tick.is_zero() { clock } else { Clock::ticking(clock.now(), tick) };
        let registry = Registry::new();
        clock.advance(Duration::from_secs(NOW - FENCE));
        let engine = Engine::new(Parts {
            chance: Chance::seeded(1),
            keyring: keyring(&keys),
            policy: in_force(&policy, 1, clock.now()).unwrap_or_else(|error| panic!("{error}")),
            state,
            events: events.unwrap_or_else(|error| panic!("{error}")),
            tally: Tally::new(&registry).unwrap(),
            max_policy_age,
            clock,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { engine, registry, audit, runtime, turns }
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.engine.clock().now()
    }

    /// Moves the clock, after everything that waits is written.
    pub(crate) fn advance(&self, by: Duration) {
        self.settle();
        self.engine.clock().advance(by);
        self.await_turn();
        self.settle();
    }

    /// Waits until the recorder has seen the new time, and has recorded what is due by it.
    fn await_turn(&self) {
        // A turn looks at the clock once, and a few times more where denials are due.
        let enough = self.turns.load(Ordering::SeqCst).saturating_add(6);
        for _ in 0..PATIENCE.as_millis() {
            if self.audit.is_stuck() || self.turns.load(Ordering::SeqCst) >= enough {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the recorder took no turn within two seconds");
    }

    /// Puts a policy file's text in force, under the next revision.
    ///
    /// # Errors
    /// It can't be compiled; then nothing changes.
    pub(crate) fn reload(&self, text: &str) -> Result<(), PolicyError> {
        let revision = self.engine.policy().policy.id.revision.saturating_add(1);
        self.runtime.block_on(self.engine.install(in_force(text, revision, self.now())?));
        Ok(())
    }

    /// Replaces the keys, written as in [`Setup::keys`].
    pub(crate) fn change_keys(&self, keys: &[(u8, bool)]) {
        self.engine.install_keys(keyring(keys));
    }

    /// The agent of this name on its own mTLS connection.
    pub(crate) fn caller(&self, agent: &str) -> Caller {
        self.caller_by(agent, IdentityMethod::Spiffe, true)
    }

    /// The agent of this name by other evidence; `privileged`: evidence of this kind may hold roles.
    pub(crate) fn caller_by(&self, agent: &str, method: IdentityMethod, privileged: bool) -> Caller {
        self.caller_with(agent, method, privileged, serde_json::Map::new())
    }

    /// The same by evidence that claims more.
    pub(crate) fn caller_with(
        &self,
        agent: &str,
        method: IdentityMethod,
        privileged: bool,
        claims: serde_json::Map<String, serde_json::Value>,
    ) -> Caller {
        let identity = VerifiedIdentity {
            agent: AgentName::parse(agent).unwrap(),
            subject: agent.into(),
            method,
            issuer: "CN=agent-ca".into(),
            claims: Arc::new(claims),
            verified_at: self.now(),
        };
        Caller::new(Arc::new(identity), privileged)
    }

    /// A question about the use of a capability, without a token.
    pub(crate) fn ask<'a>(&self, capability: &'a str, resource: &'a str) -> AuthorizeRequest<'a> {
        AuthorizeRequest {
            action: Action::Use(capability, resource),
            token: None,
            agent: None,
            agent_evidence: None,
            destination: None,
            given: Given::default(),
            dry_run: false,
            request_id: "",
            deadline: self.now().after(PATIENCE),
        }
    }

    /// A wish for the root of a new chain.
    pub(crate) fn root<'a>(&self, wish: Wish<'a>) -> DelegateRequest<'a> {
        DelegateRequest {
            wish,
            parent: None,
            request_id: "",
            deadline: self.now().after(PATIENCE),
            expires_by: None,
            exchange: None,
        }
    }

    /// A wish for a child of this token.
    pub(crate) fn child<'a>(&self, parent: &'a str, wish: Wish<'a>) -> DelegateRequest<'a> {
        DelegateRequest { parent: Some(parent), ..self.root(wish) }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn authorize(&self, caller: &Caller, request: &AuthorizeRequest<'_>) -> Decision {
        self.runtime.block_on(self.engine.authorize(caller, request))
    }

    /// Searches, and waits for the answer.
    pub(crate) fn search(&self, caller: &Caller, request: &SearchRequest<'_>) -> Searched {
        self.runtime.block_on(self.engine.search(&self.engine.begin(), caller, request))
    }

    /// Asks for a token, and waits for the answer.
    pub(crate) fn delegate(&self, caller: &Caller, request: &DelegateRequest<'_>) -> Delegation {
        self.runtime.block_on(self.engine.delegate(caller, request))
    }

    /// Revokes, and waits for the answer.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn revoke(&self, caller: &Caller, revocation: &Revocation<'_>) -> Result<Revoked, Denial> {
        self.runtime.block_on(self.engine.revoke(caller, revocation))
    }

    /// Lifts a quarantine, and waits for the answer.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn reinstate(&self, caller: &Caller, agent: &str, note: &str) -> Result<u64, NotReinstated> {
        let agent = AgentName::parse(agent).unwrap();
        self.runtime.block_on(self.engine.reinstate(caller, &agent, note))
    }

    /// Looks at a token.
    ///
    /// # Errors
    /// Why the caller may not.
    pub(crate) fn introspect(&self, caller: &Caller, target: TokenTarget<'_>) -> Result<Introspection, Denial> {
        self.runtime.block_on(self.engine.introspect(caller, target))
    }

    /// Every event written since the last call, as the audit log has it. Waits until none is on its way.
    pub(crate) fn events(&mut self) -> Vec<serde_json::Value> {
        self.settle();
        self.audit.read()
    }

    /// The audit log, to make it stuck or well.
    pub(crate) fn audit(&mut self) -> &mut AuditLog {
        &mut self.audit
    }

    /// The value of a counter or gauge with exactly these labels; none if there is no such series.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.engine.tally().refresh(self.now());
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let series = family.get_metric().iter().find(|series| {
            let found = series.get_label().iter().map(|label| (label.name(), label.value()));
            series.get_label().len() == labels.len() && found.into_iter().all(|label| labels.contains(&label))
        })?;
        let value = match family.get_field_type() {
            MetricType::COUNTER => series.get_counter().get_value(),
            MetricType::GAUGE => series.get_gauge().get_value(),
            other @ (MetricType::SUMMARY | MetricType::UNTYPED | MetricType::HISTOGRAM) => {
                panic!("{name} is neither a counter nor a gauge: {other:?}")
            }
        };
        Some(value)
    }

    /// Waits until every event is written, for as long as the log is well.
    fn settle(&self) {
        for _ in 0..PATIENCE.as_millis() {
            let numbers = self.engine.events().numbers();
            if self.audit.is_stuck() || (numbers.waiting == 0 && numbers.is_well) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("events were not written within two seconds: {:?}", self.engine.events().numbers());
    }
}

/// A wish for what has no default, and nothing else.
pub(crate) fn wish<'a>(to: &'a str, capabilities: &[&'a str], resources: &[&'a str]) -> Wish<'a> {
    Wish {
        to,
        capabilities: capabilities.iter().map(|name| Cow::Borrowed(*name)).collect(),
        resources: resources.iter().map(|text| Pattern::parse(*text).unwrap()).collect(),
        max_uses: None,
        ttl_seconds: None,
        max_depth: None,
        delegatable: false,
        audience: Vec::new(),
        task: None,
        on_behalf_of: None,
    }
}

/// The world's time, counting how often the recorder's thread looks at it.
fn recorders_clock(clock: &Clock, turns: &Arc<AtomicU64>) -> impl Fn() -> Timestamp + Send + Sync + 'static {
    let (clock, turns) = (clock.clone(), Arc::clone(turns));
    move || {
        if std::thread::current().name() == Some("remit-recorder") {
            turns.fetch_add(1, Ordering::SeqCst);
        }
        clock.now()
    }
}

fn keyring(keys: &[(u8, bool)]) -> Keyring {
    Keyring::new(keys.iter().map(|(byte, foreign)| Key::new(&[*byte; 32], *foreign).unwrap()).collect()).unwrap()
}

fn in_force(text: &str, revision: u64, now: Timestamp) -> Result<InForce, PolicyError> {
    let compiled = compile("policy.json", text.as_bytes(), &ExtraRoles::default(), sha256_hex, revision)?;
    Ok(InForce {
        policy: compiled.policy,
        source: compiled.source,
        warnings: compiled.warnings.iter().map(ToString::to_string).collect(),
        loaded_at: now,
    })
}
