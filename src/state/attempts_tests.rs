use proptest::prelude::*;

use super::*;

const AFTER: QuarantineAfter =
    QuarantineAfter { escalation_attempts: 3, reuse_attempts: 5, window_seconds: 60, max_agents: 2 };
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Noted,
    Taken,
    Withheld,
}

struct Trial {
    attempts: Attempts,
    after: QuarantineAfter,
}

impl Trial {
    fn new() -> Self {
        Self { attempts: Attempts::default(), after: AFTER }
    }

    fn note(&self, agent: &str, attempt: Attempt, seen_by: SeenBy<'_>, millis: u64) -> Told {
        let now = Timestamp::from_seconds(1000).after(Duration::from_millis(millis));
        match self.attempts.note(&agent.into(), attempt, seen_by, self.after, now) {
            Counted::Noted => Told::Noted,
            Counted::Withheld => Told::Withheld,
            Counted::Enough(pull) => {
                assert_eq!((&**pull.agent(), pull.attempt()), (agent, attempt));
                pull.done();
                Told::Taken
            }
        }
    }

    fn own(&self, agent: &str, millis: u64) -> Told {
        self.note(agent, Attempt::Escalation, SeenBy::Remit, millis)
    }

    fn by(&self, point: &str, agent: &str, millis: u64) -> Told {
        self.note(agent, Attempt::Escalation, SeenBy::EnforcementPoint(point), millis)
    }
}

#[test]
fn the_attempt_that_reaches_the_limit_within_the_window_is_enough() {
    let trial = Trial::new();
    assert_eq!(trial.own("a", 0), Told::Noted);
    assert_eq!(trial.own("a", 1), Told::Noted);
    assert_eq!(trial.own("a", 60_000), Told::Noted, "the first is a whole window old");
    assert_eq!(trial.own("a", 60_001), Told::Noted, "and so is the second");
    assert_eq!(trial.own("a", 60_002), Told::Taken);
    assert_eq!(trial.own("a", 60_003), Told::Noted, "it begins anew");
}

#[test]
fn kinds_and_agents_are_counted_apart() {
    let trial = Trial::new();
    for millis in 0..2 {
        assert_eq!(trial.own("a", millis), Told::Noted);
        assert_eq!(trial.own("b", millis), Told::Noted);
    }
    for millis in 2..6 {
        assert_eq!(trial.note("a", Attempt::Reuse, SeenBy::Remit, millis), Told::Noted);
    }
    assert_eq!(trial.note("a", Attempt::Reuse, SeenBy::Remit, 6), Told::Taken);
    assert_eq!(trial.own("b", 7), Told::Taken);
}

#[test]
fn one_enforcement_point_is_never_enough() {
    let trial = Trial::new();
    for millis in 0..10_000 {
        assert_eq!(trial.by("gate", "a", millis), Told::Noted);
    }
    assert_eq!(trial.own("a", 10_000), Told::Noted);
    assert_eq!(trial.own("a", 10_001), Told::Noted, "and adds nothing to what the agent did elsewhere");
    assert_eq!(trial.own("a", 10_002), Told::Taken);
}

#[test]
fn what_two_enforcement_points_saw_counts() {
    let trial = Trial::new();
    for millis in 0..9 {
        assert_eq!(trial.by("gate", "a", millis), Told::Noted);
    }
    assert_eq!(trial.by("mesh", "a", 10), Told::Noted);
    assert_eq!(trial.by("mesh", "a", 11), Told::Noted);
    assert_eq!(trial.by("mesh", "a", 12), Told::Taken);
    assert_eq!(trial.by("gate", "b", 20), Told::Noted);
    assert_eq!(trial.by("mesh", "b", 21), Told::Noted);
    assert_eq!(trial.by("third", "b", 22), Told::Noted);
    assert_eq!(trial.own("b", 23), Told::Taken, "two of the three, and one of its own");
}

#[test]
fn only_so_many_agents_are_taken_in_a_window_and_the_rest_is_said_once() {
    let trial = Trial::new();
    let reach = |agent, millis| {
        trial.own(agent, millis);
        trial.own(agent, millis + 1);
        trial.own(agent, millis + 2)
    };
    assert_eq!(reach("a", 0), Told::Taken);
    assert_eq!(reach("b", 30_000), Told::Taken);
    assert_eq!(reach("c", 40_000), Told::Withheld);
    assert_eq!(reach("c", 41_000), Told::Noted);
    assert_eq!(reach("d", 42_000), Told::Withheld);
    assert_eq!(reach("a", 43_000), Told::Withheld, "reinstated within the window");
    assert_eq!(reach("c", 60_002), Told::Taken, "the first one's window is over");
    assert_eq!(reach("d", 60_003), Told::Noted);
    assert_eq!(reach("d", 102_002), Told::Taken);
}

