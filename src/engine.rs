//! The verbs, one file each; and what they need, in one handle. Nothing here knows a wire.
//!
//! A verb reads the clock once and the policy once, asks keyring, ledger and the pure functions of the domain, and records
//! what it answers. An Authorize, for one, is read in this order:
//!
//! | file | |
//! |---|---|
//! | `authorize` | The line itself: judge, settle, conclude. |
//! | `speaker` | Who acts: the caller, or an agent that it authenticated. |
//! | `rights` | Whether that agent may ask at all. |
//! | [`crate::domain::decision`] | Whether token and policy allow it. |
//! | `guarantees` | Whether there is time to answer and room to record. |
//! | `presented` | The token, as the ledger is asked for the use. |
//! | `event` | What is recorded of it. |

mod authorize;
mod batch;
mod behaviour;
pub mod chance;
pub mod clock;
mod delegate;
mod detection;
mod event;
mod forgetting;
mod former;
mod guarantees;
mod install;
mod introspect;
mod owed;
mod presented;
mod record_message;
mod revoke;
mod rights;
mod search;
mod speaker;
mod tally;
mod traces;
mod verify_identity;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use authorize::{Action, AgentCall, AuthorizeRequest, Decision, TokenShown};
pub use batch::{BatchItem, give_way};
use chance::Chance;
use clock::Clock;
pub use delegate::{DelegateRequest, Delegated, Delegation, Exchange};
pub use event::is_undecided;
use former::FormerRules;
pub use introspect::{Introspected, Introspection, TokenTarget};
use owed::Owed;
pub use record_message::AgentMessage;
pub use revoke::{NotReinstated, Revocation, RevokeTarget, Revoked};
pub use search::{Found, SearchRequest, Searched, Sought};
pub use speaker::Speaker;
pub use tally::{Tally, Verb};
pub use traces::NewTraces;

use crate::domain::agent::AgentName;
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::domain::trace::TraceContext;
use crate::events::Events;
use crate::keyring::Keyring;
use crate::state::State;
use crate::state::answered::AnsweredUses;
use crate::state::attempts::Attempts;
use crate::state::rate::RateLimiter;
use crate::state::recent::RecentRequests;
use crate::state::standing::Standing;

/// A policy that answers, with what an operator wants to know of it.
pub struct InForce {
    /// The policy.
    pub policy: Policy,
    /// The file's bytes.
    pub source: Arc<[u8]>,
    /// What is allowed but worth a second look.
    pub warnings: Vec<String>,
    /// Since when it answers.
    pub loaded_at: Timestamp,
}

/// What a request begins with and holds on to.
#[derive(Clone)]
pub struct Beginning {
    /// The policy under which it is answered.
    pub in_force: Arc<InForce>,
    /// The number of the last revocation, read before the policy: what it mints is dead if one came since.
    born: u64,
    /// The trace that it belongs to, if it belongs to one.
    trace: Option<TraceContext>,
}

impl Beginning {
    /// The same, in this trace.
    #[must_use]
    pub fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// The trace that it belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }
}

/// A request that has begun: all that it is answered from, and the moment.
struct Begun<'a, R> {
    beginning: &'a Beginning,
    caller: &'a Caller,
    request: &'a R,
    now: Timestamp,
}

impl<R> Clone for Begun<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Begun<'_, R> {}

impl<'a, R> Begun<'a, R> {
    fn policy(self) -> &'a Policy {
        &self.beginning.in_force.policy
    }

    /// The agent that asks.
    fn asker(self) -> &'a str {
        self.caller.agent().as_str()
    }
}

/// The parts that an engine is made of.
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// For tokens' ids.
    pub chance: Chance,
    /// Seals and opens.
    pub keyring: Keyring,
    /// The policy to begin with.
    pub policy: InForce,
    /// Counts uses, keeps revocations.
    pub state: State,
    /// Where answers are recorded.
    pub events: Events,
    /// What is counted for metrics.
    pub tally: Tally,
    /// A policy file that could not be read and found valid for longer than this denies; none: never.
    pub max_policy_age: Option<Duration>,
}

/// The policy decision point without a wire.
pub struct Engine {
    clock: Clock,
    chance: Chance,
    keyring: ArcSwap<Keyring>,
    policy: ArcSwap<InForce>,
    /// When the policy file was last read and found valid, in nanoseconds.
    policy_valid_at: AtomicU64,
    max_policy_age: Option<Duration>,
    new_traces: NewTraces,
    state: State,
    events: Events,
    tally: Tally,
    authorize_rate: RateLimiter,
    delegate_rate: RateLimiter,
    recent: RecentRequests,
    owed: Owed,
    attempts: Attempts,
    answered: AnsweredUses,
    former: FormerRules,
    began_at: Timestamp,
}

impl Engine {
    /// An engine that answers under this policy.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { clock, chance, keyring, policy, state, events, tally, max_policy_age } = parts;
        tally.know(policy.policy.agents.keys());
        tally.max_depth(policy.policy.max_delegation_depth);
        let began_at = clock.now();
        Self {
            began_at,
            policy_valid_at: AtomicU64::new(began_at.nanos()),
            keyring: ArcSwap::from_pointee(keyring),
            policy: ArcSwap::from_pointee(policy),
            clock,
            chance,
            max_policy_age,
            new_traces: NewTraces::default(),
            state,
            events,
            tally,
            authorize_rate: RateLimiter::default(),
            delegate_rate: RateLimiter::default(),
            recent: RecentRequests::default(),
            owed: Owed::default(),
            attempts: Attempts::default(),
            answered: AnsweredUses::default(),
            former: FormerRules::default(),
        }
    }

    /// The same, where requests begin traces whose callers named none.
    #[must_use]
    pub fn beginning_traces(self, new_traces: NewTraces) -> Self {
        Self { new_traces, ..self }
    }

    /// Begins a request, or a batch of them.
    #[must_use]
    pub fn begin(&self) -> Beginning {
        let born = self.state.standing(Standing::number);
        Beginning { born, in_force: self.policy(), trace: None }
    }

    /// Whether neither policy nor revocations changed since.
    #[must_use]
    pub fn is_current(&self, beginning: &Beginning) -> bool {
        let Beginning { in_force, born, trace: _ } = beginning;
        Arc::ptr_eq(&self.policy.load(), in_force) && self.state.standing(Standing::number) == *born
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<InForce> {
        self.policy.load_full()
    }

    /// Notes that the policy file was read and found valid.
    pub fn policy_found_valid(&self, at: Timestamp) {
        self.policy_valid_at.fetch_max(at.nanos(), Ordering::Relaxed);
    }

    /// Replaces the keys. Tokens under a key that is gone are invalid at once.
    pub fn install_keys(&self, keyring: Keyring) {
        self.keyring.store(Arc::new(keyring));
    }

    /// The keys in force.
    #[must_use]
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where uses are counted.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where answers are recorded.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// What is counted for metrics.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// The agent's shared name where policy knows it.
fn shared_name(policy: &Policy, name: &str) -> Arc<str> {
    policy.name(name).map_or_else(|| name.into(), AgentName::shared)
}
