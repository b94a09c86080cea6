//! Every room, made from the configuration. What is missing or wrong is an error that says what to write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::ServerError;
use super::troubles::Troubles;
use crate::config::Config;
use crate::digest::sha256_hex;
use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::engine::chance::Chance;
use crate::engine::clock::Clock;
use crate::engine::{Engine, InForce, NewTraces, Parts, Tally};
use crate::events::{Events, OnFailure, Sign};
use crate::export::{self, Collector, Exporter};
use crate::identity::api_key::ApiKeys;
use crate::identity::forwarded::Forwarding;
use crate::identity::jwt::{Clients, Issuers};
use crate::identity::jwt_type::JwtType;
use crate::identity::{Identity, Sources};
use crate::keyring::{KeyFiles, read_closed};
use crate::policy_file::{Compiled, PolicyFile, Reloader, Status, Watcher};
use crate::readiness::{Condition, Connections, Examine};
use crate::state::{Directory, ReadPassword, ReadTls, State, StateError, StorePassword, StoreSettings, StoreTls};
use crate::transport::{CertificateRole, ClientAuth, ClientFiles, ClientPem, Gate, Protocol, TlsFiles, TlsStore};

/// The rooms, joined.
pub(super) struct Built {
    pub(super) engine: Arc<Engine>,
    pub(super) identity: Arc<Identity>,
    pub(super) registry: Registry,
    /// Sends events to a collector, if there is one; taken at the end.
    pub(super) exporter: Mutex<Option<Exporter>>,
    pub(super) tls: Arc<TlsStore>,
    pub(super) admin_tls: Arc<TlsStore>,
    pub(super) http_tls: Option<Arc<TlsStore>>,
    pub(super) gate: Arc<Gate>,
    pub(super) admin_gate: Arc<Gate>,
    pub(super) keys: KeyFiles,
    pub(super) policy_status: Arc<Status>,
    pub(super) policy_reloader: Reloader,
    /// Taken when the watch begins.
    pub(super) policy_watcher: Mutex<Option<Watcher>>,
}

pub(super) fn build(config: &Config, is_dev: bool) -> Result<Built, ServerError> {
    let clock = Clock::system();
    let directory = Directory::open(&config.state.dir).map_err(unusable_state)?;
    clock.not_before(directory.time());
    warn_of_time(&clock);
    let chance = Chance::system();
    let keys = config.key_files();
    let keyring = keys.read().map_err(|error| ServerError::new("[[key]]", error))?;
    let tls = tls(config, is_dev, &clock)?;
    let admin_tls = store(config.admin.files(&config.tls), Protocol::Http2Only, &clock, "[admin]")?;
    let http_tls = http_tls(config, &clock)?;
    let identity =
        Identity::new(config.identity.clone(), is_dev).map_err(|error| ServerError::new("[identity]", error))?;
    let identity = Arc::new(identity.with_sources(sources(config, clock.now())?));

    let file = PolicyFile::new(config.policy.file.clone(), config.policy.roles(), sha256_hex);
    let first =
        file.load(1).map_err(|error| ServerError(format!("the policy can't be used\n{}", error.render(false))))?;
    for warning in &first.warnings {
        tracing::warn!(target: "policy", "{}", warning.render(false));
    }
    let now = clock.now();
    let poll = config.policy.poll();
    let (policy_watcher, policy_reloader, policy_status) = Watcher::new(file, &first, now, poll);

    let time = clock.clone();
    let process = u64::from_be_bytes(chance.bytes());
    let sign = checkpoints(config, &identity);
    let mask_key = Some(chance.bytes());
    let events = Events::start_signing(&config.audit, &config.events, process, move || time.now(), sign, mask_key)
        .map_err(|error| ServerError::new("[audit]", error))?;
    let registry = Registry::new();
    let tally = Tally::new(&registry).map_err(|error| ServerError::new("the metrics can't be registered", error))?;
    let (exporter, new_traces) = exporter(config, &events, &registry)?;
    // Last of all: a start that fails before this leaves the saved ledger for the next.
    let state = state(config, directory, &clock, &chance)?;
    let parts = Parts {
        state,
        clock,
        chance,
        keyring,
        policy: in_force(first, now),
        events,
        tally,
        max_policy_age: config.policy.max_age(),
    };
    Ok(Built {
        engine: Arc::new(Engine::new(parts).beginning_traces(new_traces)),
        exporter: Mutex::new(exporter),
        identity,
        registry,
        tls: Arc::new(tls),
        admin_tls: Arc::new(admin_tls),
        http_tls: http_tls.map(Arc::new),
        gate: Gate::new(config.grpc.limits()),
        admin_gate: Gate::new(config.grpc.limits()),
        keys,
        policy_status,
        policy_reloader,
        policy_watcher: Mutex::new(Some(policy_watcher)),
    })
}

