//! A history told twice, to the engine and to the oracle, and every answer compared.

use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use remit::domain::reason::Denial;
use remit::domain::token::TokenId;
use remit::engine::{Delegated, NotReinstated, Revocation, RevokeTarget};
use serde_json::{Value, json};

use crate::generate::{self, Dice, Op};
use crate::model::{Oracle, within_any};
use crate::words::{Ask, Policy, Shown, Target, Token, Verdict, Wish};
use crate::world::{self, START, World, caller, name_of};

/// Left to chance alone nearly everything would be refused: so often another request is thrown first.
const TRIES: usize = 12;

pub type Told = Result<(), TestCaseError>;

/// How a token is known to the engine.
pub struct Issued {
    pub text: String,
    pub id: TokenId,
}

/// How much of what can happen did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub allowed: u64,
    pub refused: u64,
    pub roots: u64,
    pub children: u64,
    pub not_minted: u64,
    pub revoked: u64,
    pub deepest: usize,
}

pub struct Story {
    pub world: World,
    pub oracle: Oracle,
    pub issued: Vec<Issued>,
    pub counts: Counts,
    first: Policy,
    revision: u64,
    text: String,
}

impl Story {
    pub fn begin(policy: &Policy) -> Self {
        let text = world::policy_text(policy);
        Self {
            world: World::new(&text),
            oracle: Oracle::start(policy, START * 1000),
            issued: Vec::new(),
            counts: Counts::default(),
            first: policy.clone(),
            revision: 1,
            text,
        }
    }

    pub async fn tell(&mut self, op: &Op) -> Told {
        match op.clone() {
            Op::Delegate(mut dice) => {
                let wish = self.likely_wish(&mut dice);
                self.delegate(&wish).await?;
            }
            Op::Authorize(mut dice) => {
                let rounds = if dice.in_256(100) { 1 } else { TRIES };
                let mut asks = (0..rounds).map(|_| self.ask(&mut dice));
                let mut ask = asks.next().unwrap();
                while let (false, Some(next)) = (self.oracle.authorize(&ask).allowed, asks.next()) {
                    ask = next;
                }
                self.authorize(&ask).await?;
            }
            Op::Revoke(mut dice) => self.revoke_something(&mut dice).await?,
            Op::Reinstate(mut dice) => self.reinstate(&mut dice).await?,
            Op::Tick(millis) => self.tick(millis),
            Op::Reload(mut dice) => self.reload(generate::changed(&self.oracle.policy, &self.first, &mut dice)).await,
            Op::Foreign(mut dice) => self.foreign(&mut dice),
            Op::Sweep => self.sweep(),
        }
        self.same_counts()
    }

    /// Everything that was ever minted has as many uses left here as there.
    fn same_counts(&self) -> Told {
        for (token, issued) in self.oracle.tokens.iter().zip(&self.issued) {
            match self.world.left(issued.id) {
                Some(left) => prop_assert_eq!(u64::from(left), token.left, "uses left of {:?}", token),
                None => prop_assert!(token.born.is_none() || token.exp * 1000 <= self.oracle.now, "lost: {:?}", token),
            }
        }
        Ok(())
    }

    fn shown<'a>(&'a self, token: Option<Shown>, garbage: &'a str) -> Option<&'a str> {
        token.map(|shown| match shown {
            Shown::Token(id) => self.issued[id].text.as_str(),
            Shown::Garbage => garbage,
        })
    }

    // ---- Authorize ----

