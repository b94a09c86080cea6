//! Revoke and Reinstate: this is over, or over no longer.

use super::event::event;
use super::guarantees::unrecordable;
use super::presented::token_record;
use super::rights::{is_administrator, no_such_agent};
use super::tally::Verb;
use super::{Engine, shared_name};
use crate::domain::agent::AgentName;
use crate::domain::caller::Caller;
use crate::domain::limits;
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::domain::trace::TraceContext;
use crate::events::{Brief, Event, MessageType, Place};
use crate::keyring::VerifiedToken;
use crate::state::standing::{QuarantineSource, Standing};
use crate::state::{Refused, State};

/// What is over. It has no `Debug`: it may hold a token.
#[derive(Clone)]
pub struct Revocation<'a> {
    /// What.
    pub target: RevokeTarget<'a>,
    /// Why, for the audit log; empty for none.
    pub note: &'a str,
}

/// What a revocation is aimed at.
#[derive(Clone)]
pub enum RevokeTarget<'a> {
    /// A token's text: it and its descendants.
    Token(&'a str),
    /// A token's id: it and its descendants.
    TokenId(TokenId),
    /// Every token that has the agent in its chain, minted up to now.
    Agent(AgentName),
    /// The same, and nothing for the agent until it is reinstated.
    Quarantine(AgentName),
    /// Every token minted up to now.
    All,
}

/// That it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Since when.
    pub at: Timestamp,
    /// The number of the last numbered revocation.
    pub state_revision: u64,
}

impl Engine {
    /// Revokes. What was revoked is dead when this returns.
    ///
    /// # Errors
    /// The caller may not, the target can't be read, or it can't be made durable: then it is in force and may not outlive the
    /// process, and the message says so.
    pub async fn revoke(&self, caller: &Caller, revocation: &Revocation<'_>) -> Result<Revoked, Denial> {
        self.revoke_traced(caller, revocation, None).await
    }

    /// The same for a request of this trace.
    ///
    /// # Errors
    /// As [`Engine::revoke`].
    pub async fn revoke_traced(
        &self,
        caller: &Caller,
        revocation: &Revocation<'_>,
        trace: Option<TraceContext>,
    ) -> Result<Revoked, Denial> {
        // A log that is stuck holds a revocation up for a moment only, and once it is done nothing waits any more.
        let place = self.events.reserve().await.ok();
        let current = self.policy();
        let policy = &current.policy;
        let now = self.clock.now();
        let mut seen = Seen::default();
        let ended = self.end(policy, caller, &revocation.target, now, &mut seen).await;
        let in_force = ended.is_ok();
        let outcome = match ended {
            Ok(()) => self.revocations_settled().await,
            Err(denial) => Err(denial),
        };
        let is_quarantine = matches!(revocation.target, RevokeTarget::Quarantine(_));
        let kind = if is_quarantine { MessageType::Quarantine } else { MessageType::Revoke };
        let mut event = event(kind, &outcome, self.events.decision_id(), policy, caller, now);
        event.from_agent = caller.agent().shared();
        event.token_id = seen.token;
        event.target = Brief::copied(&target_text(&revocation.target, seen.token));
        event.note = Brief::copied(revocation.note);
        event.trace = trace;
        if let RevokeTarget::Agent(agent) | RevokeTarget::Quarantine(agent) = &revocation.target {
            event.to_agent = shared_name(policy, agent.as_str());
        }
        self.answer(Verb::Revoke, Done { outcome, in_force }, event, place, now).await?;
        Ok(Revoked { at: now, state_revision: self.state.standing(Standing::number) })
    }

    /// Lifts a quarantine; returns the number of the last revocation.
    ///
    /// # Errors
    /// The caller may not; or the policy file has the agent under quarantine, which only its author can lift.
    pub async fn reinstate(&self, caller: &Caller, agent: &AgentName, note: &str) -> Result<u64, NotReinstated> {
        self.reinstate_traced(caller, agent, note, None).await
    }

