//! An oracle for Remit's decisions: what the semantics say, written as simply and slowly as possible.
//! It shares no code with the crate. Where it is open which of several failing checks is named, it names all.

use crate::words::{Ask, Grant, Policy, Shown, Target, Token, Verdict, Wish};
use std::collections::BTreeSet;

type Reason = &'static str;

fn failing<const ROWS: usize>(rows: [(bool, Reason); ROWS]) -> Vec<Reason> {
    rows.into_iter().filter(|(fails, _)| *fails).map(|(_, reason)| reason).collect()
}

fn unless(reasons: Vec<Reason>) -> Verdict {
    Verdict { allowed: reasons.is_empty(), reasons, hop: None }
}

/// A step that fails ends the question, with all that may be said there.
fn step(reasons: Vec<Reason>) -> Result<(), Verdict> {
    if reasons.is_empty() { Ok(()) } else { Err(unless(reasons)) }
}

/// One node with the memory backend. Its clock is in milliseconds, its fence in seconds.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    pub policy: Policy,
    pub now: u64,
    pub tokens: Vec<Token>,
    pub quarantined: BTreeSet<String>,
    fence: u64,
    /// Whose tokens (none: all), and the second; a revocation's number is its place.
    numbered: Vec<(Option<String>, u64)>,
    revoked: BTreeSet<usize>,
}

impl Oracle {
    pub fn start(policy: &Policy, now: u64) -> Self {
        let mut oracle = Self { now, fence: now / 1000, ..Self::default() };
        oracle.reload(policy.clone());
        oracle
    }

    pub fn is_quarantined(&self, agent: &str) -> bool {
        self.quarantined.contains(agent) || self.policy.quarantined.contains(agent)
    }

    fn standing_faults(&self, agents: &[&str]) -> Vec<Reason> {
        failing([
            (agents.iter().any(|agent| !self.policy.knows(agent)), "AGENT_UNKNOWN"),
            (agents.iter().any(|agent| self.is_quarantined(agent)), "AGENT_QUARANTINED"),
        ])
    }

    fn opening_faults(&self, shown: Shown) -> Vec<Reason> {
        let Shown::Token(id) = shown else { return vec!["TOKEN_MALFORMED", "TOKEN_SEAL_INVALID"] };
        let token = &self.tokens[id];
        let ahead = if token.foreign { 0 } else { 5000 };
        failing([
            (token.exp * 1000 <= self.now, "TOKEN_EXPIRED"),
            (token.iat * 1000 > self.now + ahead, "TOKEN_NOT_YET_VALID"),
            (token.exp - token.iat > self.policy.max_ttl, "TOKEN_LIFETIME_TOO_LONG"),
        ])
    }

    /// The whole chain under the policy in force: at which agents it fails, and why.
    fn chain_faults(&self, token: &Token, cap: &str, res: &str) -> Vec<(usize, Reason)> {
        let (policy, chain) = (&self.policy, &token.chain);
        let faults_of = |(hop, agent): (usize, &String)| {
            let above = &chain[hop.saturating_sub(1)];
            let may = if hop == 0 { policy.may_start(agent, cap, res) } else { policy.may_delegate(above, agent) };
            let several = token.foreign && hop == 1 && token.max_uses > 1;
            let mut faults = policy.own_set_faults(agent, cap, res);
            faults.extend(failing([
                (!may, "DELEGATION_NOT_ALLOWED"),
                (u64::try_from(hop).unwrap() > policy.max_depth, "DELEGATION_DEPTH_EXCEEDED"),
                (several && !policy.trusts(above, agent), "USES_NOT_ALLOWED"),
                (self.is_quarantined(agent), "AGENT_QUARANTINED"),
            ]));
            faults.into_iter().map(move |fault| (hop, fault))
        };
        chain.iter().enumerate().flat_map(faults_of).collect()
    }

    fn ledger_faults(&self, id: usize) -> Vec<Reason> {
        let token = &self.tokens[id];
        let revoked = token.ancestors.iter().chain([&id]).any(|id| self.revoked.contains(id));
        failing([
            (token.foreign && token.iat <= self.fence, "TOKEN_FENCED"),
            (revoked || self.is_dead(token), "TOKEN_REVOKED"),
        ])
    }

    fn is_dead(&self, token: &Token) -> bool {
        self.numbered.iter().zip(1..).any(|((whose, second), number)| {
            let concerns = whose.as_ref().is_none_or(|agent| token.chain.contains(agent));
            concerns && if token.foreign { token.iat <= *second } else { token.born.unwrap() < number }
        })
    }