    fn ask(&self, dice: &mut Dice) -> Ask {
        let id = dice.token(&self.oracle).filter(|_| !dice.in_256(24));
        let token = id.map(|id| &self.oracle.tokens[id]);
        let holder = token.map_or_else(|| dice.anybody(), |token| token.chain.last().unwrap().clone());
        let capability = match token {
            Some(token) if !dice.in_256(40) => dice.pick(&token.cap).unwrap().clone(),
            _ if dice.in_256(16) => dice.pick_name(&["", "no such thing", "Read", "re\"ad"]),
            _ => dice.pick_name(&generate::CAPABILITIES),
        };
        let within: Vec<&str> = generate::RESOURCES
            .into_iter()
            .filter(|resource| token.is_none_or(|token| within_any(resource, &token.res)))
            .collect();
        let resource = match within.as_slice() {
            _ if dice.in_256(16) => dice.pick_name(&generate::NOT_CANONICAL),
            [] => dice.pick_name(&generate::RESOURCES),
            _ if dice.in_256(40) => dice.pick_name(&generate::RESOURCES),
            within => dice.pick_name(within),
        };
        let mut ask = Ask {
            caller: holder.clone(),
            agent: None,
            destination: None,
            wanted: Some((capability, resource)),
            call: None,
            token: id.map(Shown::Token),
            dry_run: dice.in_256(48),
            late: dice.in_256(6),
        };
        match dice.next() {
            0..100 => ask.agent = dice.in_256(60).then_some(holder),
            100..150 => (ask.caller, ask.agent) = (generate::GUARD.to_owned(), Some(holder)),
            150..200 => {
                (ask.caller, ask.agent) = (generate::GATE.to_owned(), Some(holder));
                let named = dice.pick_name(&["svc-store", "agent-b", "svc-store", generate::GATE, "agent-c"]);
                ask.destination = Some(named).filter(|_| !dice.in_256(100));
            }
            200..225 => ask.caller = dice.anybody(),
            225..240 => (ask.caller, ask.agent) = (dice.anybody(), Some(dice.anybody())),
            _ => (ask.caller, ask.destination) = (dice.anybody(), Some(dice.anybody())),
        }
        if dice.in_256(24) {
            let call = (dice.pick_name(&["POST", "GET"]), dice.pick_name(&["/v1/delegate", "/v1/tasks/1", "/v2"]));
            ask.call = Some(call);
            if dice.in_256(128) {
                (ask.wanted, ask.token) = (None, None);
            }
        }
        if ask.wanted.is_some() && dice.in_256(8) {
            ask.token = Some(Shown::Garbage);
        }
        ask
    }

    pub async fn authorize(&mut self, ask: &Ask) -> Result<bool, TestCaseError> {
        let expected = self.oracle.authorize(ask);
        let garbage = self.garbage();
        let decision = self.world.authorize(ask, self.shown(ask.token, &garbage)).await;
        self.compare(&expected, &decision.outcome, &format!("{ask:?}"))?;
        prop_assert_eq!(decision.policy.revision, self.revision);
        prop_assert_eq!(&*decision.policy.digest, remit::digest::sha256_hex(self.text.as_bytes()));
        prop_assert_eq!(decision.dry_run, ask.dry_run);
        let allowed = decision.outcome.is_ok();
        if let (Some(Shown::Token(id)), true, Some(_)) = (ask.token, allowed, &ask.wanted) {
            if !ask.dry_run {
                self.oracle.take(id, 1);
            }
            let shown = decision.token.unwrap();
            prop_assert_eq!(shown.id, self.issued[id].id);
            prop_assert_eq!(shown.left.map(u64::from), Some(self.oracle.tokens[id].left), "{:?}", ask);
            prop_assert!(decision.chain.iter().map(AsRef::as_ref).eq(self.oracle.tokens[id].chain.iter()));
        }
        *if allowed { &mut self.counts.allowed } else { &mut self.counts.refused } += 1;
        Ok(allowed)
    }

    /// A token that is none: the last one with one digit changed, or something else.
    fn garbage(&self) -> String {
        let Some(last) = self.issued.last() else { return "e30=.00".to_owned() };
        let at = self.issued.len() * 7 % last.text.len();
        let other = if last.text.as_bytes()[at] == b'a' { 'b' } else { 'a' };
        last.text.char_indices().map(|(index, letter)| if index == at { other } else { letter }).collect()
    }

