//! Agents' names, and the principals that Istio knows them by: SPIFFE IDs without the scheme.

use std::collections::BTreeMap;

use crate::domain::agent::AgentName;
use crate::identity::spiffe::Template;

const SCHEME: &str = "spiffe://";

/// How agents are named: the policy's `principals`, then the templates of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Templates of SPIFFE IDs; the first that fits counts.
    pub templates: &'a [Template],
    /// Typed identities and the agents they are.
    pub principals: &'a BTreeMap<Box<str>, AgentName>,
}

/// Principals of any agent: those that begin and end so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form<'a> {
    pub(super) begin: &'a str,
    pub(super) end: &'a str,
}

impl<'a> Names<'a> {
    /// The agent that this principal is.
    pub(super) fn agent(&self, principal: &str) -> Option<AgentName> {
        let id = format!("{SCHEME}{principal}");
        let stated = self.principals.get(id.as_str()).cloned();
        stated.or_else(|| self.templates.iter().find_map(|template| template.agent(&id)))
    }

    /// The principals that are this agent.
    pub(super) fn principals(&self, agent: &AgentName) -> Vec<String> {
        let stated = self.typed(agent).filter_map(|id| id.strip_prefix(SCHEME)).map(str::to_owned);
        let by_template = self.templates.iter().filter_map(|template| template.name_of(agent));
        let by_template = by_template.filter_map(|id| Some(id.strip_prefix(SCHEME)?.to_owned()));
        // Another agent may be stated to have an ID that a template would give to this one.
        let mut all: Vec<String> =
            stated.chain(by_template).filter(|id| self.agent(id).as_ref() == Some(agent)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Identities of the agent that are no SPIFFE IDs, which Istio does not know.
    pub(super) fn unknown_to_istio(&self, agent: &AgentName) -> Vec<&'a str> {
        self.typed(agent).filter(|id| !id.starts_with(SCHEME)).collect()
    }

    /// The forms of principals that templates give.
    pub(super) fn forms(&self) -> Vec<Form<'a>> {
        let form = |template: &'a Template| {
            let (begin, end) = template.around();
            Form { begin: begin.strip_prefix(SCHEME).unwrap_or(begin), end }
        };
        self.templates.iter().map(form).collect()
    }

    /// Principals that are agents whatever the templates say.
    pub(super) fn stated(&self) -> Vec<&'a str> {
        self.principals.keys().filter_map(|id| id.strip_prefix(SCHEME)).collect()
    }

    fn typed(&self, agent: &AgentName) -> impl Iterator<Item = &'a str> {
        self.principals.iter().filter(move |(_, named)| *named == agent).map(|(id, _)| id.as_ref())
    }
}
