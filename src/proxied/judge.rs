//! From a held request to a verdict, in one line: who asks, who sent it, what it means, and what the engine says of it.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use serde_json::{Map, Value, json};

use super::headers::{Headers, unclear};
use super::rpc::RpcRequest;
use super::rules::{Meaning, Rules};
use super::sender::{destination, sender};
use super::target::Target;
use super::verdict::Verdict;
use super::{Held, Route};
use crate::domain::facts::{Facts, Given};
use crate::domain::reason::{Denial, Reason};
use crate::door::{Door, TurnedAway, Visit};
use crate::engine::{Action, AgentCall, AuthorizeRequest, Decision, Verb};
use crate::identity::Unidentified;
use crate::identity::forwarded::Introduction;
use crate::identity::signing::Unsigned;

/// Answers proxies.
#[derive(Clone)]
pub struct Gatekeeper {
    door: Door,
    rules: Arc<Rules>,
}

/// A request that can be read in one way.
struct Understood<'a> {
    target: Target<'a>,
    meaning: Meaning,
    token: Option<&'a str>,
    rpc: Option<RpcRequest>,
}

impl Gatekeeper {
    /// One that lets proxies in by this door, and knows what requests mean by these rules.
    #[must_use]
    pub fn new(door: Door, rules: Arc<Rules>) -> Self {
        Self { door, rules }
    }

