//! What an Authorize costs over gRPC with mTLS, beside a no-op call of the same sizes, in one run: ratios of
//! interleaved rounds. The no-op runs twice: on the transport of the service, and on the one that comes with tonic. Each
//! runs on one thread, the load on another.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a bench may panic: that is how it fails"
)]

mod fixture;

use std::sync::Arc;
use std::time::{Duration, Instant};

use remit::api as pb;
use remit::api::policy_decision_service_client::PolicyDecisionServiceClient;
use remit::api::policy_decision_service_server::{PolicyDecisionService, PolicyDecisionServiceServer};
use remit::door::Door;
use remit::engine::Engine;
use remit::grpc::{DecisionService, ExtAuthz, decision_routes, health, prepared};
use remit::identity::Identity;
use remit::proxied::{Gatekeeper, Rules};
use remit::transport::{Application, ClientAuth, Gate, Limits, Protocol, Security, TlsFiles, TlsStore, listen, serve};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity as ClientIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
const ROUNDS: usize = 7;
const REQUESTS_A_ROUND: usize = 20_000;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers every Authorize with the same ALLOW, of the size of a real one.
struct NoOp(pb::AuthorizeResponse);

#[tonic::async_trait]
impl PolicyDecisionService for NoOp {
    type WatchDecisionsStream = ReceiverStream<Result<pb::WatchDecisionsResponse, Status>>;

    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(self.0.clone()))
    }

    async fn batch_authorize(
        &self,
        _: Request<pb::BatchAuthorizeRequest>,
    ) -> Result<Response<pb::BatchAuthorizeResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn delegate(&self, _: Request<pb::DelegateRequest>) -> Result<Response<pb::DelegateResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn batch_delegate(
        &self,
        _: Request<pb::BatchDelegateRequest>,
    ) -> Result<Response<pb::BatchDelegateResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn revoke(&self, _: Request<pb::RevokeRequest>) -> Result<Response<pb::RevokeResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn reinstate(&self, _: Request<pb::ReinstateRequest>) -> Result<Response<pb::ReinstateResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn introspect(&self, _: Request<pb::IntrospectRequest>) -> Result<Response<pb::IntrospectResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn verify_identity(
        &self,
        _: Request<pb::VerifyIdentityRequest>,
    ) -> Result<Response<pb::VerifyIdentityResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn record_message(
        &self,
        _: Request<pb::RecordMessageRequest>,
    ) -> Result<Response<pb::RecordMessageResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn watch_decisions(
        &self,
        _: Request<pb::WatchDecisionsRequest>,
    ) -> Result<Response<Self::WatchDecisionsStream>, Status> {
        Err(Status::unimplemented("a no-op"))
    }
}

/// A certificate authority, a server and a client of it, in a folder.
struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let write = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("ca.pem", &authority_certificate.pem());
        let uri = "spiffe://cluster.local/ns/ai-agents/sa/agent-deployer-sa".try_into().unwrap();
        for (name, alternative) in
            [("server", rcgen::SanType::DnsName("localhost".try_into().unwrap())), ("client", rcgen::SanType::URI(uri))]
        {
            let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
            params.subject_alt_names = vec![alternative];
            params.extended_key_usages =
                vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            let key = rcgen::KeyPair::generate().unwrap();
            write(&format!("{name}.pem"), &params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{name}.key"), &key.serialize_pem());
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self, engine: &Engine) -> Arc<TlsStore> {
        let files = TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: Some(self.path("ca.pem")),
            crl: None,
            client_auth: ClientAuth::Required,
        };
        let clock = engine.clock().clone();
        Arc::new(TlsStore::load(files, Protocol::Http2Only, Arc::new(move || clock.now())).unwrap())
    }

    fn client(&self) -> ClientTlsConfig {
        let read = |name: &str| std::fs::read(self.path(name)).unwrap();
        ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(ClientIdentity::from_pem(read("client.pem"), read("client.key")))
    }
}

/// Serves on a thread of its own; the port.
fn serve_on_a_thread(routes: impl Application, store: Arc<TlsStore>) -> u16 {
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let gate = Gate::new(Limits::default());
            serve(listener, Security::Tls(store), routes, gate, CancellationToken::new()).await
        });
    });
    port
}

/// The same with the server that comes with tonic.
fn serve_by_tonic(service: PolicyDecisionServiceServer<NoOp>, certificates: &Certificates) -> u16 {
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let read = |name: &str| std::fs::read(certificates.path(name)).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(ClientIdentity::from_pem(read("server.pem"), read("server.key")))
        .client_ca_root(Certificate::from_pem(read("ca.pem")));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = Server::builder().tls_config(tls).unwrap().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    port
}

