//! What the verbs cost over gRPC with mTLS, beside a no-op call of the same sizes, in one run: ratios of interleaved
//! rounds. The no-op runs twice: on the transport of the service, and on the one that comes with tonic. Each runs on one
//! thread, the load on another.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a bench may panic: that is how it fails"
)]

#[expect(dead_code, reason = "each bench uses its own part")]
mod fixture;
#[path = "grpc/latency.rs"]
mod latency;
#[path = "grpc/no_op.rs"]
mod no_op;
#[path = "grpc/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use fixture::{median, now};
use no_op::NoOp;
use remit::api as pb;
use remit::api::policy_decision_service_server::PolicyDecisionServiceServer;
use remit::domain::chain::Wish;
use remit::door::Door;
use remit::engine::Engine;
use remit::grpc::{DecisionService, Entrance, ExtAuthz, decision_routes, health, prepared};
use remit::identity::Identity;
use remit::proxied::{Gatekeeper, Rules};
use remit::transport::TlsStore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::{Certificates, Client, Served, serve_by_tonic, serve_on_a_thread};

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
const ROUNDS: usize = 7;
const REQUESTS_A_ROUND: usize = 20_000;
const BATCH: usize = 100;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A request that can be sent; how many allowed answers it got.
trait Ask: Send + 'static {
    fn ask(self, client: &mut Client) -> impl Future<Output = usize> + Send;
}

fn is_allowed(answer: &pb::AuthorizeResponse) -> bool {
    answer.decision == i32::from(pb::Decision::Allow)
}

impl Ask for pb::AuthorizeRequest {
    async fn ask(self, client: &mut Client) -> usize {
        usize::from(is_allowed(&client.authorize(self).await.unwrap().into_inner()))
    }
}

impl Ask for pb::BatchAuthorizeRequest {
    async fn ask(self, client: &mut Client) -> usize {
        let answers = client.batch_authorize(self).await.unwrap().into_inner().responses;
        answers.iter().filter(|answer| is_allowed(answer)).count()
    }
}

impl Ask for pb::DelegateRequest {
    async fn ask(self, client: &mut Client) -> usize {
        usize::from(!client.delegate(self).await.unwrap().into_inner().token.is_empty())
    }
}

/// Sends each request once over all connections, and fails unless all are allowed; how long it took.
async fn send<R: Ask>(clients: &[Client], requests: Vec<R>, allowed: usize) -> Duration {
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
                    allowed += request.ask(&mut client).await;
                }
            }));
        }
    }
    let mut answered = 0;
    for task in tasks {
        answered += task.await.unwrap();
    }
    assert_eq!(answered, allowed, "every single-use token is allowed once");
    began.elapsed()
}

/// Questions about single-use tokens, one each.
async fn questions(engine: &Engine, count: usize) -> Vec<pb::AuthorizeRequest> {
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

/// Wishes for a child, each from a token of its own.
async fn wishes(engine: &Engine, count: usize) -> Vec<pb::DelegateRequest> {
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        requests.push(pb::DelegateRequest {
            to_agent: "agent-validator".into(),
            capabilities: vec!["kubectl_get".into()],
            resources: vec!["prod/deployments/web".into()],
            parent_token: fixture::minted(engine, Wish { delegatable: true, ..fixture::wish() }).await,
            ..pb::DelegateRequest::default()
        });
    }
    requests
}

/// Three servers, and clients of each.
struct Servers {
    engine: Arc<Engine>,
    certificates: Certificates,
    /// What the service's own server shows.
    store: Arc<TlsStore>,
    real: Served,
    /// The no-op on the same transport.
    bare: Served,
    /// The no-op on tonic's.
    tonics: Served,
}

impl Servers {
    async fn start(folder: &tempfile::TempDir) -> Self {
        let engine = fixture::engine(&folder.path().join("audit.jsonl"));
        let certificates = Certificates::new();
        let store = certificates.store(&engine);
        let real = serve_on_a_thread(service(&engine).await, Arc::clone(&store), &certificates).await;
        let mut client = real.clients[0].clone();
        let question = questions(&engine, 1).await.remove(0);
        let wish = wishes(&engine, 1).await.remove(0);
        let decision = client.authorize(question).await.unwrap().into_inner();
        assert!(is_allowed(&decision), "{}", decision.message);
        let no_op = NoOp { decision, delegation: client.delegate(wish).await.unwrap().into_inner() };
        let tonics = serve_by_tonic(PolicyDecisionServiceServer::new(no_op.clone()), &certificates).await;
        let no_op = Routes::new(PolicyDecisionServiceServer::new(no_op)).prepare();
        let bare = serve_on_a_thread(no_op, certificates.store(&engine), &certificates).await;
        Self { engine, certificates, store, real, bare, tonics }
    }

