//! Everything that may happen next.

use crate::rules::{FRESH, LARGE, LIFE, OFF, Scope, WAIT};
use crate::scripts::{Caller, Refusal, begin};
use crate::state::{Data, Flight, State, Time, Token, Word};

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

const NODES: [usize; 2] = [0, 1];
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
fn pay(left: &mut u8) -> bool {
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

fn caller(state: &State, node: usize) -> Option<Caller> {
    let asking = &state.nodes[node];
    let server = asking.link.filter(|_| asking.serving != 0)?;
    Some(Caller { server, epoch: asking.serving, number: asking.number })
}

/// What a refusal means for the node that got it.
fn understood(state: &mut State, node: usize, refusal: Refusal) {
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
    let word = begin(state, scope, caller)?.news(false)?;
    let asking = &mut state.nodes[node];
    asking.owes = false;
    if asking.copied != caller.epoch {
        asking.number = 0;
        asking.copied = caller.epoch;
    }
    asking.hear(word.unwrap_or_default());
    asking.read = Some(word);
    Ok(())
}

fn finish(state: &mut State, scope: &Scope, node: usize, server: usize) -> Result<(), Refusal> {
    let (epoch, own, number) = (state.nodes[node].copied, state.nodes[node].quarantine, state.nodes[node].number);
    let read = state.nodes[node].read.take().flatten();
    let caller = Caller { server, epoch, number };
    if scope.rules.republish && own.version > 0 && read != Some(own) {
        let stored = state.servers[server].data.quarantine.unwrap_or_default();
        begin(state, scope, caller)?.again(own)?;
        let lifted = stored.is_quarantine && state.servers[server].data.quarantine == Some(own) && !own.is_quarantine;
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

fn begin_mint(state: &mut State, node: usize) -> bool {
    let asking = &state.nodes[node];
    if asking.serving == 0 || state.flight.is_some() || asking.quarantine.is_quarantine {
        return false;
    }
    state.flight = Some(Flight::Mint { node, born: state.nodes[node].number, began: state.now });
    state.seen.mint_is_revoked = false;
    true
}

fn mint(state: &mut State, scope: &Scope) -> bool {
    let Some(Flight::Mint { node, born, began }) = state.flight else { return false };
    let Some(caller) = caller(state, node) else { return false };
    if state.now - began > LIFE {
        return false;
    }
    let expires = state.now + LIFE;
    state.flight = None;
    let minted = begin(state, scope, caller).and_then(|mut script| script.mint(born, expires));
    match minted {
        Ok(()) => {
            state.left.mints -= 1;
            state.seen.known |= Token::Root.bit();
            state.seen.root_expires = expires;
            if state.seen.mint_is_revoked {
                state.seen.revoked |= Token::Root.bit();
            }
        }
        Err(refusal) => understood(state, node, refusal),
    }
    true
}

fn move_uses(state: &mut State, scope: &Scope, node: usize) -> bool {
    let Some(caller) = caller(state, node) else { return false };
    let knows_root = state.seen.known & Token::Root.bit() != 0 && state.now < state.seen.root_expires;
    if !knows_root {
        return false;
    }
    let expires = state.seen.root_expires;
    match begin(state, scope, caller).and_then(|mut script| script.move_uses(expires)) {
        Ok(()) => {
            state.left.moves -= 1;
            state.seen.known |= Token::Child.bit();
            if state.seen.revoked & Token::Root.bit() != 0 {
                state.seen.revoked |= Token::Child.bit();
            }
        }
        Err(refusal) => understood(state, node, refusal),
    }
    true
}

/// By a clock that is as far ahead as one may be: it is the one that a fence finds hardest.
fn issue(state: &mut State) -> bool {
    if !pay(&mut state.left.issues) {
        return false;
    }
    state.seen.known |= Token::Foreign.bit();
    state.seen.issued = state.now + OFF;
    true
}

fn spend(state: &mut State, scope: &Scope, node: usize, token: Token) -> bool {
    let Some(caller) = caller(state, node) else { return false };
    let is_foreign = token == Token::Foreign;
    let (issued, expires) =
        if is_foreign { (Some(state.seen.issued), state.seen.issued + LIFE) } else { (None, state.seen.root_expires) };
    let asking = &state.nodes[node];
    if state.seen.known & token.bit() == 0 || state.now >= expires || asking.quarantine.is_quarantine {
        return false;
    }
    let born = asking.number;
    match begin(state, scope, caller).and_then(|mut script| script.spend(token, expires, issued, born)) {
        Ok(()) => {
            let seen = &mut state.seen;
            let (given, uses) = if is_foreign { (&mut seen.given_foreign, 1) } else { (&mut seen.given, 2) };
            *given += 1;
            if *given > uses {
                seen.broken = Some("a use was given twice");
            } else if state.servers[caller.server].data.lost & token.bit() != 0 {
                seen.broken = Some("a token was honoured though the store had lost what came after it");
            } else if scope.revocation && seen.revoked & token.bit() != 0 {
                seen.broken = Some("a token was allowed after its revocation was answered");
            }
        }
        Err(refusal) => understood(state, node, refusal),
    }
    true
}

fn note_revoked(state: &mut State) {
    state.seen.revoked |= state.seen.known;
    state.seen.mint_is_revoked = matches!(state.flight, Some(Flight::Mint { .. }));
}

fn revoke(state: &mut State, scope: &Scope, node: usize) -> bool {
    let Some(caller) = caller(state, node) else { return false };
    match begin(state, scope, caller).and_then(|mut script| script.revoke().map(|()| script.record.counter)) {
        Ok(counter) => {
            state.left.revokes -= 1;
            state.nodes[node].number = counter;
            note_revoked(state);
        }
        Err(refusal) => understood(state, node, refusal),
    }
    true
}

fn end_token(state: &mut State, scope: &Scope, node: usize) -> bool {
    let Some(caller) = caller(state, node) else { return false };
    match begin(state, scope, caller).map(|mut script| script.end(Token::Root)) {
        Ok(true) => {
            state.left.ends -= 1;
            state.seen.revoked |= state.seen.known & (Token::Root.bit() | Token::Child.bit());
        }
        Ok(false) => {}
        Err(refusal) => understood(state, node, refusal),
    }
    true
}

/// It is in force here first, then in the store, then on the replica; and then it is answered.
fn quarantine(state: &mut State, scope: &Scope, node: usize) -> bool {
    let version = state.nodes[node].quarantine.version + 1;
    state.nodes[node].quarantine = Word { version, is_quarantine: true };
    state.nodes[node].owes = true;
    let Some(caller) = caller(state, node) else { return true };
    match begin(state, scope, caller).and_then(|mut script| script.quarantine(version)) {
        Ok(word) => {
            state.nodes[node].hear(word);
            let has_replica = !state.servers[1 - caller.server].is_primary;
            if has_replica && scope.rules.replicated {
                replicate(state, caller.server);
            }
            if has_replica {
                state.nodes[node].owes = false;
                state.seen.quarantined = Some(state.now + FRESH);
                note_revoked(state);
                if let Some(Flight::Reinstate { late: true, outdated, .. }) = &mut state.flight {
                    *outdated = true;
                }
            }
        }
        Err(refusal) => understood(state, node, refusal),
    }
    true
}

fn begin_reinstate(state: &mut State, node: usize) -> bool {
    let Some(Caller { server, epoch, .. }) = caller(state, node) else { return false };
    if state.flight.is_some() || !pay(&mut state.left.reinstates) {
        return false;
    }
    let version = state.nodes[node].quarantine.version;
    state.flight = Some(Flight::Reinstate { node, server, epoch, version, again: false, late: false, outdated: false });
    true
}

fn give_up(state: &mut State) -> bool {
    let Some(Flight::Reinstate { node, late: late @ false, .. }) = &mut state.flight else { return false };
    *late = true;
    let node = *node;
    state.nodes[node].owes = true;
    true
}

fn reinstate(state: &mut State, scope: &Scope) -> bool {
    let Some(Flight::Reinstate { node, server, epoch, version, again, late, outdated }) = state.flight else {
        return false;
    };
    state.flight = None;
    let caller = Caller { server, epoch, number: state.nodes[node].number };
    let lifted = begin(state, scope, caller).and_then(|mut script| script.reinstate(version));
    match lifted {
        Ok((word, is_lifted)) => {
            if is_lifted && outdated {
                state.seen.broken = Some("a reinstatement lifted a newer quarantine");
            }
            if is_lifted {
                state.seen.quarantined = None;
            }
            if !late {
                state.nodes[node].hear(word);
                if state.nodes[node].quarantine.is_quarantine {
                    state.nodes[node].owes = true;
                } else {
                    state.seen.quarantined = None;
                }
            }
        }
        Err(Refusal::Changed(stored)) if !late && !again => {
            let serving = &state.nodes[node];
            if let Some(server) = serving.link.filter(|_| serving.serving != 0) {
                let epoch = serving.serving;
                let again = true;
                state.flight = Some(Flight::Reinstate { node, server, epoch, version: stored, again, late, outdated });
            }
        }
        Err(refusal) if !late => {
            understood(state, node, refusal);
            state.nodes[node].owes = true;
        }
        Err(_) => {}
    }
    true
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

/// Quarantines come back from the nodes: within a second of the epoch's being served.
fn wait_for_quarantine(state: &mut State) {
    let at_last = state.now + 2 + WAIT + FRESH;
    state.seen.quarantined = state.seen.quarantined.map(|due| due.max(at_last));
}

fn replicate(state: &mut State, primary: usize) {
    state.servers[1 - primary].data = state.servers[primary].data.clone();
}

/// A server forgets, or may have forgotten, what was done to the tokens that there are.
fn lose(state: &mut State, server: usize) {
    state.servers[server].data.lost |= state.seen.known;
}

fn fault(state: &mut State, step: Step) -> bool {
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
        _ => false,
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
    fn has(&self, key: Key) -> bool {
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
