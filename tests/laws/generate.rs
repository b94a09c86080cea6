//! Random small policies, and dice for what happens under them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::{Oracle, within_any};
use crate::words::{Communication, Grant, Point, Policy, Rule};

pub const AGENTS: [&str; 7] = ["agent-a", "agent-b", "agent-c", "agent-d", "agent-e", "agent-f", "agent-g"];
pub const CAPABILITIES: [&str; 4] = ["read", "write", "deploy", "query"];
/// An enforcement point for everybody and itself.
pub const GUARD: &str = "svc-guard";
/// An enforcement point for some agents and two more destinations.
pub const GATE: &str = "svc-gate";
pub const ADMINISTRATOR: &str = "root-admin";
/// No policy names it.
pub const STRANGER: &str = "agent-x";

pub const PATTERNS: [&str; 14] = [
    "*",
    "db:*",
    "/data/*",
    "prod/*",
    "k8s://prod/*",
    "/data/reports/*",
    "db:orders",
    "k8s://prod/deployments/*",
    "db:orders/*",
    "/data/reports",
    "prod/web",
    "/*",
    "k8s:/prod/*",
    "/data/reports-secret",
];

pub const RESOURCES: [&str; 16] = [
    "db:orders",
    "/data/reports/q3.pdf",
    "prod/web",
    "k8s://prod/deployments/web",
    "db:orders/1",
    "/data/reports",
    "/data/reports-secret",
    "/data/reports/a/b",
    "prod/web/x",
    "k8s:/prod/deployments/web",
    "data/reports/q3.pdf",
    "k8s://prod",
    "DB:orders",
    "prod",
    "db:/orders",
    "db://orders",
];

/// None of these is a resource.
pub const NOT_CANONICAL: [&str; 12] = [
    "/data/../etc/passwd",
    "/data//reports",
    "/data/reports/",
    "//data/reports",
    "/data/./reports",
    "/data/re%2Fports",
    "/data/re\\ports",
    "/data/*",
    "db:",
    "",
    "/data/ reports",
    "/data/r\u{e9}ports",
];

/// What an agent's rule is made of.
#[derive(Clone, Debug)]
struct RuleDice {
    present: bool,
    targets: u8,
    next: bool,
    capabilities: (u8, u8),
    resources: Vec<usize>,
    trusted: u8,
}

fn rule() -> impl Strategy<Value = RuleDice> {
    let resources = prop_oneof![
        8 => Just(vec![0]),
        6 => vec(0..6usize, 2..5),
        4 => vec(0..PATTERNS.len(), 1..4),
        1 => Just(vec![]),
    ];
    (prop::bool::weighted(0.9), any::<u8>(), prop::bool::weighted(0.8), any::<(u8, u8)>(), resources, any::<u8>())
        .prop_map(|(present, targets, next, capabilities, resources, trusted)| RuleDice {
            present,
            targets,
            next,
            capabilities,
            resources,
            trusted,
        })
}

/// A policy in which nothing is wrong.
pub fn policies() -> impl Strategy<Value = Policy> {
    let agent = prop_oneof![2 => Just(0), 1 => 0..7usize];
    let grants = prop::option::weighted(0.3, vec((agent, 1..16u8, vec(0..PATTERNS.len(), 1..3)), 0..5));
    let sides = prop_oneof![0..7usize, Just(7)];
    let list = || prop::option::weighted(0.3, any::<u8>());
    let calls = prop::option::weighted(0.25, vec((sides.clone(), sides, list(), list()), 0..5));
    let token = (prop_oneof![1..=300u64, 60..=300u64], prop_oneof![1..=300u64, 100..=300u64], 1..=3u64, 1..=5u64);
    let whom = prop::option::weighted(0.5, any::<u8>());
    let quarantined = prop_oneof![7 => Just(None), 1 => (0..7usize).prop_map(Some)];
    (
        4..=7usize,
        vec(rule(), 7),
        prop_oneof![1..=4u64, 2..=4u64],
        grants,
        calls,
        token,
        whom,
        (quarantined, prop::bool::weighted(0.08)),
    )
        .prop_map(|(count, rules, max_depth, grants, calls, token, whom, (quarantined, back))| {
            let mut policy = Policy {
                max_depth,
                rules: rules_of(&rules[..count], back),
                default_ttl: token.0,
                max_ttl: token.1,
                default_uses: token.2,
                max_uses_trusted: token.3,
                grants: grants.map(|grants| grants.into_iter().map(|grant| grant_of(count, &grant)).collect()),
                communication: calls.map(|calls| calls.iter().map(|call| call_of(count, *call)).collect()),
                points: points(whom),
                administrators: [ADMINISTRATOR.to_owned()].into(),
                quarantined: quarantined.filter(|at| *at < count).map(|at| AGENTS[at].to_owned()).into_iter().collect(),
            };
            make_valid(&mut policy);
            policy
        })
}

