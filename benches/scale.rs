//! What many agents and many tokens cost, and what a process costs before anybody asks: P7 and P12.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a bench may panic: that is how it fails"
)]

#[expect(dead_code, reason = "each bench uses its own part")]
mod fixture;
#[path = "scale/start.rs"]
mod start;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fixture::{CAPACITY, median, now};
use remit::domain::chain::Wish;
use remit::domain::resource::Pattern;
use remit::domain::time::Timestamp;
use remit::domain::token::{SealTag, TokenId};
use remit::engine::Engine;
use remit::state::ledger::Ledger;
use remit::state::{State, TokenRecord};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AGENTS: usize = 100_000;
const TOKENS: u64 = 1_000_000;
/// As the engine's own ledger has.
const SHARDS: usize = 1024;
const ROUNDS: usize = 9;
const A_ROUND: usize = 2_000;
/// What takes longer is looked at: was it the ledger, or did the thread not run?
const STALL: Duration = Duration::from_micros(100);

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let large = policy(AGENTS);
    let began = now();
    fixture::in_force(&large, &remit::engine::clock::Clock::system());
    println!(
        "P12 policy of {AGENTS} agents ({} kB) is compiled in {:.2} s (goal: 1)",
        large.len() / 1000,
        seconds(began)
    );
    start::rows(dir.path());
    println!("P7 {AGENTS} agents and {TOKENS} live tokens");
    let ledger = Arc::new(Ledger::new(CAPACITY, SHARDS, Timestamp::default()));
    fill(&ledger);
    beside_few(dir.path(), &large, ledger);
}

fn seconds(began: std::time::Instant) -> f64 {
    began.elapsed().as_secs_f64()
}

/// A coordinator that may delegate to so many agents.
fn policy(agents: usize) -> String {
    let (mut names, mut rules) = (String::new(), String::new());
    for number in 0..agents {
        let comma = if number == 0 { "" } else { "," };
        write!(names, "{comma}\"agent-{number}\"").unwrap();
        write!(rules, ",\"agent-{number}\":{{\"max_capability_set\":[\"kubectl_get\"]}}").unwrap();
    }
    format!(
        r#"{{"delegation_rules":{{"agent-coordinator":{{"can_delegate_to":[{names}],"max_capability_set":["kubectl_get"]}}{rules}}}}}"#
    )
}

/// Enters the tokens; what each takes, and the longest that one took while the tables grew.
fn fill(ledger: &Ledger) {
    let before = resident_bytes();
    let chain = [Cow::Borrowed("agent-coordinator"), Cow::Borrowed("agent-0")];
    let capabilities = [Cow::Borrowed("kubectl_get")];
    let expires_at = now_seconds() + 3_600;
    let (mut longest, mut preempted, mut not_run) = (Duration::ZERO, preemptions(), 0);
    for number in 0..TOKENS {
        let bytes = scattered(number);
        let token = TokenRecord {
            id: TokenId::from_bytes(bytes),
            tag: SealTag::from_bytes(bytes),
            ancestors: &[],
            chain: &chain,
            max_uses: 1,
            expires_at,
            foreign: None,
        };
        let began = now();
        ledger.mint(&token, &capabilities, 0).unwrap();
        let took = began.elapsed();
        if took > STALL {
            let since = std::mem::replace(&mut preempted, preemptions());
            if preempted == since {
                longest = longest.max(took);
            } else {
                not_run += 1;
            }
        }
    }
    println!("  bytes a token                {:>9.0} (goal: 110)", (resident_bytes() - before) as f64 / TOKENS as f64);
    let left_out = format!("{not_run} in which the thread was preempted are left out");
    println!("  the longest of its mints     {:>9.0} us (goal: 1000; {left_out})", longest.as_secs_f64() * 1e6);
}

/// Spread over the shards as random ids are.
fn scattered(number: u64) -> [u8; 16] {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(mixed ^ (mixed >> 29)) << 64) | u128::from(number)).to_be_bytes()
}

/// Authorize by random agents, beside the same with ten agents and no other tokens.
fn beside_few(dir: &Path, large: &str, ledger: Arc<Ledger>) {
    let runtime = fixture::runtime();
    let small =
        fixture::engine_on(&policy(10), &dir.join("small.jsonl"), |clock| State::in_memory(CAPACITY, clock.now()));
    let large = fixture::engine_on(large, &dir.join("large.jsonl"), |_| State::Memory { ledger, kept: None });
    let (mut smalls, mut larges, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let small = runtime.block_on(micros_each(&small, 10));
        let large = runtime.block_on(micros_each(&large, AGENTS));
        if round > 0 {
            smalls.push(small);
            larges.push(large);
            ratios.push(large / small);
        }
    }
    println!("  authorize in process         {:>9.2} us (medians of {ROUNDS} rounds)", median(larges));
    println!("  with 10 agents, few tokens   {:>9.2} us", median(smalls));
    println!("  ratio                        {:>9.2} (goal: at most 1.25)", median(ratios));
}

async fn micros_each(engine: &Engine, agents: usize) -> f64 {
    let mut asked = Vec::with_capacity(A_ROUND);
    for number in 0..A_ROUND {
        let agent = format!("agent-{}", number.wrapping_mul(7_919) % agents);
        let wish = Wish {
            to: &agent,
            capabilities: vec!["kubectl_get".into()],
            resources: vec![Pattern::parse("prod/*").unwrap()],
            ..fixture::wish()
        };
        let token = fixture::minted(engine, wish).await;
        asked.push((fixture::caller(&agent), token));
    }
    let deadline = fixture::deadline(engine);
    let began = now();
    for (caller, token) in &asked {
        assert!(engine.authorize(caller, &fixture::question(token, deadline)).await.outcome.is_ok());
    }
    began.elapsed().as_secs_f64() * 1e6 / A_ROUND as f64
}

fn now_seconds() -> u64 {
    remit::engine::clock::Clock::system().now().seconds()
}

/// What of this process is in memory.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// How often this thread had to make room for another.
fn preemptions() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}
