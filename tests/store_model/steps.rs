//! Everything that may happen next.

use crate::faults::{fault, wait_for_quarantine};
use crate::requests::{
    begin_mint, begin_reinstate, confirm, end_token, give_up, issue, mint, move_uses, quarantine, reinstate, revoke,
    spend,
};
use crate::rules::{FRESH, LARGE, Scope};
use crate::scripts::{Caller, Refusal, begin};
use crate::state::{Flight, State, Time, Token};

/// What is forgotten by a store that evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Record,
    Token(Token),
    Revocations,
    Quarantines,
}

/// One step of somebody. Numbers are a node's, a server's, or both in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node polls; or reads everything; or tells what it kept, polls, and serves.
    Turn(usize),
    Tick,
    BeginMint(usize),
    Mint,
    Move(usize),
    Issue,
    Spend(usize, Token),
    Revoke(usize),
    EndToken(usize),
    Quarantine(usize),
    BeginReinstate(usize),
    Reinstate,
    /// Whoever asked for it has been told that there was no answer.
    GiveUpReinstate,
    Replicate,
    Promote(usize),
    Follow(usize),
    Connect(usize, usize),
    CutOff(usize),
    Join,
    Flush(usize),
    Save(usize),
    Restart(usize),
    Evict(usize, Key),
    Clock(usize, Time),
}

pub const NODES: [usize; 2] = [0, 1];
const TOKENS: [Token; 3] = [Token::Root, Token::Child, Token::Foreign];
const KEYS: [Key; 4] = [Key::Record, Key::Token(Token::Root), Key::Revocations, Key::Quarantines];
/// An epoch is named, everything is read, told and served.
const TURN: usize = 4;
const NAPS_AT_WILL: u8 = 255;

/// Every next state. What was refused has not used up one of its times.
pub fn next(state: &State, scope: &Scope) -> Vec<(Step, State)> {
    let mut found = Vec::with_capacity(24);
    for step in possible(state, scope) {
        let mut next = state.clone();
        if take(&mut next, scope, step) {
            next.forget_what_tells_nothing(scope);
            found.push((step, next));
        }
    }
    found
}

fn possible(state: &State, scope: &Scope) -> Vec<Step> {
    let left = &state.left;
    let mut steps = Vec::with_capacity(32);
    let mut add = |may: bool, step: Step| steps.extend(may.then_some(step));
    add(left.ticks > 0, Step::Tick);
    add(left.issues > 0, Step::Issue);
    add(left.joins > 0, Step::Join);
    add(left.promotions > 0, Step::Replicate);
    match state.flight {
        Some(Flight::Mint { .. }) => add(true, Step::Mint),
        Some(Flight::Reinstate { late, .. }) => {
            add(true, Step::Reinstate);
            add(!late, Step::GiveUpReinstate);
        }
        None => {}
    }
    for node in NODES.into_iter().filter(|node| state.nodes[*node].is_up) {
        let asking = &state.nodes[node];
        add(asking.link.is_some(), Step::Turn(node));
        add(left.quarantines > 0, Step::Quarantine(node));
        add(left.cuts > 0, Step::CutOff(node));
        for server in NODES {
            add(state.servers[server].is_primary && asking.link != Some(server), Step::Connect(node, server));
        }
        if asking.serving == 0 {
            continue;
        }
        add(left.mints > 0, Step::BeginMint(node));
        add(left.moves > 0, Step::Move(node));
        add(left.revokes > 0, Step::Revoke(node));
        add(left.ends > 0, Step::EndToken(node));
        add(left.reinstates > 0, Step::BeginReinstate(node));
        for token in TOKENS {
            add(state.seen.known & token.bit() != 0, Step::Spend(node, token));
        }
    }
    for server in NODES.into_iter().filter(|server| *server == 0 || scope.left.promotions > 0) {
        let one = &state.servers[server];
        add(!one.is_primary && left.promotions > 0, Step::Promote(server));
        add(left.rejoins > 0 && one.left_alone.is_some(), Step::Follow(server));
        add(left.saves > 0, Step::Save(server));
        if !one.is_primary {
            continue;
        }
        add(left.flushes > 0, Step::Flush(server));
        add(left.restarts > 0, Step::Restart(server));
        for key in KEYS.into_iter().filter(|_| left.evictions > 0) {
            add(one.data.has(key), Step::Evict(server, key));
        }
        for by in [-2, -1, 1, 2, -LARGE, LARGE] {
            let may = if by.abs() == LARGE { left.large_steps } else { left.small_steps };
            add(may > 0, Step::Clock(server, by));
        }
    }
    steps
}

