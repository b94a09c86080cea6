//! A chain of agents, and the only place where "a child is never wider than its parent" is written.

use std::borrow::Cow;

use super::limits;
use super::policy::{AgentPolicy, Beyond, Call, Formerly, OwnSet, Policy};
use super::reason::{Denial, Reason};
use super::resource::{Pattern, Resource};
use super::time::Timestamp;
use super::token::{Claims, TokenId};

/// Capabilities and resources that are asked for, each with each.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// None for a call that needs no capability.
    pub capabilities: &'a [Cow<'a, str>],
    /// None for a call that needs no capability.
    pub resources: &'a [Pattern<'a>],
}

/// A wish for a token. Absent wishes take the policy's or the parent's value.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The target: who is to hold the token.
    pub to: &'a str,
    /// At least one.
    pub capabilities: Vec<Cow<'a, str>>,
    /// At least one.
    pub resources: Vec<Pattern<'a>>,
    /// At least 1.
    pub max_uses: Option<u32>,
    /// At least 1.
    pub ttl_seconds: Option<u64>,
    /// At least 1.
    pub max_depth: Option<u8>,
    /// May the holder delegate from it?
    pub delegatable: bool,
    /// Where it may be used; empty takes the parent's.
    pub audience: Vec<Cow<'a, str>>,
    /// The caller's correlation id; none takes the parent's.
    pub task: Option<Cow<'a, str>>,
    /// The user behind a chain that begins here, by verified evidence; below the root it is the parent's.
    pub on_behalf_of: Option<Cow<'a, str>>,
}

impl Wish<'_> {
    /// What is asked for.
    #[must_use]
    pub fn asked(&self) -> Asked<'_> {
        Asked { capabilities: &self.capabilities, resources: &self.resources }
    }
}

/// The token that is delegated from.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Its id; for a foreign token the one derived from its seal.
    pub id: TokenId,
    /// What it says.
    pub claims: &'a Claims<'a>,
}

/// Whether every agent of the token's chain may, under this policy, take part in what is asked.
/// From the root; the first agent that fails is named. Linear in the length of the chain.
///
/// # Errors
/// The first check that fails, at its hop: `DELEGATION_NOT_ALLOWED` (the root may not start a chain, or an agent may not
/// delegate to the next), `CAPABILITY_NOT_GRANTED` or `RESOURCE_NOT_GRANTED` (beyond the agent's own set),
/// `DELEGATION_DEPTH_EXCEEDED`, `AGENT_QUARANTINED`; for a token of another issuer `USES_NOT_ALLOWED`.
pub fn stands(
    policy: &Policy,
    is_quarantined: impl Fn(&str) -> bool,
    claims: &Claims<'_>,
    asked: Asked<'_>,
) -> Result<(), Denial> {
    let mut before: Option<&str> = None;
    for (hops, agent) in claims.chain.iter().enumerate() {
        let agent = agent.as_ref();
        let check = || {
            match before {
                None => may_start(policy, agent, asked)?,
                Some(before) => may_delegate(policy, before, agent)?,
            }
            owns(policy.agent(agent), agent, asked)?;
            within_depth(policy, hops)?;
            not_quarantined(&is_quarantined, agent)
        };
        check().map_err(|denial| denial.at_hop(agent))?;
        before = Some(agent);
    }
    if claims.is_foreign() && claims.max_uses > 1 && !policy.is_trusted_pair(&claims.issuer, &claims.holder) {
        let message = format!(
            "a token of another issuer with {} uses is only for a trusted pair: list {} in {}'s trusted_pairs",
            claims.max_uses, claims.holder, claims.issuer
        );
        return Err(Denial::new(Reason::UsesNotAllowed, message).at_hop(&claims.holder));
    }
    Ok(())
}

