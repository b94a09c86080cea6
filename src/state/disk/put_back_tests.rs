//! Of two files that belong together, one is put back alone.

use super::*;
use crate::state::KeptState;

#[test]
fn a_ledger_that_is_put_back_alone_gives_no_use_again() {
    let world = World::new(Backend::Memory);
    let state = world.start().unwrap();
    mint(&state, &Token::root(1, 3));
    state.save().unwrap();
    drop(state);
    let first = std::fs::read(world.file("ledger")).unwrap();
    let state = world.start().unwrap();
    assert_eq!(spend(&state, &Token::root(1, 3)), Ok(2));
    // A crash; the first start used the ledger up.
    drop(state);
    std::fs::write(world.file("ledger"), &first).unwrap();
    let state = world.start().unwrap();
    assert_eq!(spend(&state, &Token::root(1, 3)), Err(Refused::Fenced));
    assert!(!world.file("ledger").exists(), "it is removed");
    state.save().unwrap();
    drop(state);
    std::fs::write(world.file("ledger"), &first).unwrap();
    let refusal = message(&world);
    assert!(refusal.contains("not the newest ledger") && refusal.contains("remove it"), "{refusal}");
}

/// A second passes, and each log has said how far it is.
fn let_a_second_pass(world: &World, state: &State) {
    world.now.fetch_add(1, Ordering::SeqCst);
    let State::Journal { kept: KeptState(kept), .. } = state else { panic!("not a journal") };
    let after = Duration::from_millis(300);
    let before = (kept.register().durable(), kept.tokens().unwrap().durable());
    for _ in 0..100 {
        std::thread::sleep(after);
        if kept.register().durable() > before.0 && kept.tokens().unwrap().durable() > before.1 {
            return;
        }
    }
    panic!("nothing was said");
}

#[test]
fn one_file_of_a_journal_that_is_put_back_alone_is_refused() {
    let world = World::new(Backend::Journal);
    let state = world.start().unwrap();
    mint(&state, &Token::root(1, 3));
    settle(&state);
    let (ledger, register) = ("ledger", "revocations");
    let before = [ledger, register].map(|name| std::fs::read(world.file(name)).unwrap());
    spend(&state, &Token::root(1, 3)).unwrap();
    state.ledger().unwrap().quarantine("stranger", world.now()).unwrap();
    settle(&state);
    let_a_second_pass(&world, &state);
    let_a_second_pass(&world, &state);
    drop(state);
    let after = [ledger, register].map(|name| std::fs::read(world.file(name)).unwrap());
    std::fs::write(world.file(ledger), &before[0]).unwrap();
    assert!(message(&world).contains("not the newest ledger"), "{}", message(&world));
    std::fs::write(world.file(ledger), &after[0]).unwrap();
    std::fs::write(world.file(register), &before[1]).unwrap();
    assert!(message(&world).contains("missing or older than the ledger"), "{}", message(&world));
    std::fs::write(world.file(register), &after[1]).unwrap();
    assert_eq!(spend(&world.start().unwrap(), &Token::root(1, 3)), Ok(1));
}

#[test]
fn a_journal_that_crashed_before_its_ledger_was_named_goes_on() {
    let world = World::new(Backend::Journal);
    let state = world.start().unwrap();
    mint(&state, &Token::root(1, 3));
    settle(&state);
    drop(state);
    let before = std::fs::read(world.file("revocations")).unwrap();
    let state = world.start().unwrap();
    drop(state);
    // The register of before names the ledger that the new one follows.
    std::fs::write(world.file("revocations"), before).unwrap();
    assert_eq!(spend(&world.start().unwrap(), &Token::root(1, 3)), Ok(2));
}