fn rules_of(dice: &[RuleDice], back: bool) -> BTreeMap<String, Rule> {
    let count = dice.len();
    let chosen = |mask: u8, but: usize| {
        let names = (0..count).filter(move |at| mask >> at & 1 == 1 && *at != but);
        names.map(|at| AGENTS[at].to_owned()).collect::<BTreeSet<_>>()
    };
    let present = dice.iter().enumerate().filter(|(at, dice)| dice.present || *at == 0);
    present
        .map(|(at, dice)| {
            let mut can_delegate_to = chosen(dice.targets, at);
            can_delegate_to.extend(((dice.next || at == 0) && at + 1 < count).then(|| AGENTS[at + 1].to_owned()));
            if !back {
                can_delegate_to.remove(AGENTS[0]);
            }
            let capabilities = if at == 0 { 15 } else { dice.capabilities.0 | dice.capabilities.1 };
            let rule = Rule {
                can_delegate_to,
                cap: CAPABILITIES
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| capabilities >> bit & 1 == 1)
                    .map(|(_, name)| (*name).to_owned())
                    .collect(),
                res: dice.resources.iter().map(|at| PATTERNS[*at].to_owned()).collect(),
                trusted: chosen(dice.trusted, at),
            };
            (AGENTS[at].to_owned(), rule)
        })
        .collect()
}

fn grant_of(count: usize, (agent, capabilities, resources): &(usize, u8, Vec<usize>)) -> Grant {
    let named = CAPABILITIES.iter().enumerate().filter(|(bit, _)| capabilities >> bit & 1 == 1);
    Grant {
        agent: AGENTS[agent % count].to_owned(),
        cap: named.map(|(_, name)| (*name).to_owned()).collect(),
        res: resources.iter().map(|at| PATTERNS[*at].to_owned()).collect(),
    }
}

fn call_of(count: usize, (from, to, methods, paths): (usize, usize, Option<u8>, Option<u8>)) -> Communication {
    let side = |at: usize| if at >= count { "*".to_owned() } else { AGENTS[at].to_owned() };
    let of = |mask: u8, names: &[&str]| {
        names.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| (*name).to_owned()).collect()
    };
    Communication {
        from: side(from),
        to: side(to),
        methods: methods.map(|mask| of(mask, &["POST", "GET", "PUT"])),
        paths: paths.map(|mask| of(mask, &["/v1/*", "/v1/delegate", "*", "/v1/tasks/*"])),
    }
}

fn points(whom: Option<u8>) -> Vec<Point> {
    let listed = |mask: u8| AGENTS.iter().enumerate().filter(move |(bit, _)| mask >> bit & 1 == 1);
    vec![
        Point { agent: GUARD.to_owned(), destinations: vec![], agents: None },
        Point {
            agent: GATE.to_owned(),
            destinations: vec!["svc-store".to_owned(), "agent-b".to_owned()],
            agents: whom.map(|mask| listed(mask).map(|(_, name)| (*name).to_owned()).collect()),
        },
    ]
}

/// A grant within the agent's rule, and defaults within the limits.
fn make_valid(policy: &mut Policy) {
    policy.default_ttl = policy.default_ttl.min(policy.max_ttl);
    policy.default_uses = policy.default_uses.min(policy.max_uses_trusted);
    let rules = &policy.rules;
    for grant in policy.grants.iter_mut().flatten() {
        if let Some(rule) = rules.get(&grant.agent) {
            grant.cap.retain(|cap| rule.cap.contains(cap));
            grant.res.retain(|res| within_any(res, &rule.res));
        }
    }
    if let Some(grants) = &mut policy.grants {
        grants.retain(|grant| !grant.cap.is_empty() && !grant.res.is_empty());
    }
}

