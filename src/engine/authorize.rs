//! Authorize: may this agent use this capability on this resource, now?
//!
//! A straight line: who acts, is it in good standing, does its token allow this under the policy in force, is
//! there time to answer and room to record it, is a use left. The step that spends the use is the answer.

use std::borrow::Cow;
use std::sync::Arc;

use super::detection::Suspect;
use super::guarantees::{Allowed, rate_limited};
use super::presented::{root_given, token_record};
use super::speaker::Speaker;
use super::tally::Verb;
use super::{Beginning, Begun, Engine, shared_name};
use crate::domain::caller::{Caller, VerifiedIdentity};
use crate::domain::capability::Use;
use crate::domain::chain::quarantined;
use crate::domain::condition::Circumstances;
use crate::domain::decision::{self, AskedAt};
use crate::domain::entities::Kind;
use crate::domain::facts::Given;
use crate::domain::policy::{Call, PolicyId};
use crate::domain::reason::{Denial, Reason};
use crate::domain::resource::{InvalidResource, Resource};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::events::{Brief, DecisionId, Event, Long, MessageType};
use crate::keyring::VerifiedToken;
use crate::state::Refused;
use crate::state::attempts::Attempt;

/// A question. It has no `Debug`: it holds a token.
#[derive(Clone, Copy)]
pub struct AuthorizeRequest<'a> {
    /// What the agent wants to do.
    pub action: Action<'a>,
    /// The token's text.
    pub token: Option<&'a str>,
    /// The agent that acts, if the caller names one.
    pub agent: Option<&'a str>,
    /// Verified evidence for that agent, if the caller showed some; or why it is of nobody.
    pub agent_evidence: Option<Result<&'a VerifiedIdentity, &'a Denial>>,
    /// The called or guarded agent, if the caller names one.
    pub destination: Option<&'a str>,
    /// What is said of the request beside this; for the policy's conditions.
    pub given: Given<'a>,
    /// Decide, and spend nothing.
    pub dry_run: bool,
    /// The caller's own id; empty for none.
    pub request_id: &'a str,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
}

/// What the agent wants to do: use a capability on a resource, call another agent, or one by the other.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// Use a capability on a resource.
    Use(&'a str, &'a str),
    /// Call the destination, by the communication rules alone.
    Call(AgentCall<'a>),
    /// A call that means the use of a capability on a resource.
    UseByCall(&'a str, &'a str, AgentCall<'a>),
}

/// A call between agents.
#[derive(Clone, Copy, Debug)]
pub struct AgentCall<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The HTTP path.
    pub path: &'a str,
}

impl<'a> Action<'a> {
    pub(super) fn wanted(self) -> Option<(&'a str, &'a str)> {
        match self {
            Self::Use(capability, resource) | Self::UseByCall(capability, resource, _) => Some((capability, resource)),
            Self::Call(_) => None,
        }
    }

    fn call(self) -> Option<AgentCall<'a>> {
        match self {
            Self::Use(..) => None,
            Self::Call(call) | Self::UseByCall(_, _, call) => Some(call),
        }
    }
}

/// The answer. There is no default one.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Allowed, or why not.
    pub outcome: Result<(), Denial>,
    /// Names this decision.
    pub id: DecisionId,
    /// Who acts, as far as it was established.
    pub agent: Option<VerifiedIdentity>,
    /// From the agent whose authority it is to the one that acts; empty where no token opened.
    pub chain: Vec<Arc<str>>,
    /// The token, if it opened.
    pub token: Option<TokenShown>,
    /// The user behind the token's chain, where one is.
    pub on_behalf_of: Option<Arc<str>>,
    /// Under which policy.
    pub policy: PolicyId,
    /// Nothing was spent, and nobody may act on it.
    pub dry_run: bool,
}

/// What an answer shows of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenShown {
    /// Its id.
    pub id: TokenId,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Uses left, where the ledger said.
    pub left: Option<u32>,
}

/// A question that has begun.
type Question<'a> = Begun<'a, AuthorizeRequest<'a>>;

/// What was found out on the way.
#[derive(Default)]
struct Findings<'b> {
    speaker: Option<Speaker>,
    token: Option<VerifiedToken<'b>>,
    /// The same was asked a moment ago, and came as far as the ledger.
    is_retry: bool,
}

