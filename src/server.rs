//! Builds every room from the configuration, joins them, and runs until shutdown.
//!
//! gRPC runs on one single-threaded runtime a core, each with a listener of its own on the same port:
//! a request is answered on the thread that received it. Everything else (the admin and HTTP listeners,
//! reloads, expiry) runs on the main thread's runtime.

mod build;
mod issuers;
mod reload;
mod troubles;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::reason::Denial;
use crate::door::Door;
use crate::engine::Engine;
use crate::grpc::{self, AdminService, Answering, DecisionService, ExtAuthz};
use crate::proxied::{Gatekeeper, Rules};
use crate::readiness::Examine;
use crate::state::StateError;
use crate::transport::listen::{NotLoopback, require_loopback};
use crate::transport::{Gate, Protocol, Security, TlsStore, listen, serve};
use crate::{http, shutdown, telemetry};
use build::Built;
use workers::Workers;

/// After the drain, events that wait are written for at most this long.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// How the service was asked to run, beside its configuration.
pub struct Launch {
    /// The settings.
    pub config: Config,
    /// `serve --dev`: believes names, and reflects everywhere.
    pub is_dev: bool,
    /// Told once, when every listener answers.
    pub on_ready: Box<dyn FnOnce(Ports) + Send>,
}

/// Where the service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// Admin gRPC.
    pub admin: SocketAddr,
}

/// Why the service did not start, or did not end well: what to do stands in the text.
#[derive(Debug)]
pub struct ServerError(String);

