//! What a policy says, and when one pattern lies within another.

use super::words::{Point, Policy};

impl Policy {
    /// Whether it names the agent anywhere.
    pub fn knows(&self, agent: &str) -> bool {
        let rules = self.rules.values().flat_map(|rule| rule.can_delegate_to.iter().chain(&rule.trusted));
        let grants = self.grants.iter().flatten().map(|grant| &grant.agent);
        let calls = self.communication.iter().flatten().flat_map(|call| [&call.from, &call.to]);
        let points = self.points.iter().flat_map(|point| {
            [&point.agent].into_iter().chain(&point.destinations).chain(point.agents.iter().flatten())
        });
        let more = self.administrators.iter().chain(&self.quarantined);
        let mut named = self.rules.keys().chain(rules).chain(grants).chain(calls).chain(points).chain(more);
        agent != "*" && named.any(|name| name == agent)
    }

    pub fn point(&self, agent: &str) -> Option<&Point> {
        self.points.iter().find(|point| point.agent == agent)
    }

    pub fn may_delegate(&self, from: &str, to: &str) -> bool {
        self.rules.get(from).is_some_and(|rule| rule.can_delegate_to.contains(to))
    }

    pub fn trusts(&self, from: &str, to: &str) -> bool {
        self.rules.get(from).is_some_and(|rule| rule.trusted.contains(to))
    }

    /// Whether the agent may start chains at all.
    pub fn starts(&self, agent: &str) -> bool {
        if let Some(grants) = &self.grants {
            return grants.iter().any(|grant| grant.agent == agent);
        }
        let named = self.rules.values().any(|rule| rule.can_delegate_to.contains(agent));
        self.rules.contains_key(agent) && !named
    }

    /// Whether the agent may start a chain with this capability on this pattern.
    pub fn may_start(&self, agent: &str, capability: &str, pattern: &str) -> bool {
        let granted = self.grants.iter().flatten().any(|grant| {
            grant.agent == agent && grant.cap.iter().any(|cap| cap == capability) && within_any(pattern, &grant.res)
        });
        let own = self.own_set_faults(agent, capability, pattern).is_empty();
        own && if self.grants.is_some() { granted } else { self.starts(agent) }
    }

    /// What an agent with a rule may not hold or pass on.
    pub fn own_set_faults(&self, agent: &str, capability: &str, pattern: &str) -> Vec<&'static str> {
        let mut faults = Vec::new();
        if let Some(rule) = self.rules.get(agent) {
            if !rule.cap.contains(capability) {
                faults.push("CAPABILITY_NOT_GRANTED");
            }
            if !within_any(pattern, &rule.res) {
                faults.push("RESOURCE_NOT_GRANTED");
            }
        }
        faults
    }

    /// What an agent without a token lacks.
    pub fn own_grant_faults(&self, agent: &str, capability: &str, resource: &str) -> Vec<&'static str> {
        let mut grants = self.grants.iter().flatten().filter(|grant| grant.agent == agent).peekable();
        if grants.peek().is_none() {
            return vec!["TOKEN_REQUIRED"];
        }
        if self.may_start(agent, capability, resource) {
            return vec![];
        }
        let has = grants.any(|grant| grant.cap.iter().any(|cap| cap == capability));
        vec![if has { "RESOURCE_NOT_GRANTED" } else { "CAPABILITY_NOT_GRANTED" }]
    }

    /// Whether a communication rule lets the one agent call the other. `must`: also where there are no rules.
    pub fn may_call(&self, from: &str, to: &str, method: &str, path: &str, must: bool) -> bool {
        let Some(rules) = &self.communication else { return !must };
        rules.iter().any(|rule| {
            (rule.from == "*" || rule.from == from)
                && (rule.to == "*" || rule.to == to)
                && rule.methods.as_ref().is_none_or(|methods| methods.iter().any(|known| known == method))
                && rule.paths.as_ref().is_none_or(|paths| within_any(path, paths))
        })
    }
}

pub fn within_any(inner: &str, outer: &[String]) -> bool {
    outer.iter().any(|outer| lies_within(inner, outer))
}

/// Whether all that the one pattern covers the other covers too. A resource is a pattern that covers itself.
pub fn lies_within(inner: &str, outer: &str) -> bool {
    if outer == "*" || inner == outer {
        return true;
    }
    if inner == "*" {
        return false;
    }
    let (Some(inner), Some(outer)) = (split(inner), split(outer)) else { return false };
    if (&inner.0, &inner.1) != (&outer.0, &outer.1) || outer.2.last().unwrap() != "*" {
        return false;
    }
    // What stands before the outer `*` begins the inner one, which goes on after it.
    let above = &outer.2[..outer.2.len() - 1];
    inner.2.len() > above.len() && inner.2.starts_with(above)
}

/// Scheme, slashes and segments of a resource or pattern; none where it is neither.
fn split(text: &str) -> Option<(String, &'static str, Vec<String>)> {
    let is_scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c))
    };
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_owned(), rest),
        _ => (String::new(), text),
    };
    let (slashes, rest) = match (rest.strip_prefix("//"), rest.strip_prefix('/')) {
        (Some(rest), _) if !scheme.is_empty() => ("//", rest),
        (_, Some(rest)) => ("/", rest),
        (_, None) => ("", rest),
    };
    let segments: Vec<String> = rest.split('/').map(str::to_owned).collect();
    let plain = |c: char| c.is_ascii_graphic() && !"/\\%;?#*".contains(c);
    for (index, segment) in segments.iter().enumerate() {
        let star = segment == "*" && index + 1 == segments.len();
        if segment.is_empty() || segment == "." || segment == ".." || !(star || segment.chars().all(plain)) {
            return None;
        }
    }
    (text.len() <= 1024).then_some((scheme, slashes, segments))
}

pub fn is_pattern(text: &str) -> bool {
    split(text).is_some()
}

pub fn is_resource(text: &str) -> bool {
    split(text).is_some_and(|(_, _, segments)| segments.last().unwrap() != "*")
}
