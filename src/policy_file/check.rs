//! The parts of the file held against each other.

use std::collections::{HashMap, HashSet};

use super::ExtraRoles;
use super::diagnostics::{Findings, closest, finding, quoted};
use super::draft::{Draft, EntityDraft, GrantDraft, RuleDraft};
use crate::domain::agent::AgentName;
use crate::domain::resource::Pattern;

/// Names for which the closest known one is looked up. Each costs a pass over all agents.
const CLOSEST_LOOKUPS: usize = 3;
/// Patterns up to which trying each is cheaper than looking up.
const FEW_PATTERNS: usize = 16;

/// Finds what is wrong between parts that are each well formed.
pub(super) fn check(draft: &Draft, extra: &ExtraRoles, findings: &mut Findings<'_>) {
    for (agent, rule) in &draft.rules {
        check_trusted_pairs(&agent.value, rule, findings);
    }
    check_points(draft, extra, findings);
    check_grants(draft, findings);
    check_quarantined(draft, extra, findings);
    check_entities(&draft.entities.subjects, findings);
    check_entities(&draft.entities.resources, findings);
    if draft.administrators.is_empty() && extra.administrators.is_empty() {
        let missing = finding("no administrators: nobody can quarantine, reinstate or revoke what isn't theirs");
        findings.warning_at_large(
            missing.help("name them in `administrators`, unless `[policy]` of the configuration names them"),
        );
    }
    if draft.auditors.is_empty() && extra.auditors.is_empty() {
        let missing = finding("no auditors: only administrators can watch decisions");
        findings.warning_at_large(
            missing.help("name them in `auditors`, unless `[policy]` of the configuration names them"),
        );
    }
}

/// Every agent that file and configuration name, except where the file only quarantines.
pub(super) fn mentioned<'d>(draft: &'d Draft, extra: &'d ExtraRoles) -> impl Iterator<Item = &'d AgentName> {
    let rules = draft
        .rules
        .iter()
        .flat_map(|(agent, rule)| [agent].into_iter().chain(&rule.can_delegate_to).chain(&rule.trusted_pairs));
    let points = draft
        .enforcement_points
        .iter()
        .flat_map(|point| [&point.agent].into_iter().chain(&point.destinations).chain(point.agents.iter().flatten()));
    let grants = draft.grants.iter().flat_map(|grants| grants.value.iter().map(|grant| &grant.agent));
    let calls = draft.communication_rules.iter().flatten().flat_map(|rule| rule.from.iter().chain(&rule.to));
    rules
        .chain(points)
        .chain(grants)
        .chain(&draft.administrators)
        .chain(&draft.auditors)
        .chain(draft.entities.subjects.iter().map(|subject| &subject.name))
        .map(|agent| &agent.value)
        .chain(calls)
        .chain(draft.principals.iter().map(|(_, agent)| agent))
        .chain(&extra.administrators)
        .chain(&extra.auditors)
        .chain(&extra.enforcement_points)
}

fn check_trusted_pairs(agent: &AgentName, rule: &RuleDraft, findings: &mut Findings<'_>) {
    if rule.trusted_pairs.is_empty() {
        return;
    }
    let targets: HashSet<&str> = rule.can_delegate_to.iter().map(|target| target.value.as_str()).collect();
    for pair in &rule.trusted_pairs {
        let name = pair.value.as_str();
        if !targets.contains(name) {
            findings.warning_with(pair.span.clone(), || {
                let (name, agent) = (quoted(name), quoted(agent.as_str()));
                let found = finding(format!("{name} is a trusted pair, but {agent} can't delegate to it"));
                match closest(pair.value.as_str(), targets.iter().copied()) {
                    Some(meant) => found.help(format!("did you mean {}?", quoted(meant))),
                    None => found.help("add it to `can_delegate_to`, or take it out here"),
                }
            });
        }
    }
}

fn check_points(draft: &Draft, extra: &ExtraRoles, findings: &mut Findings<'_>) {
    let from_config: HashSet<&AgentName> = extra.enforcement_points.iter().collect();
    let mut seen: HashSet<&AgentName> = HashSet::new();
    for point in &draft.enforcement_points {
        let (at, name) = (point.agent.span.clone(), &point.agent.value);
        if !seen.insert(name) {
            let twice = format!("{} is an enforcement point already", quoted(name.as_str()));
            findings.error(at, finding(twice).help("write one entry that has all of its destinations and agents"));
        } else if point.agents.is_some() && from_config.contains(name) {
            let both = format!("the configuration has {} as an enforcement point for any agent", quoted(name.as_str()));
            findings.warning(at, finding(both).help("this entry counts; take it out of the configuration"));
        }
    }
}

