//! What a request means: the capability that it uses and the resource that it uses it on.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};

use super::body::Body;
use super::config::{Config, InvalidRule, RuleConfig};
use super::headers::{is_once, unclear};
use super::rpc::{CALL_TOOL, RpcRequest};
use super::target::Target;
use super::template::{Found, PathTemplate, TextTemplate};
use super::verdict::OUR_HEADERS;
use crate::domain::agent::AgentName;
use crate::domain::capability::Capability;
use crate::domain::limits;
use crate::domain::reason::{Denial, Reason};
use crate::domain::resource::Resource;

/// Rules, at most: each is tried for each request.
const MOST: usize = 1000;
/// The place for the called tool's name.
const TOOL: &str = "tool";
/// What stands before the name of a tool's argument.
const ARGUMENT: &str = "arguments.";

/// The rules of `[ext_authz]`, ready to be used.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    in_order: Vec<Rule>,
    xfcc_from: HashSet<AgentName>,
    certificate_headers: HashMap<AgentName, String>,
}

/// What a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The use of a capability on a resource.
    Use(String, String),
    /// A call between agents and nothing more.
    Call,
}

#[derive(Clone, Debug)]
struct Rule {
    hosts: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    path: PathTemplate,
    rpc: Option<Vec<String>>,
    tools: Option<Vec<String>>,
    means: Option<(TextTemplate, TextTemplate)>,
}

impl Rules {
    /// Reads the settings.
    ///
    /// # Errors
    /// The first that can't be acted on, and what to write.
    pub fn new(config: &Config) -> Result<Self, InvalidRule> {
        let agent = |name: &String| self::agent("xfcc_from", name);
        let certificate = |(name, header): (&String, &String)| {
            Ok((self::agent("client_certificate_header", name)?, certificate_header(header)?))
        };
        if config.rules.len() > MOST {
            return Err(InvalidRule(format!("rules: there are {}, at most {MOST}", config.rules.len())));
        }
        let numbered = |(number, rule): (usize, &RuleConfig)| {
            let number = number.saturating_add(1);
            Rule::new(rule).map_err(|why| InvalidRule(format!("rules, number {number}: {why}")))
        };
        Ok(Self {
            in_order: config.rules.iter().enumerate().map(numbered).collect::<Result<_, _>>()?,
            xfcc_from: config.xfcc_from.iter().map(agent).collect::<Result<_, _>>()?,
            certificate_headers: config.client_certificate_header.iter().map(certificate).collect::<Result<_, _>>()?,
        })
    }

    /// Whether what this agent says of its own clients is believed.
    pub(super) fn believes_xfcc_of(&self, agent: &str) -> bool {
        self.xfcc_from.contains(agent)
    }

    /// The header in which this agent's proxy tells its client's certificate; none if it is not believed to set one.
    pub(super) fn certificate_header_of(&self, agent: &str) -> Option<&str> {
        self.certificate_headers.get(agent).map(String::as_str)
    }

    /// What the request means by the first rule that fits; where none fits and no rule guards its path, it is a call
    /// between agents. Its JSON-RPC request is left in `rpc` if a rule looked at the body: from then on only such rules count.
    /// A rule without a capability opens nothing that a nearer rule guards.
    ///
    /// # Errors
    /// A rule needs the body and can't know it, or no rule is for what is asked on a path that some rule guards.
    pub(super) fn meaning(
        &self,
        target: &Target<'_>,
        body: Body<'_>,
        rpc: &mut Option<RpcRequest>,
    ) -> Result<Meaning, Denial> {
        let guards = LazyCell::new(|| self.in_order.iter().filter(|rule| rule.guards(target.path)).collect::<Vec<_>>());
        for rule in &self.in_order {
            let Some(found) = rule.find(target) else { continue };
            if rule.means.is_none() && guards.iter().any(|guard| guard.stands_over(rule, target)) {
                continue;
            }
            let Some(methods) = &rule.rpc else {
                if rpc.is_some() {
                    continue;
                }
                return rule.meaning(&found, None);
            };
            let request = match rpc {
                Some(request) => &*request,
                None => rpc.insert(read(body)?),
            };
            let is_tool = |tools: &Vec<String>| request.tool.as_ref().is_some_and(|tool| tools.contains(tool));
            if methods.contains(&request.method) && rule.tools.as_ref().is_none_or(is_tool) {
                return rule.meaning(&found, Some(request));
            }
        }
        match rpc {
            Some(request) => Err(uncovered(request)),
            None if guards.is_empty() => Ok(Meaning::Call),
            None if guards.iter().all(|guard| guard.path.find(target.path).is_none()) => Err(miscased()),
            // Another method or host must not make a call of what needs a capability or a look at the body.
            None => Err(unguarded(target)),
        }
    }
}

