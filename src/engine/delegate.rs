//! Delegate: may this agent hand this part of its authority to that agent?
//!
//! The same line as Authorize with [`attenuate`] in the middle. The child is in the ledger, and its uses are out
//! of its parent's, before anybody holds it.

use std::sync::Arc;

use super::detection::{Suspect, on_its_own};
use super::guarantees::rate_limited;
use super::presented::{root_given, token_record};
use super::tally::Verb;
use super::{Beginning, Begun, Engine, shared_name};
use crate::domain::caller::Caller;
use crate::domain::chain::{Parent, Wish, attenuate, exceeds, is_escalation, stands};
use crate::domain::decision;
use crate::domain::limits;
use crate::domain::policy::{Policy, PolicyId};
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::{Claims, SealTag, TokenId};
use crate::events::{Brief, DecisionId, Event, Long, MessageType, Place};
use crate::keyring::VerifiedToken;
use crate::state::TokenRecord;
use crate::state::attempts::{Attempt, SeenBy};

/// A wish for a token. It has no `Debug`: it may hold one.
#[derive(Clone)]
pub struct DelegateRequest<'a> {
    /// What is wished for.
    pub wish: Wish<'a>,
    /// The text of the token to delegate from; none starts a chain.
    pub parent: Option<&'a str>,
    /// The caller's own id; empty for none.
    pub request_id: &'a str,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
    /// When the first of the evidence that was shown beside the caller's expires, in seconds: what is minted lives no
    /// longer.
    pub expires_by: Option<u64>,
    /// What a token exchange adds; none for every other door.
    pub exchange: Option<Exchange<'a>>,
}

/// What holds for a delegation that is a token exchange.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    /// The client that asks. It may be the target, holding evidence of the agent that delegates.
    pub client: &'a Caller,
    /// The one use is spent at once: what is minted leaves as a JWT that nobody counts.
    pub is_offline: bool,
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
    /// The user behind its chain.
    pub on_behalf_of: Option<String>,
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
    claims: &'a Claims<'a>,
    tag: SealTag,
    id: TokenId,
}

/// A wish that has begun to be answered.
type Wished<'a> = Begun<'a, DelegateRequest<'a>>;

