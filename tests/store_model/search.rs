//! Every state that can be reached, the nearest first, so that what breaks a law is told in the fewest steps.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Instant;

use crate::laws::broken;
use crate::rules::Scope;
use crate::state::State;
use crate::steps::{Step, next};

/// What came of it.
pub struct Searched {
    pub states: usize,
    pub depth: usize,
    pub seconds: f64,
    /// The law that was broken, and the steps up to it.
    pub broken: Option<(&'static str, Vec<Step>)>,
}

/// A state, from which it came, and by which step.
struct Reached {
    from: usize,
    step: Option<Step>,
}

/// Searches breadth first, from this state on. A state is remembered by a fingerprint of 128 bits.
#[expect(clippy::disallowed_methods, reason = "how long it took is printed")]
pub fn search(start: &State, scope: &Scope) -> Searched {
    let began = Instant::now();
    let prints = (RandomState::new(), RandomState::new());
    let print = |state: &State| {
        let mirrored = state.mirrored();
        let state = mirrored.as_ref().unwrap_or(state);
        (prints.0.hash_one(state), prints.1.hash_one(state))
    };
    let mut known = HashSet::from([print(start)]);
    let mut reached = vec![Reached { from: 0, step: None }];
    let mut layer = vec![(0, start.clone())];
    let mut depth = 0;
    while !layer.is_empty() {
        let mut deeper = Vec::new();
        for (from, state) in layer {
            for (step, next) in next(&state, scope) {
                if !known.insert(print(&next)) {
                    continue;
                }
                reached.push(Reached { from, step: Some(step) });
                let at = reached.len() - 1;
                if let Some(law) = broken(&next, scope) {
                    let broken = Some((law, steps_to(&reached, at)));
                    return Searched {
                        states: known.len(),
                        depth: depth + 1,
                        seconds: began.elapsed().as_secs_f64(),
                        broken,
                    };
                }
                deeper.push((at, next));
            }
        }
        depth += usize::from(!deeper.is_empty());
        layer = deeper;
    }
    Searched { states: known.len(), depth, seconds: began.elapsed().as_secs_f64(), broken: None }
}

fn steps_to(reached: &[Reached], mut at: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Reached { from, step: Some(step) } = &reached[at] {
        steps.push(*step);
        at = *from;
    }
    steps.reverse();
    steps
}