/// What the checks before the ledger say.
enum Verdict {
    /// One of them refuses.
    Denied(Denial),
    /// The ledger has the word; if it doesn't refuse, a check that comes after it may.
    UpToTheLedger { refused_after: Option<Denial> },
}

impl Engine {
    /// Decides, spends one use and records. It has no error: what can't be decided is denied, and says why. Each call spends
    /// anew, whatever its `request_id`.
    pub async fn authorize(&self, caller: &Caller, request: &AuthorizeRequest<'_>) -> Decision {
        self.authorize_under(&self.begin(), caller, request).await
    }

    /// The same for a request that has begun, or is one of a batch.
    pub async fn authorize_under(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        request: &AuthorizeRequest<'_>,
    ) -> Decision {
        let question = Question { beginning, caller, request, now: self.clock.now() };
        let mut buffer = Vec::new();
        let mut found = Findings::default();
        let settled = match self.judge(question, &mut buffer, &mut found) {
            Verdict::Denied(denial) => Err(denial),
            Verdict::UpToTheLedger { refused_after } => self.settle(question, &mut found, refused_after).await,
        };
        let attempt = settled.as_ref().err().and_then(|denial| self.note_attempts(question, &found, denial));
        let (decision, committed) = self.conclude(question, &found, settled);
        let decision = match committed {
            Some(sequence) => self.once_recorded(question, &found, decision, sequence).await,
            None => decision,
        };
        self.note_answer(question, &found, &decision);
        if let (Some(attempt), Some(speaker)) = (attempt, &found.speaker) {
            let suspect = Suspect { agent: speaker.agent.as_str(), attempt, seen_by: speaker.seen_by() };
            // Rare, and it must not make every answer's future larger.
            Box::pin(self.suspect(question.policy(), suspect, question.now)).await;
        }
        decision
    }

    /// Records a refusal whose reason stands outside the engine: the agent is known, and what it asks can't be put to
    /// the engine, or there is no time left to.
    pub fn refuse_under(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        request: &AuthorizeRequest<'_>,
        denial: Denial,
    ) -> Decision {
        let question = Question { beginning, caller, request, now: self.clock.now() };
        let speaker = Speaker::of(question.policy(), caller, request.agent, request.agent_evidence);
        let (speaker, denial) = match speaker {
            Ok(speaker) => (Some(speaker), denial),
            Err(earlier) => (None, earlier),
        };
        let found = Findings { speaker, ..Findings::default() };
        self.note_attempts(question, &found, &denial);
        let (decision, _) = self.conclude(question, &found, Err(denial));
        self.note_answer(question, &found, &decision);
        decision
    }

    /// Answers and records; also the number under which an ALLOW is recorded.
    fn conclude(
        &self,
        question: Question<'_>,
        found: &Findings<'_>,
        settled: Result<Allowed<'_>, Denial>,
    ) -> (Decision, Option<u64>) {
        let (outcome, left, place) = match settled {
            Ok(Allowed { place, left }) => (Ok(()), left, Some(place)),
            Err(denial) => (Err(denial), None, None),
        };
        let decision = Decision {
            outcome,
            id: self.events.decision_id(),
            chain: chain(question, found),
            agent: found.speaker.as_ref().map(|speaker| speaker.identity(question.now)),
            token: found.token.as_ref().map(|token| shown(token, left)),
            on_behalf_of: found.token.as_ref().and_then(|token| token.claims().on_behalf_of.as_deref()).map(Arc::from),
            policy: question.policy().id.clone(),
            dry_run: question.request.dry_run,
        };
        let event = self.timed(event(&decision, question, found));
        let committed = if let Some(place) = place {
            Some(place.commit(event))
        } else {
            self.events.deny(event);
            None
        };
        (decision, committed)
    }

    /// The ALLOW, once its event is as durable as it has to be; else a denial, which is an event of the same decision.
    async fn once_recorded(
        &self,
        question: Question<'_>,
        found: &Findings<'_>,
        decision: Decision,
        sequence: u64,
    ) -> Decision {
        let Err(denial) = self.recorded(sequence, question.request.deadline).await else { return decision };
        let decision = Decision { outcome: Err(denial), ..decision };
        self.events.deny(self.timed(event(&decision, question, found)));
        decision
    }

