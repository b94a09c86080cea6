//! SPIFFE IDs, and the templates that find an agent's name in one.
//!
//! The form is that of the SPIFFE-ID specification §2, read strictly: what go-spiffe refuses is refused.

use crate::domain::agent::AgentName;

/// A SPIFFE ID's text, in bytes (SPIFFE-ID §2.3).
const ID_BYTES: usize = 2048;
/// A trust domain's name, in bytes.
const TRUST_DOMAIN_BYTES: usize = 255;
const PLACE: &str = "{agent}";

/// Whether this is the SPIFFE ID of a workload: lower-case scheme and trust domain, a path, and nothing else.
#[must_use]
pub fn is_workload_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let Some((trust_domain, path)) = rest.split_once('/') else { return false };
    let domain_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let domain = (1..=TRUST_DOMAIN_BYTES).contains(&trust_domain.len()) && trust_domain.bytes().all(domain_byte);
    text.len() <= ID_BYTES && domain && path.split('/').all(is_path_segment)
}

/// Whether this can be a segment of a SPIFFE ID's path.
#[must_use]
pub fn is_path_segment(text: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(byte)
}

/// A name with `{agent}` where the agent's name stands, e.g. `spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: Box<str>,
    after: Box<str>,
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTemplate(String);

impl std::fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the template {:?} does not have {PLACE} exactly once where a name of its kind can stand", self.0)
    }
}

impl std::error::Error for InvalidTemplate {}

impl Template {
    /// A template of SPIFFE IDs; `{agent}` is inside one segment of the path.
    ///
    /// # Errors
    /// No SPIFFE ID could match.
    pub fn spiffe(text: &str) -> Result<Self, InvalidTemplate> {
        Self::new(text, is_workload_id, "spiffe://")
    }

    /// A template of DNS names; `{agent}` is inside one label.
    ///
    /// # Errors
    /// No DNS name could match.
    pub fn dns(text: &str) -> Result<Self, InvalidTemplate> {
        Self::new(text, |sample| sample.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "")
    }

    fn new(text: &str, fits: impl Fn(&str) -> bool, scheme: &str) -> Result<Self, InvalidTemplate> {
        let invalid = || InvalidTemplate(text.to_owned());
        let (before, after) = text.split_once(PLACE).ok_or_else(invalid)?;
        let in_trust_domain = !scheme.is_empty() && before.strip_prefix(scheme).is_none_or(|rest| !rest.contains('/'));
        if after.contains(PLACE) || in_trust_domain || !fits(&format!("{before}x{after}")) {
            return Err(invalid());
        }
        Ok(Self { before: before.into(), after: after.into() })
    }

    /// The agent that this name is of. The part that stands for the agent never reaches over a `/` or, in a
    /// DNS name, a `.`.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<AgentName> {
        let part = name.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let separator = if self.before.starts_with("spiffe:") { '/' } else { '.' };
        if part.contains(separator) || !is_path_segment(part) {
            return None;
        }
        AgentName::parse(part).ok()
    }

    /// What stands before and after the agent's name.
    #[must_use]
    pub fn around(&self) -> (&str, &str) {
        (&self.before, &self.after)
    }

    /// The name of this agent; none if it can't stand in such a name.
    #[must_use]
    pub fn name_of(&self, agent: &AgentName) -> Option<String> {
        is_path_segment(agent.as_str()).then(|| format!("{}{agent}{}", self.before, self.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_workloads_and_nothing_like_them() {
        for good in
            ["spiffe://cluster.local/ns/ai-agents/sa/x-sa", "spiffe://a/...", "spiffe://a/.path", "spiffe://a_b/C"]
        {
            assert!(is_workload_id(good), "{good}");
        }
        let long = format!("spiffe://a/{}", "x".repeat(2048));
        let long_domain = format!("spiffe://{}/x", "a".repeat(256));
        for bad in [
            "",
            "spiffe://cluster.local",
            "spiffe://cluster.local/",
            "spiffe:///x",
            "Spiffe://a/x",
            "spiffe://A/x",
            "spiffe://a:1/x",
            "spiffe://u@a/x",
            "spiffe://a/x/",
            "spiffe://a//x",
            "spiffe://a/./x",
            "spiffe://a/../x",
            "spiffe://a/x?q",
            "spiffe://a/x#f",
            "spiffe://a/%78",
            "spiffe://a/x\0",
            "https://a/x",
            long.as_str(),
            long_domain.as_str(),
        ] {
            assert!(!is_workload_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_template_finds_one_segment() {
        let template = Template::spiffe("spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa").unwrap();
        let agent = |id| template.agent(id).map(|agent| agent.to_string());
        assert_eq!(
            agent("spiffe://cluster.local/ns/ai-agents/sa/agent-deployer-sa").as_deref(),
            Some("agent-deployer")
        );
        assert_eq!(agent("spiffe://cluster.local/ns/ai-agents/sa/-sa"), None);
        assert_eq!(agent("spiffe://cluster.local/ns/ai-agents/sa/a/b-sa"), None);
        assert_eq!(agent("spiffe://cluster.local/ns/other/sa/agent-deployer-sa"), None);
        assert_eq!(agent("spiffe://other/ns/ai-agents/sa/agent-deployer-sa"), None);
        for bad in ["spiffe://{agent}/x", "spiffe://a/x", "spiffe://a/{agent}/{agent}", "{agent}", "https://a/{agent}"]
        {
            assert!(Template::spiffe(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dns_template_finds_one_label() {
        let template = Template::dns("{agent}.ai-agents.svc.cluster.local").unwrap();
        assert!(template.agent("agent-deployer.ai-agents.svc.cluster.local").is_some());
        assert!(template.agent("x.agent-deployer.ai-agents.svc.cluster.local").is_none());
        assert!(template.agent("agent-deployer.other.svc.cluster.local").is_none());
    }
}