impl Rule {
    fn new(config: &RuleConfig) -> Result<Self, String> {
        let RuleConfig { hosts, methods, path, rpc, tools, capability, resource } = config;
        let lists = [("hosts", hosts), ("methods", methods), ("rpc", rpc), ("tools", tools)];
        for (name, list) in lists.iter().filter_map(|(name, list)| list.as_ref().map(|list| (name, list))) {
            if list.is_empty() || list.iter().any(String::is_empty) {
                return Err(format!("{name} is empty, or has an empty text: leave it out for any"));
            }
        }
        let path = PathTemplate::parse(path).map_err(|why| format!("path {path:?}: {why}"))?;
        let calls_tools = rpc.as_deref() == Some(&[CALL_TOOL.to_owned()]);
        if tools.is_some() && !calls_tools {
            return Err(format!("tools needs rpc = [\"{CALL_TOOL}\"] beside it"));
        }
        let rule = Self {
            means: meaning(capability.as_deref(), resource.as_deref(), &path, calls_tools)?,
            hosts: hosts.as_ref().map(|hosts| hosts.iter().map(|host| self::host(host)).collect()).transpose()?,
            methods: methods.clone(),
            path,
            rpc: rpc.clone(),
            tools: tools.clone(),
        };
        let is_method = |method: &String| method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        match rule.methods.iter().flatten().find(|method| !is_method(method) || method.len() > limits::METHOD_BYTES) {
            Some(method) => Err(format!("methods: {method:?} is not an HTTP method in capital letters")),
            None => Ok(rule),
        }
    }

    fn find<'a>(&'a self, target: &'a Target<'_>) -> Option<Found<'a>> {
        let is_host = self.hosts.as_ref().is_none_or(|hosts| hosts.contains(&target.host));
        let is_method =
            self.methods.as_ref().is_none_or(|methods| methods.iter().any(|method| method == target.method));
        if is_host && is_method { self.path.find(target.path) } else { None }
    }

    /// Whether more than a rule between agents is asked of some request on this path, as a service may read it.
    fn guards(&self, path: &str) -> bool {
        (self.means.is_some() || self.rpc.is_some()) && self.path.covers(path)
    }

    /// Whether this guard of the path is nearer to it than an open rule that fits, and not for others than that rule names.
    fn stands_over(&self, open: &Self, target: &Target<'_>) -> bool {
        let is_for = |own: Option<&Vec<String>>, of_open: Option<&Vec<String>>, asked: &str| {
            of_open.is_none() || own.is_none_or(|own| own.iter().any(|one| one == asked))
        };
        self.path.is_nearer_than(&open.path)
            && is_for(self.hosts.as_ref(), open.hosts.as_ref(), &target.host)
            && is_for(self.methods.as_ref(), open.methods.as_ref(), target.method)
    }

    fn meaning(&self, found: &Found<'_>, request: Option<&RpcRequest>) -> Result<Meaning, Denial> {
        let Some((capability, resource)) = &self.means else { return Ok(Meaning::Call) };
        let value = |name: &str| match (name.strip_prefix(ARGUMENT), request) {
            (Some(argument), Some(request)) => segment(request.argument(argument).map_err(illegible)?),
            (None, Some(request)) if name == TOOL => {
                segment(request.tool.as_deref().ok_or_else(|| illegible("it names no tool"))?)
            }
            _ => found.get(name).copied().ok_or_else(|| illegible("a place of the rule has no value")),
        };
        let capability = capability.fill(value)?;
        Capability::check(&capability)
            .map_err(|why| unclear(format!("the capability that it means is none: {why}")))?;
        Ok(Meaning::Use(capability, resource.fill(value)?))
    }
}

