//! Authorize: may this agent use this capability on this resource, now?
//!
//! A straight line: who acts, is it in good standing, does its token allow this under the policy in force, is
//! there time to answer and room to record it, is a use left. The step that spends the use is the answer.

use std::sync::Arc;

use super::recording::Allowed;
use super::speaker::Speaker;
use super::tally::Verb;
use super::{Beginning, Engine, is_reuse_attempt, record, request_number, shared_name};
use crate::domain::caller::{Caller, VerifiedIdentity};
use crate::domain::decision::{self, Place, Use};
use crate::domain::policy::{Call, Policy, PolicyId};
use crate::domain::reason::{Denial, Reason};
use crate::domain::resource::{InvalidResource, Resource};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::events::{DecisionId, Event, MessageType};
use crate::keyring::VerifiedToken;

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizeRequest<'a> {
    /// What the agent wants to do.
    pub action: Action<'a>,
    /// The token's text.
    pub token: Option<&'a str>,
    /// The agent that acts, if the caller names one.
    pub agent: Option<&'a str>,
    /// The called or guarded agent, if the caller names one.
    pub destination: Option<&'a str>,
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
    fn wanted(self) -> Option<(&'a str, &'a str)> {
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

/// What was found out before the ledger is asked.
struct Findings<'b> {
    speaker: Option<Speaker>,
    token: Option<VerifiedToken<'b>>,
    verdict: Verdict,
}

enum Verdict {
    Denied(Denial),
    /// The ledger decides. If it doesn't refuse, this does.
    Open(Option<Denial>),
}

impl Engine {
    /// Decides, spends and records.
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
        let policy = &beginning.in_force.policy;
        let now = self.clock.now();
        let mut buffer = Vec::new();
        let Findings { speaker, token, verdict } = self.find_out(policy, caller, request, now, &mut buffer);
        let settled = match verdict {
            Verdict::Denied(denial) => Err(denial),
            Verdict::Open(later) => self.settle(caller, request, token.as_ref(), later, now).await,
        };
        let mut decision = Decision {
            outcome: Ok(()),
            id: self.events.decision_id(),
            chain: chain(policy, speaker.as_ref(), token.as_ref(), request),
            agent: speaker.as_ref().map(|speaker| speaker.identity(now)),
            token: token.as_ref().map(shown),
            policy: policy.id.clone(),
            dry_run: request.dry_run,
        };
        match settled {
            Ok(allowed) => {
                if let Some(token) = &mut decision.token {
                    token.left = allowed.left;
                }
                allowed.place.commit(event(&decision, policy, caller, request, now));
            }
            Err(denial) => {
                self.note_attempts(policy, caller, &denial, speaker.as_ref(), token.as_ref(), request);
                decision.outcome = Err(denial);
                self.events.deny(event(&decision, policy, caller, request, now));
            }
        }
        self.note_answer(&decision, speaker.as_ref(), now);
        decision
    }

    /// Everything that needs no ledger.
    fn find_out<'b>(
        &self,
        policy: &Policy,
        caller: &Caller,
        request: &AuthorizeRequest<'_>,
        now: Timestamp,
        buffer: &'b mut Vec<u8>,
    ) -> Findings<'b> {
        let mut findings = Findings { speaker: None, token: None, verdict: Verdict::Open(None) };
        findings.verdict = match self.judge(policy, caller, request, now, buffer, &mut findings) {
            Ok(later) => Verdict::Open(later),
            Err(denial) => Verdict::Denied(denial),
        };
        findings
    }

    /// The checks before the ledger; the `Ok` denial is of a check that comes after it.
    fn judge<'b>(
        &self,
        policy: &Policy,
        caller: &Caller,
        request: &AuthorizeRequest<'_>,
        now: Timestamp,
        buffer: &'b mut Vec<u8>,
        findings: &mut Findings<'b>,
    ) -> Result<Option<Denial>, Denial> {
        let speaker = findings.speaker.insert(Speaker::of(policy, caller, request.agent)?);
        let agent = speaker.agent.as_str();
        let destination = Speaker::destination(policy, caller, request.destination)?;
        self.in_good_standing(policy, agent, now)?;
        if self.is_quarantined(policy, caller.agent().as_str()) {
            return Err(crate::domain::chain::quarantined(caller.agent().as_str()));
        }
        self.take_authorize_rate(policy, caller.agent().as_str(), agent, request.dry_run, now)?;
        let wanted =
            request.action.wanted().map(|(capability, resource)| canonical(capability, resource)).transpose()?;
        let call = request.action.call().map(|call| between(agent, destination, call)).transpose()?;
        if let Some(token) = request.token {
            let token = findings.token.insert(self.keyring.load().open(token, buffer)?);
            token.claims().check_times(now, policy.token.max_ttl_seconds)?;
        }
        match (wanted, &findings.token) {
            (Some(wanted), Some(token)) => {
                let place = Place { caller: caller.agent().as_str(), destination };
                let quarantined = |name: &str| self.is_quarantined(policy, name);
                decision::decide(policy, quarantined, agent, token.claims(), wanted, place)?;
            }
            (Some(wanted), None) => decision::decide_own(policy, agent, wanted)?,
            (None, Some(token)) => {
                let place = Place { caller: caller.agent().as_str(), destination };
                let quarantined = |name: &str| self.is_quarantined(policy, name);
                decision::decide_shown(policy, quarantined, agent, token.claims(), place)?;
            }
            (None, None) => {}
        }
        Ok(match (wanted, call) {
            (Some(_), Some(call)) => decision::decide_call(policy, &call).err(),
            (None, Some(call)) => decision::decide_call_alone(policy, &call).err(),
            (_, None) => None,
        })
    }

    /// The ledger, the deadline, the audit queue, the use. A refusal of the ledger comes before one of the others;
    /// it is asked once where nothing else refuses.
    async fn settle(
        &self,
        caller: &Caller,
        request: &AuthorizeRequest<'_>,
        token: Option<&VerifiedToken<'_>>,
        later: Option<Denial>,
        now: Timestamp,
    ) -> Result<Allowed<'_>, Denial> {
        let ready = match later {
            Some(denial) => Err(denial),
            None => self.ready_to_record(request.deadline, now).await,
        };
        let Some(token) = token else {
            return ready.map(|place| Allowed { place, left: None });
        };
        let ledger = self.state.ledger();
        let record = record(token);
        if request.dry_run || ready.is_err() {
            let left = ledger.check(&record).map_err(|refused| refused.denial())?;
            let place = ready?;
            if left == 0 {
                return Err(crate::state::Refused::Exhausted { is_retry: true }.denial());
            }
            return Ok(Allowed { place, left: Some(left) });
        }
        let place = ready?;
        let number = request_number(caller.agent().as_str(), request.request_id);
        let spent = ledger.spend(&record, &token.claims().capabilities, number, now);
        spent.map(|left| Allowed { place, left: Some(left) }).map_err(|refused| {
            if is_reuse_attempt(&refused) {
                self.tally.reuse_attempt(&token.claims().holder);
            }
            refused.denial()
        })
    }

    fn take_authorize_rate(
        &self,
        policy: &Policy,
        caller: &str,
        agent: &str,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let Some(limit) = policy.authorize_rate.filter(|_| !dry_run) else { return Ok(()) };
        self.authorize_rate.take(caller, agent, limit, now).map_err(super::recording::rate_limited)
    }

    fn note_attempts(
        &self,
        policy: &Policy,
        caller: &Caller,
        denial: &Denial,
        speaker: Option<&Speaker>,
        token: Option<&VerifiedToken<'_>>,
        request: &AuthorizeRequest<'_>,
    ) {
        let (Some(speaker), false) = (speaker, request.dry_run) else { return };
        let agent = speaker.agent.as_str();
        let reason = denial.reason();
        if reason == Reason::TokenWrongHolder {
            self.tally.wrong_holder(agent);
        }
        if reason == Reason::CommunicationNotAllowed {
            let destination = request.destination.unwrap_or(caller.agent().as_str());
            self.tally.unauthorized_communication(policy, agent, destination);
        }
        let beyond = matches!(reason, Reason::CapabilityNotGranted | Reason::ResourceNotGranted);
        if let (true, Some(token), Some((capability, resource))) = (beyond, token, request.action.wanted())
            && let Ok(wanted) = canonical(capability, resource)
            && decision::is_escalation(agent, token.claims(), wanted)
        {
            self.tally.escalation_attempt(agent);
        }
    }

    fn note_answer(&self, decision: &Decision, speaker: Option<&Speaker>, began: Timestamp) {
        let reason = decision.outcome.as_ref().map_or_else(Denial::reason, |()| Reason::Allowed);
        self.tally.decided(Verb::Authorize, reason, self.clock.now().since(began));
        if let (Some(speaker), Some(_)) = (speaker, decision.token) {
            let hops = decision.chain.len().saturating_sub(1);
            self.tally.chain_asked(speaker.agent.as_str(), hops, began);
        }
    }
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