/// Takes one more, if there is one.
pub fn pay(left: &mut u8) -> bool {
    let has = *left > 0;
    *left = left.saturating_sub(1);
    has
}

/// Does this step; false where it can't be done.
pub fn take(state: &mut State, scope: &Scope, step: Step) -> bool {
    match step {
        Step::Turn(node) if scope.whole_turns => (0..TURN).fold(false, |_, _| turn(state, scope, node)),
        Step::Turn(node) => turn(state, scope, node),
        Step::Tick => tick(state, scope),
        Step::BeginMint(node) if scope.slow_requests => begin_mint(state, node),
        Step::BeginMint(node) => begin_mint(state, node) && mint(state, scope),
        Step::Mint => mint(state, scope),
        Step::Move(node) => move_uses(state, scope, node),
        Step::Issue => issue(state),
        Step::Spend(node, token) => spend(state, scope, node, token),
        Step::Revoke(node) => revoke(state, scope, node),
        Step::EndToken(node) => end_token(state, scope, node),
        Step::Quarantine(node) => pay(&mut state.left.quarantines) && quarantine(state, scope, node),
        Step::BeginReinstate(node) if scope.slow_requests => begin_reinstate(state, node),
        Step::BeginReinstate(node) => begin_reinstate(state, node) && reinstate(state, scope),
        Step::Reinstate => reinstate(state, scope),
        Step::GiveUpReinstate => give_up(state),
        Step::Connect(node, server) => connect(state, node, server),
        Step::CutOff(node) => {
            let was = state.nodes[node].link.is_some();
            state.nodes[node].disconnect();
            was && pay(&mut state.left.cuts)
        }
        Step::Join => {
            let joins = !state.nodes[1].is_up && pay(&mut state.left.joins);
            state.nodes[1].is_up |= joins;
            joins
        }
        Step::Replicate
        | Step::Promote(_)
        | Step::Follow(_)
        | Step::Flush(_)
        | Step::Save(_)
        | Step::Restart(_)
        | Step::Evict(..)
        | Step::Clock(..) => fault(state, step),
    }
}

pub fn caller(state: &State, node: usize) -> Option<Caller> {
    let asking = &state.nodes[node];
    let server = asking.link.filter(|_| asking.serving != 0)?;
    Some(Caller { server, epoch: asking.serving, number: asking.number })
}

/// What a refusal means for the node that got it.
pub fn understood(state: &mut State, node: usize, refusal: Refusal) {
    match refusal {
        Refusal::Epoch(id) => {
            state.nodes[node].stop_serving();
            state.nodes[node].named = id;
        }
        Refusal::Wait => state.nodes[node].stop_serving(),
        Refusal::Replica => state.nodes[node].disconnect(),
        Refusal::NoReplicas
        | Refusal::Strange
        | Refusal::Clocks
        | Refusal::Fenced
        | Refusal::Revoked
        | Refusal::Exhausted
        | Refusal::Changed(_) => {}
    }
}

