//! Takes the steps of a case and says, readably, where it does not hold.

use std::borrow::Cow;
use std::time::Duration;

use remit::domain::agent::AgentName;
use remit::domain::caller::Caller;
use remit::domain::chain::Wish;
use remit::domain::facts::Given;
use remit::domain::resource::Pattern;
use remit::domain::time::Timestamp;
use remit::domain::token::TokenId;
use remit::engine::{
    Action as Does, AgentCall, AuthorizeRequest, DelegateRequest, Revocation, RevokeTarget, TokenTarget,
};
use remit::state::Capacity;
use serde_json::{Value, json};

use crate::case::{Action, Authorize, Case, Deed, Delegate, Introspect, Revoke, Step, patch};
use crate::compare::differences;
use crate::harness::audit::AuditLog;
use crate::harness::{Setup, World};
use crate::names::{Names, key_byte};
use crate::{answers, callers};

/// A case while it is played.
struct Play<'c> {
    case: &'c Case,
    world: World,
    names: Names,
    policy: Value,
    /// The number of the last event.
    sequence: u64,
    /// Events that stand for repeated denials, which no step has wanted yet.
    repeats: Vec<Value>,
}

/// Plays a case.
///
/// # Errors
/// What was wanted and what was found, for every step that differs.
pub(crate) fn play(case: &Case) -> Result<(), String> {
    let mut play = Play::begin(case)?;
    let mut failures = Vec::new();
    for (index, step) in case.steps.iter().enumerate() {
        if let Err(what) = play.step(step) {
            failures.push(format!("  step {}: {}", index.saturating_add(1), what.join("\n    ")));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("{}: {}\n{}", case.file, case.name, failures.join("\n"))) }
}

impl<'c> Play<'c> {
    fn begin(case: &'c Case) -> Result<Self, String> {
        let switches = &case.world;
        let mut setup = Setup::policy(case.policy_text());
        setup.capacity = Capacity {
            entries: switches.capacity.unwrap_or(setup.capacity.entries),
            per_agent: switches.per_agent.unwrap_or(setup.capacity.per_agent),
        };
        setup.max_policy_age = switches.max_policy_age.as_deref().map(duration).transpose()?;
        if let Some(names) = &switches.keys {
            setup.keys = keys(names);
        }
        if switches.audit_pipe {
            setup.audit = AuditLog::pipe();
        }
        let policy = serde_json::from_str(&setup.policy).map_err(|error| error.to_string())?;
        Ok(Self { case, world: World::of(setup), names: Names::default(), policy, sequence: 0, repeats: Vec::new() })
    }

    fn step(&mut self, step: &Step) -> Result<(), Vec<String>> {
        self.names.set_now(self.world.now().seconds());
        let one = |what: String| vec![what];
        if step.is_verb() {
            return self.verb(step);
        }
        match &step.action {
            Action::Advance(by) => self.world.advance(duration(by).map_err(one)?),
            Action::Reload(change) => return self.reload(change, step),
            Action::Keys(names) => self.world.change_keys(&keys(names)),
            Action::Do(deed) => self.happen(*deed),
            Action::Metrics(wanted) => {
                let wrong = wanted.iter().filter_map(|(series, wanted)| self.metric(series, *wanted));
                let wrong: Vec<String> = wrong.collect();
                return if wrong.is_empty() { Ok(()) } else { Err(wrong) };
            }
            Action::MintForeign(step) => self.names.mint_foreign(step),
            Action::Forge(step) => self.names.forge(step).map_err(one)?,
            Action::Mangle(step) => self.names.mangle(step).map_err(one)?,
            Action::Authorize(_)
            | Action::Delegate(_)
            | Action::Revoke(_)
            | Action::Reinstate(_)
            | Action::Introspect(_) => {}
        }
        self.late_events(step)
    }