    /// What the answer to a dry run would be. Nothing is counted or recorded.
    pub(super) async fn would_allow(
        &self,
        beginning: &Beginning,
        caller: &Caller,
        request: &AuthorizeRequest<'_>,
    ) -> Result<(), Denial> {
        let request = &AuthorizeRequest { dry_run: true, ..*request };
        let question = Question { beginning, caller, request, now: self.clock.now() };
        let mut buffer = Vec::new();
        let mut found = Findings::default();
        match self.judge(question, &mut buffer, &mut found) {
            Verdict::Denied(denial) => Err(denial),
            Verdict::UpToTheLedger { refused_after } => {
                self.settle(question, &mut found, refused_after).await.map(|_unused_place| ())
            }
        }
    }

    /// Everything that needs no ledger.
    fn judge<'b>(&self, question: Question<'_>, buffer: &'b mut Vec<u8>, found: &mut Findings<'b>) -> Verdict {
        match self.check(question, buffer, found) {
            Ok(refused_after) => Verdict::UpToTheLedger { refused_after },
            Err(denial) => Verdict::Denied(denial),
        }
    }

    /// The checks before the ledger, in their order; the denial in `Ok` is of a check that comes after it.
    fn check<'b>(
        &self,
        question: Question<'_>,
        buffer: &'b mut Vec<u8>,
        found: &mut Findings<'b>,
    ) -> Result<Option<Denial>, Denial> {
        let Question { caller, request, now, .. } = question;
        let policy = question.policy();
        let speaker = found.speaker.insert(Speaker::of(policy, caller, request.agent, request.agent_evidence)?);
        let agent = speaker.agent.as_str();
        let destination = Speaker::destination(policy, caller, request.destination)?;
        self.in_good_standing(policy, agent, now)?;
        if self.is_quarantined(policy, question.asker()) {
            return Err(quarantined(question.asker()));
        }
        self.take_authorize_rate(question, agent)?;
        let wanted = request.action.wanted().map(|(capability, resource)| canonical(capability, resource));
        let wanted = wanted.transpose()?;
        let call = request.action.call().map(|call| between(agent, destination, call)).transpose()?;
        if let Some(token) = request.token {
            let token = found.token.insert(self.keyring.load().open(token, buffer)?);
            token.claims().check_times(now, policy.token.max_ttl_seconds)?;
        }
        let at = AskedAt { caller: question.asker(), destination };
        let is_quarantined = |name: &str| self.is_quarantined(policy, name);
        match (wanted, &found.token) {
            (Some(wanted), Some(token)) => {
                decision::decide(policy, is_quarantined, agent, token.claims(), wanted, at)?;
            }
            (Some(wanted), None) => decision::decide_own(policy, agent, wanted)?,
            (None, Some(token)) => decision::decide_shown(policy, is_quarantined, agent, token.claims(), at)?,
            (None, None) => {}
        }
        let may_call = match (wanted, call) {
            (Some(_), Some(call)) => decision::decide_call(policy, &call),
            (None, Some(call)) => decision::decide_call_alone(policy, &call),
            (_, None) => Ok(()),
        };
        // Conditions are the one check that can take long: nobody waits for what is late before them.
        let in_time = may_call.and_then(|()| self.in_time(request.deadline));
        Ok(in_time.and_then(|()| meets_conditions(question, found, wanted)).err())
    }

    /// The ledger, the deadline, the audit queue, the use. A refusal of the ledger comes before one of the others;
    /// it is asked once where nothing else refuses.
    async fn settle(
        &self,
        question: Question<'_>,
        found: &mut Findings<'_>,
        refused_after: Option<Denial>,
    ) -> Result<Allowed<'_>, Denial> {
        let Question { beginning, request, now, .. } = question;
        let Findings { speaker, token, is_retry } = found;
        let token = token.as_ref();
        let agent = speaker.as_ref().map_or(question.asker(), |speaker| speaker.agent.as_str());
        let ready = if let Some(denial) = refused_after {
            Err(denial)
        } else {
            let chain = token.map_or(&[][..], |token| &token.claims().chain);
            let still_free = || {
                let concerned = [agent, question.asker()].into_iter().chain(chain.iter().map(AsRef::as_ref));
                self.none_quarantined(question.policy(), concerned)
            };
            self.ready_to_record(request.deadline, still_free).await
        };
        let Some(token) = token else {
            return ready.map(|place| Allowed { place, left: None });
        };
        let ready = ready.and_then(|place| self.may_be_foreign(token, now).map(|()| place));
        let record = token_record(token);
        let place = match ready {
            Ok(place) => place,
            // Whether the token is held is not worth a round trip for what is refused anyway.
            Err(denial) if !self.state.is_local() => return Err(denial),
            Err(denial) => {
                self.state.check(&record).await.map_err(|refused| refused.denial())?;
                return Err(denial);
            }
        };
        if request.dry_run {
            let left = self.state.check(&record).await.map_err(|refused| refused.denial())?;
            if left == 0 {
                return Err(Refused::Exhausted.denial());
            }
            return Ok(Allowed { place, left: Some(left) });
        }
        *is_retry = self.is_retry(question.asker(), request.request_id, token.id(), now);
        let given = root_given(question.policy(), token);
        let spent = self.state.spend(&record, &given, beginning.born).await;
        let left = spent.map_err(|refused| refused.denial())?;
        self.uses_settled(request.deadline).await?;
        Ok(Allowed { place, left: Some(left) })
    }

    fn take_authorize_rate(&self, question: Question<'_>, agent: &str) -> Result<(), Denial> {
        let limit = question.policy().authorize_rate.filter(|_| !question.request.dry_run);
        let Some(limit) = limit else { return Ok(()) };
        self.authorize_rate.take(question.asker(), agent, limit, question.now).map_err(rate_limited)
    }

    /// Counts what the refused agent attempted.
    fn note_attempts(&self, question: Question<'_>, found: &Findings<'_>, denial: &Denial) -> Option<Attempt> {
        let request = question.request;
        let (Some(speaker), false) = (&found.speaker, request.dry_run) else { return None };
        let agent = speaker.agent.as_str();
        let reason = denial.reason();
        if reason == Reason::TokenWrongHolder {
            self.tally.wrong_holder(agent);
        }
        if reason == Reason::CommunicationNotAllowed {
            let destination = request.destination.unwrap_or(question.asker());
            self.tally.unauthorized_communication(question.policy(), agent, destination);
        }
        let beyond = matches!(reason, Reason::CapabilityNotGranted | Reason::ResourceNotGranted);
        if let (true, Some(token), Some((capability, resource))) = (beyond, &found.token, request.action.wanted())
            && let Ok(wanted) = canonical(capability, resource)
            && decision::is_escalation(agent, token.claims(), wanted)
        {
            self.tally.escalation_attempt(agent);
            return Some(Attempt::Escalation);
        }
        if reason == Reason::TokenUsesExhausted && !found.is_retry {
            self.tally.reuse_attempt(agent);
            let speaks = |token| self.speaks_against_holder(token, speaker.seen_by());
            return found.token.as_ref().is_some_and(speaks).then_some(Attempt::Reuse);
        }
        None
    }

    fn note_answer(&self, question: Question<'_>, found: &Findings<'_>, decision: &Decision) {
        let reason = decision.outcome.as_ref().map_or_else(Denial::reason, |()| Reason::Allowed);
        self.tally.decided(Verb::Authorize, reason, self.clock.now().since(question.now));
        if let (Some(speaker), Some(token), true) = (&found.speaker, &found.token, is_use(question, decision)) {
            self.note_answered(question.policy(), token, 1, speaker.seen_by(), question.now);
        }
        if let (Some(speaker), Some(_)) = (&found.speaker, decision.token) {
            let hops = decision.chain.len().saturating_sub(1);
            self.tally.chain_asked(speaker.agent.as_str(), hops, question.now);
        }
    }
}