impl ServerError {
    fn new(what: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

/// Runs until a signal or `stop`, then drains.
///
/// # Errors
/// The service could not start, or events could not be written at the end.
pub fn run(launch: Launch, stop: CancellationToken) -> Result<(), ServerError> {
    telemetry::start(&launch.config.telemetry).map_err(|error| ServerError::new("the log can't be started", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ServerError::new("the runtime can't be started", error))?;
    runtime.block_on(run_until(launch, stop))
}

async fn run_until(launch: Launch, stop: CancellationToken) -> Result<(), ServerError> {
    let Launch { config, is_dev, on_ready } = launch;
    let drain = stop.child_token();
    shutdown::on_signals(drain.clone()).map_err(|error| ServerError::new("signals can't be listened to", error))?;
    let built = build::build(&config, is_dev)?;
    let engine = Arc::clone(&built.engine);
    let served = serve_until(config, is_dev, built, on_ready, drain).await;
    // Also after a start that failed: the saved ledger has been used up.
    let saved = tokio::task::spawn_blocking(move || engine.state().save()).await;
    let not_saved = |error: StateError| ServerError::new("the state could not be saved", error);
    let saved = saved.map_or_else(
        |error| Err(ServerError::new("the state could not be saved", error)),
        |saved| saved.map_err(not_saved),
    );
    served.and(saved)?;
    tracing::info!(target: "server", "stopped");
    Ok(())
}

async fn serve_until(
    config: Config,
    is_dev: bool,
    built: Built,
    on_ready: Box<dyn FnOnce(Ports) + Send>,
    drain: CancellationToken,
) -> Result<(), ServerError> {
    let durable = |denial: Denial| ServerError::new("the policy file's quarantines", denial.message());
    built.engine.take_over().await.map_err(durable)?;
    let (examine, troubles) = built.examination(&config, drain.clone());
    let reloader = reload::begin(&built, &config, troubles, drain.clone())?;
    issuers::begin(&built.identity.sources().issuers, built.engine.clock(), &drain)?;

    let (mut answering, health) = grpc::health().await;
    let cores = runtimes(&config);
    let door = Door::new(Arc::clone(&built.engine), Arc::clone(&built.identity), cores);
    let decisions = DecisionService::new(door.clone(), drain.clone());
    let reflection = |error: tonic_reflection::server::Error| ServerError::new("the descriptors can't be read", error);
    let rules = Rules::new(&config.ext_authz).map_err(|error| ServerError(error.to_string()))?;
    let gatekeeper = Gatekeeper::new(door.clone(), Arc::new(rules));
    let ext_authz = ExtAuthz::new(gatekeeper.clone());
    let routes = grpc::decision_routes(decisions, ext_authz, health.clone(), is_dev).map_err(reflection)?;
    let admin = AdminService::new(door.clone(), reloader, Arc::clone(&examine));
    let admin_routes = grpc::admin_routes(admin, health).map_err(reflection)?;

    let security = Security::Tls(Arc::clone(&built.tls));
    let (grpc_port, workers) = Workers::start(&config, cores, &security, &grpc::prepared(routes), &built.gate, &drain)?;
    let (admin_port, admin_listener) = bind(config.admin.listen, "[admin] listen")?;
    let security = Security::Tls(Arc::clone(&built.admin_tls));
    let admin =
        serve(admin_listener, security, grpc::prepared(admin_routes), Arc::clone(&built.admin_gate), drain.clone());
    let (http_port, http) = http_service(&config, &built, gatekeeper, &examine, &drain)?;
    let (admin, http) = (tokio::spawn(admin), tokio::spawn(http));

    let ports = Ports { grpc: grpc_port, http: http_port, admin: admin_port };
    tracing::info!(target: "server", grpc = %ports.grpc, http = %ports.http, admin = %ports.admin, "listening");
    built.engine.record_start().await;
    answering.set(true).await;
    tokio::spawn(keep_health(answering.clone(), Arc::clone(&examine), drain.clone()));
    on_ready(ports);

    drain.cancelled().await;
    answering.end().await;
    let cut = workers.join().await;
    let _ = (admin.await, http.await);
    finish(&built.engine, cut.as_ref().copied().unwrap_or(0)).await?;
    cut.map(|_| ())
}

/// Says "not serving" while the service can't answer, such as while the audit log is stuck.
async fn keep_health(answering: Answering, examine: Examine, drain: CancellationToken) {
    let mut was_ready = true;
    while drain.run_until_cancelled(tokio::time::sleep(Duration::from_millis(500))).await.is_some() {
        let condition = examine();
        if condition.is_ready() != was_ready {
            was_ready = condition.is_ready();
            answering.set(was_ready).await;
            tracing::warn!(target: "server", ready = was_ready, why = condition.not_ready.join("; "), "readiness changed");
        }
    }
}

async fn finish(engine: &Engine, cut: usize) -> Result<(), ServerError> {
    if cut > 0 {
        tracing::warn!(target: "server", connections = cut, "cut at the end of the drain");
    }
    let written = engine.events().shutdown(LAST_WRITES).await;
    written.map_err(|lost| ServerError::new("the audit log could not be finished", lost))
}

/// One runtime a core, if the configuration doesn't say.
fn runtimes(config: &Config) -> usize {
    match config.grpc.runtimes {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        runtimes => runtimes,
    }
}

fn bind(address: SocketAddr, setting: &str) -> Result<(SocketAddr, tokio::net::TcpListener), ServerError> {
    let bound = listen::bind(address).and_then(|listener| {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok((listener.local_addr()?, listener))
    });
    bound.map_err(|error| ServerError::new(&format!("{setting} {address} can't be listened on"), error))
}

fn http_service(
    config: &Config,
    built: &Built,
    gatekeeper: Gatekeeper,
    examine: &Examine,
    drain: &CancellationToken,
) -> Result<(SocketAddr, impl Future<Output = usize> + Send + 'static), ServerError> {
    let security = if let Some(tls) = &built.http_tls {
        Security::Tls(Arc::clone(tls))
    } else {
        let refused = |error: NotLoopback| {
            ServerError::new("[http] listen", format!("{error}; or set tls_certificate and tls_key"))
        };
        require_loopback(config.http.listen).map_err(refused)?;
        Security::Plain(Protocol::Auto)
    };
    let (port, listener) = bind(config.http.listen, "[http] listen")?;
    let pages = http::Pages {
        door: gatekeeper.door().clone(),
        gatekeeper,
        examine: Arc::clone(examine),
        registry: built.registry.clone(),
        public_url: config.http.published_at(port).map(Arc::from),
        oauth: http::oauth::Settings {
            offline_jwt: config.http.offline_jwt,
            asks_for_certificates: config.http.client_ca.is_some(),
        },
    };
    let gate = Gate::new(built.admin_gate.limits().clone());
    Ok((port, serve(listener, security, http::routes(pages), gate, drain.clone())))
}

/// The stores whose files are read again while we run.
fn tls_stores(built: &Built) -> Vec<(&'static str, Arc<TlsStore>)> {
    let grpc = [("[tls]", Arc::clone(&built.tls)), ("[admin] TLS", Arc::clone(&built.admin_tls))];
    let http = built.http_tls.iter().map(|store| ("[http] TLS", Arc::clone(store)));
    grpc.into_iter().chain(http).collect()
}
