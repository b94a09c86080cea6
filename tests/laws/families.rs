//! Laws over whole families of tokens: what a policy lets grow, and then one thing done to all of it.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use remit::domain::reason::Reason;

use crate::generate::{self, Dice, GATE, GUARD, Op};
use crate::histories::{for_each_case, runtime};
use crate::model::within_any;
use crate::story::{Story, Told};
use crate::words::{Ask, Policy, Shown, Target, Wish};
use crate::world::{self, World};

/// Seeds of about a dozen tokens under a policy.
fn seeds() -> impl Strategy<Value = (Policy, Vec<Dice>)> {
    (generate::policies(), vec(generate::dice(), 6..=20))
}

async fn grown(policy: &Policy, seeds: Vec<Dice>) -> Result<Story, TestCaseError> {
    let mut story = Story::begin(policy);
    for mut dice in seeds {
        story.grow(&mut dice).await?;
    }
    Ok(story)
}

/// Everything that is asked here is asked of the engine only and spends nothing.
async fn allows(story: &Story, ask: &Ask) -> bool {
    story.outcome(&Ask { dry_run: true, ..ask.clone() }).await.is_ok()
}

#[test]
fn l2_a_token_is_good_in_its_holders_hands_only() {
    let runtime = runtime();
    for_each_case(8, &seeds(), |(policy, seeds)| -> Told {
        runtime.block_on(async {
            let story = grown(&policy, seeds).await?;
            for (id, token) in story.oracle.tokens.iter().enumerate() {
                let proper = story.proper_ask(id);
                for other in
                    generate::AGENTS.into_iter().filter(|other| Some(*other) != token.chain.last().map(String::as_str))
                {
                    let itself = Ask { caller: other.to_owned(), agent: None, ..proper.clone() };
                    let through = Ask { agent: Some(other.to_owned()), ..proper.clone() };
                    prop_assert!(!allows(&story, &itself).await && !allows(&story, &through).await);
                }
                // Not by the enforcement point's own name either, nor by saying that one is the holder.
                for (caller, agent) in
                    [(GUARD, GUARD), ("agent-x", "agent-x"), ("root-admin", token.chain.last().unwrap())]
                {
                    let ask = Ask { caller: caller.to_owned(), agent: Some(agent.to_owned()), ..proper.clone() };
                    prop_assert!(!allows(&story, &ask).await);
                }
            }
            Ok(())
        })
    });
}

#[test]
fn l3_never_wider_than_the_parent_and_the_policy() {
    let runtime = runtime();
    for_each_case(4, &(seeds(), generate::dice()), |((policy, seeds), mut dice)| -> Told {
        runtime.block_on(async {
            let mut story = Story::begin(&policy);
            for seed in seeds {
                story.tell(&Op::Delegate(seed)).await?;
            }
            if dice.in_256(128) {
                story.reload(generate::changed(&policy, &policy, &mut dice)).await;
            }
            for (id, child) in story.oracle.tokens.iter().enumerate() {
                let texts = child.ancestors.iter().map(|id| &story.issued[*id].text);
                for parent in texts {
                    narrower(&story.issued[id].text, parent)?;
                }
                for _ in 0..6 {
                    let ask = some_ask(id, child.chain.last().unwrap(), &mut dice);
                    if allows(&story, &ask).await {
                        within_parent_and_policy(&story, id, &ask).await?;
                    }
                }
            }
            Ok(())
        })
    });
}

/// A question about anything, at one of three doors.
fn some_ask(id: usize, holder: &str, dice: &mut Dice) -> Ask {
    let doors = [(GUARD, None), (GATE, Some("svc-store")), (GATE, Some("agent-b"))];
    let (caller, destination) = *dice.pick(&doors).unwrap();
    let resource =
        if dice.in_256(16) { dice.pick_name(&generate::NOT_CANONICAL) } else { dice.pick_name(&generate::RESOURCES) };
    Ask {
        caller: caller.to_owned(),
        agent: Some(holder.to_owned()),
        destination: destination.map(str::to_owned),
        wanted: Some((dice.pick_name(&generate::CAPABILITIES), resource)),
        call: None,
        token: Some(Shown::Token(id)),
        dry_run: true,
        late: false,
    }
}