    fn compare<T>(&self, expected: &Verdict, found: &Result<T, Denial>, what: &str) -> Told {
        let policy = &self.oracle.policy;
        match found {
            Ok(_) => prop_assert!(expected.allowed, "allowed: {}\nwanted: {:?}\nunder {:?}", what, expected, policy),
            Err(denial) => {
                let reason = denial.reason().as_str();
                let right = expected.reasons.contains(&reason);
                prop_assert!(right, "{:?}: {}\nwanted: {:?}\nunder {:?}", denial, what, expected, policy);
                if expected.hop.is_some() {
                    prop_assert_eq!(denial.failed_hop(), expected.hop.as_deref(), "{:?}: {}", denial, what);
                }
            }
        }
        Ok(())
    }

    // ---- Delegate ----

    fn likely_wish(&self, dice: &mut Dice) -> Wish {
        let (rounds, from_parent) = (if dice.in_256(60) { 1 } else { TRIES }, dice.in_256(170));
        let mut wishes = (0..rounds).map(|_| self.wish(dice, from_parent));
        let mut wish = wishes.next().unwrap();
        while let (false, Some(next)) = (self.oracle.delegate(&wish).allowed, wishes.next()) {
            wish = next;
        }
        wish
    }

    /// A token that may be used anywhere, if one is granted.
    pub async fn grow(&mut self, dice: &mut Dice) -> Told {
        let wish = self.likely_wish(dice);
        self.delegate(&Wish { aud: vec![], late: false, ..wish }).await.map(drop)
    }

    /// What the token is good for: its holder asks through an enforcement point.
    pub fn proper_ask(&self, id: usize) -> Ask {
        let token = &self.oracle.tokens[id];
        let pattern = token.res.first().unwrap();
        let resource = pattern.strip_suffix('*').map_or_else(|| pattern.clone(), |point| format!("{point}x"));
        Ask {
            caller: generate::GUARD.to_owned(),
            agent: token.chain.last().cloned(),
            destination: None,
            wanted: Some((token.cap[0].clone(), resource)),
            call: None,
            token: Some(Shown::Token(id)),
            dry_run: false,
            late: false,
        }
    }

    /// What the engine alone says.
    pub async fn outcome(&self, ask: &Ask) -> Result<(), Denial> {
        self.world.authorize(ask, self.shown(ask.token, "")).await.outcome
    }

