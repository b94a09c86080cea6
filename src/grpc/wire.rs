//! Messages taken apart into what the engine understands, or refused by field; and answers put together.

mod answer;
mod event;
mod facts;

use std::borrow::Cow;
use std::collections::HashSet;

use prost_types::{Duration, Struct};

pub(super) use answer::{
    authorize_response, delegate_response, identity_response, introspect_response, malformed_refusal,
    malformed_response, refusal, timestamp,
};
pub(super) use event::{watch, watched};
pub(super) use facts::structure;

use crate::api as pb;
use crate::domain::agent::AgentName;
use crate::domain::capability::Capability;
use crate::domain::chain::Wish;
use crate::domain::facts::{Facts, Given, within_bounds};
use crate::domain::limits;
use crate::domain::resource::{InvalidResource, Pattern};
use crate::domain::time::Timestamp;
use crate::domain::token::{TokenId, is_free_text};
use crate::engine::{
    Action, AgentCall, AgentMessage, AuthorizeRequest, DelegateRequest, Revocation, RevokeTarget, TokenTarget,
};

/// A field that is not of its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    field: Cow<'static, str>,
    why: Cow<'static, str>,
}

impl Malformed {
    pub(super) fn new(field: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    pub(super) fn field(&self) -> &str {
        &self.field
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// A question, taken apart.
pub(super) fn authorize(
    request: &pb::AuthorizeRequest,
    deadline: Timestamp,
) -> Result<AuthorizeRequest<'_>, Malformed> {
    let pb::AuthorizeRequest {
        capability,
        resource,
        token,
        agent,
        context,
        dry_run,
        request_id,
        method,
        path,
        destination,
        // Verified elsewhere: it needs more than the message.
        agent_credential: _,
        forward_identity: _,
    } = request;
    check_context(context.as_ref())?;
    let action = action(capability, resource, method, path)?;
    let token = present(token);
    if token.is_some() && matches!(action, Action::Call(_)) {
        return Err(Malformed::new(
            "token",
            "a call without capability and resource is decided without a token: leave it out",
        ));
    }
    Ok(AuthorizeRequest {
        action,
        token,
        agent: present(agent).map(|name| agent_name("agent", name)).transpose()?,
        agent_evidence: None,
        destination: present(destination).map(|name| agent_name("destination", name)).transpose()?,
        given: Given { context: context.as_ref().map(facts), ..Given::default() },
        dry_run: *dry_run,
        request_id: text("request_id", request_id)?,
        deadline,
    })
}

/// A wish for a token, taken apart.
pub(super) fn delegate(request: &pb::DelegateRequest, deadline: Timestamp) -> Result<DelegateRequest<'_>, Malformed> {
    let pb::DelegateRequest {
        to_agent,
        capabilities,
        resources,
        parent_token,
        max_uses,
        ttl,
        max_depth,
        delegatable,
        audience,
        // Verified elsewhere: it needs more than the message.
        obo_credential: _,
        task,
        request_id,
    } = request;
    let content = capabilities.iter().chain(resources).map(String::len).fold(0, usize::saturating_add);
    if content > limits::TOKEN_CONTENT_BYTES {
        let why = format!("with the resources {content} bytes, which no token of {} bytes holds", limits::TOKEN_BYTES);
        return Err(Malformed::new("capabilities", why));
    }
    let wish = Wish {
        to: agent_name("to_agent", to_agent)?,
        capabilities: wanted_capabilities(capabilities)?,
        resources: wanted_resources(resources)?,
        max_uses: max_uses.map(|uses| positive("max_uses", uses)).transpose()?,
        ttl_seconds: ttl.as_ref().map(whole_seconds).transpose()?,
        max_depth: max_depth.map(depth).transpose()?,
        delegatable: *delegatable,
        audience: places(audience)?,
        task: present(text("task", task)?).map(Cow::Borrowed),
        on_behalf_of: None,
    };
    let request_id = text("request_id", request_id)?;
    Ok(DelegateRequest { wish, parent: present(parent_token), request_id, deadline, expires_by: None, exchange: None })
}

/// What is to end, taken apart.
pub(super) fn revocation(request: &pb::RevokeRequest) -> Result<Revocation<'_>, Malformed> {
    use pb::revoke_request::Target;
    let pb::RevokeRequest { target, quarantine, note } = request;
    let target = target.as_ref().ok_or_else(|| Malformed::new("target", "say one of token, token_id, agent or all"))?;
    if *quarantine && !matches!(target, Target::Agent(_)) {
        return Err(Malformed::new("quarantine", "only an agent can be put under quarantine"));
    }
    let target = match target {
        Target::Token(token) if token.is_empty() => return Err(Malformed::new("token", "it is empty")),
        Target::Token(token) => RevokeTarget::Token(token),
        Target::TokenId(id) => RevokeTarget::TokenId(token_id(id)?),
        Target::Agent(agent) if *quarantine => RevokeTarget::Quarantine(owned_agent(agent)?),
        Target::Agent(agent) => RevokeTarget::Agent(owned_agent(agent)?),
        Target::All(true) => RevokeTarget::All,
        Target::All(false) => return Err(Malformed::new("all", "say true to revoke everything")),
    };
    Ok(Revocation { target, note: text("note", note)? })
}