fn chain(
    policy: &Policy,
    speaker: Option<&Speaker>,
    token: Option<&VerifiedToken<'_>>,
    request: &AuthorizeRequest<'_>,
) -> Vec<Arc<str>> {
    match (token, speaker) {
        (Some(token), _) => token.claims().chain.iter().map(|name| shared_name(policy, name)).collect(),
        (None, Some(speaker)) if request.token.is_none() => vec![speaker.agent.shared()],
        (None, _) => Vec::new(),
    }
}

fn shown(token: &VerifiedToken<'_>) -> TokenShown {
    TokenShown { id: token.id(), expires_at: Timestamp::from_seconds(token.claims().expires_at), left: None }
}

fn event(
    decision: &Decision,
    policy: &Policy,
    caller: &Caller,
    request: &AuthorizeRequest<'_>,
    now: Timestamp,
) -> Event {
    let mut event =
        super::recording::event(MessageType::CapabilityRequest, &decision.outcome, decision.id, policy, caller, now);
    let named = || request.agent.map(|name| shared_name(policy, name));
    event.from_agent = decision.agent.as_ref().map(|agent| agent.agent.shared()).or_else(named).unwrap_or_default();
    event.to_agent = match request.destination {
        Some(name) if request.action.call().is_some() => shared_name(policy, name),
        _ => caller.agent().shared(),
    };
    event.chain.clone_from(&decision.chain);
    if let Some((capability, resource)) = request.action.wanted() {
        event.capabilities = vec![crate::events::Brief::copied(capability)];
        event.resource = crate::events::Long::copied(resource);
    }
    if let Some(call) = request.action.call() {
        event.http_method = crate::events::Brief::copied(call.method);
        event.http_path = crate::events::Long::copied(call.path);
    }
    event.token_id = decision.token.map(|token| token.id);
    event.remaining_uses = decision.token.and_then(|token| token.left);
    event.request_id = crate::events::Brief::copied(request.request_id);
    event.dry_run = request.dry_run;
    event
}
