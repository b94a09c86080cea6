//! What is tried together, and what is promised for it.

use crate::rules::{ALL, Rules, Scope};
use crate::state::{Left, State};
use crate::steps::{Step, take};

const NONE: Left = Left {
    ticks: 0,
    mints: 0,
    moves: 0,
    issues: 0,
    revokes: 0,
    ends: 0,
    quarantines: 0,
    reinstates: 0,
    promotions: 0,
    rejoins: 0,
    flushes: 0,
    saves: 0,
    restarts: 0,
    evictions: 0,
    small_steps: 0,
    large_steps: 0,
    cuts: 0,
    joins: 0,
    naps: 0,
};

const BASE: Scope = Scope {
    name: "",
    rules: ALL,
    left: NONE,
    more: NONE,
    min_replicas: false,
    joins_later: false,
    whole_turns: true,
    slow_requests: false,
    revocation: false,
    serves_again: false,
};

/// Uses are given once, whatever happens to stores that don't insist on replicas: two primaries at once, and the first
/// one asked again. A new epoch doesn't even have to wait for it.
pub fn uses() -> Scope {
    let left = Left { mints: 1, moves: 1, promotions: 1, rejoins: 1, flushes: 1, naps: 255, ..NONE };
    let more = Left { promotions: 2, ..left };
    Scope { name: "uses", left, more, ..BASE }.without(|rules| rules.serve_after = false)
}

/// The same with a store that evicts.
pub fn evicted_uses() -> Scope {
    let left = Left { mints: 1, promotions: 1, evictions: 1, naps: 255, ..NONE };
    let more = Left { evictions: 2, ..left };
    Scope { name: "uses, eviction", left, more, ..BASE }.without(|rules| rules.serve_after = false)
}

/// The same with a store that starts with what it had saved.
pub fn restarts() -> Scope {
    let left = Left { mints: 1, saves: 1, restarts: 1, naps: 255, ..NONE };
    let more = Left { promotions: 1, ..left };
    Scope { name: "uses, restart", left, more, ..BASE }.without(|rules| rules.serve_after = false)
}

/// What was revoked stays so over a failover where the old primary stops.
pub fn revocation() -> Scope {
    let left = Left { ticks: 3, mints: 1, revokes: 1, promotions: 1, naps: 255, ..NONE };
    let more = Left { ends: 1, ..left };
    Scope { name: "revocation", left, more, min_replicas: true, revocation: true, ..BASE }
}

/// And where a store evicts, and its clock goes wrong.
pub fn eviction() -> Scope {
    let left = Left { ticks: 3, mints: 1, revokes: 1, evictions: 1, small_steps: 1, naps: 255, ..NONE };
    let more = Left { ticks: 5, ..left };
    Scope { name: "revocation, eviction", left, more, revocation: true, ..BASE }
}

/// The same where its clock goes wrong by hours.
pub fn eviction_hours() -> Scope {
    let left = Left { ticks: 1, mints: 1, revokes: 1, evictions: 1, large_steps: 2, naps: 255, ..NONE };
    let more = Left { ticks: 4, ..left };
    Scope { name: "revocation, eviction, clocks off by hours", left, more, revocation: true, ..BASE }
}

/// A mint that began before a revocation is ended by it, also in another epoch.
pub fn numbers() -> Scope {
    let left = Left { ticks: 3, mints: 1, revokes: 2, flushes: 1, naps: 255, ..NONE };
    let more = Left { ticks: 7, flushes: 2, ..left };
    Scope { name: "numbers", left, more, revocation: true, slow_requests: true, ..BASE }
}

const QUARANTINES: Scope = Scope { min_replicas: true, ..BASE };

/// A reinstatement that comes late lifts no newer quarantine.
pub fn reinstatement() -> Scope {
    let left = Left { ticks: 1, quarantines: 2, reinstates: 1, ..NONE };
    let more = Left { quarantines: 3, reinstates: 2, ..left };
    Scope { name: "reinstatement", left, more, slow_requests: true, ..QUARANTINES }
}

/// Nor does what a node kept, where the store forgot all.
pub fn emptied() -> Scope {
    let left = Left { ticks: 3, quarantines: 2, reinstates: 1, flushes: 1, joins: 1, ..NONE };
    let more = Left { ticks: 6, ..left };
    Scope { name: "quarantine, emptied store", left, more, joins_later: true, ..QUARANTINES }
}