    /// The door by which proxies come in.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// The verdict on a request that a proxy holds. `enter`: how the proxy comes in, by its own connection and headers,
    /// never the held request's. `held` reads the request, once it is known that the proxy may ask; it gets the header in
    /// which this proxy tells its client's certificate, if it has one. Whatever happens, it is a verdict: a proxy may take
    /// an error for leave to let the request pass.
    pub async fn check<'a>(
        &self,
        enter: impl FnOnce(&Door) -> Result<Arc<Visit>, TurnedAway>,
        held: impl FnOnce(Option<&str>) -> Result<Held<'a>, &'static str>,
    ) -> Verdict {
        let mut judging = pin!(self.enter(enter, held));
        let judged = poll_fn(|context| {
            // What is left half done is not looked at again.
            match catch_unwind(AssertUnwindSafe(|| judging.as_mut().poll(context))) {
                Ok(poll) => poll.map(Some),
                Err(_) => Poll::Ready(None),
            }
        });
        judged.await.unwrap_or_else(|| {
            let denial = Denial::new(Reason::StateUnavailable, "it can't be decided: see the service's log");
            self.refused(&denial)
        })
    }

    /// A refusal of a request that can't be read at all.
    fn unreadable(&self, why: &'static str) -> Verdict {
        self.door.engine().tally().malformed(Verb::Authorize);
        self.refused(&unclear(why.to_owned()))
    }

    async fn enter<'a>(
        &self,
        enter: impl FnOnce(&Door) -> Result<Arc<Visit>, TurnedAway>,
        held: impl FnOnce(Option<&str>) -> Result<Held<'a>, &'static str>,
    ) -> Verdict {
        match enter(&self.door) {
            Ok(visit) => match may_ask(&visit) {
                Ok(()) => match held(self.rules.certificate_header_of(visit.caller.agent().as_str())) {
                    Ok(held) => self.judge(&visit, &held).await,
                    Err(why) => self.unreadable(why),
                },
                Err(denial) => self.refused(&denial),
            },
            Err(turned_away) => self.turned_away(&turned_away),
        }
    }

    /// A refusal of a request whose proxy was not let in.
    #[must_use]
    pub fn turned_away(&self, turned_away: &TurnedAway) -> Verdict {
        match turned_away {
            TurnedAway::Overloaded => {
                self.refused(&Denial::new(Reason::RateLimited, "too many requests at once: come back in a moment"))
            }
            TurnedAway::Nobody(_) => {
                let message = "the proxy has no verified identity that is an agent's: let it connect with its own client certificate";
                self.refused(&Denial::new(Reason::CallerNotEnforcementPoint, message))
            }
        }
    }

    /// A refusal of a request that was not decided in time.
    #[must_use]
    pub fn too_late(&self) -> Verdict {
        self.refused(&Denial::new(Reason::DeadlineExceeded, "the request was not there, or not decided, in time"))
    }

    async fn judge(&self, visit: &Visit, held: &Held<'_>) -> Verdict {
        let (engine, identity) = (self.door.engine(), self.door.identity());
        let policy = visit.policy();
        let agent = match sender(held, &self.rules, identity, policy, engine.clock().now()) {
            Ok(agent) => agent,
            Err(nobody) => return self.nobody(&nobody),
        };
        let destination = destination(held, identity, policy, &visit.caller);
        let asked = |action, token| AuthorizeRequest {
            action,
            token,
            agent: Some(agent.as_str()),
            agent_evidence: None,
            destination,
            given: Given::default(),
            dry_run: false,
            // An id that the client chose would let it hide that it uses a token again.
            request_id: "",
            deadline: visit.deadline,
        };
        // What the proxy says with its question is nearer than what came with the request that it holds.
        let begun = visit.beginning.trace();
        let named = begun.filter(|trace| trace.parent.is_some()).or_else(|| held.headers.trace());
        let beginning = visit.beginning.clone().traced(named.or(begun));
        let decision = match self.understand(held) {
            Ok(understood) => {
                let given = Given { context: Some(&understood), ..Given::default() };
                let request = AuthorizeRequest { given, ..asked(understood.action(), understood.token()) };
                engine.authorize_under(&beginning, &visit.caller, &request).await
            }
            Err(denial) => {
                let path = held.target.split_once('?').map_or(held.target, |(path, _)| path);
                let request = asked(Action::Call(AgentCall { method: held.method, path }), None);
                engine.refuse_under(&beginning, &visit.caller, &request, denial)
            }
        };
        let receiver = destination.unwrap_or(visit.caller.agent().as_str());
        Verdict::of(&decision, &held.headers, self.signed(&decision, receiver))
    }

    /// Who sent the request, signed for its receiver; none where Remit signs nothing.
    fn signed(&self, decision: &Decision, receiver: &str) -> Option<String> {
        let identity = decision.agent.as_ref().filter(|_| decision.outcome.is_ok())?;
        let introduction = Introduction {
            identity,
            audience: receiver,
            chain: &decision.chain,
            on_behalf_of: decision.on_behalf_of.as_deref(),
            id: &decision.id.to_string(),
        };
        match self.door.identity().sources().forwarding.sign(&introduction, self.door.engine().clock().now()) {
            Ok(signed) => Some(signed),
            Err(Unsigned::NoKey) => None,
            Err(unsigned) => {
                tracing::warn!(target: "identity", %unsigned, "a request passes without a signed identity");
                None
            }
        }
    }

    fn understand<'a>(&self, held: &Held<'a>) -> Result<Understood<'a>, Denial> {
        held.headers.check()?;
        let target = Target::of(held)?;
        let token = held.headers.token()?;
        let mut rpc = None;
        let meaning = self.meaning(held, &target, &mut rpc)?;
        if let Some(rpc) = &rpc {
            agrees(&held.headers, rpc)?;
        }
        if meaning == Meaning::Call && token.is_some() && target.is_canonical() {
            let why = "a call without capability and resource is decided without a token: leave it out";
            return Err(unclear(why.to_owned()));
        }
        Ok(Understood { target, meaning, token, rpc })
    }

    fn meaning(&self, held: &Held<'_>, target: &Target<'_>, rpc: &mut Option<RpcRequest>) -> Result<Meaning, Denial> {
        let Route { capability, resource, .. } = held.route;
        match (capability, resource) {
            (Some(capability), Some(resource)) if !capability.is_empty() && !resource.is_empty() => {
                Ok(Meaning::Use(capability.to_owned(), resource.to_owned()))
            }
            (None, None) if target.is_canonical() => self.rules.meaning(target, held.body, rpc),
            // A path that is not canonical means nothing, and the engine refuses it.
            (None, None) => Ok(Meaning::Call),
            _ => Err(unclear("the route has one of remit-capability and remit-resource: set both or none".to_owned())),
        }
    }

    fn nobody(&self, nobody: &Unidentified) -> Verdict {
        self.door.engine().tally().unauthenticated(nobody.method());
        match nobody {
            Unidentified::Unauthenticated(why) => {
                tracing::debug!(target: "identity", why, "refused");
                let message = "nobody is verified to have sent the request: connect with a client certificate";
                self.refused(&Denial::new(Reason::IdentitySelfAsserted, message))
            }
            Unidentified::SelfAsserted(denial) | Unidentified::Unmapped(denial) => self.refused(denial),
        }
    }

    fn refused(&self, denial: &Denial) -> Verdict {
        // The proxy's client is told the reason alone.
        tracing::debug!(target: "ext_authz", reason = denial.reason().as_str(), detail = %denial.message(), "refused");
        Verdict::refused(denial, self.door.engine().events().decision_id())
    }
}