/// Whose quarantine is to be lifted, and why.
pub(super) fn reinstatement(request: &pb::ReinstateRequest) -> Result<(AgentName, &str), Malformed> {
    let pb::ReinstateRequest { agent, note } = request;
    Ok((owned_agent(agent)?, text("note", note)?))
}

/// Which token is looked at.
pub(super) fn introspection(request: &pb::IntrospectRequest) -> Result<TokenTarget<'_>, Malformed> {
    use pb::introspect_request::Target;
    let pb::IntrospectRequest { target } = request;
    match target {
        None => Err(Malformed::new("target", "say one of token or token_id")),
        Some(Target::Token(token)) if token.is_empty() => Err(Malformed::new("token", "it is empty")),
        Some(Target::Token(token)) => Ok(TokenTarget::Token(token)),
        Some(Target::TokenId(id)) => Ok(TokenTarget::Id(token_id(id)?)),
    }
}

/// What an agent answered, taken apart.
pub(super) fn agent_message(
    request: &pb::RecordMessageRequest,
    deadline: Timestamp,
) -> Result<AgentMessage<'_>, Malformed> {
    let pb::RecordMessageRequest { from_agent, to_agent, token_id: id, task, text: words } = request;
    if words.len() > limits::RESOURCE_BYTES {
        let why = format!("it has {} bytes, and at most {} are recorded", words.len(), limits::RESOURCE_BYTES);
        return Err(Malformed::new("text", why));
    }
    Ok(AgentMessage {
        from: agent_name("from_agent", from_agent)?,
        to: agent_name("to_agent", to_agent)?,
        token_id: present(id).map(token_id).transpose()?,
        task: text("task", task)?,
        text: words,
        deadline,
    })
}

fn facts(given: &Struct) -> &dyn Facts {
    given
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn action<'a>(capability: &'a str, resource: &'a str, method: &'a str, path: &'a str) -> Result<Action<'a>, Malformed> {
    let call = match (present(method), present(path)) {
        (None, None) => None,
        (Some(method), Some(path)) => Some(AgentCall { method: http_method(method)?, path }),
        (None, Some(_)) => return Err(Malformed::new("method", "a call has a method and a path")),
        (Some(_), None) => return Err(Malformed::new("path", "a call has a method and a path")),
    };
    let wanted = match (present(capability), present(resource)) {
        (None, None) => None,
        (Some(capability), Some(resource)) => {
            Capability::check(capability).map_err(|invalid| Malformed::new("capability", invalid.to_string()))?;
            Some((capability, resource))
        }
        (None, Some(_)) => return Err(Malformed::new("capability", "it is empty: name the action")),
        (Some(_), None) => return Err(Malformed::new("resource", "it is empty: say what is acted on")),
    };
    match (wanted, call) {
        (Some((capability, resource)), None) => Ok(Action::Use(capability, resource)),
        (None, Some(call)) => Ok(Action::Call(call)),
        (Some((capability, resource)), Some(call)) => Ok(Action::UseByCall(capability, resource, call)),
        (None, None) => {
            Err(Malformed::new("capability", "it is empty: name the action, or the method and path of a call"))
        }
    }
}

fn http_method(method: &str) -> Result<&str, Malformed> {
    let is_token =
        method.len() <= limits::METHOD_BYTES && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if is_token { Ok(method) } else { Err(Malformed::new("method", "an HTTP method is written in capital letters")) }
}

fn agent_name<'a>(field: &'static str, name: &'a str) -> Result<&'a str, Malformed> {
    AgentName::check(name).map_err(|invalid| Malformed::new(field, invalid.to_string()))?;
    Ok(name)
}

fn owned_agent(name: &str) -> Result<AgentName, Malformed> {
    AgentName::parse(name).map_err(|invalid| Malformed::new("agent", invalid.to_string()))
}

fn token_id(id: &str) -> Result<TokenId, Malformed> {
    TokenId::parse(id).ok_or_else(|| Malformed::new("token_id", "an id is 32 lower-case hex digits"))
}

fn text<'a>(field: &'static str, text: &'a str) -> Result<&'a str, Malformed> {
    if text.is_empty() || is_free_text(text) {
        return Ok(text);
    }
    let why = format!("at most {} bytes without control characters", limits::TEXT_BYTES);
    Err(Malformed::new(field, why))
}

fn wanted_capabilities(names: &[String]) -> Result<Vec<Cow<'_, str>>, Malformed> {
    if names.is_empty() || names.len() > limits::TOKEN_CAPABILITIES {
        let why = format!("1 to {} capabilities; there is no default", limits::TOKEN_CAPABILITIES);
        return Err(Malformed::new("capabilities", why));
    }
    no_repetition("capabilities", names)?;
    let one = |(index, name): (usize, &'_ String)| {
        Capability::check(name).map_err(|invalid| Malformed::new(format!("capabilities[{index}]"), invalid.to_string()))
    };
    names.iter().enumerate().try_for_each(one)?;
    Ok(names.iter().map(|name| Cow::Borrowed(name.as_str())).collect())
}