fn state(config: &Config, directory: Directory, clock: &Clock, chance: &Chance) -> Result<State, ServerError> {
    let time = clock.clone();
    let now = move || time.now();
    let made = if let Some(backend) = config.state.backend() {
        let salt = u64::from_be_bytes(chance.bytes());
        State::in_directory(directory, backend, config.state.capacity(), now, salt)
    } else {
        let store = store_settings(config, clock).map_err(ServerError)?;
        let entropy = Chance::system();
        State::in_store(directory, store, now, move || entropy.bytes())
    };
    made.map_err(unusable_state)
}

/// How the store is asked. Every file is read now, to say what is wrong with one, and anew for each connection.
fn store_settings(config: &Config, clock: &Clock) -> Result<StoreSettings, String> {
    let clock = clock.clone();
    let password = |key, file: PathBuf| -> ReadPassword { Arc::new(move || store_password(key, &file)) };
    let tls = |files: ClientFiles| -> ReadTls {
        Arc::new(move || {
            let ClientPem { ca, identity } = files.read(clock.now()).map_err(|error| format!("[state] {error}"))?;
            Ok(StoreTls { ca, identity })
        })
    };
    let settings = config.state.store(password, tls)?.ok_or("[state] backend needs a store")?;
    settings.check()?;
    Ok(settings)
}