    fn wish(&self, dice: &mut Dice, from_parent: bool) -> Wish {
        let policy = &self.oracle.policy;
        let id = dice.token(&self.oracle).filter(|_| from_parent);
        let parent = id.map(|id| &self.oracle.tokens[id]);
        let agents = generate::AGENTS.map(str::to_owned);
        let starters: Vec<String> = agents
            .iter()
            .filter(|agent| {
                policy.starts(agent) && policy.rules.get(*agent).is_some_and(|rule| !rule.can_delegate_to.is_empty())
            })
            .cloned()
            .collect();
        let proper = parent.map_or_else(|| dice.pick(&starters).cloned(), |parent| parent.chain.last().cloned());
        let caller = proper.filter(|_| !dice.in_256(16)).unwrap_or_else(|| dice.anybody());
        let targets: Vec<String> =
            policy.rules.get(&caller).into_iter().flat_map(|rule| rule.can_delegate_to.clone()).collect();
        let to = dice.pick(&targets).cloned().filter(|_| !dice.in_256(16)).unwrap_or_else(|| dice.anybody());
        let rules: Vec<_> = [&caller, &to].into_iter().filter_map(|agent| policy.rules.get(agent)).collect();
        let holds = |cap: &str| {
            let held = parent.is_none_or(|parent| parent.cap.iter().any(|held| held == cap));
            held && rules.iter().all(|rule| rule.cap.contains(cap))
        };
        let capabilities = generate::CAPABILITIES;
        let caps: Vec<&str> = capabilities.into_iter().filter(|cap| holds(cap)).collect();
        let wild = caps.is_empty() || dice.in_256(16);
        let cap = dice.some(if wild { &capabilities } else { &caps });
        let covers = |res: &str| {
            let held = parent.is_none_or(|parent| within_any(res, &parent.res));
            held && rules.iter().all(|rule| within_any(res, &rule.res))
        };
        let some = (0..8).map(|_| {
            if dice.in_256(150) { dice.pick_name(&generate::PATTERNS) } else { dice.pick_name(&generate::RESOURCES) }
        });
        let all: Vec<String> = some.collect();
        let fitting: Vec<String> = all.iter().filter(|res| covers(res)).cloned().collect();
        let wild = fitting.is_empty() || dice.in_256(16);
        let res = dice.some(if wild { &all } else { &fitting }).into_iter().take(3).collect();
        let most = match parent {
            _ if dice.in_256(32) => 6,
            _ if !policy.trusts(&caller, &to) => 1,
            Some(parent) => parent.left.clamp(1, policy.max_uses_trusted),
            None => policy.max_uses_trusted,
        };
        let life = parent
            .map_or(u64::MAX, |parent| parent.exp.saturating_sub(self.oracle.now / 1000))
            .clamp(1, policy.max_ttl);
        let depth = if dice.in_256(32) { 6 } else { policy.max_depth };
        let aud: &[&str] = if dice.in_256(60) { &[generate::GUARD, "svc-store", "agent-b"] } else { &[] };
        Wish {
            caller,
            to,
            cap: cap.into_iter().map(str::to_owned).collect(),
            res,
            parent: if dice.in_256(4) { Some(Shown::Garbage) } else { id.map(Shown::Token) },
            uses: dice.in_256(140).then(|| most - u64::from(dice.next()) * most / 256),
            ttl: dice.in_256(80).then(|| 1 + u64::from(dice.next()) * life / 250),
            max_depth: dice.in_256(60).then(|| 1 + u64::from(dice.next()) % depth),
            delegatable: !dice.in_256(40),
            aud: dice.some(aud).into_iter().map(str::to_owned).collect(),
            late: dice.in_256(4),
        }
    }

    pub async fn delegate(&mut self, wish: &Wish) -> Result<Option<usize>, TestCaseError> {
        let expected = self.oracle.delegate(wish);
        let garbage = self.garbage();
        let delegation = self.world.delegate(wish, self.shown(wish.parent, &garbage)).await;
        let context = match wish.parent {
            Some(Shown::Token(id)) => format!("{wish:?} from {:?}", self.oracle.tokens[id]),
            _ => format!("{wish:?}"),
        };
        self.compare(&expected, &delegation.outcome, &context)?;
        prop_assert_eq!(delegation.policy.revision, self.revision);
        let Ok(delegated) = delegation.outcome else {
            self.counts.not_minted += 1;
            return Ok(None);
        };
        let id = self.oracle.mint(wish);
        let child = &self.oracle.tokens[id];
        self.counts.deepest = self.counts.deepest.max(child.chain.len() - 1);
        *if child.ancestors.is_empty() { &mut self.counts.roots } else { &mut self.counts.children } += 1;
        let parent = child.ancestors.last().map(|parent| self.oracle.tokens[*parent].left);
        prop_assert_eq!(delegated.parent_left.map(u64::from), parent);
        self.same_token(child, &delegated)?;
        self.issued.push(Issued { text: delegated.token, id: delegated.id });
        Ok(Some(id))
    }