async fn within_parent_and_policy(story: &Story, id: usize, ask: &Ask) -> Told {
    let child = &story.oracle.tokens[id];
    let (capability, resource) = ask.wanted.as_ref().unwrap();
    if let Some(parent) = child.ancestors.last() {
        let holder = story.oracle.tokens[*parent].chain.last().cloned();
        let by_parent = Ask { token: Some(Shown::Token(*parent)), agent: holder, ..ask.clone() };
        match story.outcome(&by_parent).await {
            Ok(()) => {}
            // The gate may know the child's holder and not the parent's.
            Err(denial) => prop_assert!(
                [Reason::TokenUsesExhausted, Reason::CallerNotEnforcementPoint].contains(&denial.reason()),
                "{:?}: {:?} and not by the parent: {:?}",
                child,
                ask,
                denial
            ),
        }
    }
    let policy = &story.oracle.policy;
    prop_assert!(policy.may_start(&child.chain[0], capability, resource));
    prop_assert!(child.chain.windows(2).all(|pair| policy.may_delegate(&pair[0], &pair[1])));
    prop_assert!(child.chain.iter().all(|agent| policy.own_set_faults(agent, capability, resource).is_empty()));
    prop_assert!(u64::try_from(child.chain.len() - 1).unwrap() <= policy.max_depth);
    Ok(())
}

/// What the child's text says against what the text of one above it says.
fn narrower(child: &str, parent: &str) -> Told {
    let [child, parent] = [child, parent].map(world::claims);
    let number = |claims: &serde_json::Map<_, serde_json::Value>, name: &str| claims[name].as_u64().unwrap();
    let list = |claims: &serde_json::Map<_, serde_json::Value>, name: &str| -> Vec<String> {
        claims.get(name).map_or_else(Vec::new, |value| serde_json::from_value(value.clone()).unwrap())
    };
    for name in ["exp", "max_uses", "max_depth"] {
        prop_assert!(number(&child, name) <= number(&parent, name), "{}", name);
    }
    prop_assert!(number(&child, "iat") >= number(&parent, "iat"));
    prop_assert!(list(&child, "cap").iter().all(|cap| list(&parent, "cap").contains(cap)));
    prop_assert!(list(&child, "res").iter().all(|res| within_any(res, &list(&parent, "res"))));
    let (narrow, wide) = (list(&child, "aud"), list(&parent, "aud"));
    prop_assert!(wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|aud| wide.contains(aud))));
    prop_assert!(parent["delegatable"] == true);
    prop_assert!(list(&child, "chain").starts_with(&list(&parent, "chain")));
    Ok(())
}

#[test]
fn l4_a_root_and_its_descendants_are_allowed_as_often_as_the_root_says() {
    let runtime = runtime();
    for_each_case(4, &seeds(), |(policy, seeds)| -> Told {
        runtime.block_on(async {
            let mut story = grown(&policy, seeds).await?;
            let mut allowed: BTreeMap<usize, u64> = BTreeMap::new();
            for id in (0..story.oracle.tokens.len()).rev() {
                let root = story.oracle.tokens[id].ancestors.first().copied().unwrap_or(id);
                let ask = story.proper_ask(id);
                while story.authorize(&ask).await? {
                    *allowed.entry(root).or_default() += 1;
                }
            }
            for (root, allowed) in allowed {
                prop_assert_eq!(allowed, story.oracle.tokens[root].max_uses);
            }
            Ok(())
        })
    });
}

#[test]
fn l6_a_refused_request_spends_nothing() {
    let runtime = runtime();
    for_each_case(4, &generate::histories(), |(policy, ops)| -> Told {
        runtime.block_on(async {
            let mut story = Story::begin(&policy);
            let lefts = |story: &Story| -> Vec<Option<u32>> {
                story.issued.iter().map(|issued| story.world.left(issued.id)).collect()
            };
            for op in ops.iter().filter(|op| !matches!(op, Op::Sweep)) {
                let (before, counts) = (lefts(&story), story.counts);
                story.tell(op).await?;
                let refused = story.counts.refused > counts.refused || story.counts.not_minted > counts.not_minted;
                prop_assert!(!refused || lefts(&story) == before);
            }
            Ok(())
        })
    });
}