async fn connect(certificates: &Certificates, port: u16) -> Vec<PolicyDecisionServiceClient<Channel>> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
        let channel = endpoint.tls_config(certificates.client()).unwrap().connect().await.unwrap();
        clients.push(PolicyDecisionServiceClient::new(channel));
    }
    clients
}

/// Sends each request once over all connections; how long it took and how many were allowed.
async fn send(
    clients: &[PolicyDecisionServiceClient<Channel>],
    requests: Vec<pb::AuthorizeRequest>,
) -> (Duration, usize) {
    let requests = Arc::new(parking_lot::Mutex::new(requests));
    let began = now();
    let mut tasks = Vec::new();
    for client in clients {
        for _ in 0..STREAMS {
            let (mut client, requests) = (client.clone(), Arc::clone(&requests));
            tasks.push(tokio::spawn(async move {
                let mut allowed = 0;
                loop {
                    let Some(request) = requests.lock().pop() else { return allowed };
                    let answer = client.authorize(request).await.unwrap().into_inner();
                    allowed += usize::from(answer.decision == i32::from(pb::Decision::Allow));
                }
            }));
        }
    }
    let mut allowed = 0;
    for task in tasks {
        allowed += task.await.unwrap();
    }
    (began.elapsed(), allowed)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

async fn requests(engine: &Engine, count: usize) -> Vec<pb::AuthorizeRequest> {
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        requests.push(pb::AuthorizeRequest {
            capability: "kubectl_get".into(),
            resource: "prod/deployments/web".into(),
            token: fixture::token(engine).await,
            ..pb::AuthorizeRequest::default()
        });
    }
    requests
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fixture::engine(&dir.path().join("audit.jsonl"));
    let certificates = Certificates::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (answering, health) = health().await;
        answering.set(true).await;
        let identity = Arc::new(Identity::new(remit::identity::Config::default(), false).unwrap());
        let door = Door::new(Arc::clone(&engine), identity, 1);
        let service = DecisionService::new(door.clone(), CancellationToken::new());
        let ext_authz = ExtAuthz::new(Gatekeeper::new(door, Arc::new(Rules::default())));
        let routes = prepared(decision_routes(service, ext_authz, health, false).unwrap());
        let real = connect(&certificates, serve_on_a_thread(routes, certificates.store(&engine))).await;

        let sample = requests(&engine, 1).await.remove(0);
        let answer = real[0].clone().authorize(sample).await.unwrap().into_inner();
        assert_eq!(answer.decision, i32::from(pb::Decision::Allow), "{}", answer.message);
        let no_op = PolicyDecisionServiceServer::new(NoOp(answer.clone()));
        let tonics = connect(&certificates, serve_by_tonic(no_op, &certificates)).await;
        let no_op = Routes::new(PolicyDecisionServiceServer::new(NoOp(answer))).prepare();
        let bare = connect(&certificates, serve_on_a_thread(no_op, certificates.store(&engine))).await;

        let (mut rates, mut bare_rates, mut tonics_rates) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ratios, mut tonics_ratios) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let wanted = requests(&engine, REQUESTS_A_ROUND).await;
            let (tonics_took, _) = send(&tonics, wanted.clone()).await;
            let (bare_took, _) = send(&bare, wanted.clone()).await;
            let (took, allowed) = send(&real, wanted).await;
            assert_eq!(allowed, REQUESTS_A_ROUND, "every single-use token is allowed once");
            // The first round warms up.
            if round > 0 {
                let rate = |took: Duration| REQUESTS_A_ROUND as f64 / took.as_secs_f64();
                rates.push(rate(took));
                bare_rates.push(rate(bare_took));
                tonics_rates.push(rate(tonics_took));
                ratios.push(bare_took.as_secs_f64() / took.as_secs_f64());
                tonics_ratios.push(tonics_took.as_secs_f64() / took.as_secs_f64());
            }
        }
        println!(
            "authorize over mTLS, audit file on, one server thread, {CONNECTIONS} connections x {STREAMS} streams"
        );
        println!("  authorize                    {:>9.0} /s (median of {ROUNDS} rounds)", median(rates));
        println!("  no-op, tonic's transport     {:>9.0} /s", median(tonics_rates));
        println!("  no-op, the same transport    {:>9.0} /s", median(bare_rates));
        println!("  ratio to tonic's transport   {:>9.3}", median(tonics_ratios));
        println!("  ratio to the same transport  {:>9.3}", median(ratios));
    });
}
