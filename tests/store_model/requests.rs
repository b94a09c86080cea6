//! What nodes are asked for.

use crate::faults::replicate;
use crate::rules::{FRESH, LIFE, OFF, Scope};
use crate::scripts::{Caller, Refusal, begin};
use crate::state::{Flight, Node, State, Token, Word};
use crate::steps::{caller, pay, understood};

pub fn begin_mint(state: &mut State, node: usize) -> bool {
    let asking = &state.nodes[node];
    if asking.serving == 0 || state.flight.is_some() || asking.quarantine.is_quarantine {
        return false;
    }
    state.flight = Some(Flight::Mint { node, born: state.nodes[node].number, began: state.now });
    state.seen.mint_is_revoked = false;
    true
}

pub fn mint(state: &mut State, scope: &Scope) -> bool {
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

pub fn move_uses(state: &mut State, scope: &Scope, node: usize) -> bool {
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
pub fn issue(state: &mut State) -> bool {
    if !pay(&mut state.left.issues) {
        return false;
    }
    state.seen.known |= Token::Foreign.bit();
    state.seen.issued = state.now + OFF;
    true
}

pub fn spend(state: &mut State, scope: &Scope, node: usize, token: Token) -> bool {
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

pub fn revoke(state: &mut State, scope: &Scope, node: usize) -> bool {
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

pub fn end_token(state: &mut State, scope: &Scope, node: usize) -> bool {
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

/// The store took the quarantine that was entered here.
pub fn confirm(node: &mut Node, word: Word) {
    (node.quarantine, node.has_entered) = (word, false);
}

/// It is in force here first, then in the store, then on the replica; and then it is answered.
pub fn quarantine(state: &mut State, scope: &Scope, node: usize) -> bool {
    let version = if scope.rules.untold { 0 } else { state.nodes[node].quarantine.version + 1 };
    let asked = &mut state.nodes[node];
    (asked.quarantine, asked.has_entered, asked.owes) = (Word { version, is_quarantine: true }, true, true);
    let Some(caller) = caller(state, node) else { return true };
    match begin(state, scope, caller).and_then(|mut script| script.quarantine(version)) {
        Ok(word) => {
            confirm(&mut state.nodes[node], word);
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

pub fn begin_reinstate(state: &mut State, node: usize) -> bool {
    let Some(Caller { server, epoch, .. }) = caller(state, node) else { return false };
    if state.flight.is_some() || !pay(&mut state.left.reinstates) {
        return false;
    }
    let version = state.nodes[node].quarantine.version;
    state.flight = Some(Flight::Reinstate { node, server, epoch, version, again: false, late: false, outdated: false });
    true
}

pub fn give_up(state: &mut State) -> bool {
    let Some(Flight::Reinstate { node, late: late @ false, .. }) = &mut state.flight else { return false };
    *late = true;
    let node = *node;
    state.nodes[node].owes = true;
    true
}

pub fn reinstate(state: &mut State, scope: &Scope) -> bool {
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
