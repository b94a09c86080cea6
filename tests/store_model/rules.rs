//! The rules that can be switched off, the numbers, and how much is tried.
//!
//! The protocol's seconds are shrunk so that few of them have to be tried; what has to be greater than what stays so, and
//! `the_numbers_of_the_model_stand_to_each_other_as_the_protocols_do` holds it against the scripts.

use crate::state::{Left, Time};

/// What a copy's age may be.
pub const FRESH: Time = 1;
/// An old primary goes on for so long after its replicas left it.
pub const STOPS: Time = 2;
/// A new epoch waits.
pub const WAIT: Time = 3;
/// One that would wait longer has ended.
pub const LONGEST_WAIT: Time = 4;
/// So far back a clock may go unnoticed.
pub const BACK: Time = 2;
/// Clocks are so far off true time, where that is promised.
pub const OFF: Time = 1;
/// Tokens of other issuers are refused up to so long after an epoch began.
pub const FENCE: Time = 5;
/// A token's longest life.
pub const LIFE: Time = 4;
/// By so much it may outlive that on the store's clock.
pub const SKEW: Time = 1;
/// An entry is kept for so long after the token's end.
pub const GRACE: Time = 1;
/// What a revocation is kept for.
pub const KEPT: Time = LIFE + SKEW + GRACE;
/// Revocations that a second holds.
pub const NUMBERS: Time = 4;
/// A step of the clock that nobody misses.
pub const LARGE: Time = 20;

/// The protocol's rules. Each can be switched off, to see what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// An epoch ends with its primary.
    pub replid: bool,
    /// Its id is a random one, not the next.
    pub random_id: bool,
    /// A new one waits before it answers.
    pub serve_after: bool,
    /// It ends when revocations were evicted; (a).
    pub evicted_revocations: bool,
    /// It ends when quarantines were evicted; (a).
    pub evicted_quarantines: bool,
    /// For how long after a revocation the first of these is looked for.
    pub looked_for: Time,
    /// It ends when it would wait longer than any; (b).
    pub longest_wait: bool,
    /// It ends when a later second was seen; (c).
    pub seen: bool,
    /// Its fence lies after all that was seen; with (c).
    pub fence: bool,
    /// Numbers of two epochs don't overlap.
    pub numbers_apart: bool,
    /// A request that began in another epoch is refused.
    pub strange: bool,
    /// Nodes tell a store what it doesn't know of quarantines.
    pub republish: bool,
    /// A quarantine is answered when the replica has it.
    pub replicated: bool,
    /// A reinstatement lifts the quarantine that it meant.
    pub meant: bool,
    /// A new quarantine has a greater version than any word of an earlier epoch.
    pub later_version: bool,
    /// One that the store was not told of yet is newer than all that it says, and is told as a new one.
    pub untold: bool,
    /// What a node kept of an earlier quarantine's end lifts none that was entered in this epoch.
    pub entered_lasts: bool,
}

/// As the protocol is.
pub const ALL: Rules = Rules {
    replid: true,
    random_id: true,
    serve_after: true,
    evicted_revocations: true,
    evicted_quarantines: true,
    looked_for: KEPT,
    longest_wait: true,
    seen: true,
    fence: true,
    numbers_apart: true,
    strange: true,
    republish: true,
    replicated: true,
    meant: true,
    later_version: true,
    untold: true,
    entered_lasts: true,
};

/// What is tried, and what is promised for it.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub name: &'static str,
    pub rules: Rules,
    pub left: Left,
    /// The same where there is time.
    pub more: Left,
    /// The store refuses to write without its replicas.
    pub min_replicas: bool,
    /// The second node joins later, with an empty directory.
    pub joins_later: bool,
    /// A node reads and serves in one step, between which nothing happens.
    pub whole_turns: bool,
    /// Other things happen between a mint's look at the policy and its script, and while a reinstatement is on its way.
    pub slow_requests: bool,
    /// What was revoked may not be allowed.
    pub revocation: bool,
    /// Each state is asked whether nodes serve again once nothing more happens.
    pub serves_again: bool,
}
