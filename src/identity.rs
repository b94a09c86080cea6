//! From evidence to a [`Caller`]. Names that nobody verified stop here.

mod connection;
pub mod mtls;
pub mod spiffe;

use std::sync::Arc;

pub use connection::{Identified, SELF_ASSERTED_HEADER};
use serde::{Deserialize, Serialize};

use crate::domain::agent::AgentName;
use crate::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use mtls::Certificate;
use spiffe::{InvalidTemplate, Template};

/// `[identity]`: how evidence names an agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// SPIFFE IDs with `{agent}` where the agent's name stands; tried in order, after the policy's `principals`.
    pub spiffe_templates: Vec<String>,
    /// Certificates without a URI name an agent by their DNS name.
    pub allow_dns_san: bool,
    /// DNS names with `{agent}` where the agent's name stands.
    pub dns_templates: Vec<String>,
    /// Certificates without a URI and a DNS name that counts name an agent by their common name.
    pub allow_common_name: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            spiffe_templates: vec!["spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa".to_owned()],
            allow_dns_san: false,
            dns_templates: vec!["{agent}.ai-agents.svc.cluster.local".to_owned()],
            allow_common_name: false,
        }
    }
}

/// What stands for a caller before it is one.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The client certificate that the connection verified.
    pub certificate: Option<&'a Certificate>,
    /// `x-remit-agent`: a name and nothing else.
    pub self_asserted: Option<&'a str>,
}

/// Why nobody is the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unidentified {
    /// There is no evidence, or it is not good; what is wrong with it is for the log alone.
    Unauthenticated(&'static str),
    /// A name that nobody but the caller says.
    SelfAsserted(Denial),
    /// Good evidence of somebody who is no agent.
    Unmapped(Denial),
}

/// An agent, the subject that names it, and how.
type Named = (AgentName, Arc<str>, IdentityMethod);

/// Turns evidence into callers.
pub struct Identity {
    templates: Vec<Template>,
    dns_templates: Vec<Template>,
    config: Config,
    /// Only `serve --dev` believes a name.
    believes_names: bool,
}

impl Identity {
    /// Identifies as this configuration says.
    ///
    /// # Errors
    /// A template has no `{agent}`, or could not be a name.
    pub fn new(config: Config, believes_names: bool) -> Result<Self, InvalidTemplate> {
        let templates = config.spiffe_templates.iter().map(|text| Template::spiffe(text)).collect::<Result<_, _>>()?;
        let dns_templates = config.dns_templates.iter().map(|text| Template::dns(text)).collect::<Result<_, _>>()?;
        Ok(Self { templates, dns_templates, config, believes_names })
    }

    /// The caller that this is evidence of. The first evidence that is present decides; evidence of
    /// two different agents is none.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn identify(&self, evidence: Evidence<'_>, policy: &Policy, now: Timestamp) -> Result<Caller, Unidentified> {
        let Some(certificate) = evidence.certificate else {
            return self.take_at_word(evidence.self_asserted, policy, now);
        };
        if !certificate.is_current(now) {
            return Err(Unidentified::Unauthenticated("the client certificate is expired or not yet valid"));
        }
        let (agent, subject, method) = self.agent_of(certificate, policy)?;
        if evidence.self_asserted.is_some_and(|name| name != agent.as_str()) {
            return Err(Unidentified::Unauthenticated("x-remit-agent names another agent than the client certificate"));
        }
        let identity = VerifiedIdentity {
            agent,
            subject,
            method,
            issuer: Arc::clone(certificate.issuer()),
            claims: Arc::default(),
            verified_at: now,
        };
        Ok(Caller::new(Arc::new(identity), true))
    }

    fn agent_of(&self, certificate: &Certificate, policy: &Policy) -> Result<Named, Unidentified> {
        if let Some(id) = certificate.spiffe_id() {
            let id =
                id.map_err(|_| Unidentified::Unauthenticated("the client certificate's URI is not one SPIFFE ID"))?;
            let named = |subject: &str| self.templates.iter().find_map(|template| template.agent(subject));
            return map(policy, "", id, IdentityMethod::Spiffe, named);
        }
        if self.config.allow_dns_san && !certificate.dns_names().is_empty() {
            let [name] = certificate.dns_names() else {
                return Err(Unidentified::Unauthenticated("the client certificate has more than one DNS name"));
            };
            let named = |subject: &str| self.dns_templates.iter().find_map(|template| template.agent(subject));
            return map(policy, "dns:", name, IdentityMethod::Mtls, named);
        }
        if self.config.allow_common_name
            && let Some(name) = certificate.common_name()
        {
            let named = |subject: &str| AgentName::parse(subject).ok();
            return map(policy, "cn:", name, IdentityMethod::Mtls, named);
        }
        Err(unmapped(certificate.describe()))
    }

    fn take_at_word(&self, name: Option<&str>, policy: &Policy, now: Timestamp) -> Result<Caller, Unidentified> {
        let Some(name) = name else {
            return Err(Unidentified::Unauthenticated("there is no client certificate"));
        };
        if !self.believes_names {
            let message = "x-remit-agent is a name and no evidence: connect with a client certificate";
            return Err(Unidentified::SelfAsserted(Denial::new(Reason::IdentitySelfAsserted, message)));
        }
        let agent = AgentName::parse(name)
            .map_err(|_| Unidentified::Unauthenticated("x-remit-agent is not the name of an agent"))?;
        let agent = policy.name(name).cloned().unwrap_or(agent);
        let identity = VerifiedIdentity {
            subject: agent.shared(),
            agent,
            method: IdentityMethod::SelfAsserted,
            issuer: "".into(),
            claims: Arc::default(),
            verified_at: now,
        };
        // A name is no evidence, and holds no role.
        Ok(Caller::new(Arc::new(identity), false))
    }
}

/// The policy's `principals` first, then what the form of the name says.
fn map(
    policy: &Policy,
    kind: &str,
    subject: &Arc<str>,
    method: IdentityMethod,
    named: impl Fn(&str) -> Option<AgentName>,
) -> Result<Named, Unidentified> {
    let principal = format!("{kind}{subject}");
    let agent = policy.principals.get(principal.as_str()).cloned().or_else(|| named(subject));
    match agent {
        Some(agent) => Ok((agent, Arc::clone(subject), method)),
        None => Err(unmapped(&principal)),
    }
}

fn unmapped(subject: &str) -> Unidentified {
    let message =
        format!("{subject} is verified and belongs to no agent: map it in the policy's principals, or in [identity]");
    Unidentified::Unmapped(Denial::new(Reason::IdentityUnmapped, message))
}