    /// Takes uses. A foreign token comes into the ledger when something is first taken from it.
    pub fn take(&mut self, id: usize, uses: u64) {
        self.tokens[id].born = self.tokens[id].born.or(Some(self.numbered.len()));
        self.tokens[id].left -= uses;
    }

    pub fn authorize(&self, ask: &Ask) -> Verdict {
        // What is wrong with the question itself may be said at any step, and nothing is allowed with it.
        let form = self.form_faults(ask);
        let Verdict { allowed, reasons, hop } = self.steps(ask).err().unwrap_or_else(|| unless(vec![]));
        Verdict { allowed: allowed && form.is_empty(), reasons: [reasons, form].concat(), hop }
    }

    fn form_faults(&self, ask: &Ask) -> Vec<Reason> {
        let served = self
            .policy
            .points
            .iter()
            .find(|point| point.agent == ask.caller)
            .map_or(&[][..], |point| &point.destinations);
        let strange = ask.destination.as_ref().is_some_and(|to| *to != ask.caller && !served.contains(to));
        failing([
            (strange, "CALLER_NOT_ENFORCEMENT_POINT"),
            (ask.wanted.as_ref().is_some_and(|(_, resource)| !is_resource(resource)), "RESOURCE_NOT_CANONICAL"),
        ])
    }

    fn steps(&self, ask: &Ask) -> Result<(), Verdict> {
        let agent = ask.agent.as_ref().unwrap_or(&ask.caller);
        let point = self.policy.points.iter().find(|point| point.agent == ask.caller);
        let may_state = point.is_some_and(|point| point.agents.as_ref().is_none_or(|agents| agents.contains(agent)));
        step(failing([
            (point.is_some() && ask.agent.is_none(), "REQUEST_MALFORMED"),
            (*agent != ask.caller && !may_state, "CALLER_NOT_ENFORCEMENT_POINT"),
        ]))?;
        step(self.standing_faults(&[agent, &ask.caller]))?;
        match (&ask.wanted, ask.token) {
            (Some((capability, resource)), None) => step(self.policy.own_grant_faults(agent, capability, resource))?,
            (Some(_), Some(shown)) => self.token_steps(ask, agent, shown)?,
            (None, _) => {}
        }
        if let Some((method, path)) = &ask.call {
            let to = ask.destination.as_ref().unwrap_or(&ask.caller);
            let may = self.policy.may_call(agent, to, method, path, ask.wanted.is_none());
            step(failing([(!may, "COMMUNICATION_NOT_ALLOWED")]))?;
        }
        step(failing([(ask.late, "DEADLINE_EXCEEDED")]))?;
        let spent = matches!(ask.token, Some(Shown::Token(id)) if self.tokens[id].left == 0);
        step(failing([(spent && ask.wanted.is_some(), "TOKEN_USES_EXHAUSTED")]))
    }

    fn token_steps(&self, ask: &Ask, agent: &String, shown: Shown) -> Result<(), Verdict> {
        step(self.opening_faults(shown))?;
        let (Shown::Token(id), Some((capability, resource))) = (shown, &ask.wanted) else { return Ok(()) };
        let token = &self.tokens[id];
        let here = |aud: &String| *aud == ask.caller || ask.destination.as_ref() == Some(aud);
        step(failing([(token.chain.last() != Some(agent), "TOKEN_WRONG_HOLDER")]))?;
        step(failing([(!token.aud.is_empty() && !token.aud.iter().any(here), "TOKEN_WRONG_AUDIENCE")]))?;
        step(self.form_faults(ask))?;
        step(failing([(!token.cap.contains(capability), "CAPABILITY_NOT_GRANTED")]))?;
        step(failing([(!within_any(resource, &token.res), "RESOURCE_NOT_GRANTED")]))?;
        let faults = self.chain_faults(token, capability, resource);
        let hop = faults.first().map(|(first, _)| *first);
        let reasons = faults.iter().filter(|(at, _)| Some(*at) == hop).map(|(_, reason)| *reason).collect();
        step(reasons).map_err(|verdict| Verdict { hop: hop.map(|hop| token.chain[hop].clone()), ..verdict })?;
        step(self.ledger_faults(id))
    }

