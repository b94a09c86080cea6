//! What has to hold in every state that can be reached.

use crate::faults::follow;
use crate::rules::{FRESH, LONGEST_WAIT, Scope};
use crate::state::State;
use crate::steps::{Step, expire, take};

/// The law that this state breaks.
pub fn broken(state: &State, scope: &Scope) -> Option<&'static str> {
    if state.seen.broken.is_some() {
        return state.seen.broken;
    }
    if state.nodes.iter().any(|node| node.has_entered && !node.quarantine.is_quarantine) {
        return Some("a quarantine was lifted before the store was told of it");
    }
    if quarantine_is_overdue(state) {
        return Some("a node goes on for an agent after its quarantine was answered");
    }
    if scope.serves_again && !serves_again(state, scope) {
        return Some("nodes don't serve again in time though nothing more happens");
    }
    None
}

/// A node's answer that needs no script: its copy alone says who is under quarantine.
fn quarantine_is_overdue(state: &State) -> bool {
    let Some(due) = state.seen.quarantined.filter(|due| state.now > *due) else { return false };
    let nobody_knows = !state.nodes.iter().any(|node| node.link.is_some() && node.quarantine.is_quarantine)
        && !state.servers.iter().any(|server| server.data.quarantine.is_some_and(|word| word.is_quarantine));
    let goes_on = state.nodes.iter().any(|node| {
        let accepts = node.link.is_some() && node.serving != 0 && state.now - node.heard <= FRESH;
        accepts && !node.quarantine.is_quarantine
    });
    due > 0 && goes_on && !nobody_knows
}

/// One server is the primary, every node is led to it, and time passes.
fn serves_again(state: &State, scope: &Scope) -> bool {
    let mut state = state.clone();
    let primary = match &state.servers {
        [first, second] if first.is_primary && second.is_primary => usize::from(second.left_alone.is_none()),
        [first, _] => usize::from(!first.is_primary),
    };
    if state.servers[1 - primary].is_primary {
        follow(&mut state, 1 - primary);
    }
    state.servers[primary].left_alone = None;
    for node in 0..2 {
        take(&mut state, scope, Step::Connect(node, primary));
    }
    for _ in 0..=LONGEST_WAIT {
        for _ in 0..4 {
            for node in 0..2 {
                take(&mut state, scope, Step::Turn(node));
            }
        }
        if state.nodes.iter().all(|node| !node.is_up || node.serving != 0) {
            return true;
        }
        state.now += 1;
        expire(&mut state);
    }
    false
}