/// What is minted, if anything may be: a child that is in nothing wider than its parent, or the root of a new chain.
/// [`stands`] has been asked for the parent before.
///
/// # Errors
/// The first wish that can't be granted; a wish above a limit is refused, never trimmed. Beyond the parent it is
/// `DELEGATION_WIDENS`, beyond the caller's or the target's own set `CAPABILITY_NOT_GRANTED` or `RESOURCE_NOT_GRANTED`; uses
/// and lifetime have `USES_NOT_ALLOWED` and `LIFETIME_NOT_ALLOWED`, the target `DELEGATION_CYCLE`, `DELEGATION_NOT_ALLOWED`,
/// `AGENT_QUARANTINED` and `COMMUNICATION_NOT_ALLOWED`, the chain `DELEGATION_DEPTH_EXCEEDED`, and a parent that is for use
/// only `TOKEN_NOT_DELEGATABLE`.
pub fn attenuate<'a>(
    policy: &Policy,
    is_quarantined: impl Fn(&str) -> bool,
    caller: &'a str,
    parent: Option<Parent<'a>>,
    wish: &'a Wish<'a>,
    now: Timestamp,
    id: TokenId,
) -> Result<Claims<'a>, Denial> {
    wishes_something(wish)?;
    if let Some(parent) = parent {
        may_hand_on(policy, parent.claims)?;
        within_parent(parent.claims, wish)?;
    } else {
        let start = may_start(policy, caller, wish.asked());
        start
            .and_then(|()| owns(policy.agent(caller), caller, wish.asked()))
            .map_err(|denial| denial.at_hop(caller))?;
    }
    let max_depth = max_depth(policy, parent.map(|parent| parent.claims), wish)?;
    let ttl = lifetime(policy, parent.map(|parent| parent.claims), wish, now)?;
    let to_target = || {
        no_cycle(caller, parent.map(|parent| parent.claims), wish.to)?;
        may_delegate(policy, caller, wish.to)?;
        not_quarantined(&is_quarantined, wish.to)?;
        owns(policy.agent(wish.to), wish.to, wish.asked())
    };
    to_target().map_err(|denial| denial.at_hop(wish.to))?;
    may_reach(policy, caller, wish.to)?;
    let max_uses = uses(policy, caller, parent.map(|parent| parent.claims), wish)?;
    let mut claims = Claims {
        issuer: Cow::Borrowed(caller),
        holder: Cow::Borrowed(wish.to),
        capabilities: wish.capabilities.clone(),
        resources: wish.resources.clone(),
        max_uses,
        issued_at: now.seconds(),
        expires_at: now.seconds().saturating_add(ttl),
        delegatable: wish.delegatable,
        id: Some(id),
        key_id: None,
        chain: vec![Cow::Borrowed(caller)],
        ancestors: Vec::new(),
        max_depth: Some(max_depth),
        audience: wish.audience.clone(),
        on_behalf_of: wish.on_behalf_of.clone(),
        task: wish.task.clone(),
    };
    if let Some(parent) = parent {
        inherit(&mut claims, parent);
    }
    claims.chain.push(Cow::Borrowed(wish.to));
    Ok(claims)
}

/// Whether a refused wish asked for more than the asker had: more than the parent, than the caller's own set,
/// or than the depth. It is a sign of a compromised agent, whichever check refused it.
///
/// What policy allowed before and no longer does is no such sign. `formerly` is what earlier policies let the caller
/// have. And a token of ours was within the policy when it was minted: what lies within the token was allowed.
#[must_use]
pub fn is_escalation(
    policy: &Policy,
    formerly: &Formerly,
    caller: &str,
    parent: Option<&Claims<'_>>,
    wish: &Wish<'_>,
) -> bool {
    let hops = parent.map_or(0, Claims::depth).saturating_add(1);
    if let Some(parent) = parent {
        if exceeds(parent, wish) {
            return true;
        }
        if !parent.is_foreign() {
            return false;
        }
    }
    let asked = wish.asked();
    let had = |own: &OwnSet| {
        let capability = |wanted: &Cow<'_, str>| own.capabilities.contains(wanted.as_ref());
        let resource = |wanted: &Pattern<'_>| own.resources.iter().any(|pattern| pattern.contains(wanted));
        asked.capabilities.iter().all(capability) && asked.resources.iter().all(resource)
    };
    let beyond_own = owns(policy.agent(caller), caller, asked).is_err() && !formerly.own_sets.iter().any(had);
    let deepest = policy.max_delegation_depth.max(formerly.max_depth);
    beyond_own || (parent.is_some() && hops > usize::from(deepest))
}