    fn verb(&mut self, step: &Step) -> Result<(), Vec<String>> {
        let by = step.by.as_ref().ok_or_else(|| vec!["nobody asks".to_owned()])?;
        let caller = callers::caller(&self.world, &self.case.world, by).map_err(|what| vec![what])?;
        let answer = match caller {
            Ok(caller) => self.ask(&caller, &step.action).map_err(|what| vec![what])?,
            Err(nobody) => nobody,
        };
        let wanted = match &step.want {
            Some(Value::String(reason)) => json!({"reason": reason}),
            other => other.clone().unwrap_or_default(),
        };
        let mut wrong = differences("answer", &wanted, &answer, &self.names);
        let events = self.new_events(&mut wrong);
        let event = step.event.as_ref().unwrap_or(&Value::Null);
        match (event, events.as_slice()) {
            (Value::Object(_), [found]) => {
                wrong.extend(self.odd(found, &answer));
                wrong.extend(differences("event", event, found, &self.names));
            }
            (Value::String(_), []) => {}
            (Value::Object(_), found) => wrong.push(format!("event: wanted one, found {}", found.len())),
            (_, found) => wrong.push(format!("event: wanted none, found {}", found.len())),
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.push(format!("the answer: {answer}"));
        wrong.extend(events.iter().map(|event| format!("the event:  {event}")));
        Err(wrong)
    }

    fn ask(&mut self, caller: &Caller, action: &Action) -> Result<Value, String> {
        match action {
            Action::Authorize(step) => self.authorize(caller, step),
            Action::Delegate(step) => self.delegate(caller, step),
            Action::Revoke(step) => self.revoke(caller, step),
            Action::Introspect(step) => self.introspect(caller, step),
            Action::Reinstate(step) => Ok(answers::reinstated(&self.world.reinstate(caller, &step.agent, &step.note))),
            Action::Advance(_)
            | Action::Reload(_)
            | Action::Do(_)
            | Action::Keys(_)
            | Action::Metrics(_)
            | Action::MintForeign(_)
            | Action::Forge(_)
            | Action::Mangle(_) => Err("nothing is asked".to_owned()),
        }
    }

    fn authorize(&self, caller: &Caller, step: &Authorize) -> Result<Value, String> {
        let call = match (&step.method, &step.path) {
            (Some(method), Some(path)) => Some(AgentCall { method, path }),
            (None, None) => None,
            _ => return Err("a call has a method and a path".to_owned()),
        };
        let action = match (&step.cap, &step.res, call) {
            (Some(capability), Some(resource), None) => Does::Use(capability, resource),
            (Some(capability), Some(resource), Some(call)) => Does::UseByCall(capability, resource, call),
            (None, None, Some(call)) => Does::Call(call),
            _ => return Err("name `cap` and `res`, `method` and `path`, or all four".to_owned()),
        };
        let evidence =
            step.evidence.as_ref().map(|shown| callers::agent_evidence(shown, self.world.now())).transpose()?;
        let request = AuthorizeRequest {
            action,
            token: step.token.as_deref().map(|name| self.names.text(name)).transpose()?,
            agent: step.agent.as_deref(),
            agent_evidence: evidence.as_ref().map(Result::as_ref),
            destination: step.destination.as_deref(),
            given: Given {
                context: Some(&step.context),
                subject: Some(&step.properties.subject),
                action: Some(&step.properties.action),
                resource: Some(&step.properties.resource),
            },
            dry_run: step.dry_run,
            request_id: &step.request_id,
            deadline: self.deadline(step.deadline.as_deref())?,
        };
        Ok(answers::decision(&self.world.authorize(caller, &request), self.world.now()))
    }

    fn delegate(&mut self, caller: &Caller, step: &Delegate) -> Result<Value, String> {
        let patterns: Result<Vec<_>, _> = step.res.iter().map(|text| Pattern::parse(text.as_str())).collect();
        let resources = match patterns {
            Ok(patterns) => patterns,
            // Doors answer this before the engine is asked.
            Err(invalid) => return Ok(json!({"reason": "INVALID_ARGUMENT", "message": invalid.to_string()})),
        };
        let request = DelegateRequest {
            wish: Wish {
                to: &step.to,
                capabilities: step.cap.iter().map(|name| Cow::Borrowed(name.as_str())).collect(),
                resources,
                max_uses: step.uses,
                ttl_seconds: step.ttl,
                max_depth: step.max_depth,
                delegatable: step.delegatable,
                audience: step.audience.iter().map(|name| Cow::Borrowed(name.as_str())).collect(),
                task: step.task.as_deref().map(Cow::Borrowed),
                on_behalf_of: step.obo.as_deref().map(Cow::Borrowed),
            },
            parent: step.from.as_deref().map(|name| self.names.text(name)).transpose()?,
            request_id: &step.request_id,
            deadline: self.deadline(step.deadline.as_deref())?,
            expires_by: None,
            exchange: None,
        };
        let delegation = self.world.delegate(caller, &request);
        if let (Some(name), Ok(delegated)) = (&step.name, &delegation.outcome) {
            self.names.add(name, delegated.token.clone(), delegated.id.to_string());
        }
        Ok(answers::delegation(&delegation))
    }

    fn revoke(&self, caller: &Caller, step: &Revoke) -> Result<Value, String> {
        let agent = |name: &str| AgentName::parse(name).map_err(|error| error.to_string());
        let target = match step {
            Revoke { token: Some(name), .. } => RevokeTarget::Token(self.names.text(name)?),
            Revoke { token_id: Some(name), .. } => RevokeTarget::TokenId(self.token_id(name)?),
            Revoke { agent: Some(name), .. } => RevokeTarget::Agent(agent(name)?),
            Revoke { quarantine: Some(name), .. } => RevokeTarget::Quarantine(agent(name)?),
            Revoke { all: true, .. } => RevokeTarget::All,
            _ => return Err("nothing is revoked".to_owned()),
        };
        Ok(answers::revoked(&self.world.revoke(caller, &Revocation { target, note: &step.note })))
    }

    fn introspect(&self, caller: &Caller, step: &Introspect) -> Result<Value, String> {
        let target = match (&step.token, &step.token_id) {
            (Some(name), None) => TokenTarget::Token(self.names.text(name)?),
            (None, Some(name)) => TokenTarget::Id(self.token_id(name)?),
            _ => return Err("name `token` or `token_id`".to_owned()),
        };
        Ok(answers::introspection(&self.world.introspect(caller, target)))
    }

    fn token_id(&self, name: &str) -> Result<TokenId, String> {
        TokenId::parse(self.names.id(name)?).ok_or_else(|| format!("{name} has no id"))
    }

    fn deadline(&self, text: Option<&str>) -> Result<Timestamp, String> {
        let patience = text.map_or(Ok(crate::harness::PATIENCE), duration)?;
        Ok(self.world.now().after(patience))
    }

    fn reload(&mut self, change: &Value, step: &Step) -> Result<(), Vec<String>> {
        let mut policy = self.policy.clone();
        patch(&mut policy, change);
        let before = self.world.engine.policy().policy.id.clone();
        let answer = match self.world.reload(&policy.to_string()) {
            Ok(()) => {
                self.policy = policy;
                json!({"reason": "LOADED"})
            }
            Err(error) => json!({"reason": "REFUSED", "message": error.to_string()}),
        };
        let wanted = step.want.clone().unwrap_or_else(|| json!({"reason": "LOADED"}));
        let mut wrong = differences("reload", &wanted, &answer, &self.names);
        let is_refused = answer.get("reason").is_some_and(|reason| reason == "REFUSED");
        let id = self.world.engine.policy().policy.id.clone();
        if is_refused == (id != before) {
            wrong.push("reload: the policy in force is not the one that was loaded last".to_owned());
        }
        let loaded = json!({"message_type": "policy", "result": "accepted", "target": &*id.digest,
            "policy_revision": id.revision, "policy_digest": &*id.digest});
        let mut events: Vec<Value> = if is_refused { Vec::new() } else { vec![loaded] };
        events.extend(step.events.iter().flatten().cloned());
        let found = self.new_events(&mut wrong);
        wrong.extend(differences("events", &events.into(), &found.into(), &self.names));
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn happen(&mut self, deed: Deed) {
        match deed {
            Deed::ReadPolicy => self.world.engine.policy_found_valid(self.world.now()),
            Deed::ForgetExpired => self.forget_expired(),
            Deed::StickAudit => self.world.audit().stick(),
            Deed::UnstickAudit => self.world.audit().unstick(),
        }
    }

    fn forget_expired(&self) {
        let ledger = self.world.engine.state().ledger().unwrap();
        for shard in 0..ledger.shards() {
            ledger.sweep(shard, self.world.now());
        }
        ledger.forget_outlived_revocations(self.world.now());
    }

    fn metric(&self, series: &str, wanted: Option<f64>) -> Option<String> {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels: Vec<(&str, &str)> =
            labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('=')).collect();
        let found = self.world.metric(name, &labels);
        (found != wanted).then(|| format!("{series}: wanted {wanted:?}, found {found:?}"))
    }

    /// Events of this step; those that stand for repeated denials are kept for the step that wants them.
    fn new_events(&mut self, wrong: &mut Vec<String>) -> Vec<Value> {
        let events = self.world.events();
        for event in &events {
            let next = self.sequence.saturating_add(1);
            if event.get("sequence") != Some(&json!(next)) {
                wrong.push(format!("event: wanted the sequence {next} in {event}"));
            }
            self.sequence = next;
        }
        let (repeats, events) = events.into_iter().partition(|event| event.get("repeated").is_some());
        self.repeats.extend::<Vec<Value>>(repeats);
        events
    }

    /// What holds for every event, whatever the case says.
    fn odd(&self, event: &Value, answer: &Value) -> Vec<String> {
        let allowed = answer.get("reason").is_some_and(|reason| reason == "ALLOWED");
        let mut wanted = json!({
            "event": "agent.communication",
            "stream_id": "000000000000feed",
            "reason": answer.get("reason"),
            "message": answer.get("message").unwrap_or(&Value::Null),
            "policy_revision": self.world.engine.policy().policy.id.revision,
            "policy_digest": &*self.world.engine.policy().policy.id.digest,
        });
        if let (Some(wanted), Some(id)) = (wanted.as_object_mut(), answer.get("decision_id")) {
            wanted.insert("decision_id".to_owned(), id.clone());
        }
        let mut wrong = differences("event", &wanted, event, &self.names);
        if allowed != event.get("result").is_some_and(|result| result == "accepted") {
            wrong.push("event.result: `accepted` goes with ALLOWED and with nothing else".to_owned());
        }
        let chain = event.get("delegation_chain").and_then(Value::as_array).map_or(0, Vec::len);
        if event.get("delegation_depth") != Some(&json!(chain.saturating_sub(1))) {
            wrong.push("event.delegation_depth: is not the hops of delegation_chain".to_owned());
        }
        let keys = ["timestamp", "from_agent", "to_agent", "message_type", "capabilities_used", "token_id", "result"];
        wrong.extend(keys.iter().filter(|key| event.get(**key).is_none()).map(|key| format!("event.{key}: missing")));
        wrong
    }

    /// Events that come by themselves: when a second is over, or when the audit log is well again.
    fn late_events(&mut self, step: &Step) -> Result<(), Vec<String>> {
        let mut wanted: Vec<&Value> = step.events.iter().flatten().collect();
        wanted.extend(&step.event);
        let (mut wrong, mut found) = (Vec::new(), Vec::new());
        for _ in 0..1_000 {
            let events = self.new_events(&mut wrong);
            found.extend(events);
            found.append(&mut self.repeats);
            if found.len() >= wanted.len() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if found.len() != wanted.len() && !wanted.is_empty() {
            wrong.push(format!("events: wanted {}, found {}", wanted.len(), found.len()));
        }
        for (wanted, found) in wanted.iter().zip(&found) {
            wrong.extend(differences("event", wanted, found, &self.names));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.extend(found.iter().map(|event| format!("the event:  {event}")));
        Err(wrong)
    }
}

fn keys(names: &[String]) -> Vec<(u8, bool)> {
    names.iter().map(|name| (key_byte(name), !name.starts_with("own:"))).collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| format!("{text} is not a time: 10s, 500ms, 5m"))?;
    match text.strip_prefix(digits) {
        Some("ms") => Ok(Duration::from_millis(number)),
        Some("s") => Ok(Duration::from_secs(number)),
        Some("m") => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("{text} is not a time: 10s, 500ms, 5m")),
    }
}
