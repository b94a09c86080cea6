//! What agents might do under earlier policies of this process: whoever goes on as before when the policy is made
//! tighter is no attacker. What an earlier process's policies allowed is not known here.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::domain::agent::AgentName;
use crate::domain::limits;
use crate::domain::policy::{Formerly, OwnSet, Policy, Rule};

/// Own sets that were narrowed, by agent, and the greatest depth that there was.
#[derive(Default)]
pub(super) struct FormerRules(ArcSwap<Remembered>);

#[derive(Clone, Default)]
struct Remembered {
    own_sets: HashMap<AgentName, Arc<[OwnSet]>>,
    max_depth: u8,
}

impl FormerRules {
    /// One policy follows on another. Called by one at a time.
    pub(super) fn replaced(&self, before: &Policy, after: &Policy) {
        let mut remembered = Remembered::clone(&self.0.load());
        remembered.max_depth = remembered.max_depth.max(before.max_delegation_depth);
        for (name, entry) in &before.agents {
            let Some(rule) = &entry.rule else { continue };
            let kept = after.agent(name.as_str()).and_then(|entry| entry.rule.as_ref());
            if kept.is_some_and(|kept| has_all(kept, rule)) {
                continue;
            }
            let own_set = OwnSet { capabilities: rule.capabilities.clone(), resources: rule.resources.clone() };
            let earlier = remembered.own_sets.get(name).map(|sets| sets.to_vec()).unwrap_or_default();
            let newest_first = [own_set].into_iter().chain(earlier).take(limits::FORMER_RULES);
            remembered.own_sets.insert(name.clone(), newest_first.collect());
        }
        self.0.store(Arc::new(remembered));
    }

    /// What this agent might have.
    pub(super) fn of(&self, agent: &str) -> Formerly {
        let remembered = self.0.load();
        let own_sets = remembered.own_sets.get(agent).map(Arc::clone).unwrap_or_default();
        Formerly { own_sets, max_depth: remembered.max_depth }
    }
}

/// Whether nothing was taken away. Patterns are compared as they stand: one set too many does no harm.
fn has_all(kept: &Rule, before: &Rule) -> bool {
    before.capabilities.is_subset(&kept.capabilities) && before.resources == kept.resources
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::capability::Capability;
    use crate::domain::entities::Entities;
    use crate::domain::names::NameSet;
    use crate::domain::policy::{AgentPolicy, DEFAULT_DELEGATE_RATE, PolicyId, TokenRules};
    use crate::domain::resource::Pattern;

    /// An agent whose own set this is.
    type Own<'a> = (&'a str, &'a [&'static str], &'a [&'static str]);

    fn policy(rules: &[Own<'_>], max_depth: u8) -> Policy {
        let agents = rules.iter().map(|(name, capabilities, resources)| {
            let rule = Rule {
                can_delegate_to: NameSet::default(),
                capabilities: capabilities.iter().map(|name| Capability::parse(name).unwrap()).collect(),
                resources: resources.iter().map(|text| Pattern::parse(*text).unwrap()).collect(),
                trusted_pairs: NameSet::default(),
                rate_limit: DEFAULT_DELEGATE_RATE,
            };
            (AgentName::parse(name).unwrap(), AgentPolicy { rule: Some(rule), ..AgentPolicy::default() })
        });
        Policy {
            id: PolicyId { revision: 1, digest: "d".into() },
            max_delegation_depth: max_depth,
            token: TokenRules::default(),
            agents: agents.collect(),
            has_grants: false,
            has_when: false,
            conditions: Vec::new(),
            communication_rules: None,
            authorize_rate: None,
            quarantine_after: None,
            principals: BTreeMap::default(),
            entities: Entities::default(),
        }
    }

    #[test]
    fn what_was_narrowed_is_remembered_and_what_was_widened_is_not() {
        let rules = FormerRules::default();
        let wide = policy(&[("a", &["get", "set"], &["*"]), ("b", &["get"], &["prod/*"])], 3);
        let narrow = policy(&[("a", &["get"], &["*"]), ("b", &["get", "set"], &["prod/*"])], 2);
        rules.replaced(&wide, &narrow);
        assert_eq!(rules.of("a").own_sets.len(), 1);
        assert_eq!(rules.of("a").max_depth, 3);
        assert!(rules.of("b").own_sets.is_empty());
        rules.replaced(&narrow, &wide);
        assert_eq!(rules.of("a").own_sets.len(), 1);
        assert_eq!(rules.of("b").own_sets.len(), 1);
        rules.replaced(&narrow, &policy(&[], 1));
        assert_eq!(rules.of("a").own_sets.len(), 2, "an agent without a rule any more");
    }

    #[test]
    fn it_is_bounded() {
        let rules = FormerRules::default();
        let (wide, narrow) = (policy(&[("a", &["get"], &["*"])], 2), policy(&[("a", &[], &["*"])], 2));
        for _ in 0..10 {
            rules.replaced(&wide, &narrow);
        }
        assert_eq!(rules.of("a").own_sets.len(), limits::FORMER_RULES);
    }
}