/// The policy with one thing changed, or as it was at the beginning.
pub fn changed(policy: &Policy, first: &Policy, dice: &mut Dice) -> Policy {
    let mut policy = policy.clone();
    let agents: Vec<String> = policy.rules.keys().cloned().collect();
    let agent = dice.pick(&agents).cloned();
    let rule = agent.as_ref().and_then(|agent| policy.rules.get_mut(agent));
    let number = u64::from(dice.next());
    match (dice.next() % 16, rule) {
        (1, Some(rule)) => drop(rule.can_delegate_to.pop_last()),
        (2, Some(rule)) => drop(rule.cap.pop_first()),
        (3, Some(rule)) => drop(rule.res.pop()),
        (4, Some(rule)) => rule.trusted.clear(),
        (5, _) => policy.max_depth = 1 + number % 4,
        (6, _) => policy.max_ttl = 1 + number,
        (7, _) => policy.max_uses_trusted = 1 + number % 5,
        (8, Some(_)) => {
            let agent = agent.unwrap();
            if !policy.quarantined.remove(&agent) {
                policy.quarantined.insert(agent);
            }
        }
        (9, _) => policy.grants = if policy.grants.is_some() { None } else { first.grants.clone() },
        (10, _) => policy.communication = if policy.communication.is_some() { None } else { Some(vec![]) },
        (11, Some(_)) => drop(policy.rules.remove(&agent.unwrap())),
        _ => policy = first.clone(),
    }
    make_valid(&mut policy);
    policy
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Op {
    Delegate(Dice),
    Authorize(Dice),
    Revoke(Dice),
    Reinstate(Dice),
    /// In milliseconds.
    Tick(u64),
    Reload(Dice),
    /// Another issuer seals a token.
    Foreign(Dice),
    /// The ledger forgets what has expired.
    Sweep,
}

pub fn histories() -> impl Strategy<Value = (Policy, Vec<Op>)> {
    let tick = prop_oneof![12 => 0..5_000u64, 3 => 0..60_000u64, 1 => 0..400_000u64];
    let op = prop_oneof![
        12 => dice().prop_map(Op::Delegate),
        16 => dice().prop_map(Op::Authorize),
        3 => dice().prop_map(Op::Revoke),
        2 => dice().prop_map(Op::Reinstate),
        4 => tick.prop_map(Op::Tick),
        2 => dice().prop_map(Op::Reload),
        2 => dice().prop_map(Op::Foreign),
        1 => Just(Op::Sweep),
    ];
    let begin = vec(dice().prop_map(Op::Delegate), 3);
    let ops = (begin, vec(op, 7..=37)).prop_map(|(begin, then)| begin.into_iter().chain(then).collect());
    (policies(), ops)
}

/// Throws of dice that become a request once it is known what there is to ask about. Zeros are the usual.
#[derive(Clone, Debug)]
pub struct Dice {
    throws: [u8; 20],
    at: usize,
}

pub fn dice() -> impl Strategy<Value = Dice> {
    any::<[u8; 20]>().prop_map(|throws| Dice { throws, at: 0 })
}

impl Dice {
    pub fn next(&mut self) -> u8 {
        self.at += 1;
        let (round, at) = ((self.at - 1) / self.throws.len(), (self.at - 1) % self.throws.len());
        // Beyond the last throw they are thrown again, and fall otherwise.
        let stirred = u64::try_from(self.at * round).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        self.throws[at] ^ u8::try_from(stirred).unwrap()
    }

    /// True this often in 256.
    pub fn in_256(&mut self, often: u16) -> bool {
        u16::from(self.next()) >= 256 - often
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let throw = usize::from(self.next());
        list.get(throw.checked_rem(list.len())?)
    }

    pub fn pick_name(&mut self, list: &[&str]) -> String {
        (*self.pick(list).unwrap()).to_owned()
    }

    /// At least one of them, if there is one.
    pub fn some<T: Clone>(&mut self, list: &[T]) -> Vec<T> {
        let mask = self.next() | 1 << (self.next() % 8);
        let chosen: Vec<T> =
            list.iter().enumerate().filter(|(at, _)| mask >> (at % 8) & 1 == 1).map(|(_, one)| one.clone()).collect();
        if chosen.is_empty() { list.iter().take(1).cloned().collect() } else { chosen }
    }

    pub fn anybody(&mut self) -> String {
        if self.in_256(100) { self.pick_name(&[GUARD, GATE, ADMINISTRATOR, STRANGER]) } else { self.pick_name(&AGENTS) }
    }

    /// A token of the story, the last ones more often.
    pub fn token(&mut self, oracle: &Oracle) -> Option<usize> {
        let count = oracle.tokens.len();
        let back = usize::from(self.next()) * usize::from(self.next()) * count / (256 * 256);
        count.checked_sub(1 + back)
    }
}