    /// The answer and the token's own text say what the oracle's token says.
    fn same_token(&self, wanted: &Token, found: &Delegated) -> Told {
        prop_assert!(found.chain.iter().map(AsRef::as_ref).eq(wanted.chain.iter()));
        prop_assert_eq!((&found.capabilities, &found.resources), (&wanted.cap, &wanted.res));
        prop_assert_eq!(
            (u64::from(found.max_uses), found.expires_at.nanos()),
            (wanted.max_uses, wanted.exp * 1_000_000_000)
        );
        let claims = world::claims(&found.token);
        let ids: Vec<String> = wanted.ancestors.iter().map(|id| self.issued[*id].id.to_string()).collect();
        let issuer = &wanted.chain[wanted.chain.len() - 2];
        let same = [
            ("iss", json!(issuer)),
            ("sub", json!(wanted.chain.last())),
            ("cap", json!(wanted.cap)),
            ("res", json!(wanted.res)),
            ("max_uses", json!(wanted.max_uses)),
            ("iat", json!(wanted.iat)),
            ("exp", json!(wanted.exp)),
            ("delegatable", json!(wanted.delegatable)),
            ("chain", json!(wanted.chain)),
            ("max_depth", json!(wanted.max_depth)),
            ("jti", json!(found.id.to_string())),
        ];
        for (name, value) in same {
            prop_assert_eq!(claims.get(name), Some(&value), "claim {}", name);
        }
        let list = |name: &str| claims.get(name).cloned().unwrap_or_else(|| json!([]));
        prop_assert_eq!(list("par"), json!(ids));
        prop_assert_eq!(list("aud"), json!(wanted.aud));
        let root = claims.get("root").and_then(Value::as_str).map(str::to_owned);
        prop_assert!(root.is_none() || root == Some(ids.first().cloned().unwrap_or_else(|| found.id.to_string())));
        Ok(())
    }

    // ---- the others ----

    async fn revoke_something(&mut self, dice: &mut Dice) -> Told {
        let id = dice.token(&self.oracle);
        let kind = dice.next() % 16;
        let agent = dice.pick_name(&generate::AGENTS);
        let target = match (kind, id) {
            (0..5, Some(id)) => Target::Token(Shown::Token(id)),
            (5..8, Some(id)) => Target::Id(id),
            (8, _) => Target::UnknownId,
            (9, _) => Target::Token(Shown::Garbage),
            (10, _) => Target::All,
            (11, _) => Target::Quarantine(agent.clone()),
            _ => Target::Agent(agent.clone()),
        };
        let own = match (&target, id) {
            (Target::Token(_) | Target::Id(_), Some(id)) => dice.pick(&self.oracle.tokens[id].chain).unwrap().clone(),
            (Target::Agent(_), _) => agent,
            _ => generate::ADMINISTRATOR.to_owned(),
        };
        let by = match dice.next() {
            0..100 => own,
            100..200 => generate::ADMINISTRATOR.to_owned(),
            _ => dice.anybody(),
        };
        self.revoke(&by, &target).await.map(drop)
    }

    pub async fn revoke(&mut self, by: &str, target: &Target) -> Result<bool, TestCaseError> {
        let expected = self.oracle.revoke(by, target);
        let garbage = self.garbage();
        let aimed = match target {
            Target::Token(shown) => RevokeTarget::Token(self.shown(Some(*shown), &garbage).unwrap()),
            Target::Id(id) => RevokeTarget::TokenId(self.issued[*id].id),
            Target::UnknownId => RevokeTarget::TokenId(TokenId::from_bytes([9; 16])),
            Target::Agent(agent) => RevokeTarget::Agent(name_of(agent)),
            Target::Quarantine(agent) => RevokeTarget::Quarantine(name_of(agent)),
            Target::All => RevokeTarget::All,
        };
        let outcome = self.world.engine.revoke(&caller(by), &Revocation { target: aimed, note: "" }).await;
        self.compare(&expected, &outcome, &format!("{by} revokes {target:?}"))?;
        if outcome.is_ok() {
            self.counts.revoked += 1;
            self.oracle.end(target);
        }
        Ok(outcome.is_ok())
    }