/// Whether the answer is worth the use that it cost.
fn is_use(question: Question<'_>, decision: &Decision) -> bool {
    decision.outcome.is_ok() && !question.request.dry_run
}

/// The conditions of the policy, over all that is known of the request.
fn meets_conditions(question: Question<'_>, found: &Findings<'_>, wanted: Option<Use<'_>>) -> Result<(), Denial> {
    let policy = question.policy();
    let agent = found.speaker.as_ref().map_or(question.asker(), |speaker| speaker.agent.as_str());
    let alone = [Cow::Borrowed(agent)];
    let token = found.token.as_ref().map(VerifiedToken::claims);
    let circumstances = Circumstances {
        agent,
        wanted,
        chain: token.map_or(&alone, |claims| &claims.chain),
        on_behalf_of: token.and_then(|claims| claims.on_behalf_of.as_deref()).unwrap_or_default(),
        claims: found.speaker.as_ref().and_then(Speaker::claims),
        subject_properties: policy.entities.properties_of(Kind::Subject, agent),
        resource_properties: wanted
            .and_then(|wanted| policy.entities.properties_of(Kind::Resource, wanted.resource.as_str())),
        given: question.request.given,
        now: question.now,
    };
    decision::decide_conditions(policy, &circumstances)
}

fn canonical<'a>(capability: &'a str, resource: &'a str) -> Result<Use<'a>, Denial> {
    let resource = Resource::parse(resource).map_err(|invalid| not_canonical("the resource", invalid))?;
    Ok(Use { capability, resource })
}