#[test]
fn nobody_is_taken_where_attempts_are_only_reported() {
    let trial = Trial { after: QuarantineAfter { max_agents: 0, ..AFTER }, ..Trial::new() };
    let told: Vec<_> = (0..12).map(|millis| trial.own("a", millis)).collect();
    assert_eq!(told.iter().filter(|told| **told == Told::Withheld).count(), 1);
    assert!(!told.contains(&Told::Taken));
}

#[test]
fn who_pulls_is_alone_and_one_that_gives_up_leaves_it_to_the_next() {
    let trial = Trial { after: QuarantineAfter { max_agents: 1, ..AFTER }, ..Trial::new() };
    let now = Timestamp::from_seconds(1000);
    let note = || trial.attempts.note(&"a".into(), Attempt::Escalation, SeenBy::Remit, trial.after, now);
    assert!(matches!(note(), Counted::Noted));
    assert!(matches!(note(), Counted::Noted));
    let Counted::Enough(first) = note() else { panic!("three are enough") };
    assert!(matches!(note(), Counted::Noted), "somebody is at it");
    drop(first);
    let Counted::Enough(second) = note() else { panic!("the first gave up") };
    second.done();
    assert!(matches!(note(), Counted::Noted));
}

#[test]
fn what_counts_no_more_is_forgotten() {
    let trial = Trial::new();
    trial.own("a", 0);
    trial.by("gate", "b", 30_000);
    let agents = || trial.attempts.noted.with(|noted| noted.agents.len());
    let at = |seconds: u64| Timestamp::from_seconds(1000 + seconds);
    trial.attempts.forget_outlived(Some(Duration::from_mins(1)), at(60));
    assert_eq!(agents(), 1);
    trial.attempts.forget_outlived(None, at(60));
    assert_eq!(agents(), 0);
}

#[derive(Clone, Debug)]
struct Deed {
    agent: usize,
    /// 0: the agent itself.
    seen_by: usize,
    is_reuse: bool,
    pause: u64,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = (0..2_usize, 0..4_usize, any::<bool>(), prop_oneof![Just(0_u64), 1..20_000_u64])
        .prop_map(|(agent, seen_by, is_reuse, pause)| Deed { agent, seen_by, is_reuse, pause });
    prop::collection::vec(deed, 0..200)
}

proptest! {
    #[test]
    fn nobody_is_taken_by_what_a_single_enforcement_point_says(deeds in deeds(), liar in 1..4_usize) {
        let trial = Trial { after: QuarantineAfter { max_agents: 1000, ..AFTER }, ..Trial::new() };
        let would_be = taken_without(&deeds, liar);
        let mut millis = 0;
        for deed in &deeds {
            millis = deed.pause.saturating_add(millis);
            let seen_by = match deed.seen_by {
                0 => SeenBy::Remit,
                point => SeenBy::EnforcementPoint(NAMES[point]),
            };
            let attempt = if deed.is_reuse { Attempt::Reuse } else { Attempt::Escalation };
            let told = trial.note(NAMES[deed.agent], attempt, seen_by, millis);
            prop_assert!(told != Told::Taken || would_be[deed.agent], "{deed:?} at {millis}");
        }
    }

    #[test]
    fn memory_is_bounded_by_the_limits(deeds in deeds()) {
        let trial = Trial { after: QuarantineAfter { max_agents: 0, ..AFTER }, ..Trial::new() };
        let mut millis = 0;
        for deed in &deeds {
            millis = (deed.pause % 50).saturating_add(millis);
            trial.by(&format!("point-{}-{}", deed.seen_by, deed.pause), "a", millis);
            let kept = trial.attempts.noted.with(|noted| {
                let seen = &noted.agents["a"].escalations;
                seen.by_points.values().map(VecDeque::len).fold(seen.by_remit.len(), usize::saturating_add)
            });
            prop_assert!(kept <= 6, "{kept}");
        }
    }
}

/// Whether the agents' own attempts and those that all points but this one report ever reach a limit, by a plain count.
fn taken_without(deeds: &[Deed], liar: usize) -> [bool; 2] {
    let mut millis = 0;
    let timed: Vec<(u64, &Deed)> = deeds
        .iter()
        .map(|deed| {
            millis = deed.pause.saturating_add(millis);
            (millis, deed)
        })
        .collect();
    [0, 1].map(|agent| {
        [(false, 3), (true, 5)].iter().any(|(is_reuse, limit)| {
            timed.iter().any(|(end, _)| {
                let counts = |(at, deed): &&(u64, &Deed)| {
                    deed.agent == agent
                        && deed.is_reuse == *is_reuse
                        && deed.seen_by != liar
                        && at <= end
                        && end.saturating_sub(*at) < 60_000
                };
                timed.iter().filter(counts).count() >= *limit
            })
        })
    })
}