/// A grant gives nothing that the agent's own rule doesn't have.
fn check_grants(draft: &Draft, findings: &mut Findings<'_>) {
    let Some(grants) = &draft.grants else { return };
    let granted: HashSet<&AgentName> = grants.value.iter().map(|grant| &grant.agent.value).collect();
    let own: HashMap<&AgentName, OwnSet<'_>> = draft
        .rules
        .iter()
        .filter(|(agent, _)| granted.contains(&agent.value))
        .map(|(agent, rule)| (&agent.value, OwnSet::of(rule)))
        .collect();
    for grant in &grants.value {
        if grant.capabilities.is_empty() || grant.resources.is_empty() {
            let nothing = format!(
                "this grant gives {} nothing: an empty list allows nothing",
                quoted(grant.agent.value.as_str())
            );
            let start = grant.span.start;
            findings.warning(start..start.saturating_add(1), finding(nothing));
        }
        if let Some(own) = own.get(&grant.agent.value) {
            check_grant(grant, own, findings);
        }
    }
}

fn check_grant(grant: &GrantDraft, own: &OwnSet<'_>, findings: &mut Findings<'_>) {
    let agent = grant.agent.value.as_str();
    for capability in &grant.capabilities {
        let name = capability.value.as_str();
        if !own.capabilities.contains(name) {
            findings.error_with(capability.span.clone(), |_| {
                let (wide, agent) = (quoted(name), quoted(agent));
                let found = finding(format!("the grant is wider than the rule of {agent}, which has no {wide}"));
                match closest(name, own.capabilities.iter().copied()) {
                    Some(meant) => found.help(format!("did you mean {}?", quoted(meant))),
                    None => found.help(format!("add it to the `max_capability_set` of {agent}, or take it out here")),
                }
            });
        }
    }
    for resource in &grant.resources {
        if !own.resources.contain(&resource.value) {
            findings.error_with(resource.span.clone(), |_| {
                let (wide, agent) = (quoted(resource.value.as_str()), quoted(agent));
                finding(format!("the grant is wider than the rule of {agent}, whose resources don't contain {wide}"))
                    .help(format!("add it to the `max_resources` of {agent}, or narrow it here"))
            });
        }
    }
}

/// A rule's own set, for many lookups.
struct OwnSet<'d> {
    capabilities: HashSet<&'d str>,
    resources: PatternSet<'d>,
}

impl<'d> OwnSet<'d> {
    fn of(rule: &'d RuleDraft) -> Self {
        Self {
            capabilities: rule.capabilities.iter().map(|capability| capability.value.as_str()).collect(),
            resources: PatternSet::of(rule.resources.iter().map(|pattern| &pattern.value).collect()),
        }
    }
}

/// Patterns among which the one that contains another is found without trying each.
enum PatternSet<'d> {
    /// Tried one after the other.
    Few(Vec<&'d Pattern<'static>>),
    /// Looked up.
    Many {
        /// Patterns as they stand.
        texts: HashSet<&'d str>,
        /// The points below which a pattern covers everything: its text before the `*`.
        points: HashSet<&'d str>,
    },
}

impl<'d> PatternSet<'d> {
    fn of(patterns: Vec<&'d Pattern<'static>>) -> Self {
        if patterns.len() <= FEW_PATTERNS {
            return Self::Few(patterns);
        }
        Self::many(patterns)
    }

    fn many(patterns: Vec<&'d Pattern<'static>>) -> Self {
        let texts: HashSet<&str> = patterns.into_iter().map(Pattern::as_str).collect();
        let points = texts.iter().filter_map(|text| text.strip_suffix('*')).collect();
        Self::Many { texts, points }
    }

    /// Whether one of the patterns contains this one.
    fn contain(&self, inner: &Pattern<'_>) -> bool {
        let text = inner.as_str();
        match self {
            Self::Few(patterns) => patterns.iter().any(|pattern| pattern.contains(inner)),
            Self::Many { texts, points } => {
                // Everything's point is the empty text. Others end with `/` or, after a scheme, with `:`.
                let ends = text.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'/' | b':'));
                let mut above = ends.filter_map(|(at, _)| text.split_at_checked(at.saturating_add(1)));
                // What lies below a point begins with a segment, not with `/`.
                let is_below = |below: &str| !below.is_empty() && !below.starts_with('/');
                texts.contains(text)
                    || points.contains("")
                    || above.any(|(point, below)| is_below(below) && points.contains(point))
            }
        }
    }
}

