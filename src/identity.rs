//! From evidence to a caller. Names that nobody verified stop here.
//!
//! | file | |
//! |---|---|
//! | `connection` | Which evidence a request shows; what was verified is remembered with its connection. |
//! | [`mtls`], [`spiffe`] | A client certificate, and the agent's name in it. |
//! | [`jwt`] | JWTs of configured issuers, and the issuers' keys. |
//! | [`api_key`] | API keys, known by their digests. |
//! | [`forwarded`], [`signing`], [`jwt_type`] | What Remit itself signs, and takes back. |
//! | `stated` | Whom a proxy says it has on the other end. |

pub mod api_key;
mod connection;
pub mod forwarded;
pub mod jwt;
pub mod jwt_type;
pub mod mtls;
pub mod signing;
pub mod spiffe;
mod stated;

use std::path::PathBuf;
use std::sync::Arc;

pub use connection::{API_KEY_HEADER, FORWARDED_HEADER, Identified, SELF_ASSERTED_HEADER, shows_nothing};
use serde::{Deserialize, Serialize};

use crate::domain::agent::AgentName;
use crate::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use api_key::ApiKeys;
use forwarded::Forwarding;
use jwt::{ClientConfig, Clients, Issuers, VerifiedJwt};
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
    /// `[[identity.client]]`: the agents that authenticate to the OAuth endpoints with `private_key_jwt`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client: Vec<ClientConfig>,
    /// The file with the digests of API keys, as `remit api-key new` prints them. None by default: no key is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_keys_file: Option<PathBuf>,
    /// What forwarded identities are signed with.
    pub forward: forwarded::Config,
    /// `[[identity.jwt]]`: the issuers whose JWTs are evidence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jwt: Vec<jwt::Config>,
}

impl Config {
    /// Whether a client may be known by something else than its certificate.
    #[must_use]
    pub fn takes_other_evidence(&self) -> bool {
        self.api_keys_file.is_some() || !self.jwt.is_empty()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            spiffe_templates: vec!["spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa".to_owned()],
            allow_dns_san: false,
            dns_templates: vec!["{agent}.ai-agents.svc.cluster.local".to_owned()],
            allow_common_name: false,
            jwt: Vec::new(),
            client: Vec::new(),
            api_keys_file: None,
            forward: forwarded::Config::default(),
        }
    }
}

/// What stands for a caller before it is one. It has no `Debug`: it holds secrets.
#[derive(Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// The client certificate that the connection verified.
    pub certificate: Option<&'a Certificate>,
    /// `authorization: Bearer`: a JWT.
    pub bearer: Option<&'a str>,
    /// `x-api-key`.
    pub api_key: Option<&'a str>,
    /// `x-remit-identity`: what Remit signed before.
    pub forwarded: Option<&'a str>,
    /// `x-remit-agent`: a name and nothing else.
    pub self_asserted: Option<&'a str>,
}

impl Evidence<'_> {
    /// Whether there is none.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let Self { certificate, bearer, api_key, forwarded, self_asserted } = self;
        certificate.is_none() && [bearer, api_key, forwarded, self_asserted].iter().all(|told| told.is_none())
    }
}