    /// P1, P11: a verb beside the no-op on both transports.
    async fn verb<R: Ask + Clone>(&self, name: &str, make: impl AsyncFn(&Engine, usize) -> Vec<R>, goal: &str) {
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let wanted = make(&self.engine, REQUESTS_A_ROUND).await;
            let tonics = timed(&self.tonics, wanted.clone()).await;
            let bare = timed(&self.bare, wanted.clone()).await;
            let service = timed(&self.real, wanted).await;
            // The first round warms up.
            if round > 0 {
                rounds.push([service, tonics, bare]);
            }
        }
        let of = |value: &dyn Fn(&[Took; 3]) -> f64| median(rounds.iter().map(value).collect());
        println!("{name} over mTLS, audit file on, one server thread, {CONNECTIONS} connections x {STREAMS} streams");
        for (index, server) in
            ["the service", "no-op, tonic's transport", "no-op, the same transport"].iter().enumerate()
        {
            let rate = of(&|round| round[index].a_second());
            let micros = of(&|round| round[index].micros_of_thread());
            println!(
                "  {server:<28} {rate:>9.0} /s {micros:>7.2} us of its thread a request (medians of {ROUNDS} rounds)"
            );
        }
        for (index, reference, goal) in [(1, "tonic's transport", goal), (2, "the same transport", "none")] {
            let speed = of(&|round| round[0].a_second() / round[index].a_second());
            let thread = of(&|round| round[index].micros_of_thread() / round[0].micros_of_thread());
            println!("  ratio to {reference:<19} {speed:>9.3}    {thread:>7.3} (goal: {goal})");
        }
    }

    /// P5: batches beside as many requests one by one.
    async fn batches(&self) {
        let (mut alone, mut batched, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let questions = questions(&self.engine, 2 * REQUESTS_A_ROUND).await;
            let (first, second) = questions.split_at(REQUESTS_A_ROUND);
            let single = rate(send(&self.real.clients, first.to_vec(), REQUESTS_A_ROUND).await);
            let grouped = second.chunks(BATCH).map(|some| pb::BatchAuthorizeRequest { requests: some.to_vec() });
            let batch = rate(send(&self.real.clients, grouped.collect::<Vec<_>>(), REQUESTS_A_ROUND).await);
            if round > 0 {
                alone.push(single);
                batched.push(batch);
                ratios.push(batch / single);
            }
        }
        println!("P5 BatchAuthorize of {BATCH}, one server thread");
        println!("  decisions in batches         {:>9.0} /s (goal: 500000)", median(batched));
        println!("  decisions one by one         {:>9.0} /s", median(alone));
        println!("  ratio                        {:>9.2}", median(ratios));
    }
}

/// What a round took, and how long the server's thread ran in it.
struct Took {
    all: Duration,
    of_thread: Duration,
}

impl Took {
    fn a_second(&self) -> f64 {
        rate(self.all)
    }

    fn micros_of_thread(&self) -> f64 {
        self.of_thread.as_secs_f64() * 1e6 / REQUESTS_A_ROUND as f64
    }
}

async fn timed<R: Ask>(server: &Served, requests: Vec<R>) -> Took {
    let before = server.has_run();
    let all = send(&server.clients, requests, REQUESTS_A_ROUND).await;
    Took { all, of_thread: server.has_run().saturating_sub(before) }
}

fn rate(took: Duration) -> f64 {
    REQUESTS_A_ROUND as f64 / took.as_secs_f64()
}

async fn service(engine: &Arc<Engine>) -> Entrance {
    let (answering, health) = health().await;
    answering.set(true).await;
    let identity = Arc::new(Identity::new(remit::identity::Config::default(), false).unwrap());
    let door = Door::new(Arc::clone(engine), identity, 1);
    let service = DecisionService::new(door.clone(), CancellationToken::new());
    let ext_authz = ExtAuthz::new(Gatekeeper::new(door, Arc::new(Rules::default())));
    prepared(decision_routes(service, ext_authz, health, false).unwrap())
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    fixture::runtime().block_on(async {
        let servers = Servers::start(&folder).await;
        servers.verb("P1 Authorize", questions, "0.95").await;
        servers.verb("P11 Delegate from a token", wishes, "0.8").await;
        servers.batches().await;
        latency::rows(&servers).await;
    });
}
