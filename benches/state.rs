//! What an Authorize costs whose use is written down, beside the least that writing it down costs: on the disk an append
//! and a sync of as many bytes, in the store one script of as many keys and words. Engine and reference take turns.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a bench may panic: that is how it fails"
)]

#[expect(dead_code, reason = "each bench uses its own part")]
mod fixture;
#[path = "state/journal.rs"]
mod journal;
#[path = "state/store.rs"]
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::{median, now};
use parking_lot::Mutex;
use remit::domain::reason::Reason;
use remit::engine::Engine;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;
const AFTER_A_STALL: Duration = Duration::from_secs(1);

/// How long each of many took, and all of them.
struct Took {
    each: Vec<f64>,
    all: Duration,
}

impl Took {
    fn median_micros(&self) -> f64 {
        median(self.each.clone())
    }

    fn a_second(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }
}

/// What both sides did, round by round.
#[derive(Default)]
struct Rounds {
    own: Vec<Figures>,
    bare: Vec<Figures>,
    thrown_away: usize,
}

/// The median in microseconds, and how many a second.
type Figures = (f64, f64);

impl Rounds {
    /// The first round warms up.
    fn are_done(&self) -> bool {
        self.own.len() > ROUNDS
    }

    async fn add(&mut self, own: Option<Took>, bare: Took) {
        let Some(own) = own else {
            self.thrown_away += 1;
            assert!(self.thrown_away < ROUNDS * 4, "disk or store stand still again and again");
            return tokio::time::sleep(AFTER_A_STALL).await;
        };
        self.own.push((own.median_micros(), own.a_second()));
        self.bare.push((bare.median_micros(), bare.a_second()));
    }

    fn tell(&self, in_flight: usize, reference: &str) {
        let of = |rounds: &[Figures]| {
            let rounds = rounds.iter().skip(1);
            (median(rounds.clone().map(|one| one.0).collect()), median(rounds.map(|one| one.1).collect()))
        };
        let ratios = |of: fn(&(Figures, Figures)) -> f64| {
            let pairs = self.own.iter().copied().zip(self.bare.iter().copied()).skip(1);
            median(pairs.map(|pair| of(&pair)).collect())
        };
        let ((own_p50, own_rate), (bare_p50, bare_rate)) = (of(&self.own), of(&self.bare));
        let (later, rate) = (ratios(|(own, bare)| own.0 / bare.0), ratios(|(own, bare)| own.1 / bare.1));
        println!("  {in_flight:>3} in flight: authorize  p50 {own_p50:>8.0} us {own_rate:>9.0} /s");
        println!("                 {reference:<10} p50 {bare_p50:>8.0} us {bare_rate:>9.0} /s");
        println!("                 ratio      p50 {later:>8.2}    {rate:>9.2}");
        if self.thrown_away > 0 {
            println!(
                "                 {} rounds thrown away: the engine refused, something stood still",
                self.thrown_away
            );
        }
    }
}

/// Single-use tokens, made many at once: each waits for the disk or the store too.
async fn tokens(engine: &Arc<Engine>, count: usize) -> Vec<String> {
    let made = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let tasks = (0..64).map(|worker| {
        let (engine, made) = (Arc::clone(engine), Arc::clone(&made));
        tokio::spawn(async move {
            for _ in (worker..count).step_by(64) {
                let token = fixture::token(&engine).await;
                made.lock().push(token);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    std::mem::take(&mut *made.lock())
}

/// Spends each token, so many at a time. None where disk, store or machine stood still for so long that the engine
/// refused: such a round says nothing.
async fn authorize(engine: &Arc<Engine>, tokens: Vec<String>, in_flight: usize) -> Option<Took> {
    let deployer = fixture::caller("agent-deployer");
    let deadline = fixture::deadline(engine);
    let stood_still = Arc::new(AtomicBool::new(false));
    let refused = Arc::clone(&stood_still);
    let spend = move |engine: &Arc<Engine>, token: String| {
        let (engine, deployer, refused) = (Arc::clone(engine), deployer.clone(), Arc::clone(&refused));
        async move {
            let decision = engine.authorize(&deployer, &fixture::question(&token, deadline)).await;
            if let Err(denial) = decision.outcome {
                let is_stall = matches!(denial.reason(), Reason::AuditUnavailable | Reason::StateUnavailable);
                assert!(is_stall, "{}", denial.message());
                refused.store(true, Ordering::Relaxed);
            }
        }
    };
    let took = in_turn(tokens, in_flight, spend, engine).await;
    (!stood_still.load(Ordering::Relaxed)).then_some(took)
}

/// Does each piece of work, so many at a time.
async fn in_turn<C, T, W>(
    work: Vec<T>,
    in_flight: usize,
    run: impl Fn(&C, T) -> W + Clone + Send + 'static,
    with: &C,
) -> Took
where
    C: Clone + Send + 'static,
    T: Send + 'static,
    W: Future<Output = ()> + Send,
{
    let work = Arc::new(Mutex::new(work));
    let began = now();
    let tasks = (0..in_flight).map(|_| {
        let (work, with, run) = (Arc::clone(&work), with.clone(), run.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            loop {
                let Some(one) = work.lock().pop() else { return took };
                let began = now();
                run(&with, one).await;
                took.push(began.elapsed().as_secs_f64() * 1e6);
            }
        })
    });
    let mut each = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        each.extend(task.await.unwrap());
    }
    Took { each, all: began.elapsed() }
}

fn main() {
    let runtime = fixture::runtime();
    runtime.block_on(journal::rows());
    runtime.block_on(store::rows());
}