/// Whether the wish is for more than this parent itself has, or deeper than it says: no policy ever allowed that.
#[must_use]
pub fn exceeds(parent: &Claims<'_>, wish: &Wish<'_>) -> bool {
    let hops = parent.depth().saturating_add(1);
    parent.max_depth.is_some_and(|max| hops > usize::from(max)) || within_parent(parent, wish).is_err()
}

/// Zero is not "the default": doors refuse it, and a door that forgets to does no harm.
fn wishes_something(wish: &Wish<'_>) -> Result<(), Denial> {
    let zero = match (wish.max_uses, wish.ttl_seconds, wish.max_depth) {
        (Some(0), _, _) => "max_uses",
        (_, Some(0), _) => "ttl",
        (_, _, Some(0)) => "max_depth",
        _ if wish.capabilities.is_empty() => "capabilities",
        _ if wish.resources.is_empty() => "resources",
        _ => return Ok(()),
    };
    Err(Denial::new(
        Reason::RequestMalformed,
        format!("{zero}: there is none: leave it out for the default, or wish for some"),
    ))
}

fn inherit<'a>(claims: &mut Claims<'a>, parent: Parent<'a>) {
    let Parent { id, claims: from } = parent;
    let borrow = |text: &'a Cow<'a, str>| Cow::Borrowed(text.as_ref());
    claims.chain = from.chain.iter().map(borrow).collect();
    claims.ancestors.clone_from(&from.ancestors);
    claims.ancestors.push(id);
    claims.on_behalf_of = from.on_behalf_of.as_ref().map(borrow);
    claims.task = claims.task.take().or_else(|| from.task.as_ref().map(borrow));
    if claims.audience.is_empty() {
        claims.audience = from.audience.iter().map(borrow).collect();
    }
}

fn may_start(policy: &Policy, agent: &str, asked: Asked<'_>) -> Result<(), Denial> {
    let Some(entry) = policy.agent(agent).filter(|entry| entry.starts_chains) else {
        let message =
            format!("{agent} may not start a chain: it acts on what it is given and must present a parent token");
        return Err(Denial::new(Reason::DelegationNotAllowed, message));
    };
    if !policy.has_grants {
        return Ok(());
    }
    for capability in asked.capabilities {
        let grants = entry.grants.iter().filter(|grant| grant.capabilities.contains(capability.as_ref()));
        let patterns = grants.flat_map(|grant| &grant.resources).collect::<Vec<_>>();
        let beyond = |wanted: &&Pattern<'_>| !patterns.iter().any(|pattern| pattern.contains(wanted));
        if let Some(pattern) = asked.resources.iter().find(beyond) {
            let message =
                format!("{agent} may not start a chain with {capability} on {pattern}: none of its grants has both");
            return Err(Denial::new(Reason::DelegationNotAllowed, message));
        }
    }
    Ok(())
}

fn may_delegate(policy: &Policy, from: &str, to: &str) -> Result<(), Denial> {
    if policy.may_delegate(from, to) {
        return Ok(());
    }
    let meant = match policy.closest_agent(to) {
        Some(known) if known.as_str() != to => format!(" (did you mean {known}?)"),
        _ => String::new(),
    };
    let message = format!("{from} may not delegate to {to}{meant}: list it in {from}'s can_delegate_to");
    Err(Denial::new(Reason::DelegationNotAllowed, message))
}

