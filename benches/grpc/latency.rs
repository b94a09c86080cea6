//! P3, P8: how long answers take at a steady load that waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use remit::api as pb;
use remit::engine::Engine;
use remit::events::{Filter, Since};

use super::wire::Client;
use super::{ROUNDS, Servers, questions};
use crate::fixture::{self, dues, median, quantile};

const A_SECOND: f64 = 10_000.0;
const SECONDS: f64 = 1.0;
/// More than come by chance.
const REQUESTS: usize = 11_000;
const RELOAD_EVERY: Duration = Duration::from_millis(100);
const SUBSCRIBERS: usize = 16;

pub(crate) async fn rows(servers: &Servers) {
    let mut rows = Rows::default();
    for round in 0..=ROUNDS {
        let seed = u64::try_from(round).unwrap();
        let bare = load(&servers.bare.clients, questions(&servers.engine, REQUESTS).await, seed).await;
        let quiet = load(&servers.real.clients, questions(&servers.engine, REQUESTS).await, seed).await;
        let wanted = questions(&servers.engine, REQUESTS).await;
        let restless = while_all_changes(servers, load(&servers.real.clients, wanted, seed)).await;
        if round > 0 {
            rows.add(bare, quiet, restless);
        }
    }
    rows.tell();
}

/// Medians and 99th percentiles, in microseconds.
#[derive(Default)]
struct Rows {
    bare: (Vec<f64>, Vec<f64>),
    quiet: (Vec<f64>, Vec<f64>),
    restless: (Vec<f64>, Vec<f64>),
    to_bare: Vec<f64>,
    to_quiet: Vec<f64>,
}

impl Rows {
    fn add(&mut self, bare: Vec<f64>, quiet: Vec<f64>, restless: Vec<f64>) {
        let of = |took: Vec<f64>| (median(took.clone()), quantile(took, 0.99));
        let (bare, quiet, restless) = (of(bare), of(quiet), of(restless));
        self.to_bare.push(quiet.1 / bare.1);
        self.to_quiet.push(restless.1 / quiet.1);
        for (rows, one) in [(&mut self.bare, bare), (&mut self.quiet, quiet), (&mut self.restless, restless)] {
            rows.0.push(one.0);
            rows.1.push(one.1);
        }
    }

    fn tell(self) {
        let line = |name: &str, (p50s, p99s): (Vec<f64>, Vec<f64>)| {
            println!("  {name:<28} p50 {:>6.0} us, p99 {:>6.0} us", median(p50s), median(p99s));
        };
        println!("P3, P8 Authorize at {A_SECOND} a second, open loop (medians of {ROUNDS} rounds)");
        line("no-op, the same transport", self.bare);
        line("authorize", self.quiet);
        line("authorize while all changes", self.restless);
        println!("  P3 ratio of p99 to the no-op   {:>7.2} (goal: at most 1.25)", median(self.to_bare));
        println!("  P8 ratio of p99 while the policy is reloaded every 100 ms, 16 watch and certificates change");
        println!("                                 {:>7.2} (goal: at most 1.1)", median(self.to_quiet));
    }
}

/// Microseconds from when each was due to its answer.
async fn load(clients: &[Client], requests: Vec<pb::AuthorizeRequest>, seed: u64) -> Vec<f64> {
    let mut dues = dues(A_SECOND, SECONDS, seed);
    let mut clients = clients.iter().cycle();
    let mut requests = requests.into_iter();
    let mut sent = Vec::with_capacity(REQUESTS);
    while let Some(due) = dues.recv().await {
        let (Some(client), Some(request)) = (clients.next(), requests.next()) else { continue };
        let mut client = client.clone();
        sent.push(tokio::spawn(async move {
            client.authorize(request).await.unwrap();
            due.elapsed().as_secs_f64() * 1e6
        }));
    }
    let mut took = Vec::with_capacity(sent.len());
    for answer in sent {
        took.push(answer.await.unwrap());
    }
    took
}

/// The same while others reload the policy, renew the server's certificate, and watch.
async fn while_all_changes<T>(servers: &Servers, load: impl Future<Output = T>) -> T {
    let ends = Arc::new(AtomicBool::new(false));
    let (engine, store, has_ended) = (Arc::clone(&servers.engine), Arc::clone(&servers.store), Arc::clone(&ends));
    servers.certificates.renew_server();
    let restless = std::thread::spawn(move || {
        let runtime = fixture::runtime();
        runtime.block_on(async {
            let watching = (0..SUBSCRIBERS).map(|_| tokio::spawn(watch(Arc::clone(&engine)))).collect::<Vec<_>>();
            store.reload().unwrap();
            while !has_ended.load(Ordering::Relaxed) {
                engine.install(fixture::in_force(fixture::POLICY, engine.clock())).await;
                tokio::time::sleep(RELOAD_EVERY).await;
            }
            watching.iter().for_each(tokio::task::JoinHandle::abort);
        });
    });
    let took = load.await;
    ends.store(true, Ordering::Relaxed);
    restless.join().unwrap();
    took
}

async fn watch(engine: Arc<Engine>) {
    let mut events = engine.events().subscribe(Since::Now, Filter::default()).unwrap();
    while let Some(item) = events.next().await {
        std::hint::black_box(item);
    }
}
