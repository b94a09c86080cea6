//! The decision core by itself: open the token, decide, spend, record. And what it is made of.

#![expect(clippy::unwrap_used, reason = "a bench may panic: that is how it fails")]

#[expect(dead_code, reason = "each bench uses its own part")]
mod fixture;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fixture::question;
use remit::keyring::{Key, Keyring};

fn decide(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let engine = fixture::engine(&dir.path().join("audit.jsonl"));
    let runtime = fixture::runtime();
    let deployer = fixture::caller("agent-deployer");
    let deadline = fixture::deadline(&engine);
    let mut group = criterion.benchmark_group("decide");
    group.bench_function("authorize a single-use token", |bencher| {
        bencher.iter_batched(
            || runtime.block_on(fixture::token(&engine)),
            |token| {
                let decision = runtime.block_on(engine.authorize(&deployer, &question(&token, deadline)));
                assert!(decision.outcome.is_ok(), "{:?}", decision.outcome);
            },
            BatchSize::SmallInput,
        );
    });
    let spent = runtime.block_on(fixture::token(&engine));
    runtime.block_on(engine.authorize(&deployer, &question(&spent, deadline)));
    group.bench_function("refuse a spent token", |bencher| {
        bencher.iter(|| {
            assert!(runtime.block_on(engine.authorize(&deployer, &question(&spent, deadline))).outcome.is_err());
        });
    });
    let forged = spent.replace('a', "b");
    group.bench_function("refuse a forged token", |bencher| {
        bencher.iter(|| {
            assert!(runtime.block_on(engine.authorize(&deployer, &question(&forged, deadline))).outcome.is_err());
        });
    });
    group.bench_function("delegate a root token", |bencher| {
        bencher.iter(|| runtime.block_on(fixture::token(&engine)));
    });
    group.finish();
}

fn parts(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let engine = fixture::engine(&dir.path().join("audit.jsonl"));
    let runtime = fixture::runtime();
    let token = runtime.block_on(fixture::token(&engine));
    let keyring = Keyring::new(vec![Key::new(&[7; 32], false).unwrap()]).unwrap();
    let mut group = criterion.benchmark_group("parts");
    let mut buffer = Vec::new();
    group.bench_function("open a token", |bencher| bencher.iter(|| keyring.open(&token, &mut buffer).is_ok()));
    group.bench_function("read the clock", |bencher| bencher.iter(|| engine.clock().now()));
    group.bench_function("take the policy", |bencher| bencher.iter(|| engine.policy().policy.id.revision));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(std::time::Duration::from_secs(3));
    targets = decide, parts
}
criterion_main!(benches);
