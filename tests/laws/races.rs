//! Laws under real threads: 32 tasks on one engine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use remit::domain::reason::Reason;
use remit::engine::{Revocation, RevokeTarget};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::words::{Ask, Wish};
use crate::world::{World, caller, in_force, name_of};

const RACERS: u64 = 32;

/// A chain of four, all of them trusted pairs.
const POLICY: &str = r#"{
  "max_delegation_depth": 4,
  "delegation_rules": {
    "agent-a": {"can_delegate_to": ["agent-b"], "trusted_pairs": ["agent-b"], "max_capability_set": ["read", "write"]},
    "agent-b": {"can_delegate_to": ["agent-c"], "trusted_pairs": ["agent-c"], "max_capability_set": ["read", "write"]},
    "agent-c": {"can_delegate_to": ["agent-d"], "trusted_pairs": ["agent-d"], "max_capability_set": ["read", "write"]}
  },
  "token": {"max_uses_trusted_pair": 1000000},
  "administrators": ["root-admin"],
  "auditors": ["root-admin"]
}"#;

const AGENTS: [&str; 4] = ["agent-a", "agent-b", "agent-c", "agent-d"];

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// A token of the chain: its text, and at which place of it its holder stands.
#[derive(Clone)]
struct Held {
    text: String,
    place: usize,
}

impl Held {
    fn ask(&self) -> Ask {
        Ask {
            caller: AGENTS[self.place].to_owned(),
            agent: None,
            destination: None,
            wanted: Some(("read".to_owned(), "db:orders".to_owned())),
            call: None,
            token: None,
            dry_run: false,
            late: false,
        }
    }
}

/// Reads with this token.
async fn reads(world: &World, held: &Held) -> Result<(), Reason> {
    world.authorize(&held.ask(), Some(&held.text)).await.outcome.map_err(|denial| denial.reason())
}

/// The next in the chain gets this many uses.
async fn hand_on(world: &World, held: Option<&Held>, uses: u64) -> Result<Held, Reason> {
    let place = held.map_or(0, |held| held.place);
    let wish = Wish {
        caller: AGENTS[place].to_owned(),
        to: (*AGENTS.get(place + 1).unwrap_or(&"agent-a")).to_owned(),
        cap: vec!["read".to_owned()],
        res: vec!["db:*".to_owned()],
        parent: None,
        uses: Some(uses),
        ttl: None,
        max_depth: None,
        delegatable: true,
        aud: vec![],
        late: false,
    };
    let outcome = world.delegate(&wish, held.map(|held| held.text.as_str())).await.outcome;
    outcome.map(|delegated| Held { text: delegated.token, place: place + 1 }).map_err(|denial| denial.reason())
}

#[test]
fn l5_of_32_racers_exactly_as_many_are_allowed_as_there_are_uses() {
    runtime().block_on(async {
        let world = Arc::new(World::new(POLICY));
        for round in 0..60u64 {
            let uses = [1, 1, 2, 5, 31, 100][usize::try_from(round % 6).unwrap()];
            let held = hand_on(&world, None, uses).await.unwrap();
            let allowed = Arc::new(AtomicU64::new(0));
            let mut racers = JoinSet::new();
            for _ in 0..RACERS {
                let (world, held, allowed) = (Arc::clone(&world), held.clone(), Arc::clone(&allowed));
                racers.spawn(async move {
                    for _ in 0..5 {
                        match reads(&world, &held).await {
                            Ok(()) => drop(allowed.fetch_add(1, Ordering::SeqCst)),
                            Err(reason) => assert_eq!(reason, Reason::TokenUsesExhausted),
                        }
                        tokio::task::yield_now().await;
                    }
                });
            }
            racers.join_all().await;
            assert_eq!(allowed.load(Ordering::SeqCst), uses.min(RACERS * 5), "round {round}");
        }
    });
}

