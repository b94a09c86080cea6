//! Search: which agents, resources or actions would be allowed now?
//!
//! Each is asked as a dry run would be. Nothing is spent and no attempt is counted; the search as a whole takes one of
//! the caller's own rate, and is recorded, and not each thing that it looked at. Only one that finds something has the
//! share of answers: one that finds nothing, or is refused, costs as little to ask as a denial, and is held together with
//! its like.

use super::authorize::{Action, AuthorizeRequest};
use super::batch::give_way;
use super::event::{self, outcome_of};
use super::guarantees::{rate_limited, unrecordable};
use super::speaker::Speaker;
use super::{Beginning, Engine};
use crate::domain::agent::AgentName;
use crate::domain::caller::Caller;
use crate::domain::limits;
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::events::{Brief, DecisionId, Event, Long, MessageType, Outcome};

/// What is looked for; the question's own agent, resource or capability is then left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sought<'a> {
    /// Agents of a type.
    Subjects(&'a str),
    /// Resources of a type.
    Resources(&'a str),
    /// Actions.
    Actions,
}

/// A search for one page.
#[derive(Clone, Copy)]
pub struct SearchRequest<'a> {
    /// What is looked for.
    pub sought: Sought<'a>,
    /// What is asked of each. It is a dry run whatever it says.
    pub question: AuthorizeRequest<'a>,
    /// The place in the policy's list to begin at; 0 is the first.
    pub from: usize,
    /// Results at most.
    pub most: usize,
}

/// A page.
#[derive(Clone, Debug)]
pub struct Found {
    /// Agents, whole resources or capabilities that would be allowed.
    pub names: Vec<String>,
    /// Where the next page begins; none if this is the last.
    pub next: Option<usize>,
}

/// The answer to a search.
#[derive(Clone, Debug)]
pub struct Searched {
    /// A page, or why there is none.
    pub outcome: Result<Found, Denial>,
    /// Names this search.
    pub id: DecisionId,
}

impl Engine {
    /// One page of what would be allowed, at most [`limits::SEARCH_CANDIDATES`] looked at, and as many as there is time
    /// for.
    pub async fn search(&self, beginning: &Beginning, caller: &Caller, request: &SearchRequest<'_>) -> Searched {
        let (id, policy) = (self.events.decision_id(), &beginning.in_force.policy);
        let looked = match self.may_search(policy, caller, &request.question) {
            Ok(()) => self.look(beginning, caller, request).await,
            Err(denial) => Err(denial),
        };
        let (outcome, place) = match looked {
            Ok(found) if !found.names.is_empty() => match self.events.reserve().await {
                Ok(place) => (Ok(found), Some(place)),
                Err(why) => (Err(unrecordable(why)), None),
            },
            nothing => (nothing, None),
        };
        let kind = MessageType::CapabilityRequest;
        let event = event::event(kind, &outcome, id, policy, caller, self.clock.now());
        let mut event = described(event, policy, request, outcome.as_ref().map_or(0, |found| found.names.len()));
        event.trace = beginning.trace();
        let recorded = if let Some(place) = place {
            self.recorded(place.commit(event), request.question.deadline).await
        } else {
            self.events.deny(event);
            Ok(())
        };
        Searched { outcome: recorded.and(outcome), id }
    }

    /// Whether the caller may ask at all, of the agent that it names, now. What is asked of each is not asked here.
    fn may_search(&self, policy: &Policy, caller: &Caller, question: &AuthorizeRequest<'_>) -> Result<(), Denial> {
        let (asker, now) = (caller.agent().as_str(), self.clock.now());
        if question.agent.is_some() {
            let speaker = Speaker::of(policy, caller, question.agent, question.agent_evidence)?;
            self.in_good_standing(policy, speaker.agent.as_str(), now)?;
        }
        Speaker::destination(policy, caller, question.destination)?;
        self.in_good_standing(policy, asker, now)?;
        let Some(limit) = policy.authorize_rate else { return Ok(()) };
        self.authorize_rate.take(asker, asker, limit, now).map_err(rate_limited)
    }