fn wanted_resources(patterns: &[String]) -> Result<Vec<Pattern<'_>>, Malformed> {
    if patterns.is_empty() || patterns.len() > limits::TOKEN_PATTERNS {
        let why = format!("1 to {} patterns; there is no default", limits::TOKEN_PATTERNS);
        return Err(Malformed::new("resources", why));
    }
    no_repetition("resources", patterns)?;
    let mut wanted = Vec::with_capacity(patterns.len());
    for (index, text) in patterns.iter().enumerate() {
        let pattern = Pattern::parse(text.as_str());
        let malformed = |invalid: InvalidResource| Malformed::new(format!("resources[{index}]"), invalid.to_string());
        wanted.push(pattern.map_err(malformed)?);
    }
    Ok(wanted)
}

/// What stands twice is asked twice, for nothing.
fn no_repetition(field: &'static str, texts: &[String]) -> Result<(), Malformed> {
    let mut seen = HashSet::with_capacity(texts.len());
    match texts.iter().position(|text| !seen.insert(text)) {
        Some(index) => Err(Malformed::new(format!("{field}[{index}]"), "it is in the list already")),
        None => Ok(()),
    }
}

fn places(names: &[String]) -> Result<Vec<Cow<'_, str>>, Malformed> {
    if names.len() > limits::TOKEN_AUDIENCE {
        return Err(Malformed::new("audience", format!("at most {} places", limits::TOKEN_AUDIENCE)));
    }
    names.iter().map(|name| agent_name("audience", name).map(Cow::Borrowed)).collect()
}

fn positive(field: &'static str, number: u64) -> Result<u32, Malformed> {
    match u32::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Malformed::new(field, "1 to 4294967295; leave it out for the policy's default")),
    }
}

fn depth(hops: u64) -> Result<u8, Malformed> {
    match u8::try_from(hops) {
        Ok(hops) if (1..=16).contains(&hops) => Ok(hops),
        _ => Err(Malformed::new("max_depth", "1 to 16 hops; leave it out for the parent's")),
    }
}

fn whole_seconds(ttl: &Duration) -> Result<u64, Malformed> {
    match (u64::try_from(ttl.seconds), ttl.nanos) {
        (Ok(seconds), 0) if seconds > 0 => Ok(seconds),
        _ => Err(Malformed::new("ttl", "whole seconds, at least 1; leave it out for the policy's default")),
    }
}

fn check_context(context: Option<&Struct>) -> Result<(), Malformed> {
    let members = context.into_iter().flat_map(|context| &context.fields);
    within_bounds(members.map(|(name, value)| (name.as_str(), value)))
        .map_err(|oversized| Malformed::new("context", oversized.to_string()))
}