fn owns(entry: Option<&AgentPolicy>, agent: &str, asked: Asked<'_>) -> Result<(), Denial> {
    let Some(rule) = entry.and_then(|entry| entry.rule.as_ref()) else { return Ok(()) };
    let beyond = |capability: &&Cow<'_, str>| !rule.capabilities.contains(capability.as_ref());
    if let Some(capability) = asked.capabilities.iter().find(beyond) {
        let message = format!("{capability} is not in {agent}'s max_capability_set");
        return Err(Denial::new(Reason::CapabilityNotGranted, message));
    }
    let beyond = |wanted: &&Pattern<'_>| !rule.resources.iter().any(|pattern| pattern.contains(wanted));
    if let Some(pattern) = asked.resources.iter().find(beyond) {
        let message = format!("{pattern} is not within {agent}'s max_resources");
        return Err(Denial::new(Reason::ResourceNotGranted, message));
    }
    Ok(())
}

/// Whether a chain may have so many hops.
///
/// # Errors
/// `DELEGATION_DEPTH_EXCEEDED`: more than the policy's `max_delegation_depth`.
pub fn within_depth(policy: &Policy, hops: usize) -> Result<(), Denial> {
    let limit = policy.max_delegation_depth;
    if hops <= usize::from(limit) {
        return Ok(());
    }
    let message = format!("the chain would have {hops} hops and policy allows {limit} (max_delegation_depth)");
    Err(Denial::new(Reason::DelegationDepthExceeded, message))
}

fn not_quarantined(is_quarantined: &impl Fn(&str) -> bool, agent: &str) -> Result<(), Denial> {
    if is_quarantined(agent) { Err(quarantined(agent)) } else { Ok(()) }
}

/// The denial of an agent under the kill switch.
#[must_use]
pub fn quarantined(agent: &str) -> Denial {
    let message = format!("{agent} is quarantined: nothing is allowed to it until an administrator reinstates it");
    Denial::new(Reason::AgentQuarantined, message)
}

fn may_hand_on(policy: &Policy, parent: &Claims<'_>) -> Result<(), Denial> {
    if !parent.delegatable {
        let message = format!(
            "{} gave this token for use and not to hand on: ask for one with delegatable = true",
            parent.issuer
        );
        return Err(Denial::new(Reason::TokenNotDelegatable, message));
    }
    let hops = parent.depth().saturating_add(1);
    within_depth(policy, hops)?;
    match parent.max_depth {
        Some(limit) if hops > usize::from(limit) => Err(Denial::new(
            Reason::DelegationDepthExceeded,
            format!("the chain would have {hops} hops and the token allows {limit} (max_depth)"),
        )),
        _ => Ok(()),
    }
}

fn within_parent(parent: &Claims<'_>, wish: &Wish<'_>) -> Result<(), Denial> {
    let widens = |what: String| {
        Err(Denial::new(Reason::DelegationWidens, format!("{what}, so the child would be wider than its parent")))
    };
    if let Some(capability) = wish.capabilities.iter().find(|capability| !parent.capabilities.contains(capability)) {
        return widens(format!("the parent token does not have {capability}"));
    }
    let beyond = |wanted: &&Pattern<'_>| !parent.resources.iter().any(|pattern| pattern.contains(wanted));
    if let Some(pattern) = wish.resources.iter().find(beyond) {
        return widens(format!("the parent token does not cover {pattern}"));
    }
    let elsewhere = |place: &&Cow<'_, str>| !parent.audience.is_empty() && !parent.audience.contains(place);
    if let Some(place) = wish.audience.iter().find(elsewhere) {
        return widens(format!("the parent token is not for use at {place}"));
    }
    match (wish.max_depth, parent.max_depth) {
        (Some(wanted), Some(limit)) if wanted > limit => {
            widens(format!("max_depth {wanted} is more than the parent token's {limit}"))
        }
        _ => Ok(()),
    }
}

