//! The work that is counted.

use remit::domain::caller::Caller;
use remit::domain::chain::Wish;
use remit::engine::AuthorizeRequest;
use remit::events::{Filter, Item, Since};
use remit::keyring::{Key, Keyring};

use crate::callgrind::remit_counts_this;
use crate::harness::{Setup, World, wish};

/// Operations in one count.
pub(crate) const TIMES: u64 = 100;
/// Operations before it: what is made once, or grows, is there then.
const BEFORE: u64 = 30;

/// Each piece of work by its name.
pub(crate) const WORK: &[(&str, fn())] = &[
    ("open", open),
    ("authorize", authorize),
    ("refuse", refuse),
    ("mint", mint),
    ("verify_and_mint", verify_and_mint),
    ("event_line", event_line),
];

pub(crate) fn of_name(name: &str) -> fn() {
    WORK.iter().find(|(known, _)| *known == name).unwrap().1
}

fn world() -> World {
    World::of(Setup::policy(include_str!("../../examples/policy.json")))
}

fn root(is_delegatable: bool) -> Wish<'static> {
    Wish {
        delegatable: is_delegatable,
        task: Some("task-1".into()),
        ..wish("agent-deployer", &["kubectl_get", "kubectl_apply"], &["prod/*", "staging/*"])
    }
}

/// Single-use tokens of the deployer's.
fn tokens(world: &World, count: u64, is_delegatable: bool) -> Vec<String> {
    let coordinator = world.caller("agent-coordinator");
    let mint = |_| world.delegate(&coordinator, &world.root(root(is_delegatable))).outcome.unwrap().token;
    (0..count).map(mint).collect()
}

/// Does it a few times, and then [`TIMES`] times under the eyes of callgrind. Each time with another number.
fn count(mut work: impl FnMut(usize)) {
    let (before, all) = (usize::try_from(BEFORE).unwrap(), usize::try_from(BEFORE + TIMES).unwrap());
    (0..before).for_each(&mut work);
    remit_counts_this(&mut || (before..all).for_each(&mut work));
}

fn question<'a>(world: &World, token: &'a str) -> AuthorizeRequest<'a> {
    AuthorizeRequest { token: Some(token), ..world.ask("kubectl_get", "prod/deployments/web") }
}

/// The token's form, its seal, what it says.
fn open() {
    let world = world();
    let tokens = tokens(&world, BEFORE + TIMES, false);
    let keyring = Keyring::new(vec![Key::new(&[1; 32], true).unwrap()]).unwrap();
    let mut buffer = Vec::new();
    count(|index| assert!(keyring.open(&tokens[index], &mut buffer).is_ok()));
}

/// The decision core: open, decide, spend, hand the event to the recorder.
fn authorize() {
    let world = world();
    let tokens = tokens(&world, BEFORE + TIMES, false);
    let deployer = world.caller("agent-deployer");
    count(|index| assert!(world.authorize(&deployer, &question(&world, &tokens[index])).outcome.is_ok()));
}

/// The same for a token that is spent.
fn refuse() {
    let world = world();
    let token = tokens(&world, 1, false).remove(0);
    let deployer = world.caller("agent-deployer");
    let is_allowed = |deployer: &Caller| world.authorize(deployer, &question(&world, &token)).outcome.is_ok();
    assert!(is_allowed(&deployer));
    count(|_| assert!(!is_allowed(&deployer)));
}

fn mint() {
    let world = world();
    let coordinator = world.caller("agent-coordinator");
    count(|_| assert!(world.delegate(&coordinator, &world.root(root(false))).outcome.is_ok()));
}

/// A delegation from a token.
fn verify_and_mint() {
    let world = world();
    let tokens = tokens(&world, BEFORE + TIMES, true);
    let deployer = world.caller("agent-deployer");
    let child = || wish("agent-validator", &["kubectl_get"], &["prod/web"]);
    count(|index| assert!(world.delegate(&deployer, &world.child(&tokens[index], child())).outcome.is_ok()));
}

/// An event as a line of the audit log.
fn event_line() {
    let world = world();
    let deployer = world.caller("agent-deployer");
    let token = tokens(&world, 1, false).remove(0);
    let mut watch = world.engine.events().subscribe(Since::Now, Filter::default()).unwrap();
    assert!(world.authorize(&deployer, &question(&world, &token)).outcome.is_ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let event = loop {
        match runtime.block_on(watch.next()).unwrap() {
            Item::Event(event) if event.token_id.is_some() => break event,
            Item::Event(_) | Item::Gap { .. } | Item::Heartbeat { .. } => {}
        }
    };
    count(|_| assert!(event.line().len() > 400));
}
