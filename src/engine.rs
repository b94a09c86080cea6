//! What the verbs need, in one handle, and the verbs.
//!
//! One file a verb. A verb reads the clock once and the policy once, asks keyring, ledger and the pure
//! functions of the domain, and records what it answers. Nothing here knows a wire.

mod authorize;
mod behaviour;
pub mod chance;
pub mod clock;
mod delegate;
mod detection;
mod former;
mod introspect;
mod owed;
mod record_message;
mod recording;
mod revoke;
mod search;
mod speaker;
mod tally;
mod traces;
mod verify_identity;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use authorize::{Action, AgentCall, AuthorizeRequest, Decision, TokenShown};
use chance::Chance;
use clock::Clock;
pub use delegate::{DelegateRequest, Delegated, Delegation, Exchange};
use former::FormerRules;
pub use introspect::{Introspected, Introspection, TokenTarget};
use owed::Owed;
pub use record_message::AgentMessage;
pub use recording::is_undecided;
pub use revoke::{NotReinstated, Revocation, RevokeTarget, Revoked};
pub use search::{Found, SearchRequest, Searched, Sought};
pub use speaker::Speaker;
pub use tally::{Tally, Verb};
pub use traces::NewTraces;

use crate::domain::agent::AgentName;
use crate::domain::caller::Caller;
use crate::domain::policy::{AgentPolicy, Policy};
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::domain::trace::TraceContext;
use crate::events::{Brief, Event, Events, MessageType, Outcome};
use crate::keyring::{Keyring, VerifiedToken};
use crate::state::answered::AnsweredUses;
use crate::state::attempts::Attempts;
use crate::state::rate::RateLimiter;
use crate::state::recent::RecentRequests;
use crate::state::standing::Standing;
use crate::state::{Foreign, Refused, State, TokenRecord};

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

    /// Ends the tokens of an earlier process whose agents the policy file has under quarantine: they may have been put
    /// there while nothing ran. To be called before anything is answered.
    ///
    /// # Errors
    /// That could not be made durable.
    pub async fn take_over(&self) -> Result<(), Denial> {
        if !self.state.is_restored() {
            return Ok(());
        }
        self.enter_quarantines(|_| false).await;
        self.revocations_settled().await
    }

    /// Records the policy that the engine began with, and the quarantines in it.
    pub async fn record_start(&self) {
        let in_force = self.policy();
        let quarantined = in_force.policy.agents.iter().filter(|(_, agent)| agent.quarantined);
        self.record_policy(quarantined.map(|(name, _)| name.clone()).collect()).await;
    }

    /// Every agent under the kill switch, and who put it there: `api`, `automatic`, `file`.
    #[must_use]
    pub fn quarantines(&self, policy: &Policy) -> BTreeMap<String, Vec<&'static str>> {
        let mut sources = BTreeMap::<String, Vec<&'static str>>::new();
        self.state.standing(|standing| {
            for (name, by) in standing.quarantined() {
                sources.entry(name.to_string()).or_default().extend(by.names());
            }
        });
        for (name, _) in policy.agents.iter().filter(|(_, entry)| entry.quarantined) {
            sources.entry(name.to_string()).or_default().push("file");
        }
        sources
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

    /// Puts a policy in force, and records it. Entering quarantine by the file also ends the agent's tokens.
    pub async fn install(&self, policy: InForce) {
        self.tally.know(policy.policy.agents.keys());
        self.tally.max_depth(policy.policy.max_delegation_depth);
        // Before it is in force: no request may meet it without.
        self.former.replaced(&self.policy.load().policy, &policy.policy);
        let before = self.policy.swap(Arc::new(policy));
        let entered = self.enter_quarantines(|name| before.policy.is_quarantined(name)).await;
        if let Err(denial) = self.revocations_settled().await {
            tracing::error!(target: "state", "the policy file's quarantines: {}", denial.message());
        }
        self.record_policy(entered).await;
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

    /// Whether the policy file could not be read and found valid for too long.
    #[must_use]
    pub fn is_policy_stale(&self, now: Timestamp) -> bool {
        let valid_at = Timestamp::from_nanos(self.policy_valid_at.load(Ordering::Relaxed));
        self.max_policy_age.is_some_and(|limit| now.since(valid_at) > limit)
    }

    /// Forgets what has expired, one shard of the ledger after the other with a pause between, until stopped.
    pub async fn forget_expired(&self, stop: tokio_util::sync::CancellationToken) {
        let mut shard: usize = 0;
        while stop.run_until_cancelled(tokio::time::sleep(SWEEP_PAUSE)).await.is_some() {
            let now = self.clock.now();
            shard = self.sweep_from(shard, now);
            if shard < SHARDS_A_SWEEP {
                self.authorize_rate.forget_full(now);
                self.delegate_rate.forget_full(now);
                let after = self.policy.load().policy.quarantine_after;
                self.attempts.forget_outlived(after.map(|after| Duration::from_secs(after.window_seconds)), now);
                self.pay_what_is_owed().await;
            }
        }
    }

    /// Sweeps the next shards of the ledger; the last of them is returned.
    fn sweep_from(&self, shard: usize, now: Timestamp) -> usize {
        let ledger = self.state.ledger();
        let expired = self.state.forgettable(now);
        let shards = ledger.map_or(SHARDS_WITHOUT_LEDGER, crate::state::ledger::Ledger::shards);
        let mut last = shard;
        for _ in 0..SHARDS_A_SWEEP {
            last = last.checked_add(1).filter(|next| *next < shards).unwrap_or(0);
            if let Some(ledger) = ledger {
                ledger.sweep(last, expired);
            }
        }
        if last < SHARDS_A_SWEEP
            && let Some(ledger) = ledger
        {
            ledger.forget_outlived_revocations(now);
        }
        last
    }

    /// Whether the agent is under the kill switch, by an administrator, by Remit itself or by the file.
    #[must_use]
    pub fn is_quarantined(&self, policy: &Policy, name: &str) -> bool {
        policy.is_quarantined(name)
            || self.state.standing(|standing| standing.is_quarantined(name))
            || self.owed.has(name)
    }

    /// Whether the caller may watch every decision.
    ///
    /// # Errors
    /// Why not.
    pub fn may_audit(&self, policy: &Policy, caller: &Caller) -> Result<(), Denial> {
        let name = caller.agent().as_str();
        let is_auditor = caller.is_privileged() && policy.is_auditor(name);
        let may = is_auditor || revoke::is_administrator(policy, caller);
        self.in_role(policy, caller, may, "only auditors and administrators may watch: list the caller in auditors")
    }

    /// Whether the caller may use the admin service.
    ///
    /// # Errors
    /// Why not.
    pub fn may_administer(&self, policy: &Policy, caller: &Caller) -> Result<(), Denial> {
        let may = revoke::is_administrator(policy, caller);
        self.in_role(policy, caller, may, "only administrators may ask this: list the caller in administrators")
    }

    /// A stale policy doesn't keep operators from looking what is wrong with it.
    fn in_role(&self, policy: &Policy, caller: &Caller, has_role: bool, message: &'static str) -> Result<(), Denial> {
        let name = caller.agent().as_str();
        if self.is_quarantined(policy, name) {
            return Err(crate::domain::chain::quarantined(name));
        }
        if !has_role {
            return Err(Denial::new(Reason::CallerNotAuthorized, message));
        }
        Ok(())
    }

    /// Ends the tokens of every agent that the file has newly put under quarantine; these are returned.
    async fn enter_quarantines(&self, was_quarantined: impl Fn(&str) -> bool) -> Vec<AgentName> {
        let policy = self.policy();
        let entering =
            |(name, agent): &(&AgentName, &AgentPolicy)| agent.quarantined && !was_quarantined(name.as_str());
        let entered = policy.policy.agents.iter().filter(entering).map(|(name, _)| name.clone()).collect::<Vec<_>>();
        for name in &entered {
            if let Err(refused) = self.end_tokens_of(name).await {
                self.owed.add(name.clone());
                tracing::warn!(target: "state", agent = %name, "its tokens can't be ended yet: {}", refused.denial().message());
            }
        }
        entered
    }

    async fn end_tokens_of(&self, name: &AgentName) -> Result<(), Refused> {
        let now = self.clock.now();
        match self.state.revoke_agent(name.as_str(), now).await {
            // No room to remember one agent: ending everything is the safe way to end its tokens.
            Err(Refused::Full { .. }) => self.state.revoke_all(now).await.map(|_| ()),
            ended => ended.map(|_| ()),
        }
    }

    async fn pay_what_is_owed(&self) {
        for name in self.owed.list() {
            if self.end_tokens_of(&name).await.is_ok() {
                self.owed.paid(&name);
                tracing::info!(target: "state", agent = %name, "its tokens are ended, as the policy file asked");
            }
        }
    }

    /// One event for the policy, and one for each agent that it put under quarantine.
    async fn record_policy(&self, entered: Vec<AgentName>) {
        let in_force = self.policy();
        let now = self.clock.now();
        let event = |kind, target: &str| {
            let mut event = Event::new(kind, Outcome::Accepted, Reason::Allowed, self.events.decision_id(), now);
            event.target = Brief::copied(target);
            event.policy = Some(in_force.policy.id.clone());
            event
        };
        self.record_done(event(MessageType::Policy, &in_force.policy.id.digest)).await;
        for name in entered {
            let mut event = event(MessageType::Quarantine, name.as_str());
            event.to_agent = name.shared();
            event.note = Brief::copied("by the policy file");
            self.record_done(event).await;
        }
    }

    /// Notes the caller's own id of a request that reaches the ledger; whether the same came a moment ago for this token.
    fn is_retry(&self, caller: &str, request_id: &str, token: TokenId, now: Timestamp) -> bool {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        if request_id.is_empty() {
            return false;
        }
        // Two that meet by chance hide one reuse attempt.
        let mut hasher = DefaultHasher::new();
        (caller, request_id, token).hash(&mut hasher);
        self.recent.saw(hasher.finish(), now)
    }

    /// A token of another issuer is taken only while its replay can be refused after any crash.
    fn may_be_foreign(&self, token: &VerifiedToken<'_>, began: Timestamp) -> Result<(), Denial> {
        if !token.claims().is_foreign() {
            return Ok(());
        }
        self.state.accepts_foreign(began).map_err(|refused| refused.denial())
    }

    /// The agent is known, not quarantined, and the policy is fresh.
    fn in_good_standing(&self, policy: &Policy, agent: &str, now: Timestamp) -> Result<(), Denial> {
        self.is_known_and_free(policy, agent)?;
        if self.is_policy_stale(now) {
            let message = "the policy file could not be read and found valid for too long: see the service's log";
            return Err(Denial::new(Reason::PolicyStale, message));
        }
        Ok(())
    }

    /// The agent is known and not quarantined. Ending and looking need no fresh policy.
    fn is_known_and_free(&self, policy: &Policy, agent: &str) -> Result<(), Denial> {
        if policy.agent(agent).is_none() {
            return Err(unknown_caller(agent));
        }
        if self.is_quarantined(policy, agent) {
            return Err(crate::domain::chain::quarantined(agent));
        }
        Ok(())
    }
}