/// Evidence of somebody that a request shows beside its caller's own. It has no `Debug`: it is a secret.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// A JWT of a configured issuer.
    Bearer(&'a str),
    /// An API key.
    ApiKey(&'a str),
    /// What Remit signed for this receiver: an agent's name.
    ForwardedTo(&'a str, &'a str),
    /// What Remit signed for Remit itself.
    Forwarded(&'a str),
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

impl Unidentified {
    /// What was there, as `remit_unauthenticated_total{method}` counts it.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "none",
            Self::SelfAsserted(_) => "self_asserted",
            Self::Unmapped(_) => "unmapped",
        }
    }
}

/// An agent, the subject that names it, and how.
type Named = (AgentName, Arc<str>, IdentityMethod);

/// What evidence beside certificates is checked against.
#[derive(Default)]
pub struct Sources {
    /// Whose JWTs are good.
    pub issuers: Issuers,
    /// Which API keys are good.
    pub api_keys: ApiKeys,
    /// What Remit signed itself.
    pub forwarding: Forwarding,
    /// Which clients' assertions are good.
    pub clients: Clients,
}

/// Turns evidence into callers.
pub struct Identity {
    templates: Vec<Template>,
    dns_templates: Vec<Template>,
    config: Config,
    sources: Sources,
    /// Only `serve --dev` believes a name.
    believes_names: bool,
}

impl Identity {
    /// Identifies as this configuration says, by certificates alone.
    ///
    /// # Errors
    /// A template has no `{agent}`, or could not be a name.
    pub fn new(config: Config, believes_names: bool) -> Result<Self, InvalidTemplate> {
        let templates = config.spiffe_templates.iter().map(|text| Template::spiffe(text)).collect::<Result<_, _>>()?;
        let dns_templates = config.dns_templates.iter().map(|text| Template::dns(text)).collect::<Result<_, _>>()?;
        Ok(Self { templates, dns_templates, config, sources: Sources::default(), believes_names })
    }

    /// The same, by these sources too.
    #[must_use]
    pub fn with_sources(self, sources: Sources) -> Self {
        Self { sources, ..self }
    }

    /// What evidence beside certificates is checked against.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The caller that this is evidence of. The first evidence that is present decides; evidence that is not good,
    /// or of another agent, is not passed over.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn identify(&self, evidence: Evidence<'_>, policy: &Policy, now: Timestamp) -> Result<Caller, Unidentified> {
        let Evidence { certificate, bearer, api_key, forwarded, self_asserted } = evidence;
        let mut callers = [
            certificate.map(|certificate| self.by_certificate(certificate, policy, now)),
            bearer.map(|token| self.by_jwt(token, policy, now)),
            api_key.map(|key| self.by_api_key(key, policy, now)),
            forwarded.map(|text| self.by_own_forwarded(text, policy, now)),
        ]
        .into_iter()
        .flatten();
        let Some(first) = callers.next() else {
            return self.take_at_word(self_asserted, policy, now);
        };
        let first = first?;
        for other in callers {
            if other?.agent() != first.agent() {
                return Err(Unidentified::Unauthenticated("there is evidence of two different agents"));
            }
        }
        if self_asserted.is_some_and(|name| name != first.agent().as_str()) {
            return Err(Unidentified::Unauthenticated("x-remit-agent names another agent than the evidence"));
        }
        Ok(first)
    }

    /// The client that signed this assertion (RFC 7523) for one of these audiences. It holds no role.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn identify_client(
        &self,
        assertion: &str,
        audiences: &[String],
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Caller, Unidentified> {
        let agent = self.sources.clients.verify(assertion, audiences, now).map_err(Unidentified::Unauthenticated)?;
        let agent = policy.name(agent.as_str()).cloned().unwrap_or(agent);
        let identity = VerifiedIdentity {
            subject: agent.shared(),
            agent,
            method: IdentityMethod::Jwt,
            issuer: CLIENT_ISSUER.into(),
            claims: Arc::default(),
            verified_at: now,
        };
        Ok(Caller::new(Arc::new(identity), false))
    }

    /// Whom this is evidence of, whoever shows it.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn verify(
        &self,
        shown: Shown<'_>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Arc<VerifiedIdentity>, Unidentified> {
        let caller = match shown {
            Shown::Bearer(token) => self.by_jwt(token, policy, now),
            Shown::ApiKey(key) => self.by_api_key(key, policy, now),
            Shown::Forwarded(text) => self.by_forwarded(None, text, policy, now),
            Shown::ForwardedTo(audience, text) => self.by_forwarded(Some(audience), text, policy, now),
        };
        caller.map(|caller| Arc::clone(caller.identity()))
    }

    fn by_certificate(
        &self,
        certificate: &Certificate,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Caller, Unidentified> {
        if !certificate.is_current(now) {
            return Err(Unidentified::Unauthenticated("the client certificate is expired or not yet valid"));
        }
        let (agent, subject, method) = self.agent_of(certificate, policy)?;
        let issuer = Arc::clone(certificate.issuer());
        let identity = VerifiedIdentity { agent, subject, method, issuer, claims: Arc::default(), verified_at: now };
        Ok(Caller::new(Arc::new(identity), true))
    }

    fn by_jwt(&self, token: &str, policy: &Policy, now: Timestamp) -> Result<Caller, Unidentified> {
        let jwt = self.sources.issuers.verify(token, now).map_err(Unidentified::Unauthenticated)?;
        if jwt.actor.is_some() {
            // Taken as its subject, who acts for the subject would be forgotten. A token exchange keeps it.
            return Err(Unidentified::Unauthenticated("the JWT has act: somebody acts for its subject"));
        }
        let agent = agent_of_jwt(&jwt, policy)?;
        let VerifiedJwt { issuer, subject, claims, privileged, verified_at, .. } = VerifiedJwt::clone(&jwt);
        let identity = VerifiedIdentity { agent, subject, method: IdentityMethod::Jwt, issuer, claims, verified_at };
        Ok(Caller::new(Arc::new(identity), privileged))
    }

    fn by_api_key(&self, key: &str, policy: &Policy, now: Timestamp) -> Result<Caller, Unidentified> {
        let key = self.sources.api_keys.find(key);
        let key = key.ok_or(Unidentified::Unauthenticated("the API key is not known"))?;
        let principal = format!("api-key:{}", key.id);
        let agent = policy.principals.get(principal.as_str()).unwrap_or(&key.agent).clone();
        let claims = [("key_id", key.id.as_ref()), ("agent", key.agent.as_str())];
        let claims = claims.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        let identity = VerifiedIdentity {
            agent,
            subject: key.id,
            method: IdentityMethod::ApiKey,
            issuer: API_KEY_ISSUER.into(),
            claims: Arc::new(claims),
            verified_at: now,
        };
        Ok(Caller::new(Arc::new(identity), true))
    }

    /// A caller that shows what Remit signed of it. Of more than itself (a chain, a user, a proxy's word for it) only its
    /// receiver may think something: as a caller's own evidence it would be forgotten.
    fn by_own_forwarded(&self, text: &str, policy: &Policy, now: Timestamp) -> Result<Caller, Unidentified> {
        self.sources.forwarding.verify_own(text, now).map_err(Unidentified::Unauthenticated)?;
        self.by_forwarded(None, text, policy, now)
    }

    fn by_forwarded(
        &self,
        audience: Option<&str>,
        text: &str,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Caller, Unidentified> {
        let forwarding = &self.sources.forwarding;
        let identity = match audience {
            Some(audience) => forwarding.verify_for(audience, text, now),
            None => forwarding.verify(text, now),
        };
        let identity = identity.map_err(Unidentified::Unauthenticated)?;
        let agent = policy.name(identity.agent.as_str()).cloned().unwrap_or(identity.agent);
        // What was forwarded holds no role: it says who asked somebody else.
        Ok(Caller::new(Arc::new(VerifiedIdentity { agent, ..identity }), false))
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

/// The issuer of identities by a client's own key.
const CLIENT_ISSUER: &str = "remit:client-key";
/// The issuer of identities by API key.
const API_KEY_ISSUER: &str = "remit:api-key";

/// The policy's `principals` first, then the claim's own value where policy knows an agent of that name.
fn agent_of_jwt(jwt: &VerifiedJwt, policy: &Policy) -> Result<AgentName, Unidentified> {
    let VerifiedJwt { issuer, subject, agent, .. } = jwt;
    let Some(value) = agent else {
        return Err(unmapped(&format!("jwt:{issuer}#{subject}")));
    };
    let principal = format!("jwt:{issuer}#{value}");
    let agent = policy.principals.get(principal.as_str()).or_else(|| policy.name(value));
    agent.cloned().ok_or_else(|| unmapped(&principal))
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
