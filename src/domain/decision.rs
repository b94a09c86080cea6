//! May it? The pure part of Authorize.

use std::borrow::Cow;

use super::capability::Use;
use super::chain::{Asked, stands};
use super::condition::{Circumstances, Condition, Evaluation, Unmet};
use super::policy::{Call, Policy};
use super::reason::{Denial, Reason};
use super::resource::Resource;
use super::token::Claims;

/// Where the decision is asked for, as a token's audience sees it.
#[derive(Clone, Copy, Debug)]
pub struct AskedAt<'a> {
    /// The agent that asks.
    pub caller: &'a str,
    /// The agent that is guarded or called: the caller, or one for which it may speak.
    pub destination: &'a str,
}

/// Whether this token, in this agent's hands, at this place, allows this, under this policy.
/// What only the ledger knows (whether uses are left, whether it was revoked) is not asked here.
///
/// # Errors
/// The first check that fails, in this order: `TOKEN_WRONG_HOLDER`, `TOKEN_WRONG_AUDIENCE`, `CAPABILITY_NOT_GRANTED` or
/// `RESOURCE_NOT_GRANTED` where the token itself lacks it, then those of [`stands`] over the whole chain.
pub fn decide(
    policy: &Policy,
    is_quarantined: impl Fn(&str) -> bool,
    agent: &str,
    claims: &Claims<'_>,
    wanted: Use<'_>,
    place: AskedAt<'_>,
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
/// As [`decide`], less what is said of capability and resource.
pub fn decide_shown(
    policy: &Policy,
    is_quarantined: impl Fn(&str) -> bool,
    agent: &str,
    claims: &Claims<'_>,
    place: AskedAt<'_>,
) -> Result<(), Denial> {
    holds(agent, claims, place.caller)?;
    meant_for(claims, place)?;
    stands(policy, is_quarantined, claims, Asked { capabilities: &[], resources: &[] })
}

/// Whether the agent has this authority of its own: one grant has both, and so has its own set, where it has a rule.
///
/// # Errors
/// `TOKEN_REQUIRED` if it has no grants at all, else `CAPABILITY_NOT_GRANTED` or `RESOURCE_NOT_GRANTED`.
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

/// Whether the one agent may call the other, where policy has rules about it: without `communication_rules` every call is
/// let pass here.
///
/// # Errors
/// `COMMUNICATION_NOT_ALLOWED`: no rule covers the call.
pub fn decide_call(policy: &Policy, call: &Call<'_>) -> Result<(), Denial> {
    if policy.may_call(call) == Some(false) {
        return Err(no_rule(call));
    }
    Ok(())
}

/// Whether the one agent may call the other, by the rules alone: without rules nothing is allowed.
///
/// # Errors
/// `COMMUNICATION_NOT_ALLOWED`: no rule covers the call, or there are none.
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

/// Whether the conditions of the policy hold: a grant of the chain's root that covers this, and every one of
/// `conditions` that matches. Nothing is made of the circumstances where none is asked.
///
/// # Errors
/// `CONDITION_NOT_MET`: names the first that is not met, and no value of the request. One that can't be evaluated is not met.
pub fn decide_conditions(policy: &Policy, circumstances: &Circumstances<'_>) -> Result<(), Denial> {
    if !policy.has_when && policy.conditions.is_empty() {
        return Ok(());
    }
    let mut evaluation = None;
    let mut holds = |condition: &Condition| {
        let evaluation = evaluation.get_or_insert_with(|| Evaluation::new(circumstances));
        evaluation.holds(condition).map_err(|unmet| not_met(condition, unmet))
    };
    root_grant_holds(policy, circumstances, &mut holds)?;
    let matching = policy.conditions.iter().filter(|requirement| requirement.matches(circumstances.wanted));
    for requirement in matching {
        holds(&requirement.require)?;
    }
    Ok(())
}

/// One grant that covers this is enough, if what it asks for holds.
fn root_grant_holds(
    policy: &Policy,
    circumstances: &Circumstances<'_>,
    mut holds: impl FnMut(&Condition) -> Result<(), Denial>,
) -> Result<(), Denial> {
    let (Some(wanted), Some(root), true) = (circumstances.wanted, circumstances.chain.first(), policy.has_when) else {
        return Ok(());
    };
    let only = wanted.resource.only();
    let grants = policy.agent(root).map(|entry| entry.grants.as_slice()).unwrap_or_default();
    let covering = grants.iter().filter(|grant| grant.covers(wanted.capability, &only));
    let mut first_unmet = None;
    for grant in covering {
        let Some(when) = &grant.when else { return Ok(()) };
        match holds(when) {
            Ok(()) => return Ok(()),
            Err(unmet) => first_unmet = first_unmet.or(Some(unmet.at_hop(root))),
        }
    }
    // Whether there is a grant at all was asked before.
    first_unmet.map_or(Ok(()), Err)
}

fn not_met(condition: &Condition, unmet: Unmet) -> Denial {
    let message = format!("{} {}: {}", condition.place, unmet.describe(), condition.expression.shown());
    Denial::new(Reason::ConditionNotMet, message)
}

/// Whether the agent is the token's holder.
///
/// # Errors
/// `TOKEN_WRONG_HOLDER`: names the holder and what to do, for an agent and for a service that guards something.
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

fn meant_for(claims: &Claims<'_>, place: AskedAt<'_>) -> Result<(), Denial> {
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