    pub fn delegate(&self, wish: &Wish) -> Verdict {
        let standing = self.standing_faults(&[&wish.caller]);
        if !standing.is_empty() {
            return unless(standing);
        }
        let (policy, from, to, child) = (&self.policy, &wish.caller, &wish.to, self.child(wish));
        let most = if policy.trusts(from, to) { policy.max_uses_trusted } else { 1 };
        let mut faults = self.standing_faults(&[to]);
        faults.extend(failing([
            ([wish.uses, wish.ttl, wish.max_depth].contains(&Some(0)), "REQUEST_MALFORMED"),
            (wish.cap.is_empty() || wish.res.is_empty(), "REQUEST_MALFORMED"),
            (from == to, "DELEGATION_CYCLE"),
            (!policy.may_delegate(from, to), "DELEGATION_NOT_ALLOWED"),
            (!policy.may_call(from, to, "POST", "/v1/delegate", false), "COMMUNICATION_NOT_ALLOWED"),
            (child.max_uses > most, "USES_NOT_ALLOWED"),
            (wish.ttl > Some(policy.max_ttl), "LIFETIME_NOT_ALLOWED"),
            (wish.max_depth > Some(policy.max_depth), "DELEGATION_DEPTH_EXCEEDED"),
        ]));
        match wish.parent {
            None => faults.extend(self.asked_faults(&child)),
            Some(Shown::Token(id)) => faults.extend(self.parent_faults(wish, id, &child)),
            Some(garbage) => faults.extend(self.opening_faults(garbage)),
        }
        // The time is looked at before the ledger moves the uses, and may find these.
        let at_the_move = ["TOKEN_USES_EXHAUSTED", "USES_NOT_ALLOWED", "TOKEN_REVOKED"];
        if wish.late && faults.iter().all(|fault| at_the_move.contains(fault)) {
            faults.push("DEADLINE_EXCEEDED");
        }
        unless(faults)
    }

    fn asked_faults(&self, child: &Token) -> Vec<Reason> {
        let pairs = child.cap.iter().flat_map(|cap| child.res.iter().map(move |res| (cap, res)));
        pairs.flat_map(|(cap, res)| self.chain_faults(child, cap, res)).map(|(_, reason)| reason).collect()
    }

    fn parent_faults(&self, wish: &Wish, id: usize, child: &Token) -> Vec<Reason> {
        let parent = &self.tokens[id];
        let depth = u64::try_from(parent.chain.len()).unwrap();
        let wider = wish.cap.iter().any(|cap| !parent.cap.contains(cap))
            || wish.res.iter().any(|res| !within_any(res, &parent.res))
            || (!parent.aud.is_empty() && wish.aud.iter().any(|aud| !parent.aud.contains(aud)))
            || (parent.max_depth.is_some() && wish.max_depth > parent.max_depth);
        // A token deeper than it says itself would be none.
        let deeper = [parent.max_depth, wish.max_depth].into_iter().flatten().any(|most| depth > most);
        let ever = if parent.left > 0 { parent.left } else { parent.max_uses };
        let as_is = Token { cap: child.cap.clone(), res: child.res.clone(), ..parent.clone() };
        let rows = failing([
            (parent.chain.last() != Some(&wish.caller), "TOKEN_WRONG_HOLDER"),
            (!parent.delegatable, "TOKEN_NOT_DELEGATABLE"),
            (parent.chain.contains(&wish.to), "DELEGATION_CYCLE"),
            (deeper, "DELEGATION_DEPTH_EXCEEDED"),
            (wider, "DELEGATION_WIDENS"),
            (wish.ttl.is_some_and(|ttl| self.now / 1000 + ttl > parent.exp), "LIFETIME_NOT_ALLOWED"),
            (parent.left == 0, "TOKEN_USES_EXHAUSTED"),
            (child.max_uses > ever, "USES_NOT_ALLOWED"),
            (self.is_dead(child), "TOKEN_REVOKED"),
        ]);
        let chains = [self.asked_faults(&as_is), self.asked_faults(child)].concat();
        [self.opening_faults(Shown::Token(id)), chains, self.ledger_faults(id), rows].concat()
    }