fn max_depth(policy: &Policy, parent: Option<&Claims<'_>>, wish: &Wish<'_>) -> Result<u8, Denial> {
    let limit = policy.max_delegation_depth;
    let Some(wanted) = wish.max_depth else {
        return Ok(parent.and_then(|parent| parent.max_depth).unwrap_or(limit));
    };
    let depth = parent.map_or(0, Claims::depth).saturating_add(1);
    if wanted > limit {
        let message = format!("max_depth {wanted} is more than policy allows, {limit} (max_delegation_depth)");
        return Err(Denial::new(Reason::DelegationDepthExceeded, message));
    }
    if usize::from(wanted) < depth {
        let message = format!("max_depth {wanted} is less than the {depth} hops of the token itself");
        return Err(Denial::new(Reason::DelegationDepthExceeded, message));
    }
    Ok(wanted)
}

fn lifetime(policy: &Policy, parent: Option<&Claims<'_>>, wish: &Wish<'_>, now: Timestamp) -> Result<u64, Denial> {
    let left = parent.map_or(u64::MAX, |parent| parent.expires_at.saturating_sub(now.seconds()));
    let limit = policy.token.max_ttl_seconds.min(limits::TTL_SECONDS);
    let Some(wanted) = wish.ttl_seconds else {
        return Ok(policy.token.default_ttl_seconds.min(limit).min(left));
    };
    let refuse = |limit: u64, whose: &str| {
        let message = format!("a lifetime of {wanted} s is more than {whose}, {limit} s");
        Err(Denial::new(Reason::LifetimeNotAllowed, message))
    };
    if wanted > limit {
        return refuse(limit, "policy allows (token.max_ttl_seconds)");
    }
    if wanted > left {
        return refuse(left, "the parent token has left");
    }
    Ok(wanted)
}

fn uses(policy: &Policy, caller: &str, parent: Option<&Claims<'_>>, wish: &Wish<'_>) -> Result<u32, Denial> {
    let limit = policy.max_uses(caller, wish.to);
    let wanted = wish.max_uses.unwrap_or_else(|| policy.token.default_max_uses.min(limit));
    if wanted > limit {
        let message = if policy.is_trusted_pair(caller, wish.to) {
            format!("{wanted} uses are more than a trusted pair may have, {limit} (token.max_uses_trusted_pair)")
        } else {
            format!("more than one use is only for trusted pairs: list {} in {caller}'s trusted_pairs", wish.to)
        };
        return Err(Denial::new(Reason::UsesNotAllowed, message));
    }
    match parent {
        Some(parent) if wanted > parent.max_uses => Err(Denial::new(
            Reason::UsesNotAllowed,
            format!("{wanted} uses are more than the parent token ever had, {}", parent.max_uses),
        )),
        _ => Ok(wanted),
    }
}

fn no_cycle(caller: &str, parent: Option<&Claims<'_>>, to: &str) -> Result<(), Denial> {
    let in_chain = parent.is_some_and(|parent| parent.chain.iter().any(|agent| agent == to));
    if to == caller || in_chain {
        let message = format!("{to} is already in the chain: a token never comes back to an agent that it passed");
        return Err(Denial::new(Reason::DelegationCycle, message));
    }
    Ok(())
}

/// Where communication rules exist, no delegation is possible where no communication is.
fn may_reach(policy: &Policy, from: &str, to: &str) -> Result<(), Denial> {
    let call = Call { from, to, method: "POST", path: Resource::parse("/v1/delegate").ok() };
    if policy.may_call(&call) == Some(false) {
        let message = format!("no communication rule lets {from} call {to} with POST /v1/delegate");
        return Err(Denial::new(Reason::CommunicationNotAllowed, message).at_hop(to));
    }
    Ok(())
}

impl Beyond {
    /// The reason of this name.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Capability => Reason::CapabilityNotGranted,
            Self::Resource => Reason::ResourceNotGranted,
        }
    }
}
