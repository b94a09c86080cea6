//! What happens to servers.

use crate::rules::{FRESH, LARGE, OFF, WAIT};
use crate::state::{Data, State, Time};
use crate::steps::{Key, NODES, Step, expire, pay};

/// Quarantines come back from the nodes: within a second of the epoch's being served.
pub fn wait_for_quarantine(state: &mut State) {
    let at_last = state.now + 2 + WAIT + FRESH;
    state.seen.quarantined = state.seen.quarantined.map(|due| due.max(at_last));
}

pub fn replicate(state: &mut State, primary: usize) {
    state.servers[1 - primary].data = state.servers[primary].data.clone();
}

/// A server forgets, or may have forgotten, what was done to the tokens that there are.
fn lose(state: &mut State, server: usize) {
    state.servers[server].data.lost |= state.seen.known;
}

/// Does this step to a server; false where it can't be done.
pub fn fault(state: &mut State, step: Step) -> bool {
    match step {
        Step::Replicate => {
            let primaries = NODES.into_iter().filter(|server| state.servers[*server].is_primary).collect::<Vec<_>>();
            let [primary] = primaries.as_slice() else { return false };
            replicate(state, *primary);
            state.left.promotions > 0
        }
        Step::Promote(server) => {
            if state.servers[server].is_primary || !pay(&mut state.left.promotions) {
                return false;
            }
            let replid = state.new_id();
            let now = state.now;
            state.servers[1 - server].left_alone = Some(now);
            let promoted = &mut state.servers[server];
            (promoted.is_primary, promoted.replid, promoted.left_alone) = (true, replid, None);
            lose(state, server);
            expire(state);
            true
        }
        Step::Follow(server) => {
            let both = state.servers.iter().all(|server| server.is_primary);
            if !both || state.servers[server].left_alone.is_none() || !pay(&mut state.left.rejoins) {
                return false;
            }
            follow(state, server);
            true
        }
        Step::Flush(server) => state.servers[server].is_primary && pay(&mut state.left.flushes) && flush(state, server),
        Step::Save(server) => {
            state.servers[server].saved = Some(Box::new(state.servers[server].data.clone()));
            pay(&mut state.left.saves)
        }
        Step::Restart(server) => {
            state.servers[server].is_primary && pay(&mut state.left.restarts) && restart(state, server)
        }
        Step::Evict(server, key) => {
            state.servers[server].is_primary && pay(&mut state.left.evictions) && evict(state, server, key)
        }
        Step::Clock(server, by) => set_clock(state, server, by),
        Step::Turn(_)
        | Step::Tick
        | Step::BeginMint(_)
        | Step::Mint
        | Step::Move(_)
        | Step::Issue
        | Step::Spend(..)
        | Step::Revoke(_)
        | Step::EndToken(_)
        | Step::Quarantine(_)
        | Step::BeginReinstate(_)
        | Step::Reinstate
        | Step::GiveUpReinstate
        | Step::Connect(..)
        | Step::CutOff(_)
        | Step::Join => false,
    }
}

pub fn follow(state: &mut State, server: usize) {
    replicate(state, 1 - server);
    let (follower, replid) = (server, state.servers[1 - server].replid);
    let server = &mut state.servers[follower];
    (server.is_primary, server.replid, server.left_alone) = (false, replid, None);
}

fn flush(state: &mut State, server: usize) -> bool {
    let lost = state.servers[server].data.lost;
    state.servers[server].data = Data { lost, ..Data::default() };
    lose(state, server);
    wait_for_quarantine(state);
    true
}

fn restart(state: &mut State, server: usize) -> bool {
    let lost = state.servers[server].data.lost;
    let saved = state.servers[server].saved.clone().map(|saved| *saved).unwrap_or_default();
    state.servers[server].data = Data { lost, ..saved };
    state.servers[server].replid = state.new_id();
    lose(state, server);
    for node in state.nodes.iter_mut().filter(|node| node.link == Some(server)) {
        node.disconnect();
        node.link = Some(server);
    }
    wait_for_quarantine(state);
    expire(state);
    true
}

impl Data {
    pub fn has(&self, key: Key) -> bool {
        match key {
            Key::Record => self.record.is_some(),
            Key::Token(token) => self.entries.iter().any(|entry| entry.token == token),
            Key::Revocations => !self.cuts.is_empty(),
            Key::Quarantines => self.quarantine.is_some(),
        }
    }
}

fn evict(state: &mut State, server: usize, key: Key) -> bool {
    let data = &mut state.servers[server].data;
    match key {
        Key::Record => {
            data.record = None;
            wait_for_quarantine(state);
        }
        Key::Token(token) => data.entries.retain(|entry| entry.token != token),
        Key::Revocations => data.cuts.clear(),
        Key::Quarantines => {
            data.quarantine = None;
            wait_for_quarantine(state);
        }
    }
    true
}

fn set_clock(state: &mut State, server: usize, by: Time) -> bool {
    let is_large = by.abs() == LARGE;
    let left = &mut state.left;
    if !pay(if is_large { &mut left.large_steps } else { &mut left.small_steps }) {
        return false;
    }
    let seen = state.servers[server].data.record.map(|record| record.seen);
    if is_large && by < 0 && seen.is_some_and(|seen| seen < state.clock(server) - 1) {
        // A clock that was wrong was so for as long as a poll takes.
        return false;
    }
    state.servers[server].ahead += by;
    let is_near = state.servers[server].ahead.abs() <= if is_large { LARGE } else { OFF };
    expire(state);
    is_near
}