/// A quarantined name that nothing else has may be misspelt, and then the one that was meant goes on.
fn check_quarantined(draft: &Draft, extra: &ExtraRoles, findings: &mut Findings<'_>) {
    if draft.quarantined.is_empty() {
        return;
    }
    let known: HashSet<&str> = mentioned(draft, extra).map(AgentName::as_str).collect();
    let strangers = draft.quarantined.iter().filter(|agent| !known.contains(agent.value.as_str()));
    for (index, agent) in strangers.enumerate() {
        let name = agent.value.as_str();
        let found = finding(format!("{} is quarantined, but nothing else mentions it", quoted(name)));
        let meant = if index < CLOSEST_LOOKUPS { closest(name, known.iter().copied()) } else { None };
        let help = meant.map_or_else(
            || "the quarantine takes effect all the same; is the name right?".to_owned(),
            |meant| format!("did you mean {}?", quoted(meant)),
        );
        findings.warning(agent.span.clone(), found.help(help));
    }
}

/// Of two entries for one name, which properties would count?
fn check_entities<T: std::hash::Hash + Eq + AsRef<str>>(entities: &[EntityDraft<T>], findings: &mut Findings<'_>) {
    let mut first: HashMap<&T, usize> = HashMap::with_capacity(entities.len());
    for EntityDraft { name, .. } in entities {
        if let Some(earlier) = first.get(&name.value) {
            findings.error_with(name.span.clone(), |findings| {
                let help = format!("it is first on line {}: keep one of them", findings.line_at(*earlier));
                finding(format!("{} is listed twice", quoted(name.value.as_ref()))).help(help)
            });
        } else {
            first.insert(&name.value, name.span.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy_file::diagnostics::cases::{Case, are_shown_at_their_place};

    const BAD: &[Case] = &[
        (
            "{\"delegation_rules\": {\"a\": {\"max_capability_set\": [\"read_file\"]}},\n \"grants\": [{\"agent\": \"a\", \"capabilities\": [\"read_file\", «\"read_fil\"»], \"resources\": [\"*\"]}]}",
            "wider than the rule of `a`, which has no `read_fil`",
            "did you mean `read_file`?",
        ),
        (
            "{\"delegation_rules\": {\"a\": {\"max_capability_set\": [\"c\"], \"max_resources\": [\"/a/*\"]}},\n \"grants\": [{\"agent\": \"a\", \"capabilities\": [\"c\"], \"resources\": [\"/a/b\", «\"/b/*\"»]}]}",
            "whose resources don't contain `/b/*`",
            "`max_resources` of `a`",
        ),
        (
            "{\"delegation_rules\": {\"a\": {}}, \"grants\": [{\"agent\": \"a\", \"capabilities\": [«\"c\"»], \"resources\": [\"*\"]}]}",
            "which has no `c`",
            "max_capability_set",
        ),
    ];

    #[test]
    fn parts_must_agree() {
        are_shown_at_their_place(BAD);
    }

    proptest! {
        #[test]
        fn looking_up_finds_what_trying_each_finds(
            texts in prop::collection::vec("(\\*|([a-c]:)?/?/?([a-b:]{1,2}/){0,3}([a-b:]{1,2}|\\*))", 1..60),
            inner in "(\\*|([a-c]:)?/?/?([a-b:]{1,2}/){0,3}([a-b:]{1,2}|\\*))",
        ) {
            let patterns: Vec<Pattern<'static>> =
                texts.into_iter().filter(|text| text != "*").filter_map(|text| Pattern::parse(text).ok()).collect();
            let Ok(inner) = Pattern::parse(inner) else { return Ok(()) };
            let set = PatternSet::many(patterns.iter().collect());
            prop_assert_eq!(set.contain(&inner), patterns.iter().any(|pattern| pattern.contains(&inner)));
        }
    }

    #[test]
    fn everything_among_many_contains_all() {
        let texts = (0..40).map(|number| format!("/p{number}/*")).chain(["*".to_owned()]);
        let patterns: Vec<Pattern<'static>> = texts.map(|text| Pattern::parse(text).unwrap()).collect();
        let set = PatternSet::many(patterns.iter().collect());
        for inner in ["*", "/x", "db:*"] {
            assert!(set.contain(&Pattern::parse(inner).unwrap()), "{inner}");
        }
    }
}