#[test]
fn l7_what_was_revoked_is_refused_at_once_and_nothing_else() {
    let runtime = runtime();
    for_each_case(4, &(seeds(), generate::dice()), |((policy, seeds), mut dice)| -> Told {
        runtime.block_on(async {
            let mut story = grown(&policy, seeds).await?;
            let Some(aim) = dice.token(&story.oracle) else { return Ok(()) };
            let mut before = Vec::new();
            for id in 0..story.issued.len() {
                before.push(allows(&story, &story.proper_ask(id)).await);
            }
            let agent = dice.pick(&story.oracle.tokens[aim].chain).unwrap().clone();
            let by_file = Policy { quarantined: [agent.clone()].into(), ..policy.clone() };
            let kind = dice.next() % 6;
            let target = match kind {
                0 => Target::Token(Shown::Token(aim)),
                1 => Target::Id(aim),
                2 => Target::Agent(agent.clone()),
                3 => Target::Quarantine(agent.clone()),
                _ => Target::All,
            };
            if kind == 5 {
                story.reload(by_file).await;
            } else {
                story.revoke(generate::ADMINISTRATOR, &target).await?;
            }
            for (id, was_allowed) in before.into_iter().enumerate() {
                let token = &story.oracle.tokens[id];
                let dead = match kind {
                    0 | 1 => id == aim || token.ancestors.contains(&aim),
                    2 | 3 | 5 => token.chain.contains(&agent),
                    _ => true,
                };
                prop_assert_eq!(allows(&story, &story.proper_ask(id)).await, was_allowed && !dead);
                let child = Wish { caller: token.chain.last().unwrap().clone(), ..anything(id) };
                prop_assert!(
                    !dead || story.world.delegate(&child, Some(&story.issued[id].text)).await.outcome.is_err()
                );
            }
            Ok(())
        })
    });
}

fn anything(parent: usize) -> Wish {
    Wish {
        caller: String::new(),
        to: "agent-g".to_owned(),
        cap: vec!["read".to_owned()],
        res: vec!["db:orders".to_owned()],
        parent: Some(Shown::Token(parent)),
        uses: None,
        ttl: None,
        max_depth: None,
        delegatable: false,
        aud: vec![],
        late: false,
    }
}

#[test]
fn l8_nothing_comes_back_after_a_restart() {
    let runtime = runtime();
    for_each_case(8, &(seeds(), generate::dice(), 0..3u64), |((policy, seeds), dice, seconds)| -> Told {
        runtime.block_on(async {
            let mut story = grown(&policy, seeds).await?;
            story.tell(&Op::Foreign(dice)).await?;
            story.tell(&Op::Tick(seconds * 1000)).await?;
            let now = story.world.clock.now().seconds();
            // The same key, policy and clock; another process. Its chance may even repeat itself.
            story.world = World::with_clock(&world::policy_text(&policy), story.world.clock.clone(), seconds);
            for id in 0..story.issued.len() {
                let token = &story.oracle.tokens[id];
                let Err(denial) = story.outcome(&story.proper_ask(id)).await else {
                    prop_assert!(false, "came back: {:?}", token);
                    return Ok(());
                };
                if !token.foreign && token.exp > now {
                    prop_assert_eq!(denial.reason(), Reason::TokenFenced);
                }
                let child = Wish { caller: token.chain.last().unwrap().clone(), ..anything(id) };
                prop_assert!(story.world.delegate(&child, Some(&story.issued[id].text)).await.outcome.is_err());
            }
            Ok(())
        })
    });
}

#[test]
fn l8_no_sweep_reload_or_reinstatement_brings_back_what_was_spent_or_revoked() {
    let runtime = runtime();
    for_each_case(
        8,
        &(seeds(), generate::dice(), vec(generate::dice(), 4)),
        |((policy, seeds), mut dice, reloads)| -> Told {
            runtime.block_on(async {
                let mut story = grown(&policy, seeds).await?;
                for id in 0..story.issued.len() {
                    while dice.in_256(128) && story.authorize(&story.proper_ask(id)).await? {}
                }
                let Some(aim) = dice.token(&story.oracle) else { return Ok(()) };
                let agent = story.oracle.tokens[aim].chain[1].clone();
                story.revoke(generate::ADMINISTRATOR, &Target::Quarantine(agent.clone())).await?;
                let dead: Vec<bool> =
                    story.oracle.tokens.iter().map(|token| token.chain.contains(&agent) || token.left == 0).collect();
                for reload in reloads {
                    story.tell(&Op::Reload(reload.clone())).await?;
                    story.tell(&Op::Sweep).await?;
                    story.tell(&Op::Tick(700)).await?;
                    let name = world::name_of(&agent);
                    let lifted = story.world.engine.reinstate(&world::caller(generate::ADMINISTRATOR), &name, "").await;
                    if lifted.is_ok() {
                        story.oracle.quarantined.remove(&agent);
                    }
                    story.reload(policy.clone()).await;
                    for (id, dead) in dead.iter().enumerate() {
                        prop_assert!(!dead || !allows(&story, &story.proper_ask(id)).await);
                    }
                }
                Ok(())
            })
        },
    );
}