    async fn look(&self, beginning: &Beginning, caller: &Caller, request: &SearchRequest<'_>) -> Result<Found, Denial> {
        let SearchRequest { sought, from, most, .. } = *request;
        let names = candidates(&beginning.in_force.policy, sought);
        let end = from.saturating_add(limits::SEARCH_CANDIDATES).min(names.len());
        let mut found = Vec::new();
        for at in from..end {
            if found.len() >= most {
                return Ok(Found { names: found, next: Some(at) });
            }
            match self.in_time(request.question.deadline) {
                Ok(()) => {}
                // What was looked at in time is a page.
                Err(_) if at > from => return Ok(Found { names: found, next: Some(at) }),
                Err(late) => return Err(late),
            }
            let Some(name) = names.get(at) else { break };
            let question = AuthorizeRequest { dry_run: true, ..about(request, name) };
            match self.would_allow(beginning, caller, &question).await {
                Ok(()) => found.push(name.to_owned()),
                Err(denial) if denial.reason() == Reason::DeadlineExceeded && at > from => {
                    return Ok(Found { names: found, next: Some(at) });
                }
                Err(denial) if outcome_of(denial.reason()) == Outcome::Error => return Err(denial),
                Err(_) => {}
            }
            give_way(at).await;
        }
        Ok(Found { names: found, next: (end < names.len()).then_some(end) })
    }
}

/// The names that a search goes through.
enum Candidates<'p> {
    Agents(&'p [AgentName]),
    Resources(&'p [Box<str>]),
    Actions(&'p [crate::domain::capability::Capability]),
}

fn candidates<'p>(policy: &'p Policy, sought: Sought<'_>) -> Candidates<'p> {
    match sought {
        Sought::Subjects(type_name) => Candidates::Agents(policy.entities.subjects(type_name)),
        Sought::Resources(type_name) => Candidates::Resources(policy.entities.resources(type_name)),
        Sought::Actions => Candidates::Actions(policy.entities.actions()),
    }
}

impl<'p> Candidates<'p> {
    fn len(&self) -> usize {
        match self {
            Self::Agents(names) => names.len(),
            Self::Resources(names) => names.len(),
            Self::Actions(names) => names.len(),
        }
    }

    fn get(&self, at: usize) -> Option<&'p str> {
        match self {
            Self::Agents(names) => names.get(at).map(AgentName::as_str),
            Self::Resources(names) => names.get(at).map(AsRef::as_ref),
            Self::Actions(names) => names.get(at).map(crate::domain::capability::Capability::as_str),
        }
    }
}

/// The question about one of them.
fn about<'a>(request: &SearchRequest<'a>, name: &'a str) -> AuthorizeRequest<'a> {
    let question = request.question;
    match (request.sought, question.action) {
        (Sought::Subjects(_), _) => AuthorizeRequest { agent: Some(name), ..question },
        (Sought::Resources(_), action) => {
            let capability = action.wanted().map_or("", |(capability, _)| capability);
            AuthorizeRequest { action: Action::Use(capability, name), ..question }
        }
        (Sought::Actions, action) => {
            let resource = action.wanted().map_or("", |(_, resource)| resource);
            AuthorizeRequest { action: Action::Use(name, resource), ..question }
        }
    }
}

/// The event of a search: what was given, how much was found.
fn described(mut event: Event, policy: &Policy, request: &SearchRequest<'_>, found: usize) -> Event {
    let SearchRequest { sought, question, .. } = request;
    // Names that nobody knows would each have an event of their own.
    event.from_agent = question.agent.and_then(|name| policy.name(name)).map(AgentName::shared).unwrap_or_default();
    event.to_agent = std::sync::Arc::clone(&event.caller);
    let (capability, resource) = question.action.wanted().unwrap_or_default();
    if !capability.is_empty() {
        event.capabilities = vec![Brief::copied(capability)];
    }
    event.resource = Long::copied(resource);
    event.request_id = Brief::copied(question.request_id);
    event.dry_run = true;
    if event.reason == Reason::Allowed {
        let of = match sought {
            Sought::Subjects(type_name) => format!("subjects of type {type_name}"),
            Sought::Resources(type_name) => format!("resources of type {type_name}"),
            Sought::Actions => "actions".to_owned(),
        };
        event.message = Long::copied(&format!("search: {found} {of} found"));
    }
    event
}