    async fn reinstate(&mut self, dice: &mut Dice) -> Told {
        let agents: Vec<String> = generate::AGENTS
            .iter()
            .filter(|agent| self.oracle.is_quarantined(agent))
            .map(|agent| (*agent).to_owned())
            .collect();
        let agent = dice.pick(&agents).cloned().unwrap_or_else(|| dice.anybody());
        let by = if dice.in_256(60) { dice.anybody() } else { generate::ADMINISTRATOR.to_owned() };
        let expected = self.oracle.reinstate(&by, &agent);
        let outcome = self.world.engine.reinstate(&caller(&by), &name_of(&agent), "").await;
        let by_file = matches!(&outcome, Err(NotReinstated::ByFile(_)));
        let outcome = outcome.map_err(|(NotReinstated::ByFile(denial) | NotReinstated::Denied(denial))| denial);
        self.compare(&expected, &outcome, &format!("{by} reinstates {agent}"))?;
        prop_assert!(by_file == (!expected.allowed && self.oracle.revoke(&by, &Target::All).allowed));
        if outcome.is_ok() {
            self.oracle.quarantined.remove(&agent);
        }
        Ok(())
    }

    fn tick(&mut self, millis: u64) {
        self.world.clock.advance(std::time::Duration::from_millis(millis));
        self.oracle.now += millis;
    }

    pub async fn reload(&mut self, policy: Policy) {
        self.revision += 1;
        self.text = world::policy_text(&policy);
        self.world.engine.install(world::in_force(&self.text, self.revision)).await;
        self.oracle.reload(policy);
    }

    fn sweep(&self) {
        let (ledger, now) = (self.world.engine.state().ledger().unwrap(), self.world.clock.now());
        (0..ledger.shards()).for_each(|shard| ledger.sweep(shard, now));
        ledger.forget_outlived_revocations(now);
    }

    /// Another issuer seals a token with the key that it shares, now or a little earlier or later.
    fn foreign(&mut self, dice: &mut Dice) {
        let [iss, sub] = [dice.pick_name(&generate::AGENTS), dice.pick_name(&generate::AGENTS)];
        let starters: Vec<&str> =
            generate::AGENTS.into_iter().filter(|agent| self.oracle.policy.starts(agent)).collect();
        let iss = dice.pick(&starters).map_or(iss, |starter| (*starter).to_owned());
        let targets: Vec<String> =
            self.oracle.policy.rules.get(&iss).into_iter().flat_map(|rule| rule.can_delegate_to.clone()).collect();
        let sub = dice.pick(&targets).cloned().unwrap_or(sub);
        if iss == sub {
            return;
        }
        let iat = (self.oracle.now / 1000 + 1).saturating_sub(u64::from(dice.next() % 8));
        let exp = iat + 1 + u64::from(dice.next()) * self.oracle.policy.max_ttl / 250;
        let max_uses = 1 + u64::from(dice.next() % 3);
        let cap: Vec<String> = dice.some(&generate::CAPABILITIES).into_iter().map(str::to_owned).collect();
        let res = vec![dice.pick_name(&generate::PATTERNS)];
        let delegatable = !dice.in_256(60);
        let payload = json!({
            "iss": iss, "sub": sub, "cap": cap, "res": res, "max_uses": max_uses, "iat": iat, "exp": exp,
            "delegatable": delegatable,
        });
        let text = world::seal(world::FOREIGN_KEY, &payload.to_string());
        let id =
            self.world.engine.keyring().open(&text, &mut Vec::new()).unwrap_or_else(|denial| panic!("{denial:?}")).id();
        if self.issued.iter().any(|issued| issued.id == id) {
            return;
        }
        self.issued.push(Issued { text, id });
        self.oracle.tokens.push(Token {
            chain: vec![iss, sub],
            cap,
            res,
            max_uses,
            left: max_uses,
            iat,
            exp,
            delegatable,
            ancestors: vec![],
            max_depth: None,
            aud: vec![],
            foreign: true,
            born: None,
        });
    }
}