fn between<'a>(from: &'a str, to: &'a str, call: AgentCall<'a>) -> Result<Call<'a>, Denial> {
    let path = match call.path {
        "/" => None,
        path => Some(Resource::parse(path).map_err(|invalid| not_canonical("the path", invalid))?),
    };
    Ok(Call { from, to, method: call.method, path })
}

fn not_canonical(what: &str, invalid: InvalidResource) -> Denial {
    Denial::new(Reason::ResourceNotCanonical, format!("{what} is not in its canonical form: {invalid}"))
}

fn chain(question: Question<'_>, found: &Findings<'_>) -> Vec<Arc<str>> {
    match (&found.token, &found.speaker) {
        (Some(token), _) => token.claims().chain.iter().map(|name| shared_name(question.policy(), name)).collect(),
        (None, Some(speaker)) if question.request.token.is_none() => vec![speaker.agent.shared()],
        (None, _) => Vec::new(),
    }
}

fn shown(token: &VerifiedToken<'_>, left: Option<u32>) -> TokenShown {
    TokenShown { id: token.id(), expires_at: Timestamp::from_seconds(token.claims().expires_at), left }
}

fn event(decision: &Decision, question: Question<'_>, found: &Findings<'_>) -> Event {
    let Question { caller, request, now, .. } = question;
    let policy = question.policy();
    let kind = MessageType::CapabilityRequest;
    let mut event = super::event::event(kind, &decision.outcome, decision.id, policy, caller, now);
    let named = || request.agent.map(|name| shared_name(policy, name));
    if let Some(evidence) = found.speaker.as_ref().and_then(Speaker::evidence) {
        event.identity_method = Some(evidence.method);
        event.issuer = Arc::clone(&evidence.issuer);
        event.is_self_asserted = evidence.is_self_asserted();
    }
    event.from_agent = decision.agent.as_ref().map(|agent| agent.agent.shared()).or_else(named).unwrap_or_default();
    event.to_agent = match request.destination {
        Some(name) if request.action.call().is_some() => shared_name(policy, name),
        _ => caller.agent().shared(),
    };
    event.chain.clone_from(&decision.chain);
    if let Some((capability, resource)) = request.action.wanted() {
        event.capabilities = vec![Brief::copied(capability)];
        event.resource = Long::copied(resource);
    }
    if let Some(call) = request.action.call() {
        event.http_method = Brief::copied(call.method);
        event.http_path = Long::copied(call.path);
    }
    event.token_id = decision.token.map(|token| token.id);
    event.remaining_uses = decision.token.and_then(|token| token.left);
    event.request_id = Brief::copied(request.request_id);
    event.dry_run = request.dry_run;
    event.trace = question.beginning.trace();
    if let Some(claims) = found.token.as_ref().map(VerifiedToken::claims) {
        event.task = Brief::copied(claims.task.as_deref().unwrap_or_default());
        event.obo = Brief::copied(claims.on_behalf_of.as_deref().unwrap_or_default());
    }
    event
}