impl Engine {
    /// Decides, mints and records. A refusal stands in the answer; only a failure after the uses were moved costs any.
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
        let wished = Wished { beginning, caller, request, now: self.clock.now() };
        let mut buffer = Vec::new();
        let mut parent = None;
        let mut is_retry = false;
        let minted = match self.open_parent(wished, &mut buffer, &mut parent).await {
            Ok(()) => self.mint(wished, parent.as_ref(), &mut is_retry).await,
            Err(denial) => Err(denial),
        };
        let refused = minted.as_ref().err();
        let suspect = refused.and_then(|denial| self.note_refused(wished, parent.as_ref(), denial, is_retry));
        let (mut delegation, committed) = self.conclude_delegation(wished, parent.as_ref(), minted);
        if let Some(sequence) = committed
            && let Err(denial) = self.recorded(sequence, request.deadline).await
        {
            // The token is in the ledger, and nobody will ever hold it.
            delegation.outcome = Err(denial);
            self.events.deny(self.timed(event(&delegation, wished, parent.as_ref())));
        }
        self.note_delegation(wished, parent.as_ref(), &delegation);
        if let Some(suspect) = suspect {
            Box::pin(self.suspect(wished.policy(), suspect, wished.now)).await;
        }
        delegation
    }

    /// Records a refusal whose reason stands outside the engine: the caller is known, and what it wishes can't be put
    /// to the engine, or there is no time left to. A wish that was never understood has no target.
    pub fn refuse_delegation_under(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        request: &DelegateRequest<'_>,
        denial: Denial,
    ) -> Delegation {
        let wished = Wished { beginning, caller, request, now: self.clock.now() };
        let (delegation, _) = self.conclude_delegation(wished, None, Err(denial));
        self.note_delegation(wished, None, &delegation);
        delegation
    }

    /// Answers and records; also the number under which what was minted is recorded.
    fn conclude_delegation(
        &self,
        wished: Wished<'_>,
        parent: Option<&VerifiedToken<'_>>,
        minted: Result<(Place<'_>, Delegated), Denial>,
    ) -> (Delegation, Option<u64>) {
        let (outcome, place) = match minted {
            Ok((place, delegated)) => (Ok(delegated), Some(place)),
            Err(denial) => (Err(denial), None),
        };
        let delegation = Delegation { outcome, id: self.events.decision_id(), policy: wished.policy().id.clone() };
        let event = self.timed(event(&delegation, wished, parent));
        let committed = if let Some(place) = place {
            Some(place.commit(event))
        } else {
            self.events.deny(event);
            None
        };
        (delegation, committed)
    }

    fn note_delegation(&self, wished: Wished<'_>, parent: Option<&VerifiedToken<'_>>, delegation: &Delegation) {
        let reason = delegation.outcome.as_ref().map_or_else(Denial::reason, |_| Reason::Allowed);
        let hops = asked_hops(wished, parent);
        if let (Ok(minted), Some(parent)) = (&delegation.outcome, parent) {
            self.note_answered(wished.policy(), parent, minted.max_uses, wished.seen_of_asker(), wished.now);
        }
        self.tally.decided(Verb::Delegate, reason, self.clock.now().since(wished.now));
        self.tally.chain_asked(wished.asker(), hops, wished.now);
    }

    /// The caller is in good standing, and the parent is a token that it holds and that still stands.
    async fn open_parent<'b>(
        &self,
        wished: Wished<'_>,
        buffer: &'b mut Vec<u8>,
        opened: &mut Option<VerifiedToken<'b>>,
    ) -> Result<(), Denial> {
        let (policy, agent, now) = (wished.policy(), wished.asker(), wished.now);
        self.in_good_standing(policy, agent, now)?;
        self.delegate_rate.take(agent, "", policy.delegate_rate(agent), now).map_err(rate_limited)?;
        let Some(text) = wished.request.parent else { return Ok(()) };
        let parent = opened.insert(self.keyring.load().open(text, buffer)?);
        parent.claims().check_times(now, policy.token.max_ttl_seconds)?;
        decision::holds(agent, parent.claims(), agent).inspect_err(|_| self.tally.wrong_holder(agent))?;
        let quarantined = |name: &str| self.is_quarantined(policy, name);
        stands(policy, quarantined, parent.claims(), wished.request.wish.asked())?;
        if self.state.is_local() {
            self.state.check(&token_record(parent)).await.map_err(|refused| refused.denial())?;
        }
        Ok(())
    }

    async fn mint(
        &self,
        wished: Wished<'_>,
        parent: Option<&VerifiedToken<'_>>,
        is_retry: &mut bool,
    ) -> Result<(Place<'_>, Delegated), Denial> {
        let (policy, request, now) = (wished.policy(), wished.request, wished.now);
        let keyring = self.keyring.load_full();
        let from = parent.map(|parent| Parent { id: parent.id(), claims: parent.claims() });
        let id = self.chance.token_id();
        let quarantined = |name: &str| self.is_quarantined(policy, name);
        let mut claims = attenuate(policy, quarantined, wished.asker(), from, &request.wish, now, id)?;
        within_evidence(&mut claims, request)?;
        if request.is_offline() {
            nothing_is_asked_later(policy, &claims)?;
        }
        let (text, tag) = keyring.seal(claims.clone())?;
        let still_free = || {
            let concerned = std::iter::once(wished.asker()).chain(claims.chain.iter().map(AsRef::as_ref));
            self.none_quarantined(policy, concerned)
        };
        let place = self.ready_to_record(request.deadline, still_free).await?;
        if let Some(parent) = parent {
            self.may_be_foreign(parent, now)?;
        }
        let parent_left = self.enter(wished, parent, &Sealed { claims: &claims, tag, id }, is_retry).await?;
        self.uses_settled(request.deadline).await?;
        let delegated = Delegated {
            token: text,
            id,
            expires_at: Timestamp::from_seconds(claims.expires_at),
            chain: claims.chain.iter().map(|name| shared_name(policy, name)).collect(),
            capabilities: claims.capabilities.iter().map(ToString::to_string).collect(),
            resources: claims.resources.iter().map(ToString::to_string).collect(),
            max_uses: claims.max_uses,
            parent_left,
            on_behalf_of: claims.on_behalf_of.as_ref().map(ToString::to_string),
        };
        Ok((place, delegated))
    }

    /// Enters the token in the ledger; what the parent has left.
    async fn enter(
        &self,
        wished: Wished<'_>,
        parent: Option<&VerifiedToken<'_>>,
        sealed: &Sealed<'_>,
        is_retry: &mut bool,
    ) -> Result<Option<u32>, Denial> {
        let Sealed { claims, tag, id } = *sealed;
        let child = TokenRecord {
            id,
            tag,
            ancestors: &claims.ancestors,
            chain: &claims.chain,
            max_uses: claims.max_uses,
            expires_at: claims.expires_at,
            foreign: None,
        };
        let born = wished.beginning.born;
        let left = if let Some(parent) = parent {
            *is_retry = self.is_retry(wished.asker(), wished.request.request_id, parent.id(), wished.now);
            let given = root_given(wished.policy(), parent);
            let moved = self.state.mint_child(&token_record(parent), &child, &given, born).await;
            moved.map(Some).map_err(|refused| refused.denial())?
        } else {
            let minted = self.state.mint(&child, &claims.capabilities, born).await;
            minted.map(|()| None).map_err(|refused| refused.denial())?
        };
        if wished.request.is_offline() {
            self.state.spend(&child, &[], born).await.map_err(|refused| refused.denial())?;
        }
        Ok(left)
    }

    /// Counts what was attempted, and says by whom.
    fn note_refused<'w>(
        &self,
        wished: Wished<'w>,
        parent: Option<&VerifiedToken<'_>>,
        denial: &Denial,
        is_retry: bool,
    ) -> Option<Suspect<'w>> {
        let (policy, agent, wish) = (wished.policy(), wished.asker(), &wished.request.wish);
        // Whoever asked for too much did it, and not the agent whose evidence it showed.
        let client = wished.request.client(wished.caller);
        if denial.reason() == Reason::CommunicationNotAllowed {
            self.tally.unauthorized_communication(policy, agent, wish.to);
        }
        let held = parent.map(VerifiedToken::claims).filter(|claims| claims.holder == agent);
        if is_escalation(policy, &self.former.of(agent), agent, held, wish) {
            let agent = client.agent().as_str();
            self.tally.escalation_attempt(agent);
            let is_certain =
                held.is_some_and(|held| exceeds(held, wish)) || self.knows_former_rules(policy, wished.now);
            let seen_by = on_its_own(client.identity()).filter(|_| is_certain && !wished.is_for_user());
            return Some(Suspect { agent, attempt: Attempt::Escalation, seen_by });
        }
        if denial.reason() == Reason::TokenUsesExhausted && !is_retry {
            self.tally.reuse_attempt(agent);
            let seen_by = wished.seen_of_asker();
            let speaks = parent.is_some_and(|parent| self.speaks_against_holder(parent, seen_by));
            return speaks.then_some(Suspect { agent, attempt: Attempt::Reuse, seen_by });
        }
        None
    }
}