fn turn(state: &mut State, scope: &Scope, node: usize) -> bool {
    let asking = state.nodes[node].clone();
    let Some(server) = asking.link else { return false };
    let done = if asking.read.is_some() {
        finish(state, scope, node, server)
    } else if asking.serving != 0 && !asking.owes {
        poll(state, scope, node, Caller { server, epoch: asking.serving, number: asking.number })
    } else {
        read(state, scope, node, Caller { server, epoch: asking.named, number: asking.number })
    };
    // An epoch that was named and one that was read are followed up at once.
    let goes_on = matches!(done, Err(Refusal::Epoch(_))) || state.nodes[node].read.is_some();
    if let Err(refusal) = done {
        understood(state, node, refusal);
    }
    state.nodes[node].has_polled = !goes_on && scope.left.naps != NAPS_AT_WILL;
    true
}

fn poll(state: &mut State, scope: &Scope, node: usize, caller: Caller) -> Result<(), Refusal> {
    let mut script = begin(state, scope, caller)?;
    let word = script.news(true)?;
    let counter = script.record.counter;
    let now = state.now;
    let asking = &mut state.nodes[node];
    asking.number = asking.number.max(counter);
    asking.heard = now;
    asking.hear(word.unwrap_or_default());
    Ok(())
}

fn read(state: &mut State, scope: &Scope, node: usize, caller: Caller) -> Result<(), Refusal> {
    let word = begin(state, scope, caller)?.news(false)?.unwrap_or_default();
    let asking = &mut state.nodes[node];
    asking.owes = false;
    if asking.copied != caller.epoch {
        asking.number = 0;
        asking.copied = caller.epoch;
    }
    asking.hear(word);
    asking.read = Some(word);
    Ok(())
}

fn finish(state: &mut State, scope: &Scope, node: usize, server: usize) -> Result<(), Refusal> {
    let (epoch, own, number) = (state.nodes[node].copied, state.nodes[node].quarantine, state.nodes[node].number);
    let read = state.nodes[node].read.take();
    let caller = Caller { server, epoch, number };
    if scope.rules.republish && state.nodes[node].is_untold() {
        let word = begin(state, scope, caller)?.quarantine(0)?;
        confirm(&mut state.nodes[node], word);
        // It doesn't wait for the replica, so that a failover may come first.
        if scope.left.promotions == 0 {
            state.seen.quarantined.get_or_insert(state.now + FRESH);
        }
    } else if scope.rules.republish && own.version > 0 && read != Some(own) {
        let stored = state.servers[server].data.quarantine.unwrap_or_default();
        begin(state, scope, caller)?.again(own)?;
        let lifted = stored.is_quarantine && state.servers[server].data.quarantine == Some(own) && !own.is_quarantine;
        state.nodes[node].has_entered = false;
        if lifted && state.seen.quarantined.is_some() {
            state.seen.broken = Some("a quarantine was lifted by a word of before");
        }
    }
    poll(state, scope, node, caller)?;
    state.nodes[node].serving = epoch;
    Ok(())
}

fn tick(state: &mut State, scope: &Scope) -> bool {
    let is_behind = state.nodes.iter().any(|node| node.link.is_some() && !node.has_polled);
    if is_behind && scope.left.naps != NAPS_AT_WILL && !pay(&mut state.left.naps) {
        return false;
    }
    state.now += 1;
    for node in &mut state.nodes {
        node.has_polled = false;
    }
    expire(state);
    pay(&mut state.left.ticks)
}

pub fn expire(state: &mut State) {
    for server in NODES.into_iter().filter(|server| state.servers[*server].is_primary).collect::<Vec<_>>() {
        let clock = state.clock(server);
        state.servers[server].data.expire(clock);
    }
}

fn connect(state: &mut State, node: usize, server: usize) -> bool {
    if !state.servers[server].is_primary || state.nodes[node].link == Some(server) {
        return false;
    }
    state.nodes[node].disconnect();
    state.nodes[node].link = Some(server);
    if state.nodes[node].quarantine.is_quarantine {
        wait_for_quarantine(state);
    }
    true
}