/// The password is the file's text without a final newline, as for keys.
fn store_password(key: &str, file: &Path) -> Result<StorePassword, String> {
    let bytes = read_closed(file, limits::KEY_FILE_BYTES).map_err(|error| format!("[state] {key}: {error}"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("[state] {key} is not text"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("[state] {key} is empty"));
    }
    Ok(StorePassword::new(Zeroizing::new(text.to_owned())))
}

/// What sends events to a collector, and which requests begin a trace for it. It begins before the first event.
fn exporter(
    config: &Config,
    events: &Events,
    registry: &Registry,
) -> Result<(Option<Exporter>, NewTraces), ServerError> {
    let counters = export::Counters::new(registry);
    let counters = counters.map_err(|error| ServerError::new("the metrics can't be registered", error))?;
    let telemetry = &config.telemetry;
    let Some(endpoint) = &telemetry.otlp_endpoint else { return Ok((None, NewTraces::Never)) };
    let collector = Collector::parse(endpoint);
    let collector = collector.map_err(|error| ServerError::new("[telemetry] otlp_endpoint", error))?;
    let settings =
        export::Settings { collector, ca: telemetry.otlp_ca.clone(), headers: telemetry.otlp_headers_file.clone() };
    let chance = Chance::system();
    let exporter = Exporter::start(&settings, events, counters, move || u32::from_be_bytes(chance.bytes()));
    let exporter = exporter.map_err(|error| ServerError::new("[telemetry]", error))?;
    Ok((Some(exporter), NewTraces::Ratio(telemetry.otlp_sample_ratio)))
}

/// What signs the audit log's checkpoints: the key of forwarded identities, whichever it is at that moment.
fn checkpoints(config: &Config, identity: &Arc<Identity>) -> Option<Sign> {
    config.audit.file.as_ref()?;
    if identity.sources().forwarding.signer().is_none() {
        tracing::info!(
            target: "audit",
            "the audit log gets no signed checkpoints: no signing key is configured in [identity.forward]"
        );
        return None;
    }
    let identity = Arc::clone(identity);
    Some(Box::new(move |checkpoint, now| {
        let signed = identity.sources().forwarding.attest(JwtType::Checkpoint, checkpoint.claims(), now);
        signed.map_err(|unsigned| unsigned.to_string())
    }))
}

fn unusable_state(error: StateError) -> ServerError {
    ServerError::new("[state] dir", error)
}

/// Time that an earlier process saved may be far ahead of a wall clock that was set right since.
fn warn_of_time(clock: &Clock) {
    let ahead = clock.ahead_of_wall();
    if ahead > WALL_BEHIND {
        tracing::warn!(
            target: "state",
            seconds = ahead.as_secs(),
            "the clock is behind the time that was saved in the state directory: tokens end early until it has caught up"
        );
    }
}

/// Clocks are set by less than this all the time.
const WALL_BEHIND: Duration = Duration::from_secs(10);

/// Who is under quarantine without a person's having put it there: somebody should look.
fn taken_automatically(quarantines: &BTreeMap<String, Vec<&'static str>>) -> Option<String> {
    let agents = quarantines.iter().filter(|(_, sources)| sources.contains(&"automatic"));
    let agents = agents.map(|(agent, _)| agent.as_str()).collect::<Vec<_>>();
    let more = match agents.len().saturating_sub(SHOWN_AGENTS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = agents.iter().take(SHOWN_AGENTS).copied().collect::<Vec<_>>().join(", ");
    let text =
        || format!("quarantined automatically: {shown}{more}; look at it, then give `remit reinstate --agent A`");
    (!agents.is_empty()).then(text)
}

/// Agents under quarantine that are named.
const SHOWN_AGENTS: usize = 5;

/// A compiled policy as the engine takes it.
pub(super) fn in_force(compiled: Compiled, now: Timestamp) -> InForce {
    let Compiled { policy, warnings, source } = compiled;
    InForce { policy, source, warnings: warnings.iter().map(|warning| warning.render(false)).collect(), loaded_at: now }
}

/// What evidence beside certificates is checked against.
fn sources(config: &Config, now: Timestamp) -> Result<Sources, ServerError> {
    let api_keys = config.identity.api_keys_file.clone().map(ApiKeys::read).transpose();
    let forwarding = Forwarding::new(&config.identity.forward, now);
    let clients = Clients::read(&config.identity.client, now);
    let issuers = Issuers::new(&config.identity.jwt).map_err(|error| ServerError::new("[identity]", error))?;
    Ok(Sources {
        issuers,
        clients: clients.map_err(|error| ServerError::new("[[identity.client]]", error))?,
        api_keys: api_keys.map_err(|error| ServerError::new("[identity] api_keys_file", error))?.unwrap_or_default(),
        forwarding: forwarding.map_err(|error| ServerError::new("[identity.forward]", error))?,
    })
}

fn tls(config: &Config, is_dev: bool, clock: &Clock) -> Result<TlsStore, ServerError> {
    let mut files = config.tls.files(config.identity.takes_other_evidence());
    if is_dev && config.tls.client_auth.is_none() {
        // A caller may be a name and nothing else, so it need not have a certificate.
        files.client_auth = ClientAuth::Optional;
    }
    store(files, Protocol::Http2Only, clock, "[tls]")
}

fn http_tls(config: &Config, clock: &Clock) -> Result<Option<TlsStore>, ServerError> {
    let Some(files) = config.http.files(&config.tls) else { return Ok(None) };
    store(files, Protocol::Auto, clock, "[http]").map(Some)
}

fn store(files: TlsFiles, protocol: Protocol, clock: &Clock, section: &str) -> Result<TlsStore, ServerError> {
    let time = clock.clone();
    TlsStore::load(files, protocol, Arc::new(move || time.now())).map_err(|error| ServerError::new(section, error))
}

impl Built {
    /// What tells how the process is doing, and where background work notes its troubles.
    pub(super) fn examination(&self, config: &Config, drain: CancellationToken) -> (Examine, Troubles) {
        let troubles = Troubles::default();
        let (engine, status) = (Arc::clone(&self.engine), Arc::clone(&self.policy_status));
        let (tls, gate, noted) = (Arc::clone(&self.tls), Arc::clone(&self.gate), troubles.clone());
        let (policy_file, audit_file) = (config.policy.file.clone(), config.audit.file.clone());
        let issuers = self.identity.sources().issuers.clone();
        let must_record = config.audit.on_failure == OnFailure::Deny;
        let started_at = engine.clock().now();
        let examine = move || {
            let now = engine.clock().now();
            let expiry = |role, name| tls.certificate_expiry(role).map(|at| (name, at));
            let counters = gate.counters();
            let state = engine.state().report();
            let unready = [
                (state.halted.is_some(), state.halted.unwrap_or_default()),
                (drain.is_cancelled(), "draining"),
                (engine.is_policy_stale(now), "the policy file could not be read and found valid for too long"),
                (must_record && !engine.events().numbers().is_well, "decisions can't be recorded in the audit log"),
            ];
            let keys = issuers.status(now).into_iter().filter_map(|issuer| issuer.trouble);
            let policy = engine.policy();
            let taken = taken_automatically(&engine.quarantines(&policy.policy));
            let warnings = policy.warnings.len();
            let warned =
                (warnings > 0).then(|| format!("the policy has {warnings} warnings: see `remit policy check`"));
            Condition {
                not_ready: unready.iter().filter(|(is_so, _)| *is_so).map(|(_, why)| (*why).to_owned()).collect(),
                attention: status
                    .last_error()
                    .into_iter()
                    .chain(taken)
                    .chain(state.trouble)
                    .chain(state.store.into_iter().flat_map(|store| store.wrong_settings))
                    .chain(engine.events().trouble())
                    .chain(noted.list())
                    .chain(keys)
                    .chain(warned)
                    .collect(),
                started_at,
                policy_loaded_at: status.loaded_at(),
                policy_reload_failures: status.reload_failures(),
                is_policy_current: status.last_error().is_none(),
                policy_checked_at: status.last_valid_read(),
                policy_file: policy_file.clone(),
                audit_file: audit_file.clone(),
                certificate_expiries: [
                    expiry(CertificateRole::Server, "server"),
                    expiry(CertificateRole::ClientCa, "client_ca"),
                ]
                .into_iter()
                .flatten()
                .collect(),
                connections: Connections {
                    open: counters.open(),
                    accepted: counters.accepted(),
                    handshake_failures: counters.handshake_failures(),
                },
            }
        };
        (Arc::new(examine), troubles)
    }
}