    /// The same for a request of this trace.
    ///
    /// # Errors
    /// As [`Engine::reinstate`].
    pub async fn reinstate_traced(
        &self,
        caller: &Caller,
        agent: &AgentName,
        note: &str,
        trace: Option<TraceContext>,
    ) -> Result<u64, NotReinstated> {
        let place = self.events.reserve().await;
        let current = self.policy();
        let policy = &current.policy;
        let now = self.clock.now();
        let allowed = self.in_good_standing(policy, caller.agent().as_str(), now).and_then(|()| {
            if is_administrator(policy, caller) { Ok(()) } else { Err(only_administrators("reinstate an agent")) }
        });
        let by_file = allowed.is_ok() && policy.is_quarantined(agent.as_str());
        let recordable = || place.as_ref().map(|_| ()).map_err(|why| unrecordable(*why));
        let mut outcome = if by_file { Err(named_by_file(agent)) } else { allowed.and_then(|()| recordable()) };
        if outcome.is_ok() {
            outcome = self.state.reinstate(agent.as_str()).await.map(|_| ()).map_err(|refused| refused.denial());
        }
        let in_force = outcome.is_ok();
        if in_force {
            outcome = self.revocations_settled().await;
        }
        let mut event = event(MessageType::Reinstate, &outcome, self.events.decision_id(), policy, caller, now);
        event.from_agent = caller.agent().shared();
        event.to_agent = shared_name(policy, agent.as_str());
        event.target = Brief::copied(agent.as_str());
        event.note = Brief::copied(note);
        event.trace = trace;
        let answered = self.answer(Verb::Reinstate, Done { outcome, in_force }, event, place.ok(), now).await;
        answered
            .map_err(|denial| if by_file { NotReinstated::ByFile(denial) } else { NotReinstated::Denied(denial) })?;
        Ok(self.state.standing(Standing::number))
    }

    async fn answer(
        &self,
        verb: Verb,
        done: Done,
        mut event: Event,
        place: Option<Place<'_>>,
        began: Timestamp,
    ) -> Result<(), Denial> {
        let Done { outcome, in_force } = done;
        event = self.timed(event);
        let recorded = if in_force {
            self.record_done_in_time(place, event).await
        } else {
            self.events.deny(event);
            Ok(())
        };
        let outcome = outcome.and(recorded);
        let reason = outcome.as_ref().map_or_else(Denial::reason, |()| Reason::Allowed);
        self.tally.decided(verb, reason, self.clock.now().since(began));
        outcome
    }

    async fn end(
        &self,
        policy: &Policy,
        caller: &Caller,
        target: &RevokeTarget<'_>,
        now: Timestamp,
        seen: &mut Seen,
    ) -> Result<(), Denial> {
        self.is_known_and_free(policy, caller.agent().as_str())?;
        let state = &self.state;
        let refused = |refused: Refused| refused.denial();
        match target {
            RevokeTarget::Token(text) => {
                let mut buffer = Vec::new();
                let token = self.keyring.load().open(text, &mut buffer)?;
                seen.token = Some(token.id());
                let chain = token.claims().chain.iter().map(AsRef::as_ref);
                may_end_token(policy, caller, Some(chain))?;
                end_token(state, &token, now).await.map_err(refused)
            }
            RevokeTarget::TokenId(id) => {
                seen.token = Some(*id);
                let known = state.look_up(*id).await.map_err(refused)?;
                may_end_token(policy, caller, known.as_ref().map(|known| known.chain.iter().map(String::as_str)))?;
                if state.revoke_held_id(*id).await.map_err(refused)? {
                    return Ok(());
                }
                let keep_until = now.seconds().saturating_add(limits::UNKNOWN_REVOCATION_SECONDS);
                state.revoke_unknown(*id, keep_until).await.map_err(refused)
            }
            RevokeTarget::Agent(agent) => {
                if !is_administrator(policy, caller) && agent != caller.agent() {
                    return Err(only_administrators("revoke another agent's tokens"));
                }
                is_named(policy, agent)?;
                state.revoke_agent(agent.as_str(), now).await.map(|_| ()).map_err(refused)
            }
            RevokeTarget::Quarantine(agent) => {
                if !is_administrator(policy, caller) {
                    return Err(only_administrators("put an agent under quarantine"));
                }
                is_named(policy, agent)?;
                state.quarantine(agent.as_str(), QuarantineSource::Api, now).await.map(|_| ()).map_err(refused)
            }
            RevokeTarget::All => {
                if !is_administrator(policy, caller) {
                    return Err(only_administrators("revoke everything"));
                }
                state.revoke_all(now).await.map(|_| ()).map_err(refused)
            }
        }
    }
}