    fn child(&self, wish: &Wish) -> Token {
        let above = if let Some(Shown::Token(id)) = wish.parent { Some(id) } else { None };
        let root = || Token { chain: vec![wish.caller.clone()], exp: u64::MAX, ..Token::default() };
        let mut token = above.map_or_else(root, |id| self.tokens[id].clone());
        let (now, left) = (self.now / 1000, token.exp.saturating_sub(self.now / 1000));
        let default_uses = if self.policy.trusts(&wish.caller, &wish.to) { self.policy.default_uses } else { 1 };
        token.chain.push(wish.to.clone());
        token.ancestors.extend(above);
        (token.cap, token.res) = (wish.cap.clone(), wish.res.clone());
        (token.max_uses, token.left) = (wish.uses.unwrap_or(default_uses), wish.uses.unwrap_or(default_uses));
        (token.iat, token.exp) = (now, now + wish.ttl.unwrap_or(self.policy.default_ttl.min(left)));
        token.max_depth = wish.max_depth.or(token.max_depth).or(Some(self.policy.max_depth));
        token.aud = if wish.aud.is_empty() { token.aud } else { wish.aud.clone() };
        (token.delegatable, token.foreign) = (wish.delegatable, false);
        token.born = token.born.or(Some(self.numbered.len()));
        token
    }

    pub fn mint(&mut self, wish: &Wish) -> usize {
        let child = self.child(wish);
        child.ancestors.last().into_iter().for_each(|parent| self.take(*parent, child.max_uses));
        self.tokens.push(child);
        self.tokens.len() - 1
    }

    pub fn revoke(&self, caller: &str, target: &Target) -> Verdict {
        let standing = self.standing_faults(&[caller]);
        let administrator = self.policy.administrators.contains(caller);
        let theirs = |id: usize| self.tokens[id].chain.iter().any(|agent| agent == caller);
        let unknown = |agent: &str| failing([(!self.policy.knows(agent), "AGENT_UNKNOWN")]);
        let (may, mut faults) = match target {
            Target::Token(Shown::Token(id)) => (theirs(*id), vec![]),
            Target::Token(Shown::Garbage) => (true, self.opening_faults(Shown::Garbage)),
            Target::Id(id) => (theirs(*id) && self.tokens[*id].born.is_some(), vec![]),
            Target::Agent(agent) => (agent == caller, unknown(agent)),
            Target::Quarantine(agent) => (false, unknown(agent)),
            Target::UnknownId | Target::All => (false, vec![]),
        };
        let allowed = (may || administrator) && faults.is_empty() && standing.is_empty();
        // An id whose time is over may be forgotten: its own agents hear either.
        let over = matches!(target, Target::Id(id) if self.tokens[*id].exp * 1000 <= self.now);
        faults.extend(failing([(!administrator && (!may || over), "CALLER_NOT_AUTHORIZED")]));
        Verdict { allowed, ..unless(if standing.is_empty() { faults } else { standing }) }
    }

    pub fn end(&mut self, target: &Target) {
        match target {
            Target::Token(Shown::Token(id)) | Target::Id(id) => self.revoked.extend([*id]),
            Target::Token(Shown::Garbage) | Target::UnknownId => {}
            Target::Agent(agent) => self.numbered.push((Some(agent.clone()), self.now / 1000)),
            Target::Quarantine(agent) => {
                self.end(&Target::Agent(agent.clone()));
                self.quarantined.insert(agent.clone());
            }
            Target::All => self.numbered.push((None, self.now / 1000)),
        }
    }

    pub fn reinstate(&self, caller: &str, agent: &str) -> Verdict {
        let standing = self.standing_faults(&[caller]);
        let may = self.policy.administrators.contains(caller);
        let by_file = may && self.policy.quarantined.contains(agent);
        let faults = failing([(!may, "CALLER_NOT_AUTHORIZED"), (by_file, "AGENT_QUARANTINED")]);
        unless(if standing.is_empty() { faults } else { standing })
    }

    pub fn reload(&mut self, policy: Policy) {
        let before = std::mem::replace(&mut self.policy, policy);
        for agent in self.policy.quarantined.clone().difference(&before.quarantined) {
            self.end(&Target::Agent(agent.clone()));
        }
    }
}

impl Policy {
    pub fn knows(&self, agent: &str) -> bool {
        let rules = self.rules.values().flat_map(|rule| rule.can_delegate_to.iter().chain(&rule.trusted));
        let grants = self.grants.iter().flatten().map(|grant| &grant.agent);
        let calls = self.communication.iter().flatten().flat_map(|call| [&call.from, &call.to]);
        let points = self
            .points
            .iter()
            .flat_map(|point| point.destinations.iter().chain([&point.agent]).chain(point.agents.iter().flatten()));
        let lists = self.administrators.iter().chain(&self.quarantined);
        let sections = self.rules.keys().chain(rules).chain(grants).chain(calls).chain(points);
        agent != "*" && sections.chain(lists).any(|name| name == agent)
    }

