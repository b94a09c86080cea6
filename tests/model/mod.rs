//! An oracle for Remit's decisions: what the semantics say, written as simply and slowly as possible.
//!
//! It shares no code with the crate. Names, capabilities and patterns are plain strings, tokens are numbers, and
//! every question is answered by looking at everything. Where the semantics leave open which of several failing
//! checks is named, a [`Verdict`] has all of them.

use std::collections::BTreeSet;

mod policy;
mod revoke;
mod words;

pub use policy::{is_pattern, is_resource, lies_within, within_any};
pub use words::{Ask, Communication, Grant, Point, Policy, Rule, Shown, Target, Token, Wish};

/// The reasons' names, as the outside sees them.
pub type Reason = &'static str;

/// What a ledger may find out only when it is to move uses.
const AT_THE_MOVE: [Reason; 3] = ["TOKEN_USES_EXHAUSTED", "USES_NOT_ALLOWED", "TOKEN_REVOKED"];

/// Whether yes is right, and which refusals are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub reasons: BTreeSet<Reason>,
    /// The agent of the chain that has to be named, where that is certain.
    pub hop: Option<String>,
}

impl Verdict {
    fn deny(reasons: impl IntoIterator<Item = Reason>) -> Self {
        Self { allowed: false, reasons: reasons.into_iter().collect(), hop: None }
    }

    /// Yes if nothing speaks against it.
    fn unless(reasons: Vec<Reason>) -> Self {
        Self { allowed: reasons.is_empty(), ..Self::deny(reasons) }
    }
}

/// One node with the memory backend.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub policy: Policy,
    /// In milliseconds.
    pub now: u64,
    pub tokens: Vec<Token>,
    /// In seconds.
    fence: u64,
    counter: u64,
    /// Whose tokens (none: all), the revocation's number, and its second.
    numbered: Vec<(Option<String>, u64, u64)>,
    revoked: BTreeSet<usize>,
    quarantined: BTreeSet<String>,
}

impl Oracle {
    pub fn start(policy: &Policy, now: u64) -> Self {
        let mut oracle = Self {
            policy: policy.clone(),
            now,
            tokens: Vec::new(),
            fence: now / 1000,
            counter: 0,
            numbered: Vec::new(),
            revoked: BTreeSet::new(),
            quarantined: BTreeSet::new(),
        };
        policy.quarantined.iter().for_each(|agent| oracle.revoke_numbered(Some(agent)));
        oracle
    }

    pub fn authorize(&self, ask: &Ask) -> Verdict {
        // What is wrong with the question itself may be said at any step, and nothing is allowed with it.
        let form = self.form_faults(ask);
        let mut verdict = self.steps(ask);
        verdict.allowed &= form.is_empty();
        verdict.reasons.extend(form);
        verdict
    }

    fn steps(&self, ask: &Ask) -> Verdict {
        let agent = match self.speaker(ask) {
            Ok(agent) => agent,
            Err(reason) => return Verdict::deny([reason]),
        };
        let standing = self.standing_faults(&[agent, &ask.caller]);
        if !standing.is_empty() {
            return Verdict::deny(standing);
        }
        let destination = ask.destination.as_deref().unwrap_or(&ask.caller);
        if let Some((capability, resource)) = &ask.wanted {
            let verdict = match ask.token {
                None => Verdict::unless(self.policy.own_grant_faults(agent, capability, resource)),
                Some(shown) => self.token_steps(ask, agent, shown),
            };
            if !verdict.allowed {
                return verdict;
            }
        }
        if let Some((method, path)) = &ask.call
            && !self.policy.may_call(agent, destination, method, path, ask.wanted.is_none())
        {
            return Verdict::deny(["COMMUNICATION_NOT_ALLOWED"]);
        }
        if ask.late {
            return Verdict::deny(["DEADLINE_EXCEEDED"]);
        }
        match (ask.token, &ask.wanted) {
            (Some(Shown::Token(id)), Some(_)) if self.tokens[id].left == 0 => Verdict::deny(["TOKEN_USES_EXHAUSTED"]),
            _ => Verdict::unless(vec![]),
        }
    }

    /// What follows an ALLOW.
    pub fn spend(&mut self, id: usize) {
        self.enter(id);
        self.tokens[id].left -= 1;
    }

