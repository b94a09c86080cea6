//! Who a proxy says is on the other end of its connection: the words in which it tells of a certificate that it verified.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::parse_x509_pem;

use super::mtls::Certificate;
use super::spiffe::is_workload_id;
use super::{Identity, Unidentified, map, unmapped};
use crate::domain::agent::AgentName;
use crate::domain::caller::IdentityMethod;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;

/// A certificate's text, URL-encoded, in bytes.
const CERTIFICATE_BYTES: usize = 32 * 1024;
/// A principal's text, in bytes: a SPIFFE ID fits.
const PRINCIPAL_BYTES: usize = 2048;

impl Identity {
    /// The agent of a principal: a certificate's URI, else its DNS name, else its subject, as Envoy writes them.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn agent_of_principal(&self, principal: &str, policy: &Policy) -> Result<AgentName, Unidentified> {
        let is_text = principal.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if principal.is_empty() || principal.len() > PRINCIPAL_BYTES || !is_text {
            return Err(Unidentified::Unauthenticated("the principal is not the name of a certificate's owner"));
        }
        let shared = Arc::from(principal);
        if principal.contains("://") {
            if !is_workload_id(principal) {
                return Err(Unidentified::Unauthenticated("the principal's URI is not one SPIFFE ID"));
            }
            let named = |subject: &str| self.templates.iter().find_map(|template| template.agent(subject));
            return map(policy, "", &shared, IdentityMethod::Spiffe, named).map(|(agent, ..)| agent);
        }
        if !principal.contains('=') && self.config.allow_dns_san {
            let named = |subject: &str| self.dns_templates.iter().find_map(|template| template.agent(subject));
            let name = principal.to_ascii_lowercase().into();
            return map(policy, "dns:", &name, IdentityMethod::Mtls, named).map(|(agent, ..)| agent);
        }
        // A subject that is a common name and nothing else: a longer one can be written in several ways.
        let common_name = principal.strip_prefix("CN=").filter(|name| !name.contains(['=', ',', '+', '\\', '"', ' ']));
        if let (Some(name), true) = (common_name, self.config.allow_common_name) {
            let named = |subject: &str| AgentName::parse(subject).ok();
            return map(policy, "cn:", &name.into(), IdentityMethod::Mtls, named).map(|(agent, ..)| agent);
        }
        Err(unmapped(principal))
    }

    /// The agent of a certificate, URL-encoded PEM or DER in base64, whose chain the proxy verified.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn agent_of_encoded_certificate(
        &self,
        text: &str,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<AgentName, Unidentified> {
        let unreadable = Unidentified::Unauthenticated("the proxy's copy of the client certificate can't be read");
        let Some(der) = der(text) else { return Err(unreadable) };
        let Ok(certificate) = Certificate::from_der(&der) else { return Err(unreadable) };
        if !certificate.is_current(now) {
            return Err(Unidentified::Unauthenticated("the client certificate is expired or not yet valid"));
        }
        self.agent_of(&certificate, policy).map(|(agent, ..)| agent)
    }
}

fn der(text: &str) -> Option<Vec<u8>> {
    if !text.starts_with("-----BEGIN") {
        return STANDARD.decode(text).ok().filter(|_| text.len() <= CERTIFICATE_BYTES);
    }
    let pem = url_decoded(text)?;
    let (_, block) = parse_x509_pem(&pem).ok()?;
    (block.label == "CERTIFICATE").then_some(block.contents)
}

/// The bytes of a URL-encoded text; `+` stands for itself, since base64 has it.
fn url_decoded(text: &str) -> Option<Vec<u8>> {
    if text.len() > CERTIFICATE_BYTES {
        return None;
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = (digit()?, digit()?);
                high.checked_mul(16)?.checked_add(low)?
            }
            other => other,
        };
        decoded.push(byte);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Config;

    fn identity(config: Config) -> Identity {
        Identity::new(config, false).unwrap()
    }

    fn policy() -> Policy {
        let text = br#"{"delegation_rules":{"agent-a":{}},"principals":{"spiffe://x/b":"agent-b"}}"#;
        let roles = crate::policy_file::ExtraRoles::default();
        crate::policy_file::compile("policy.json", text, &roles, |_| String::new(), 1).unwrap().policy
    }

    fn agent(identity: &Identity, principal: &str) -> Option<String> {
        identity.agent_of_principal(principal, &policy()).ok().map(|agent| agent.to_string())
    }

    #[test]
    fn c10_a_principal_is_one_spiffe_id_by_principals_or_template() {
        let identity = identity(Config::default());
        assert_eq!(agent(&identity, "spiffe://cluster.local/ns/ai-agents/sa/agent-a-sa").as_deref(), Some("agent-a"));
        assert_eq!(agent(&identity, "spiffe://x/b").as_deref(), Some("agent-b"));
        for bad in [
            "",
            "spiffe://x/c",
            "spiffe://x/b\0",
            "spiffe://x/b\0.evil",
            "spiffe://x/b,spiffe://x/c",
            "spiffe://X/b",
            "Spiffe://x/b",
            "spiffe://x/b/",
            "spiffe://x//b",
            "https://x/b",
            "agent-a",
            "CN=agent-a",
            "spiffe://x/\u{e4}",
        ] {
            assert_eq!(agent(&identity, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn c10_names_and_subjects_count_only_where_they_are_switched_on() {
        let config = Config { allow_dns_san: true, allow_common_name: true, ..Config::default() };
        let identity = identity(config);
        assert_eq!(agent(&identity, "Agent-A.ai-agents.svc.cluster.local").as_deref(), Some("agent-a"));
        assert_eq!(agent(&identity, "CN=agent-a").as_deref(), Some("agent-a"));
        for bad in [
            "CN=agent-a,O=x",
            "O=x,CN=agent-a",
            "CN=agent-a+CN=b",
            "CN=a\\,b",
            "agent-a",
            "x.agent-a.ai-agents.svc.cluster.local",
        ] {
            assert_eq!(agent(&identity, bad), None, "{bad}");
        }
    }

    #[test]
    fn c11_a_plus_in_an_encoded_certificate_is_a_plus() {
        assert_eq!(url_decoded("a%2Bb+c%0A").as_deref(), Some(&b"a+b+c\n"[..]));
        for bad in ["%", "%2", "%zz"] {
            assert_eq!(url_decoded(bad), None, "{bad}");
        }
        let text = "-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----%0A";
        let now = Timestamp::from_seconds(1);
        for bad in [text, "", "x", "%00"] {
            assert!(identity(Config::default()).agent_of_encoded_certificate(bad, &policy(), now).is_err(), "{bad}");
        }
    }
}
