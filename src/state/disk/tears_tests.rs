//! Journals of random histories, cut at every byte of their last three records and with each bit of the last flipped.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers of a test")]

use super::*;

/// Random enough, and the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// What is left of each root, and which are revoked.
type Told = Vec<(u32, bool)>;

/// One more change; what holds after it.
fn step(state: &State, roots: &[Token], children: &mut u8, told: &mut Told, dice: &mut Dice) {
    let at = usize::try_from(dice.below(u64::try_from(roots.len()).unwrap())).unwrap();
    let (root, (left, is_revoked)) = (&roots[at], told[at]);
    match dice.below(6) {
        0 => {
            assert!(state.ledger().unwrap().revoke_held(&root.record()));
            told[at].1 = true;
        }
        1 | 2 => {
            *children += 1;
            let child = root.child(100 + *children, 2);
            let moved = state.ledger().unwrap().mint_child(&root.record(), &child.record(), &[], 0);
            assert_eq!(moved.is_ok(), !is_revoked && left >= 2, "{moved:?}");
            told[at].0 -= if moved.is_ok() { 2 } else { 0 };
        }
        _ => {
            let spent = spend(state, root);
            assert_eq!(spent.is_ok(), !is_revoked && left >= 1, "{spent:?}");
            told[at].0 -= u32::from(spent.is_ok());
        }
    }
}

/// Tears one journal in every way; how many there are.
fn tear(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let world = World::new(Backend::Journal);
    let state = world.start().unwrap();
    let roots = (1..=4).map(|number| Token::root(number, 9)).collect::<Vec<_>>();
    for root in &roots {
        mint(&state, root);
    }
    settle(&state);
    let length = || usize::try_from(world.file("ledger").metadata().unwrap().len()).unwrap();
    let (mut told, mut children) = (vec![(9, false); roots.len()], 0);
    let mut history = vec![(length(), told.clone())];
    while history.len() < 12 {
        step(&state, &roots, &mut children, &mut told, &mut dice);
        settle(&state);
        if length() > history.last().unwrap().0 {
            history.push((length(), told.clone()));
        }
    }
    drop(state);
    let bytes = std::fs::read(world.file("ledger")).unwrap();
    let register = open::register(&world.file("revocations")).unwrap().unwrap();
    // What a power loss takes was never said of it.
    let register =
        recovered::Register { paired: crate::state::change::Paired { sequence: 0, ..register.paired }, ..register };
    let read = |bytes: &[u8]| {
        std::fs::write(world.file("ledger"), bytes).unwrap();
        open::tokens(&world.file("ledger"), Some(&register))
    };
    let (first, last) = (history[history.len() - 4].0, history[history.len() - 2].0);
    for cut in first..=bytes.len() {
        let (_, wanted) = history.iter().rev().find(|(length, _)| *length <= cut).unwrap();
        let tokens = read(&bytes[..cut]).unwrap().unwrap();
        let found = roots.iter().map(|root| &tokens.entries[&root.id]).map(|entry| (entry.left, entry.revoked));
        assert_eq!(found.collect::<Told>(), *wanted, "seed {seed}, cut at {cut}");
    }
    for bit in last * 8..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(read(&flipped), Err(StateError::Damaged(..))), "seed {seed}, bit {bit}");
    }
    u64::try_from(bytes.len() - first + (bytes.len() - last) * 8).unwrap()
}

#[test]
fn no_torn_journal_brings_a_use_back() {
    let (wanted, seed) = (setting("REMIT_TEARS", 500), setting("REMIT_SEED", 1));
    let (mut tears, mut journals) = (0, 0);
    while tears < wanted {
        tears += tear(seed + journals);
        journals += 1;
    }
    println!(
        "ASSURE {{\"what\": \"tears\", \"tears\": {tears}, \"journals\": {journals}, \"resurrected\": 0, \"seed\": {seed}}}"
    );
}
