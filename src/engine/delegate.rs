//! Delegate: may this agent hand this part of its authority to that agent?
//!
//! The same line as Authorize with [`attenuate`] in the middle. The child is in the ledger, and its uses are out
//! of its parent's, before anybody holds it.

use std::sync::Arc;

use super::recording::{event, rate_limited};
use super::tally::Verb;
use super::{Beginning, Engine, is_reuse_attempt, record, request_number, shared_name};
use crate::domain::caller::Caller;
use crate::domain::chain::{Parent, Wish, attenuate, is_escalation, stands};
use crate::domain::decision;
use crate::domain::policy::{Policy, PolicyId};
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::{Claims, TokenId};
use crate::events::{Brief, DecisionId, Event, Long, MessageType, Place};
use crate::keyring::VerifiedToken;
use crate::state::{Refused, TokenRecord};

/// A wish for a token.
#[derive(Clone, Debug)]
pub struct DelegateRequest<'a> {
    /// What is wished for.
    pub wish: Wish<'a>,
    /// The text of the token to delegate from; none starts a chain.
    pub parent: Option<&'a str>,
    /// The caller's own id; empty for none.
    pub request_id: &'a str,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
}

/// A token, and what it is good for.
pub struct Delegated {
    /// Its text: a secret.
    pub token: String,
    /// Its id.
    pub id: TokenId,
    /// When it expires.
    pub expires_at: Timestamp,
    /// From the root to its holder.
    pub chain: Vec<Arc<str>>,
    /// What it allows.
    pub capabilities: Vec<String>,
    /// On what.
    pub resources: Vec<String>,
    /// How often.
    pub max_uses: u32,
    /// What the parent has left; none for a root.
    pub parent_left: Option<u32>,
}

/// The answer.
pub struct Delegation {
    /// The token, or why there is none.
    pub outcome: Result<Delegated, Denial>,
    /// Names this decision.
    pub id: DecisionId,
    /// Under which policy.
    pub policy: PolicyId,
}

/// A token that is sealed and not yet in the ledger.
struct Sealed<'a> {
    text: String,
    claims: Claims<'a>,
    record_tag: crate::domain::token::SealTag,
    id: TokenId,
}

impl Engine {
    /// Decides, mints and records.
    pub async fn delegate(&self, caller: &Caller, request: &DelegateRequest<'_>) -> Delegation {
        self.delegate_under(&self.begin(), caller, request).await
    }

    /// The same for a request that has begun, or is one of a batch.
    pub async fn delegate_under(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        request: &DelegateRequest<'_>,
    ) -> Delegation {
        let policy = &beginning.in_force.policy;
        let now = self.clock.now();
        let id = self.events.decision_id();
        let mut buffer = Vec::new();
        let mut parent = None;
        let outcome = match self.open_parent(policy, caller, request, now, &mut buffer, &mut parent) {
            Ok(()) => self.mint(beginning, caller, request, parent.as_ref(), now).await,
            Err(denial) => Err(denial),
        };
        let chain = asked_chain(policy, caller, parent.as_ref(), request.wish.to);
        let hops = chain.len().saturating_sub(1);
        let describe = |outcome: &Result<(), Denial>| {
            let mut event = event(MessageType::Delegate, outcome, id, policy, caller, now);
            describe(&mut event, policy, request, chain.clone(), parent.as_ref());
            event
        };
        let outcome = match outcome {
            Ok((place, delegated)) => {
                let mut event = describe(&Ok(()));
                event.token_id = Some(delegated.id);
                event.remaining_uses = Some(delegated.max_uses);
                place.commit(event);
                Ok(Delegated { chain: chain.clone(), ..delegated })
            }
            Err(denial) => {
                self.note_refused(policy, caller, request, parent.as_ref());
                self.events.deny(describe(&Err(denial.clone())));
                Err(denial)
            }
        };
        let reason = outcome.as_ref().map_or_else(Denial::reason, |_| Reason::Allowed);
        self.tally.decided(Verb::Delegate, reason, self.clock.now().since(now));
        self.tally.chain_asked(caller.agent().as_str(), hops, now);
        Delegation { outcome, id, policy: policy.id.clone() }
    }

