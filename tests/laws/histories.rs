//! Random histories: after every step the engine's answer is the oracle's.

use std::cell::RefCell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseResult, TestRunner};
use tokio::runtime::{Builder, Runtime};

use crate::generate::{self, Op};
use crate::story::{Counts, Story, Told};
use crate::words::Policy;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// As many cases as are asked for, the same ones for the same seed.
pub fn for_each_case<S: Strategy>(share: u64, strategy: &S, case: impl Fn(S::Value) -> TestCaseResult) {
    let (cases, seed) = (setting("REMIT_CASES", 2000) / share, setting("REMIT_SEED", 1));
    let config = Config {
        cases: u32::try_from(cases).unwrap().max(1),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(strategy, case) {
        panic!("REMIT_SEED={seed} REMIT_CASES={cases}\n{error}");
    }
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn told(policy: &Policy, ops: &[Op]) -> Result<Story, proptest::test_runner::TestCaseError> {
    let mut story = Story::begin(policy);
    for op in ops {
        story.tell(op).await?;
    }
    Ok(story)
}

#[test]
fn every_answer_is_the_oracles() {
    let runtime = runtime();
    let total = RefCell::new(Counts::default());
    for_each_case(1, &generate::histories(), |(policy, ops)| -> Told {
        let story = runtime.block_on(told(&policy, &ops))?;
        let (mut total, counts) = (total.borrow_mut(), story.counts);
        total.allowed += counts.allowed;
        total.refused += counts.refused;
        total.roots += counts.roots;
        total.children += counts.children;
        total.not_minted += counts.not_minted;
        total.revoked += counts.revoked;
        total.deepest = total.deepest.max(counts.deepest);
        Ok(())
    });
    let total = total.into_inner();
    // Histories in which nothing is ever given would show nothing.
    assert!(total.allowed * 8 > total.refused && total.children * 4 > total.roots, "{total:?}");
    let Counts { allowed, refused, roots, children, not_minted, revoked, deepest } = total;
    let (histories, seed) = (setting("REMIT_CASES", 2000), setting("REMIT_SEED", 1));
    println!(
        "ASSURE {{\"what\": \"laws\", \"histories\": {histories}, \"allowed\": {allowed}, \"refused\": {refused}, \
         \"roots\": {roots}, \"children\": {children}, \"not_minted\": {not_minted}, \"revoked\": {revoked}, \
         \"deepest\": {deepest}, \"answers_unlike_the_oracles\": 0, \"seed\": {seed}}}"
    );
}
