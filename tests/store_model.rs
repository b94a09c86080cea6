//! The shared store's protocol, searched for what breaks it: every order of a few steps of nodes, stores and clocks.

#![expect(unreachable_pub, reason = "a test has no outside")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the numbers of a model are small, and a test may panic: that is how it fails"
)]

#[path = "store_model/alike.rs"]
mod alike;
#[path = "store_model/laws.rs"]
mod laws;
#[path = "store_model/rules.rs"]
mod rules;
#[path = "store_model/scopes.rs"]
mod scopes;
#[path = "store_model/scripts.rs"]
mod scripts;
#[path = "store_model/search.rs"]
mod search;
#[path = "store_model/state.rs"]
mod state;
#[path = "store_model/steps.rs"]
mod steps;

use rules::Scope;
use search::search;

fn explore(scope: &Scope) {
    let mut scope = *scope;
    if std::env::var("MORE").is_ok() { scope.left = scope.more; }
    let s = search(&scope.start(), &scope);
    println!("{}: states {} depth {} seconds {:.1}", scope.name, s.states, s.depth, s.seconds);
    if let Some((law, steps)) = s.broken {
        println!("  BROKEN {law}: {steps:?}");
    }
}

fn every() -> Vec<Scope> {
    use scopes::*;
    vec![uses(), evicted_uses(), restarts(), revocation(), eviction(), eviction_hours(), numbers(), reinstatement(), emptied(),
        republished(), evicted_quarantine(), quarantine_failover(), foreign(), foreign_flush(), foreign_hours(), serving()]
}

#[test]
fn try_all() {
    for scope in every() {
        if std::env::var("ONLY").is_ok_and(|only| only != scope.name) { continue; }
        explore(&scope);
    }
}

#[test]
fn try_without() {
    use scopes::*;
    let each: Vec<(&str, Scope)> = vec![
        ("replid", uses().without(|r| r.replid = false)),
        ("random_id", evicted_uses().without(|r| r.random_id = false)),
        ("serve_after", revocation().without(|r| r.serve_after = false)),
        ("evicted_rev", eviction_hours().without(|r| r.evicted_revocations = false)),
        ("looked_for", eviction().without(|r| r.looked_for = rules::LIFE)),
        ("evicted_q", evicted_quarantine().without(|r| r.evicted_quarantines = false)),
        ("longest_wait", serving().without(|r| r.longest_wait = false)),
        ("both waits", serving().without(|r| {r.longest_wait = false; r.seen = false})),
        ("seen", foreign_hours().without(|r| r.seen = false)),
        ("seen/eviction", eviction_hours().without(|r| r.seen = false)),
        ("fence", foreign_hours().without(|r| r.fence = false)),
        ("republish", republished().without(|r| r.republish = false)),
        ("replicated", quarantine_failover().without(|r| r.replicated = false)),
        ("meant", reinstatement().without(|r| r.meant = false)),
        ("later", emptied().without(|r| r.later_version = false)),
        ("numbers_apart", numbers().without(|r| r.numbers_apart = false)),
        ("strange", numbers().without(|r| r.strange = false)),
        ("strange+numbers", numbers().without(|r| {r.strange = false; r.numbers_apart = false})),
    ];
    for (name, scope) in each {
        println!("WITHOUT {name}");
        explore(&scope);
    }
}