    /// The caller is in good standing, and the parent is a token that it holds and that still stands.
    fn open_parent<'b>(
        &self,
        policy: &Policy,
        caller: &Caller,
        request: &DelegateRequest<'_>,
        now: Timestamp,
        buffer: &'b mut Vec<u8>,
        opened: &mut Option<VerifiedToken<'b>>,
    ) -> Result<(), Denial> {
        let agent = caller.agent().as_str();
        self.in_good_standing(policy, agent, now)?;
        self.delegate_rate.take(agent, "", policy.delegate_rate(agent), now).map_err(rate_limited)?;
        let Some(text) = request.parent else { return Ok(()) };
        let parent = opened.insert(self.keyring.load().open(text, buffer)?);
        parent.claims().check_times(now, policy.token.max_ttl_seconds)?;
        decision::holds(agent, parent.claims(), agent).inspect_err(|_| self.tally.wrong_holder(agent))?;
        let quarantined = |name: &str| self.is_quarantined(policy, name);
        stands(policy, quarantined, parent.claims(), request.wish.asked())?;
        self.state.ledger().check(&record(parent)).map_err(|refused| refused.denial())?;
        Ok(())
    }

    async fn mint(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        request: &DelegateRequest<'_>,
        parent: Option<&VerifiedToken<'_>>,
        now: Timestamp,
    ) -> Result<(Place<'_>, Delegated), Denial> {
        let policy = &beginning.in_force.policy;
        let keyring = self.keyring.load_full();
        let sealed = {
            let from = parent.map(|parent| Parent { id: parent.id(), claims: parent.claims() });
            let id = self.chance.token_id();
            let quarantined = |name: &str| self.is_quarantined(policy, name);
            let claims = attenuate(policy, quarantined, caller.agent().as_str(), from, &request.wish, now, id)?;
            let (text, record_tag) = keyring.seal(claims.clone())?;
            Sealed { text, claims, record_tag, id }
        };
        let place = self.ready_to_record(request.deadline, now).await?;
        let parent_left = self.enter(beginning, caller, request, parent, &sealed, now)?;
        let Sealed { text, claims, id, .. } = sealed;
        let delegated = Delegated {
            token: text,
            id,
            expires_at: Timestamp::from_seconds(claims.expires_at),
            chain: Vec::new(),
            capabilities: claims.capabilities.iter().map(ToString::to_string).collect(),
            resources: claims.resources.iter().map(ToString::to_string).collect(),
            max_uses: claims.max_uses,
            parent_left,
        };
        Ok((place, delegated))
    }

    /// Enters the token in the ledger; what the parent has left.
    fn enter(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        request: &DelegateRequest<'_>,
        parent: Option<&VerifiedToken<'_>>,
        sealed: &Sealed<'_>,
        now: Timestamp,
    ) -> Result<Option<u32>, Denial> {
        let claims = &sealed.claims;
        let child = TokenRecord {
            id: sealed.id,
            tag: sealed.record_tag,
            ancestors: &claims.ancestors,
            chain: &claims.chain,
            max_uses: claims.max_uses,
            expires_at: claims.expires_at,
            foreign: None,
        };
        let ledger = self.state.ledger();
        let Some(parent) = parent else {
            return ledger
                .mint(&child, &claims.capabilities, beginning.born)
                .map(|()| None)
                .map_err(|refused| refused.denial());
        };
        let number = request_number(caller.agent().as_str(), request.request_id);
        let moved = ledger.mint_child(&record(parent), &child, &parent.claims().capabilities, number, now);
        moved.map(Some).map_err(|refused: Refused| {
            if is_reuse_attempt(&refused) {
                self.tally.reuse_attempt(caller.agent().as_str());
            }
            refused.denial()
        })
    }

    fn note_refused(
        &self,
        policy: &Policy,
        caller: &Caller,
        request: &DelegateRequest<'_>,
        parent: Option<&VerifiedToken<'_>>,
    ) {
        let agent = caller.agent().as_str();
        let held = parent.map(VerifiedToken::claims).filter(|claims| claims.holder == agent);
        if is_escalation(policy, agent, held, &request.wish) {
            self.tally.escalation_attempt(agent);
        }
    }
}

/// The chain that the token has, or would have had.
fn asked_chain(policy: &Policy, caller: &Caller, parent: Option<&VerifiedToken<'_>>, to: &str) -> Vec<Arc<str>> {
    let mut chain = match parent {
        Some(parent) => parent.claims().chain.iter().map(|name| shared_name(policy, name)).collect(),
        None => vec![caller.agent().shared()],
    };
    chain.push(shared_name(policy, to));
    chain
}

fn describe(
    event: &mut Event,
    policy: &Policy,
    request: &DelegateRequest<'_>,
    chain: Vec<Arc<str>>,
    parent: Option<&VerifiedToken<'_>>,
) {
    let wish = &request.wish;
    event.from_agent = Arc::clone(&event.caller);
    event.to_agent = shared_name(policy, wish.to);
    event.chain = chain;
    event.capabilities = wish.capabilities.iter().map(|name| Brief::copied(name)).collect();
    event.resource = match wish.resources.as_slice() {
        [only] => Long::copied(only.as_str()),
        several => Long::from(several.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    };
    event.token_id = parent.map(VerifiedToken::id);
    event.request_id = Brief::copied(request.request_id);
    let claims = parent.map(VerifiedToken::claims);
    let task = wish.task.as_deref().or(claims.and_then(|claims| claims.task.as_deref()));
    event.task = Brief::copied(task.unwrap_or_default());
    let obo = claims.and_then(|claims| claims.on_behalf_of.as_deref());
    event.obo = Brief::copied(obo.unwrap_or_default());
}