impl<'a> Wished<'a> {
    /// Whether a client of an exchange passes on what a user wishes, whose token it shows.
    fn is_for_user(self) -> bool {
        self.request.exchange.is_some() && self.request.wish.on_behalf_of.is_some()
    }

    /// Who saw that the agent whose authority it is asks itself; none where a client of an exchange asks for it.
    fn seen_of_asker(self) -> Option<SeenBy<'a>> {
        let client = self.request.client(self.caller);
        on_its_own(client.identity()).filter(|_| client.agent() == self.caller.agent())
    }
}

impl<'a> DelegateRequest<'a> {
    fn is_offline(&self) -> bool {
        self.exchange.is_some_and(|exchange| exchange.is_offline)
    }

    /// Who asks: the agent that delegates, or the client of an exchange.
    fn client(&self, caller: &'a Caller) -> &'a Caller {
        self.exchange.map_or(caller, |exchange| exchange.client)
    }
}

/// Nothing is minted that outlives the evidence it rests on. A wished lifetime is refused and not trimmed.
fn within_evidence(claims: &mut Claims<'_>, request: &DelegateRequest<'_>) -> Result<(), Denial> {
    let Some(limit) = request.expires_by else { return Ok(()) };
    if limit <= claims.issued_at {
        return Err(Denial::new(
            Reason::TokenExpired,
            "the user's, the subject's or the actor's token has expired: get a new one",
        ));
    }
    if request.wish.ttl_seconds.is_some() && claims.expires_at > limit {
        let left = limit.saturating_sub(claims.issued_at);
        let message = format!(
            "the wished lifetime is more than the user's, the subject's and the actor's tokens leave, {left} s"
        );
        return Err(Denial::new(Reason::LifetimeNotAllowed, message));
    }
    claims.expires_at = claims.expires_at.min(limit);
    Ok(())
}

/// What is minted offline is used where nobody asks for conditions, nor knows what they are about. So none may be about
/// any of it.
fn nothing_is_asked_later(policy: &Policy, claims: &Claims<'_>) -> Result<(), Denial> {
    let root = claims.chain.first().map(AsRef::as_ref).unwrap_or_default();
    let capabilities = claims.capabilities.iter().map(AsRef::as_ref);
    let Some(condition) = policy.condition_on(root, capabilities, &claims.resources) else { return Ok(()) };
    let place = &condition.place;
    let message =
        format!("{place} is asked at each use, and nobody asks where an offline JWT is used: wish for a token");
    Err(Denial::new(Reason::ConditionNotMet, message))
}

fn event(delegation: &Delegation, wished: Wished<'_>, parent: Option<&VerifiedToken<'_>>) -> Event {
    let Wished { caller, request, now, .. } = wished;
    let (policy, wish) = (wished.policy(), &request.wish);
    let kind = MessageType::Delegate;
    let client = request.client(caller);
    let mut event = super::event::event(kind, &delegation.outcome, delegation.id, policy, client, now);
    event.from_agent = caller.agent().shared();
    event.to_agent = shared_name(policy, wish.to);
    event.chain = asked_chain(wished, parent);
    let capabilities = wish.capabilities.iter().take(limits::EVENT_CAPABILITIES);
    event.capabilities = capabilities.map(|name| Brief::copied(name)).collect();
    event.resource = match wish.resources.as_slice() {
        [only] => Long::copied(only.as_str()),
        several => Long::from(several.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    };
    let minted = delegation.outcome.as_ref().ok();
    event.token_id = minted.map(|minted| minted.id).or(parent.map(VerifiedToken::id));
    // So that a chain of tokens can be followed: what it was made from, or was to be.
    event.target = parent.map(|parent| parent.id().to_string()).map(Brief::from).unwrap_or_default();
    event.remaining_uses = minted.map(|minted| if request.is_offline() { 0 } else { minted.max_uses });
    if request.is_offline() {
        event.note = Brief::copied("offline: counting and revocation end here");
    }
    event.request_id = Brief::copied(request.request_id);
    event.trace = wished.beginning.trace();
    let claims = parent.map(VerifiedToken::claims);
    let task = wish.task.as_deref().or(claims.and_then(|claims| claims.task.as_deref()));
    event.task = Brief::copied(task.unwrap_or_default());
    let inherited = claims.and_then(|claims| claims.on_behalf_of.as_deref());
    let obo = inherited.or(wish.on_behalf_of.as_deref());
    event.obo = Brief::copied(obo.unwrap_or_default());
    event
}

/// The hops of that chain.
fn asked_hops(wished: Wished<'_>, parent: Option<&VerifiedToken<'_>>) -> usize {
    let before = parent.map_or(0, |parent| parent.claims().chain.len().saturating_sub(1));
    if wished.request.wish.to.is_empty() { before } else { before.saturating_add(1) }
}

/// The chain that the token has, or would have had.
fn asked_chain(wished: Wished<'_>, parent: Option<&VerifiedToken<'_>>) -> Vec<Arc<str>> {
    let policy = wished.policy();
    let mut chain = match parent {
        Some(parent) => parent.claims().chain.iter().map(|name| shared_name(policy, name)).collect(),
        None => vec![wished.caller.agent().shared()],
    };
    let to = wished.request.wish.to;
    chain.extend((!to.is_empty()).then(|| shared_name(policy, to)));
    chain
}