/// The two templates, if every place in them has a value and what they make is a capability and a resource.
fn meaning(
    capability: Option<&str>,
    resource: Option<&str>,
    path: &PathTemplate,
    calls_tools: bool,
) -> Result<Option<(TextTemplate, TextTemplate)>, String> {
    let (Some(capability), Some(resource)) = (capability, resource) else {
        return match capability.or(resource) {
            None => Ok(None),
            Some(_) => {
                Err("capability and resource go together: write both, or none for a call between agents".to_owned())
            }
        };
    };
    let parse = |key: &str, text: &str| TextTemplate::parse(text).map_err(|why| format!("{key} {text:?}: {why}"));
    let (means, on) = (parse("capability", capability)?, parse("resource", resource)?);
    for name in means.names().chain(on.names()) {
        let is_known = path.names().any(|known| known == name) && name != TOOL
            || calls_tools && (name == TOOL || name.starts_with(ARGUMENT));
        if !is_known {
            return Err(format!(
                "{{{name}}} is not in the path, and {{tool}} and {{arguments.…}} need rpc = [\"{CALL_TOOL}\"]"
            ));
        }
    }
    if let Some(name) = means.names().find(|name| path.is_rest(name) || name.starts_with(ARGUMENT)) {
        return Err(format!("{{{name}}} can't be in a capability"));
    }
    let sample = |_: &str| Ok::<_, String>("x");
    Capability::check(&means.fill(sample)?).map_err(|why| format!("capability {capability:?}: {why}"))?;
    Resource::parse(&on.fill(sample)?).map_err(|why| format!("resource {resource:?}: {why}"))?;
    if on.names().next().is_some() && !on.beginning().contains(['/', ':']) {
        // Else what a client writes could become the resource's scheme.
        return Err(format!("resource {resource:?}: a / or a scheme has to stand before the first place"));
    }
    Ok(Some((means, on)))
}

fn agent(key: &str, name: &str) -> Result<AgentName, InvalidRule> {
    AgentName::parse(name).map_err(|why| InvalidRule(format!("{key}: {name:?} is not an agent's name: {why}")))
}

/// A header's name that means nothing else.
fn certificate_header(name: &str) -> Result<String, InvalidRule> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let is_other = name.starts_with("x-forwarded-") || is_once(name) || OUR_HEADERS.contains(&name);
    if is_plain && !name.is_empty() && !is_other {
        return Ok(name.to_owned());
    }
    let why = "is not a header's name in small letters that means nothing else: use x-remit-client-certificate";
    Err(InvalidRule(format!("client_certificate_header: {name:?} {why}")))
}

fn host(text: &str) -> Result<String, String> {
    let is_host =
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) && !text.ends_with('.');
    if is_host || text.starts_with('[') && text.ends_with(']') {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("hosts: {text:?} is not a host without a port"))
}

fn read(body: Body<'_>) -> Result<RpcRequest, Denial> {
    match body {
        Body::Json(body) => RpcRequest::parse(body).map_err(illegible),
        Body::Unknown(why) => Err(unclear(format!("its meaning is in the body, which can't be known: {why}"))),
    }
}

/// What a client names is one segment of a resource: it can't reach over it.
fn segment(text: &str) -> Result<&str, Denial> {
    if text.contains('/') { Err(illegible("a tool or an argument that names a resource has a /")) } else { Ok(text) }
}

fn illegible(why: impl Into<Cow<'static, str>>) -> Denial {
    unclear(format!("its meaning is in the JSON-RPC request, and {}", why.into()))
}

fn unguarded(target: &Target<'_>) -> Denial {
    let Target { method, host, .. } = target;
    let message = format!("a rule of [ext_authz] guards this path, and none is for {method} of {host}");
    Denial::new(Reason::CapabilityNotGranted, message)
}

fn miscased() -> Denial {
    let message = "a rule of [ext_authz] guards this path in other letters, capital or small, and the service may see no difference";
    Denial::new(Reason::CapabilityNotGranted, message)
}

fn uncovered(request: &RpcRequest) -> Denial {
    let of = request.tool.as_ref().map(|tool| format!(" of {tool}")).unwrap_or_default();
    let message = format!("no rule of [ext_authz] is for {}{of} here", request.method);
    Denial::new(Reason::CapabilityNotGranted, message)
}

#[cfg(test)]
mod tests;