    fn form_faults(&self, ask: &Ask) -> Vec<Reason> {
        let mut faults = Vec::new();
        let named = ask.destination.as_ref().filter(|destination| **destination != ask.caller);
        let point = self.policy.point(&ask.caller);
        if named.is_some_and(|named| !point.is_some_and(|point| point.destinations.contains(named))) {
            faults.push("CALLER_NOT_ENFORCEMENT_POINT");
        }
        if ask.wanted.as_ref().is_some_and(|(_, resource)| !is_resource(resource)) {
            faults.push("RESOURCE_NOT_CANONICAL");
        }
        faults
    }

    /// Step 2.
    fn speaker<'a>(&self, ask: &'a Ask) -> Result<&'a str, Reason> {
        match (self.policy.point(&ask.caller), &ask.agent) {
            (None, None) => Ok(&ask.caller),
            (Some(_), None) => Err("REQUEST_MALFORMED"),
            (_, Some(agent)) if *agent == ask.caller => Ok(agent),
            (None, Some(_)) => Err("CALLER_NOT_ENFORCEMENT_POINT"),
            (Some(point), Some(agent)) => match &point.agents {
                Some(agents) if !agents.contains(agent) => Err("CALLER_NOT_ENFORCEMENT_POINT"),
                _ => Ok(agent),
            },
        }
    }

    /// Step 3.
    fn standing_faults(&self, agents: &[&str]) -> Vec<Reason> {
        let mut faults = Vec::new();
        for agent in agents {
            if !self.policy.knows(agent) {
                faults.push("AGENT_UNKNOWN");
            }
            if self.is_quarantined(agent) {
                faults.push("AGENT_QUARANTINED");
            }
        }
        faults
    }

    /// Steps 5 to 11.
    fn token_steps(&self, ask: &Ask, agent: &str, shown: Shown) -> Verdict {
        let opening = self.opening_faults(shown);
        let (Shown::Token(id), true) = (shown, opening.is_empty()) else { return Verdict::deny(opening) };
        let (token, (capability, resource)) = (&self.tokens[id], ask.wanted.as_ref().unwrap());
        if token.chain.last().unwrap() != agent {
            return Verdict::deny(["TOKEN_WRONG_HOLDER"]);
        }
        let here = [Some(&ask.caller), ask.destination.as_ref()];
        if !token.aud.is_empty() && !token.aud.iter().any(|aud| here.contains(&Some(aud))) {
            return Verdict::deny(["TOKEN_WRONG_AUDIENCE"]);
        }
        if !self.form_faults(ask).is_empty() {
            return Verdict::deny([]);
        }
        if !token.cap.contains(capability) {
            return Verdict::deny(["CAPABILITY_NOT_GRANTED"]);
        }
        if !within_any(resource, &token.res) {
            return Verdict::deny(["RESOURCE_NOT_GRANTED"]);
        }
        let faults = self.chain_faults(token, capability, resource);
        if let Some(first) = faults.iter().map(|(hop, _)| *hop).min() {
            let reasons = faults.iter().filter(|(hop, _)| *hop == first).map(|(_, reason)| *reason);
            return Verdict { hop: Some(token.chain[first].clone()), ..Verdict::deny(reasons) };
        }
        Verdict::unless(self.ledger_faults(id))
    }

    /// Step 5. What opens may be looked at; garbage may not.
    fn opening_faults(&self, shown: Shown) -> Vec<Reason> {
        let Shown::Token(id) = shown else { return vec!["TOKEN_MALFORMED", "TOKEN_SEAL_INVALID"] };
        let (token, mut faults) = (&self.tokens[id], Vec::new());
        if token.exp * 1000 <= self.now {
            faults.push("TOKEN_EXPIRED");
        }
        let ahead = if token.foreign { 0 } else { 5000 };
        if token.iat * 1000 > self.now + ahead {
            faults.push("TOKEN_NOT_YET_VALID");
        }
        if token.exp - token.iat > self.policy.max_ttl {
            faults.push("TOKEN_LIFETIME_TOO_LONG");
        }
        faults
    }

    /// Step 10: at which agent the chain fails, and why.
    fn chain_faults(&self, token: &Token, capability: &str, pattern: &str) -> Vec<(usize, Reason)> {
        let mut faults = Vec::new();
        for (hop, agent) in token.chain.iter().enumerate() {
            let before = hop.checked_sub(1).map(|before| &token.chain[before]);
            let may = match before {
                None => self.policy.may_start(agent, capability, pattern),
                Some(before) => self.policy.may_delegate(before, agent),
            };
            if !may {
                faults.push((hop, "DELEGATION_NOT_ALLOWED"));
            }
            faults.extend(self.policy.own_set_faults(agent, capability, pattern).into_iter().map(|fault| (hop, fault)));
            if u64::try_from(hop).unwrap() > self.policy.max_depth {
                faults.push((hop, "DELEGATION_DEPTH_EXCEEDED"));
            }
            if token.foreign && hop == 1 && token.max_uses > 1 && !self.policy.trusts(&token.chain[0], agent) {
                faults.push((hop, "USES_NOT_ALLOWED"));
            }
            if self.is_quarantined(agent) {
                faults.push((hop, "AGENT_QUARANTINED"));
            }
        }
        faults
    }

    /// Step 11.
    fn ledger_faults(&self, id: usize) -> Vec<Reason> {
        let (token, mut faults) = (&self.tokens[id], Vec::new());
        if token.foreign && token.iat <= self.fence {
            faults.push("TOKEN_FENCED");
        }
        if token.ancestors.iter().chain([&id]).any(|id| self.revoked.contains(id)) || self.is_dead(token) {
            faults.push("TOKEN_REVOKED");
        }
        faults
    }

    /// Whether a later agent-wide revocation concerns it.
    fn is_dead(&self, token: &Token) -> bool {
        self.numbered.iter().any(|(whose, number, second)| {
            let concerns = whose.as_ref().is_none_or(|agent| token.chain.contains(agent));
            let later = if token.foreign { token.iat <= *second } else { token.born.unwrap() < *number };
            concerns && later
        })
    }

    pub fn is_quarantined(&self, agent: &str) -> bool {
        self.quarantined.contains(agent) || self.policy.quarantined.contains(agent)
    }

    // ---- Delegate ----

    pub fn delegate(&self, wish: &Wish) -> Verdict {
        let standing = self.standing_faults(&[&wish.caller]);
        if !standing.is_empty() {
            return Verdict::deny(standing);
        }
        let mut faults = self.target_faults(wish);
        match wish.parent {
            None => {
                let chain = vec![wish.caller.clone(), wish.to.clone()];
                faults.extend(self.asked_faults(&Token { chain, ..self.child(wish) }, wish));
                if !self.policy.starts(&wish.caller) {
                    faults.push("DELEGATION_NOT_ALLOWED");
                }
            }
            Some(shown) => {
                faults.extend(self.opening_faults(shown));
                if let Shown::Token(id) = shown {
                    faults.extend(self.parent_faults(wish, id));
                }
            }
        }
        // The time is looked at before the ledger moves the uses.
        if wish.late && faults.iter().all(|fault| AT_THE_MOVE.contains(fault)) {
            faults.push("DEADLINE_EXCEEDED");
        }
        Verdict::unless(faults)
    }

    /// What speaks against the target and the wish, whatever the parent.
    fn target_faults(&self, wish: &Wish) -> Vec<Reason> {
        let mut faults = Vec::new();
        let mut check = |fails: bool, reason: Reason| faults.extend(fails.then_some(reason));
        let zero = wish.uses == Some(0) || wish.ttl == Some(0) || wish.max_depth == Some(0);
        check(zero || wish.cap.is_empty() || wish.res.is_empty(), "REQUEST_MALFORMED");
        check(wish.caller == wish.to, "DELEGATION_CYCLE");
        check(!self.policy.knows(&wish.to), "AGENT_UNKNOWN");
        check(!self.policy.may_delegate(&wish.caller, &wish.to), "DELEGATION_NOT_ALLOWED");
        check(self.is_quarantined(&wish.to), "AGENT_QUARANTINED");
        let call = self.policy.may_call(&wish.caller, &wish.to, "POST", "/v1/delegate", false);
        check(!call, "COMMUNICATION_NOT_ALLOWED");
        let trusted = self.policy.trusts(&wish.caller, &wish.to);
        let most = if trusted { self.policy.max_uses_trusted } else { 1 };
        check(self.uses(wish) > most, "USES_NOT_ALLOWED");
        check(wish.ttl.is_some_and(|ttl| ttl > self.policy.max_ttl), "LIFETIME_NOT_ALLOWED");
        check(wish.max_depth.is_some_and(|depth| depth > self.policy.max_depth), "DELEGATION_DEPTH_EXCEEDED");
        faults
    }

    /// The whole chain under the policy, for everything that is asked.
    fn asked_faults(&self, child: &Token, wish: &Wish) -> Vec<Reason> {
        let pairs = wish.cap.iter().flat_map(|cap| wish.res.iter().map(move |res| (cap, res)));
        pairs.flat_map(|(cap, res)| self.chain_faults(child, cap, res)).map(|(_, reason)| reason).collect()
    }

    /// What speaks against this parent.
    fn parent_faults(&self, wish: &Wish, id: usize) -> Vec<Reason> {
        let (parent, child) = (&self.tokens[id], self.child(wish));
        let mut faults = self.ledger_faults(id);
        faults.extend(self.asked_faults(parent, wish));
        faults.extend(self.asked_faults(&child, wish));
        let mut check = |fails: bool, reason: Reason| faults.extend(fails.then_some(reason));
        check(*parent.chain.last().unwrap() != wish.caller, "TOKEN_WRONG_HOLDER");
        check(!parent.delegatable, "TOKEN_NOT_DELEGATABLE");
        check(parent.chain.contains(&wish.to), "DELEGATION_CYCLE");
        let depth = u64::try_from(parent.chain.len()).unwrap();
        // The third limit is the wish itself: a token deeper than it says would be none.
        let limit = parent.max_depth.unwrap_or(u64::MAX).min(wish.max_depth.unwrap_or(u64::MAX));
        check(depth > limit, "DELEGATION_DEPTH_EXCEEDED");
        let wider = wish.cap.iter().any(|cap| !parent.cap.contains(cap))
            || wish.res.iter().any(|res| !parent.res.iter().any(|pattern| lies_within(res, pattern)))
            || (!parent.aud.is_empty() && wish.aud.iter().any(|aud| !parent.aud.contains(aud)))
            || wish.max_depth.is_some_and(|depth| parent.max_depth.is_some_and(|most| depth > most));
        check(wider, "DELEGATION_WIDENS");
        check(wish.ttl.is_some_and(|ttl| self.now / 1000 + ttl > parent.exp), "LIFETIME_NOT_ALLOWED");
        check(parent.left == 0, "TOKEN_USES_EXHAUSTED");
        let ever = if parent.left > 0 { parent.left } else { parent.max_uses };
        check(self.uses(wish) > ever, "USES_NOT_ALLOWED");
        // A child that would be born dead.
        check(self.is_dead(&child), "TOKEN_REVOKED");
        faults
    }

    fn uses(&self, wish: &Wish) -> u64 {
        let default = if self.policy.trusts(&wish.caller, &wish.to) { self.policy.default_uses } else { 1 };
        wish.uses.unwrap_or(default)
    }

    /// The token that the wish is for, if it is granted.
    fn child(&self, wish: &Wish) -> Token {
        let parent = match wish.parent {
            Some(Shown::Token(id)) => Some((id, &self.tokens[id])),
            _ => None,
        };
        let iat = self.now / 1000;
        let left = parent.map_or(u64::MAX, |(_, parent)| parent.exp.saturating_sub(iat));
        let uses = self.uses(wish);
        let chain = parent.map_or_else(|| vec![wish.caller.clone()], |(_, parent)| parent.chain.clone());
        let ancestors =
            parent.map_or_else(Vec::new, |(id, token)| token.ancestors.iter().copied().chain([id]).collect());
        Token {
            chain: chain.into_iter().chain([wish.to.clone()]).collect(),
            cap: wish.cap.clone(),
            res: wish.res.clone(),
            max_uses: uses,
            left: uses,
            iat,
            exp: iat.saturating_add(wish.ttl.unwrap_or(self.policy.default_ttl.min(left))),
            delegatable: wish.delegatable,
            ancestors,
            max_depth: wish
                .max_depth
                .or(parent.and_then(|(_, parent)| parent.max_depth))
                .or(Some(self.policy.max_depth)),
            aud: if wish.aud.is_empty() {
                parent.map_or(vec![], |(_, parent)| parent.aud.clone())
            } else {
                wish.aud.clone()
            },
            foreign: false,
            born: Some(parent.and_then(|(_, parent)| parent.born).unwrap_or(self.counter)),
        }
    }

    /// What follows a granted wish: the new token's number.
    pub fn mint(&mut self, wish: &Wish) -> usize {
        if let Some(Shown::Token(parent)) = wish.parent {
            self.enter(parent);
            self.tokens[parent].left -= self.uses(wish);
        }
        self.tokens.push(self.child(wish));
        self.tokens.len() - 1
    }

    /// Foreign tokens come into the ledger when something is first taken from them.
    fn enter(&mut self, id: usize) {
        let counter = self.counter;
        self.tokens[id].born.get_or_insert(counter);
    }
}