/// All of 1,024 shards are swept every 3.2 seconds.
const SHARDS_A_SWEEP: usize = 16;
/// Where another counts, the rest is looked at every second.
const SHARDS_WITHOUT_LEDGER: usize = 320;
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// An agent that somebody named, who is known: it may be told a name that is near.
fn no_such_agent(policy: &Policy, name: &str) -> Denial {
    let meant = policy.closest_agent(name).map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
    Denial::new(Reason::AgentUnknown, format!("policy names no agent {name}{meant}"))
}

/// A caller that policy doesn't know. It is told no names.
fn unknown_caller(name: &str) -> Denial {
    let message = format!(
        "policy names no agent {name}: list a service that decides for agents it authenticated in enforcement_points, and give an agent a rule or name it where it is delegated to"
    );
    Denial::new(Reason::AgentUnknown, message)
}

/// The agent's shared name where policy knows it.
fn shared_name(policy: &Policy, name: &str) -> Arc<str> {
    policy.name(name).map_or_else(|| name.into(), AgentName::shared)
}

/// What the ledger remembers that the root of a foreign token's chain was given: as much of it as policy names, so that
/// other issuers' names don't pile up here. For a token of ours the ledger knows it.
fn root_given<'a>(policy: &Policy, token: &'a VerifiedToken<'_>) -> Vec<Cow<'a, str>> {
    let claims = token.claims();
    let Some(issuer) = policy.agent(&claims.issuer).filter(|_| claims.is_foreign()) else { return Vec::new() };
    let is_named = |capability: &str| {
        let by_rule = issuer.rule.as_ref().is_some_and(|rule| rule.capabilities.contains(capability));
        by_rule || issuer.grants.iter().any(|grant| grant.capabilities.contains(capability))
    };
    let named = claims.capabilities.iter().filter(|capability| is_named(capability));
    named.map(|capability| Cow::Borrowed(capability.as_ref())).collect()
}

/// The token as the ledger is asked about it.
fn record<'a>(token: &'a VerifiedToken<'_>) -> TokenRecord<'a> {
    let claims = token.claims();
    TokenRecord {
        id: token.id(),
        tag: token.tag(),
        ancestors: &claims.ancestors,
        chain: &claims.chain,
        max_uses: claims.max_uses,
        expires_at: claims.expires_at,
        foreign: claims.is_foreign().then_some(Foreign { issued_at: claims.issued_at }),
    }
}