/// Ends a token that opened. One of ours that the ledger doesn't hold is over already, and so is one
/// that expired or lives longer than any token may.
async fn end_token(state: &State, token: &VerifiedToken<'_>, now: Timestamp) -> Result<(), Refused> {
    let expires_at = token.claims().expires_at;
    let lifetime = expires_at.saturating_sub(token.claims().issued_at);
    let is_over = !token.claims().is_foreign() || expires_at <= now.seconds() || lifetime > limits::TTL_SECONDS;
    if state.revoke_held(&token_record(token)).await? || is_over {
        return Ok(());
    }
    let kept = now.seconds().saturating_add(limits::UNKNOWN_REVOCATION_SECONDS);
    state.revoke_unknown(token.id(), kept.max(expires_at.saturating_add(limits::RETRY_SECONDS))).await
}

/// A mistyped name must not look like a kill switch that was pulled.
fn is_named(policy: &Policy, agent: &AgentName) -> Result<(), Denial> {
    match policy.agent(agent.as_str()) {
        Some(_) => Ok(()),
        None => Err(no_such_agent(policy, agent.as_str())),
    }
}

/// Why a quarantine is not lifted.
#[derive(Clone, Debug)]
pub enum NotReinstated {
    /// The caller may not.
    Denied(Denial),
    /// The policy file names the agent.
    ByFile(Denial),
}

/// How it ended: what is in force may yet have been refused, because it may not outlive the process.
struct Done {
    outcome: Result<(), Denial>,
    in_force: bool,
}

/// What was learnt of the target on the way.
#[derive(Default)]
struct Seen {
    token: Option<TokenId>,
}

/// Its issuer, its holder and every agent above may end a token; an id that nobody knows only administrators.
fn may_end_token<'a>(
    policy: &Policy,
    caller: &Caller,
    chain: Option<impl Iterator<Item = &'a str>>,
) -> Result<(), Denial> {
    let in_chain = chain.is_some_and(|mut chain| chain.any(|agent| agent == caller.agent().as_str()));
    if in_chain || is_administrator(policy, caller) {
        return Ok(());
    }
    let message = "only the agents of its chain and administrators may revoke a token";
    Err(Denial::new(Reason::CallerNotAuthorized, message))
}

fn only_administrators(what: &'static str) -> Denial {
    let message = format!("only administrators may {what}: list the caller in administrators");
    Denial::new(Reason::CallerNotAuthorized, message)
}

fn named_by_file(agent: &AgentName) -> Denial {
    let message = format!("the policy file names {agent} in quarantined: take it out there first");
    Denial::new(Reason::AgentQuarantined, message)
}

fn target_text(target: &RevokeTarget<'_>, token: Option<TokenId>) -> String {
    match target {
        RevokeTarget::Token(_) | RevokeTarget::TokenId(_) => token.map(|id| id.to_string()).unwrap_or_default(),
        RevokeTarget::Agent(agent) | RevokeTarget::Quarantine(agent) => agent.to_string(),
        RevokeTarget::All => "all".to_owned(),
    }
}
