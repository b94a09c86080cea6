//! May it? The pure part of Authorize.

use std::borrow::Cow;

use super::chain::{Asked, stands};
use super::policy::{Call, Policy};
use super::reason::{Denial, Reason};
use super::resource::Resource;
use super::token::Claims;

/// What an agent wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// The name of the action.
    pub capability: &'a str,
    /// What it is done to.
    pub resource: Resource<'a>,
}

/// Where the decision is asked for, as a token's audience sees it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The agent that asks.
    pub caller: &'a str,
    /// The agent that is guarded or called: the caller, or one for which it may speak.
    pub destination: &'a str,
}

/// Whether this token, in this agent's hands, at this place, allows this, under this policy.
/// What only the ledger knows (whether uses are left, whether it was revoked) is not asked here.
///
/// # Errors
/// The first check that fails.
pub fn decide(
    policy: &Policy,
    is_quarantined: impl Fn(&str) -> bool,
    agent: &str,
    claims: &Claims<'_>,
    wanted: Use<'_>,
    place: Place<'_>,
) -> Result<(), Denial> {
    holds(agent, claims, place.caller)?;
    meant_for(claims, place)?;
    says(claims, wanted)?;
    let capability = Cow::Borrowed(wanted.capability);
    let resource = wanted.resource.only();
    let asked = Asked { capabilities: std::slice::from_ref(&capability), resources: std::slice::from_ref(&resource) };
    stands(policy, is_quarantined, claims, asked)
}

/// Whether this token, in this agent's hands, at this place, is good for a call that needs no capability.
///
/// # Errors
/// The first check that fails.
pub fn decide_shown(
    policy: &Policy,
    is_quarantined: impl Fn(&str) -> bool,
    agent: &str,
    claims: &Claims<'_>,
    place: Place<'_>,
) -> Result<(), Denial> {
    holds(agent, claims, place.caller)?;
    meant_for(claims, place)?;
    stands(policy, is_quarantined, claims, Asked { capabilities: &[], resources: &[] })
}

/// Whether the agent has this authority of its own.
///
/// # Errors
/// Says what is missing.
pub fn decide_own(policy: &Policy, agent: &str, wanted: Use<'_>) -> Result<(), Denial> {
    let entry = policy.agent(agent).filter(|entry| !entry.grants.is_empty());
    let Some(entry) = entry else {
        let message = format!("{agent} has no authority of its own: present a token, or give it an entry in grants");
        return Err(Denial::new(Reason::TokenRequired, message));
    };
    let only = wanted.resource.only();
    let own = entry.is_granted(wanted.capability, &only).and_then(|()| entry.may_hold(wanted.capability, &only));
    own.map_err(|beyond| {
        let message = format!("no grant of {agent} has {} on {}", wanted.capability, wanted.resource.as_str());
        Denial::new(beyond.reason(), message).at_hop(agent)
    })
}

/// Whether the one agent may call the other, where policy has rules about it.
///
/// # Errors
/// Says that no rule covers the call.
pub fn decide_call(policy: &Policy, call: &Call<'_>) -> Result<(), Denial> {
    if policy.may_call(call) == Some(false) {
        return Err(no_rule(call));
    }
    Ok(())
}

/// Whether the one agent may call the other, by the rules alone: without rules nothing is allowed.
///
/// # Errors
/// Says that no rule covers the call.
pub fn decide_call_alone(policy: &Policy, call: &Call<'_>) -> Result<(), Denial> {
    match policy.may_call(call) {
        Some(true) => Ok(()),
        Some(false) => Err(no_rule(call)),
        None => Err(Denial::new(
            Reason::CommunicationNotAllowed,
            "a call without capability and resource is decided by communication_rules, and policy has none",
        )),
    }
}

/// Whether the agent is the token's holder.
///
/// # Errors
/// Names the holder and what to do, for an agent and for a service that guards something.
pub fn holds(agent: &str, claims: &Claims<'_>, caller: &str) -> Result<(), Denial> {
    if claims.holder == agent {
        return Ok(());
    }
    let holder = &claims.holder;
    let message = if agent == caller {
        format!(
            "the token's holder is {holder} and you are {agent}; to decide for agents you authenticated, be listed in enforcement_points and send agent"
        )
    } else {
        format!("the token's holder is {holder} and the agent is {agent}: a token is good only in its holder's hands")
    };
    Err(Denial::new(Reason::TokenWrongHolder, message))
}

/// Whether the holder of a token asked for more than the token has: a sign of a compromised agent.
#[must_use]
pub fn is_escalation(agent: &str, claims: &Claims<'_>, wanted: Use<'_>) -> bool {
    claims.holder == agent && says(claims, wanted).is_err()
}

fn meant_for(claims: &Claims<'_>, place: Place<'_>) -> Result<(), Denial> {
    let named = |name: &str| claims.audience.iter().any(|place| place == name);
    if claims.audience.is_empty() || named(place.caller) || named(place.destination) {
        return Ok(());
    }
    let message = format!("the token is for use at {} and this is {}", claims.audience.join(", "), place.destination);
    Err(Denial::new(Reason::TokenWrongAudience, message))
}

fn says(claims: &Claims<'_>, wanted: Use<'_>) -> Result<(), Denial> {
    if !claims.capabilities.iter().any(|capability| capability == wanted.capability) {
        let message =
            format!("the token does not have {}: it has {}", wanted.capability, claims.capabilities.join(", "));
        return Err(Denial::new(Reason::CapabilityNotGranted, message));
    }
    if !claims.resources.iter().any(|pattern| pattern.covers(wanted.resource)) {
        let message = format!("the token does not cover {}", wanted.resource.as_str());
        return Err(Denial::new(Reason::ResourceNotGranted, message));
    }
    Ok(())
}

fn no_rule(call: &Call<'_>) -> Denial {
    let path = call.path.map_or("/", Resource::as_str);
    let message = format!("no communication rule lets {} call {} with {} {path}", call.from, call.to, call.method);
    Denial::new(Reason::CommunicationNotAllowed, message)
}
