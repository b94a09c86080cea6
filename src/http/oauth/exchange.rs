//! Which delegation a token exchange is (RFC 8693): from whom, to whom, on whose behalf. Whether it may be is for
//! [`crate::engine::Engine::delegate`] to say, which asks the same `attenuate` as every other door.
//!
//! The actor is the agent that the actor token names, and without one the client itself.
//!
//! | subject | actor | delegates | to | on behalf of |
//! |---|---|---|---|---|
//! | a Remit token | any | the client, from that token: the engine refuses it where another is its holder | the actor | as the token says |
//! | a JWT of the client's own | any | the client, starting a chain | the actor | the subject, where it is a user |
//! | a JWT of another agent | the client | that agent, starting a chain | the client | the subject, where it is a user |
//! | a JWT of another agent | somebody else | refused: the client is no party to it | | |
//! | a JWT of nobody that is an agent | any | the client, starting a chain | the actor | the subject |
//! | an ID token that was issued to the client | any | the client, starting a chain | the actor | the subject |
//! | a JWT with `act` | any | the client, if it is the current actor; else refused | the actor | the subject |
//!
//! The subject of an agent's JWT is a user where it is neither the agent nor the client (`client_id`, `azp`) that the JWT
//! names.
//!
//! An agent that would delegate to itself is refused by the engine (`DELEGATION_CYCLE`): where the client delegates,
//! an exchange without an actor token makes nothing.
//!
//! Nothing launders a chain (law L12):
//! - `may_act` in the subject has to name the actor, whether it came with a token or is the client.
//! - `act` in the subject: its outermost actor is the one who holds the token now, so that it has to be the client,
//!   which the new chain begins with. Actors before it give no authority. A capability token has no place for them, so
//!   that it isn't made from such a subject; an offline JWT keeps them, and they count as hops.
//! - `act` in the actor's token: somebody acts as the actor, and the result would not say so: refused.
//! - What is minted lives no longer than any of the tokens it was made from.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::refusal::{Error, Refusal};
use crate::domain::agent::AgentName;
use crate::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use crate::domain::chain::within_depth;
use crate::domain::policy::Policy;
use crate::domain::reason::Reason;
use crate::domain::token::is_free_text;

/// Actors in a subject's `act` that are read at all: one more than a chain may have.
const ACTORS: usize = 17;

/// What was shown, verified.
pub(super) struct Shown<'a> {
    pub(super) client: &'a Caller,
    pub(super) subject: Subject<'a>,
    pub(super) actor: Option<Actor>,
    /// Only an offline JWT has room for actors of before.
    pub(super) is_offline: bool,
}

/// The subject token.
pub(super) enum Subject<'a> {
    /// A capability token's text. The engine opens it.
    Capability(&'a str),
    /// What a JWT says.
    Jwt(SubjectJwt),
}

/// What an issuer says of the subject.
pub(super) struct SubjectJwt {
    pub(super) issuer: Arc<str>,
    pub(super) subject: Arc<str>,
    /// The agent that it is evidence of; none for an ID token.
    pub(super) agent: Option<Caller>,
    pub(super) act: Option<Value>,
    pub(super) may_act: Option<Value>,
    /// In seconds.
    pub(super) expires_at: u64,
    /// Its subject is neither the agent nor the client that it names: a user on whose behalf the agent has it.
    pub(super) names_user: bool,
}

/// The actor token.
pub(super) struct Actor {
    pub(super) identity: Arc<VerifiedIdentity>,
    pub(super) has_act: bool,
    /// In seconds.
    pub(super) expires_at: u64,
}

/// How names are read.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) policy: &'a Policy,
    /// Who Remit is: under this issuer a subject is an agent's name.
    pub(super) issuer: Option<&'a str>,
}

/// A delegation that the engine is asked for.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) from: Caller,
    pub(super) to: AgentName,
    pub(super) parent: Option<&'a str>,
    pub(super) on_behalf_of: Option<String>,
    /// Actors before the first agent of the chain, the last of them first.
    pub(super) earlier: Vec<Party>,
    /// When the first of the shown tokens expires, in seconds.
    pub(super) expires_by: Option<u64>,
}

/// Somebody as a JWT names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Party {
    pub(super) issuer: Box<str>,
    pub(super) subject: Box<str>,
}

/// Which delegation this is.
///
/// # Errors
/// It would be none, or would lose a part of a chain.
pub(super) fn plan<'a>(shown: Shown<'a>, names: Names<'_>) -> Result<Plan<'a>, Refusal> {
    let Shown { client, subject, actor, is_offline } = shown;
    if actor.as_ref().is_some_and(|actor| actor.has_act) {
        return Err(acted_for());
    }
    let actor_expires_at = actor.as_ref().map(|actor| actor.expires_at);
    let actor = actor.map_or_else(|| Arc::clone(client.identity()), |actor| actor.identity);
    let to = actor.agent.clone();
    match subject {
        Subject::Capability(text) => Ok(Plan {
            from: client.clone(),
            to,
            parent: Some(text),
            on_behalf_of: None,
            earlier: Vec::new(),
            expires_by: actor_expires_at,
        }),
        Subject::Jwt(jwt) => {
            may_act(&jwt, &actor, names)?;
            let expires_by = Some(actor_expires_at.map_or(jwt.expires_at, |other| other.min(jwt.expires_at)));
            let (from, on_behalf_of, earlier) = start(jwt, client, &actor, names)?;
            carried(&earlier, is_offline, names.policy)?;
            Ok(Plan { from, to, parent: None, on_behalf_of, earlier, expires_by })
        }
    }
}