    pub fn may_delegate(&self, from: &str, to: &str) -> bool {
        self.rules.get(from).is_some_and(|rule| rule.can_delegate_to.contains(to))
    }

    pub fn trusts(&self, from: &str, to: &str) -> bool {
        self.rules.get(from).is_some_and(|rule| rule.trusted.contains(to))
    }

    fn grants_of(&self, agent: &str) -> impl Iterator<Item = &Grant> {
        self.grants.iter().flatten().filter(move |grant| grant.agent == agent)
    }

    pub fn starts(&self, agent: &str) -> bool {
        let first = || self.rules.contains_key(agent) && !self.rules.keys().any(|from| self.may_delegate(from, agent));
        if self.grants.is_some() { self.grants_of(agent).next().is_some() } else { first() }
    }

    pub fn may_start(&self, agent: &str, capability: &str, pattern: &str) -> bool {
        let has = |grant: &Grant| grant.cap.iter().any(|cap| cap == capability) && within_any(pattern, &grant.res);
        self.starts(agent) && (self.grants.is_none() || self.grants_of(agent).any(has))
    }

    pub fn own_set_faults(&self, agent: &str, capability: &str, pattern: &str) -> Vec<Reason> {
        let Some(rule) = self.rules.get(agent) else { return vec![] };
        failing([
            (!rule.cap.contains(capability), "CAPABILITY_NOT_GRANTED"),
            (!within_any(pattern, &rule.res), "RESOURCE_NOT_GRANTED"),
        ])
    }

    pub fn own_grant_faults(&self, agent: &str, capability: &str, resource: &str) -> Vec<Reason> {
        if self.grants_of(agent).next().is_none() {
            return vec!["TOKEN_REQUIRED"];
        }
        let has = self.grants_of(agent).any(|grant| grant.cap.iter().any(|cap| cap == capability));
        let lacking = if has { "RESOURCE_NOT_GRANTED" } else { "CAPABILITY_NOT_GRANTED" };
        failing([(!self.may_start(agent, capability, resource), lacking)])
    }

    /// Whether a communication rule lets the one agent call the other. `must`: also where there are no rules.
    pub fn may_call(&self, from: &str, to: &str, method: &str, path: &str, must: bool) -> bool {
        let Some(rules) = &self.communication else { return !must };
        rules.iter().any(|rule| {
            ["*", from].contains(&rule.from.as_str())
                && ["*", to].contains(&rule.to.as_str())
                && rule.methods.as_ref().is_none_or(|methods| methods.iter().any(|known| known == method))
                && rule.paths.as_ref().is_none_or(|paths| within_any(path, paths))
        })
    }
}

pub fn within_any(inner: &str, outer: &[String]) -> bool {
    outer.iter().any(|outer| lies_within(inner, outer))
}

/// Whether all that the one pattern covers the other covers too. A resource is a pattern that covers itself.
pub fn lies_within(inner: &str, outer: &str) -> bool {
    if outer == "*" || inner == outer {
        return true;
    }
    let (Some(inner), Some(outer)) = (split(inner), split(outer)) else { return false };
    let [above @ .., "*"] = outer.2.as_slice() else { return false };
    (inner.0, inner.1) == (outer.0, outer.1) && inner.2.len() > above.len() && inner.2.starts_with(above)
}

/// Scheme, slashes and segments of a resource or pattern; none where it is neither.
pub fn split(text: &str) -> Option<(&str, &str, Vec<&str>)> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c);
    let is_scheme = |text: &str| text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(inside);
    let (scheme, rest) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", text));
    let slashes = ["//", "/", ""].into_iter().find(|slashes| rest.starts_with(slashes))?;
    let slashes = if scheme.is_empty() && slashes == "//" { "/" } else { slashes };
    let segments: Vec<&str> = rest.strip_prefix(slashes)?.split('/').collect();
    let plain = |c: char| c.is_ascii_graphic() && !"/\\%;?#*".contains(c);
    let good = segments.iter().enumerate().all(|(index, segment)| match *segment {
        "*" => index + 1 == segments.len(),
        segment => !["", ".", ".."].contains(&segment) && segment.chars().all(plain),
    });
    (good && text.len() <= 1024).then_some((scheme, slashes, segments))
}

pub fn is_resource(text: &str) -> bool {
    split(text).is_some_and(|split| split.2.last() != Some(&"*"))
}
