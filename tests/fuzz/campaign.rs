//! Runs a target over its corpus and over random changes of it.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::figures::{assure, seed, setting};
use crate::mutator::{Dice, mutate};

/// No input may take longer.
const LONGEST: Duration = Duration::from_secs(1);
/// As often as that it is tried whether it was the input, or a machine that had else to do.
const TRIES: usize = 5;
/// Of what was accepted, so much is kept to be changed further.
const POOL: usize = 256;

/// What became of an input. What may not be is a panic of the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Refused,
}

/// What is fed, and how.
pub(crate) struct Target {
    /// Also the name of its corpus.
    pub(crate) name: &'static str,
    /// The longest input, in bytes: a little more than the longest that could be accepted.
    pub(crate) longest: usize,
    /// How many random inputs there are where nobody says otherwise.
    pub(crate) executions: u64,
    /// What is one execution of the others' costs this many here.
    pub(crate) cost: u64,
}

impl Target {
    /// Its corpus.
    pub(crate) fn kept(&self) -> Vec<Vec<u8>> {
        kept(self.name)
    }

    /// Feeds every case of the corpus and then random changes of them.
    ///
    /// # Panics
    /// The check does, or takes too long; the message has the input.
    pub(crate) fn run(&self, check: impl FnMut(&[u8]) -> Outcome) {
        self.run_over(self.kept(), check);
    }

    /// The same over these cases.
    pub(crate) fn run_over(&self, mut pool: Vec<Vec<u8>>, check: impl FnMut(&[u8]) -> Outcome) {
        let mut feeder = Feeder { target: self, check, accepted: 0 };
        let kept = pool.len();
        let taken = pool.iter().filter(|case| feeder.feed(case, "a kept case") == Outcome::Accepted).count();
        assert!(taken > 0 && taken < kept, "{}: {taken} of {kept} kept cases are accepted", self.name);
        feeder.accepted = 0;
        let executions = (setting("REMIT_FUZZ_EXECUTIONS", self.executions * self.cost) / self.cost).max(1);
        let (mut dice, words) = (Dice::new(seed()), lines(self.name, "words"));
        for number in 0..executions {
            let base = &pool[dice.below(pool.len())];
            let input = mutate(&mut dice, base, &pool, &words, self.longest);
            let outcome = feeder.feed(&input, &format!("execution {number} of seed {}", seed()));
            if outcome == Outcome::Accepted {
                let place = kept + dice.below(POOL);
                if place < pool.len() { pool[place] = input } else { pool.push(input) }
            }
        }
        // Where nothing gets through, what lies behind is not tried.
        assert!(feeder.accepted > 0, "{}: none of {executions} random inputs was accepted", self.name);
        let figures = [
            ("target", self.name.into()),
            ("kept_cases", kept.into()),
            ("executions", executions.into()),
            ("accepted", feeder.accepted.into()),
            ("violations", 0.into()),
            ("seed", seed().into()),
        ];
        assure("random changes of kept cases, not guided by coverage", &figures);
    }
}

struct Feeder<'t, C> {
    target: &'t Target,
    check: C,
    accepted: u64,
}

impl<C: FnMut(&[u8]) -> Outcome> Feeder<'_, C> {
    fn feed(&mut self, input: &[u8], which: &str) -> Outcome {
        let name = self.target.name;
        for _ in 0..TRIES {
            let begun = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.check)(input)));
            let Ok(outcome) = outcome else {
                panic!("{name}: {which} breaks a promise (above); as a line of corpus/{name}.txt:\n{}", escaped(input));
            };
            if begun.elapsed() < LONGEST {
                self.accepted += u64::from(outcome == Outcome::Accepted);
                return outcome;
            }
        }
        panic!("{name}: {which} takes more than {LONGEST:?}; as a line of corpus/{name}.txt:\n{}", escaped(input));
    }
}

/// The cases of a corpus.
pub(crate) fn kept(name: &str) -> Vec<Vec<u8>> {
    lines(name, "txt")
}

fn lines(name: &str, kind: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fuzz/corpus/{name}.{kind}"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(unescaped).collect()
}

fn escaped(input: &[u8]) -> String {
    let mut line = String::new();
    for byte in input {
        match byte {
            b'\\' => line.push_str("\\\\"),
            b'\n' => line.push_str("\\n"),
            b' '..=b'~' => line.push(char::from(*byte)),
            _ => write!(line, "\\x{byte:02x}").unwrap(),
        }
    }
    line
}

fn unescaped(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'\\') => b'\\',
                Some(b'n') => b'\n',
                Some(b'x') => {
                    let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                    let digits = digit().zip(digit()).expect("two hex digits after \\x");
                    u8::try_from(digits.0 * 16 + digits.1).unwrap()
                }
                other => panic!("no escape of a corpus: \\{other:?}"),
            },
            plain => plain,
        });
    }
    bytes
}

#[test]
fn a_case_is_kept_as_it_is() {
    let every = (0..=u8::MAX).collect::<Vec<_>>();
    assert_eq!(unescaped(&escaped(&every)), every);
}

#[test]
fn a_broken_promise_is_told_with_its_input() {
    let target = Target { name: "json", longest: 64, executions: 5000, cost: 1 };
    let told = catch_unwind(|| {
        target.run_over(vec![b"a".to_vec(), b"b".to_vec()], |input| {
            assert!(!input.contains(&b'"'), "it has a mark");
            if input == b"a" { Outcome::Accepted } else { Outcome::Refused }
        });
    });
    let message = *told.unwrap_err().downcast::<String>().unwrap();
    let input = unescaped(message.lines().last().unwrap());
    assert!(input.contains(&b'"') && message.contains("of seed"), "{message}");
}