type Start = (Caller, Option<String>, Vec<Party>);

/// Who starts the chain, on whose behalf, and who acted before.
fn start(jwt: SubjectJwt, client: &Caller, actor: &VerifiedIdentity, names: Names<'_>) -> Result<Start, Refusal> {
    let SubjectJwt { issuer, subject, agent, act, names_user, .. } = jwt;
    if let Some(act) = act {
        let mut actors = actors(&act, &issuer)?.into_iter();
        if !actors.next().is_some_and(|current| names.is(&current, client.identity())) {
            return Err(refused("subject_token has act: only its current actor, as the client, may exchange it"));
        }
        return Ok((client.clone(), Some(behalf(&issuer, &subject)?), actors.collect()));
    }
    match agent {
        None => Ok((client.clone(), Some(behalf(&issuer, &subject)?), Vec::new())),
        Some(agent) if agent.agent() == client.agent() || actor.agent == *client.agent() => {
            let user = names_user.then(|| behalf(&issuer, &subject)).transpose()?;
            let from = if agent.agent() == client.agent() { client.clone() } else { agent };
            Ok((from, user, Vec::new()))
        }
        Some(_) => {
            let why = "the client is neither the subject nor the actor: one of them has to ask for the exchange";
            Err(Refusal::new(Error::UnauthorizedClient, why).because(Reason::DelegationNotAllowed))
        }
    }
}

/// `may_act` names the one that may be the actor (RFC 8693 §4.4). Whether what it says beside that holds nobody here
/// can tell.
fn may_act(jwt: &SubjectJwt, actor: &VerifiedIdentity, names: Names<'_>) -> Result<(), Refusal> {
    let Some(may_act) = &jwt.may_act else { return Ok(()) };
    let only = may_act.as_object().filter(|members| members.keys().all(|name| name == "iss" || name == "sub"));
    let meant = only.and_then(|members| party(members, &jwt.issuer));
    if meant.is_some_and(|meant| names.is(&meant, actor)) {
        return Ok(());
    }
    let why = "may_act of subject_token does not name the actor by iss and sub";
    Err(refused(why).because(Reason::DelegationNotAllowed))
}

/// The actors of a subject, the current one first (RFC 8693 §4.1).
fn actors(act: &Value, issuer: &str) -> Result<Vec<Party>, Refusal> {
    let mut actors = Vec::new();
    let mut next = Some(act);
    while let Some(act) = next {
        let members = act.as_object().filter(|_| actors.len() < ACTORS);
        let members = members.ok_or_else(|| refused("act of subject_token is no object, or has too many actors"))?;
        let actor = party(members, issuer).ok_or_else(|| refused("an act of subject_token has no sub"))?;
        actors.push(actor);
        next = members.get("act");
    }
    Ok(actors)
}

/// Without `iss` a subject is one of the token's own issuer.
fn party(members: &Map<String, Value>, issuer: &str) -> Option<Party> {
    let issuer = members.get("iss").map_or(Some(issuer), Value::as_str)?;
    let subject = members.get("sub")?.as_str()?;
    Some(Party { issuer: issuer.into(), subject: subject.into() })
}

/// The user behind the chain, as a principal is written in policy.
fn behalf(issuer: &str, subject: &str) -> Result<String, Refusal> {
    let text = format!("jwt:{issuer}#{subject}");
    if is_free_text(&text) {
        return Ok(text);
    }
    Err(refused("iss and sub of subject_token together have more than 256 bytes or a control character"))
}

/// Whether the result has room for the actors of before.
fn carried(earlier: &[Party], is_offline: bool, policy: &Policy) -> Result<(), Refusal> {
    if earlier.is_empty() {
        return Ok(());
    }
    if !is_offline {
        return Err(refused(
            "subject_token has more than one actor, and a capability token has no place for those of before",
        ));
    }
    within_depth(policy, earlier.len().saturating_add(1)).map_err(|denial| (&denial).into())
}

impl Names<'_> {
    /// Whether a JWT's party is this agent: by the same evidence, or by its name under Remit's own issuer. The policy's
    /// `principals` say nothing here: they map the claim that names agents, which need not be `sub`.
    fn is(self, party: &Party, identity: &VerifiedIdentity) -> bool {
        let Party { issuer, subject } = party;
        let (issuer, subject) = (issuer.as_ref(), subject.as_ref());
        if self.issuer == Some(issuer) {
            return subject == identity.agent.as_str();
        }
        identity.method == IdentityMethod::Jwt && &*identity.issuer == issuer && &*identity.subject == subject
    }
}

impl Party {
    /// As a member of an `act` chain.
    pub(super) fn to_act(&self) -> Value {
        json!({ "iss": self.issuer.as_ref(), "sub": self.subject.as_ref() })
    }
}

/// Somebody acts as the actor.
pub(super) fn acted_for() -> Refusal {
    refused("actor_token has act: somebody acts as the actor, and what is minted would not say so")
}

fn refused(why: &'static str) -> Refusal {
    Refusal::new(Error::InvalidRequest, why)
}

#[cfg(test)]
mod tests;