#[test]
fn l4_32_racers_over_a_whole_tree_get_what_the_root_had_and_no_more() {
    const USES: u64 = 600;
    runtime().block_on(async {
        for round in 0..6u64 {
            let world = Arc::new(World::new(POLICY));
            let root = hand_on(&world, None, USES).await.unwrap();
            let tree = Arc::new(Mutex::new(vec![root]));
            let mut racers = JoinSet::new();
            for racer in 0..RACERS {
                let (world, tree) = (Arc::clone(&world), Arc::clone(&tree));
                racers.spawn(async move {
                    let mut allowed = 0;
                    for step in 0..30 {
                        let throw =
                            (racer * 7919 + step * 104_729 + round * 31).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
                        let held = {
                            let tree = tree.lock().unwrap();
                            tree[usize::try_from(throw).unwrap() % tree.len()].clone()
                        };
                        if throw % 3 == 0 && held.place < 3 {
                            if let Ok(child) = hand_on(&world, Some(&held), 1 + throw % 5).await {
                                tree.lock().unwrap().push(child);
                            }
                        } else if reads(&world, &held).await.is_ok() {
                            allowed += 1;
                        }
                    }
                    allowed
                });
            }
            let raced: u64 = racers.join_all().await.into_iter().sum();
            let mut rest = 0;
            let tree = tree.lock().unwrap().clone();
            for held in &tree {
                while reads(&world, held).await.is_ok() {
                    rest += 1;
                }
            }
            assert!(tree.len() > 20 && raced > 50, "{} tokens, {raced} uses", tree.len());
            assert_eq!(raced + rest, USES, "round {round}");
        }
    });
}

#[test]
fn l7_what_starts_after_a_revocation_returned_is_refused() {
    runtime().block_on(async {
        for round in 0..30 {
            let world = Arc::new(World::new(POLICY));
            let root = hand_on(&world, None, 900_000).await.unwrap();
            let child = hand_on(&world, Some(&root), 400_000).await.unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let mut racers = JoinSet::new();
            for racer in 0..RACERS {
                let (world, over) = (Arc::clone(&world), Arc::clone(&over));
                let held = if racer % 2 == 0 { root.clone() } else { child.clone() };
                racers.spawn(async move {
                    let mut after = 0;
                    while after < 4 {
                        let is_over = over.load(Ordering::SeqCst);
                        let may = if racer % 4 < 2 {
                            reads(&world, &held).await
                        } else {
                            hand_on(&world, Some(&held), 1).await.map(drop)
                        };
                        assert!(!(is_over && may.is_ok()), "allowed after it was revoked, round {round}");
                        after += i32::from(is_over);
                        tokio::task::yield_now().await;
                    }
                });
            }
            tokio::task::yield_now().await;
            let id = world.engine.keyring().open(&root.text, &mut Vec::new()).unwrap().id();
            let target = match round % 5 {
                0 => RevokeTarget::Token(&root.text),
                1 => RevokeTarget::TokenId(id),
                2 => RevokeTarget::Agent(name_of("agent-b")),
                3 => RevokeTarget::Quarantine(name_of("agent-a")),
                _ => RevokeTarget::All,
            };
            world.engine.revoke(&caller("root-admin"), &Revocation { target, note: "" }).await.unwrap();
            over.store(true, Ordering::SeqCst);
            racers.join_all().await;
        }
    });
}

#[test]
fn l9_every_answer_during_reloads_is_that_of_the_policy_it_names() {
    let narrow = POLICY.replace(
        r#""trusted_pairs": ["agent-b"], "max_capability_set": ["read", "write"]"#,
        r#""max_capability_set": ["write"]"#,
    );
    assert_ne!(narrow, POLICY);
    runtime().block_on(async {
        let world = Arc::new(World::new(POLICY));
        let wide_digest = world.engine.policy().policy.id.digest.clone();
        let held = hand_on(&world, None, 900_000).await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let mut racers = JoinSet::new();
        for _ in 0..8 {
            let (world, over, held, wide) = (Arc::clone(&world), Arc::clone(&over), held.clone(), wide_digest.clone());
            racers.spawn(async move {
                let mut seen = [0u64; 2];
                while !over.load(Ordering::SeqCst) {
                    let decision = world.authorize(&held.ask(), Some(&held.text)).await;
                    let is_wide = decision.policy.digest == wide;
                    // Odd revisions are the wide policy's.
                    assert_eq!(is_wide, decision.policy.revision % 2 == 1);
                    let reason = decision.outcome.as_ref().err().map(remit::domain::reason::Denial::reason);
                    if is_wide {
                        assert_eq!(reason, None);
                    } else {
                        let right = [Some(Reason::CapabilityNotGranted), Some(Reason::DelegationNotAllowed)];
                        assert!(right.contains(&reason), "{reason:?}");
                    }
                    seen[usize::from(is_wide)] += 1;
                    tokio::task::yield_now().await;
                }
                seen
            });
        }
        for revision in 2..1_500 {
            world.engine.install(in_force(if revision % 2 == 1 { POLICY } else { &narrow }, revision)).await;
            tokio::task::yield_now().await;
        }
        over.store(true, Ordering::SeqCst);
        let seen = racers.join_all().await.into_iter().fold([0, 0], |sum, seen| [sum[0] + seen[0], sum[1] + seen[1]]);
        assert!(seen.iter().all(|seen| *seen > 20), "{seen:?}");
    });
}