/// And where its clock goes wrong by hours, so that what was kept of before has the greater version.
pub fn emptied_hours() -> Scope {
    let left = Left { quarantines: 2, reinstates: 1, flushes: 1, joins: 1, large_steps: 2, ..NONE };
    let more = Left { ticks: 2, ..left };
    Scope { name: "quarantine, emptied store, clocks off by hours", left, more, joins_later: true, ..QUARANTINES }
}

/// Nor does what the store says to a node that was away when it entered one.
pub fn away() -> Scope {
    let left = Left { ticks: 3, quarantines: 2, reinstates: 1, cuts: 1, ..NONE };
    let more = Left { ticks: 4, quarantines: 3, reinstates: 2, cuts: 2, ..left };
    Scope { name: "quarantine, node away", left, more, ..QUARANTINES }
}

/// A quarantine comes back from nodes, to one that had not heard of it.
pub fn republished() -> Scope {
    let left = Left { ticks: 7, quarantines: 1, flushes: 1, joins: 1, ..NONE };
    let more = Left { ticks: 9, flushes: 2, ..left };
    Scope { name: "quarantine, told again", left, more, joins_later: true, ..QUARANTINES }
}

/// And where a store evicts.
pub fn evicted_quarantine() -> Scope {
    let left = Left { ticks: 7, quarantines: 1, evictions: 1, joins: 1, ..NONE };
    let more = Left { ticks: 9, evictions: 2, ..left };
    Scope { name: "quarantine, eviction", left, more, joins_later: true, ..QUARANTINES }
}

/// The same over a failover, with a node that is cut off.
pub fn quarantine_failover() -> Scope {
    let left = Left { ticks: 3, quarantines: 1, promotions: 1, cuts: 1, ..NONE };
    let more = Left { ticks: 4, joins: 1, ..left };
    Scope { name: "quarantine, failover", left, more, ..QUARANTINES }
}

/// Tokens of other issuers over a failover.
pub fn foreign() -> Scope {
    let left = Left { ticks: 5, issues: 1, promotions: 1, naps: 255, ..NONE };
    let more = Left { ticks: 6, small_steps: 1, ..left };
    Scope { name: "foreign tokens", left, more, min_replicas: true, ..BASE }
}

/// And where the store is emptied, with clocks that are a little off.
pub fn foreign_flush() -> Scope {
    let left = Left { ticks: 6, issues: 1, flushes: 1, small_steps: 1, naps: 255, ..NONE };
    let more = Left { ticks: 7, small_steps: 2, ..left };
    Scope { name: "foreign tokens, emptied store", left, more, min_replicas: true, ..BASE }
}

/// And with a clock that goes wrong by hours and comes back.
pub fn foreign_hours() -> Scope {
    let left = Left { ticks: 5, issues: 1, large_steps: 2, naps: 255, ..NONE };
    let more = Left { ticks: 8, ..left };
    Scope { name: "foreign tokens, clocks off by hours", left, more, min_replicas: true, ..BASE }
}

/// Nodes serve again soon after the last fault, with clocks that stay off by hours.
pub fn serving() -> Scope {
    let left = Left { ticks: 3, flushes: 1, small_steps: 2, large_steps: 1, naps: 255, ..NONE };
    let more = Left { ticks: 4, evictions: 1, ..left };
    Scope { name: "serving again", left, more, serves_again: true, ..BASE }
}

impl Scope {
    /// The larger bounds. A node's reading and serving come apart where words are told between them.
    pub fn with_more(self) -> Self {
        let whole_turns = self.whole_turns && self.left.quarantines == 0;
        Self { left: self.more, whole_turns, ..self }
    }

    /// With one of the protocol's rules changed.
    pub fn without(self, change: impl FnOnce(&mut Rules)) -> Self {
        let mut scope = self;
        change(&mut scope.rules);
        scope
    }

    /// The first epoch is served, by each node that is there.
    pub fn start(&self) -> State {
        let mut state = State::new(self);
        let setting_up = Scope { left: Left { naps: 255, ..NONE }, ..*self };
        state.left = Left { ticks: 255, ..setting_up.left };
        while state.nodes.iter().any(|node| node.is_up && node.serving == 0) {
            for node in [0, 0, 0, 0, 1, 1, 1, 1] {
                take(&mut state, &setting_up, Step::Turn(node));
            }
            take(&mut state, &setting_up, Step::Tick);
        }
        state.servers[1].data = state.servers[0].data.clone();
        state.left = self.left;
        state
    }
}
