//! The parts of `make bench-envoy` that have to be fast, so that what is measured is Envoy and what it asks:
//! an authorizer that answers without deciding, a service that answers at once, and a load that comes at its own times.
//! `tests/life/bench_envoy.py` starts them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench may panic: that is how it fails"
)]

#[expect(dead_code, reason = "each bench uses its own part")]
mod fixture;

use std::path::Path;
use std::sync::Arc;

use remit::api::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use remit::api::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use remit::api::envoy::service::auth::v3::check_response::HttpResponse;
use remit::api::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use remit::api::google::rpc;
use remit::engine::clock::Clock;
use remit::transport::{Application, ClientAuth, Gate, Limits, Protocol, Security, TlsFiles, TlsStore, listen, serve};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers every Check with the same OK, of the size of a real one.
struct NoOp(CheckResponse);

#[tonic::async_trait]
impl Authorization for NoOp {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(self.0.clone()))
    }
}

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.as_slice() {
        ["authorizer", folder] => runtime.block_on(authorizer(Path::new(folder))),
        ["service"] => runtime.block_on(service()),
        ["load", url, folder, agent, token, rate, seconds] => {
            let pace = Pace { rate: rate.parse().unwrap(), seconds: seconds.parse().unwrap() };
            runtime.block_on(load(url, &client(Path::new(folder), agent), token, &pace));
        }
        _ => println!("envoy: run `make bench-envoy`, which starts Envoy beside this"),
    }
}

/// The same transport as Remit's own, and nothing behind it.
async fn authorizer(folder: &Path) {
    let files = TlsFiles {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        client_ca: Some(folder.join("ca.pem")),
        crl: None,
        client_auth: ClientAuth::Required,
    };
    let clock = Clock::system();
    let store = TlsStore::load(files, Protocol::Http2Only, Arc::new(move || clock.now())).unwrap();
    let routes = Routes::new(AuthorizationServer::new(NoOp(answer()))).prepare();
    answer_on_a_free_port(routes, Security::Tls(Arc::new(store))).await;
}

async fn service() {
    let routes = axum::Router::new().fallback(|| async { "served\n" });
    answer_on_a_free_port(routes, Security::Plain(Protocol::Auto)).await;
}

async fn answer_on_a_free_port(routes: impl Application, security: Security) {
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    serve(listener, security, routes, Gate::new(Limits::default()), CancellationToken::new()).await;
}

fn answer() -> CheckResponse {
    let header = |key: &str, value: String| HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value, raw_value: Vec::new() }),
        append: Some(false),
        append_action: 2,
    };
    let headers = vec![
        header("x-remit-agent", "agent-analyst".to_owned()),
        header("x-remit-decision-id", "0".repeat(32)),
        header("x-remit-chain", "agent-coordinator agent-analyst".to_owned()),
        // As long as a signed identity.
        header("x-remit-identity", "e".repeat(600)),
    ];
    let headers_to_remove = vec!["x-remit-token".to_owned()];
    CheckResponse {
        status: Some(rpc::Status { code: 0, message: String::new() }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers, headers_to_remove })),
        dynamic_metadata: None,
    }
}

/// Requests a second, at random times, and for how long.
struct Pace {
    rate: f64,
    seconds: f64,
}

/// Prints the milliseconds that requests took, counted from when each was due: a server that falls behind is not given
/// time to recover.
async fn load(url: &str, client: &reqwest::Client, token: &str, pace: &Pace) {
    warm_up(url, client, token).await;
    let mut dues = fixture::dues(pace.rate, pace.seconds, 1);
    let mut sent = Vec::new();
    while let Some(at) = dues.recv().await {
        let request = client.get(url).header("x-remit-token", token);
        sent.push(tokio::spawn(async move {
            (request.send().await.is_ok_and(|answer| answer.status() == 200), at.elapsed())
        }));
    }
    let (mut took, mut failed) = (Vec::new(), 0_usize);
    for answer in sent {
        let (is_good, elapsed) = answer.await.unwrap();
        failed += usize::from(!is_good);
        took.push(elapsed.as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    let told = serde_json::json!({
        "requests": took.len(), "failed": failed, "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
    });
    println!("{told}");
}

/// Connections are there, and caches filled, before anything is measured.
async fn warm_up(url: &str, client: &reqwest::Client, token: &str) {
    for _ in 0..20 {
        let together = (0..10).map(|_| tokio::spawn(client.get(url).header("x-remit-token", token).send()));
        for answer in together.collect::<Vec<_>>() {
            answer.await.unwrap().unwrap();
        }
    }
}

fn client(folder: &Path, agent: &str) -> reqwest::Client {
    let read = |name: String| std::fs::read(folder.join(name)).unwrap();
    let identity = [read(format!("agents/{agent}.key")), read(format!("agents/{agent}.pem"))].concat();
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .tls_certs_only([reqwest::Certificate::from_pem(&read("ca.pem".to_owned())).unwrap()])
        .identity(reqwest::Identity::from_pem(&identity).unwrap())
        .build()
        .unwrap()
}