/// Whether the headers in which newer MCP clients repeat their request say what the body says: a server, or a proxy before
/// it, may go by them.
fn agrees(headers: &Headers<'_>, rpc: &RpcRequest) -> Result<(), Denial> {
    let named = |key: &str| rpc.params.get(key).and_then(Value::as_str);
    for (header, said) in
        [("mcp-method", Some(rpc.method.as_str())), ("mcp-name", named("name").or_else(|| named("uri")))]
    {
        if headers.single(header)?.is_some_and(|told| Some(told) != said) {
            return Err(unclear(format!("the header {header} is not what the body says")));
        }
    }
    Ok(())
}

/// Whether the caller may ask about requests of others. Nothing is evaluated or counted where it may not.
fn may_ask(visit: &Visit) -> Result<(), Denial> {
    let name = visit.caller.agent().as_str();
    if visit.caller.is_privileged() && visit.policy().enforcement_point(name).is_some() {
        return Ok(());
    }
    let message = format!("{name} may not ask about requests of others: list it in enforcement_points");
    Err(Denial::new(Reason::CallerNotEnforcementPoint, message))
}

impl<'a> Understood<'a> {
    fn action(&self) -> Action<'_> {
        let call = AgentCall { method: self.target.method, path: self.target.path };
        match &self.meaning {
            Meaning::Use(capability, resource) => Action::UseByCall(capability, resource, call),
            Meaning::Call => Action::Call(call),
        }
    }

    /// The token that is spent. A call that needs no capability has none.
    fn token(&self) -> Option<&'a str> {
        match self.meaning {
            Meaning::Use(..) => self.token,
            Meaning::Call => None,
        }
    }
}

/// What the policy's conditions see of a request: `http`, and `rpc` where a rule looked at the body.
impl Facts for Understood<'_> {
    fn to_map(&self) -> Map<String, Value> {
        let Target { method, host, path, query } = &self.target;
        let http = json!({ "method": method, "host": host, "path": path, "query": query });
        let rpc = self.rpc.as_ref().map(|rpc| json!({ "method": rpc.method, "params": rpc.params }));
        let facts = [("http", Some(http)), ("rpc", rpc)];
        facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c16_a_header_that_repeats_the_body_otherwise_denies() {
        let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
        let read = br#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:a"}}"#;
        let list = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let agrees = |body: &[u8], headers: &[(&'static str, &'static str)]| {
            let headers = Headers::new(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
            agrees(&headers, &RpcRequest::parse(body).unwrap()).is_ok()
        };
        assert!(agrees(call, &[]) && agrees(call, &[("Mcp-Method", "tools/call"), ("Mcp-Name", "a")]));
        assert!(agrees(read, &[("mcp-name", "file:a")]));
        assert!(!agrees(list, &[("mcp-method", "tools/call")]) && !agrees(list, &[("mcp-name", "a")]));
        assert!(!agrees(call, &[("mcp-name", "b")]) && !agrees(call, &[("mcp_method", "tools/call")]));
        assert!(!agrees(call, &[("mcp-name", "a"), ("mcp-name", "a")]));
    }
}
