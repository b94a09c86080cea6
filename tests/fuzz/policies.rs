//! The policy file, and the patterns in it and in tokens.

use remit::digest::sha256_hex;
use remit::domain::policy::Policy;
use remit::domain::resource::{Pattern, Resource};
use remit::policy_file::{Compiled, ExtraRoles, compile};
use serde_json::Value;

use crate::campaign::{Outcome, Target};
use crate::texts::{has_every_member, has_fraction};

fn compiled(bytes: &[u8]) -> Option<Compiled> {
    compile("policy.json", bytes, &ExtraRoles::default(), sha256_hex, 7).ok()
}

#[test]
fn an_accepted_policy_means_what_any_reader_of_json_sees() {
    let target = Target { name: "policy", longest: 4096, executions: 15_000, cost: 1 };
    target.run(|input| {
        let Some(found) = compiled(input) else { return Outcome::Refused };
        let (policy, same) = (&found.policy, compiled(input));
        assert_eq!(same.as_ref(), Some(&found), "read twice it says another thing");
        assert_eq!((&*found.source, &*policy.id.digest), (input, &*sha256_hex(input)));
        assert!((1..=16).contains(&policy.max_delegation_depth));
        // Another reader, who would take the last of two names, finds the same policy in it.
        let read: Value = serde_json::from_slice(input).unwrap();
        assert!(has_every_member(input, &read), "a name stands twice");
        let again =
            compiled(read.to_string().as_bytes()).expect("written anew by another, it is still a policy").policy;
        let again = Policy { id: policy.id.clone(), ..again };
        assert!(has_fraction(&read) || &again == policy, "written anew it says another thing");
        Outcome::Accepted
    });
}

/// A text taken apart by splitting it, and by nothing else: its scheme, what stands before the first segment, the segments.
fn apart(text: &str) -> (&str, &str, Vec<&str>) {
    let starts = |scheme: &str| scheme.starts_with(|first: char| first.is_ascii_lowercase());
    let of_scheme = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "+.-".contains(letter);
    let schemed = text.split_once(':').filter(|(scheme, _)| starts(scheme) && scheme.chars().all(of_scheme));
    let (scheme, rest) = schemed.unwrap_or(("", text));
    let lead = if schemed.is_some() && rest.starts_with("//") {
        "//"
    } else if rest.starts_with('/') {
        "/"
    } else {
        ""
    };
    (
        if schemed.is_some() { scheme } else { ":none" },
        lead,
        rest.strip_prefix(lead).unwrap_or(rest).split('/').collect(),
    )
}

/// Whether a resource lies in a pattern, by their segments.
fn lies_in(resource: &str, pattern: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (inner, outer) = (apart(resource), apart(pattern));
    let Some(above) = outer.2.strip_suffix(&["*"]) else { return resource == pattern };
    (inner.0, inner.1) == (outer.0, outer.1) && inner.2.len() > above.len() && inner.2.starts_with(above)
}

/// Nothing of it can be read as a step up, as another spelling, or as more than a path.
fn is_plain(resource: &str) -> bool {
    let (_, _, segments) = apart(resource);
    let plain = |segment: &&str| {
        let letters = segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\\%;?#*".contains(&byte));
        letters && !["", ".", ".."].contains(segment)
    };
    segments.iter().all(plain) && resource.len() <= 1024
}

#[test]
fn a_pattern_covers_what_lies_below_it_and_never_reaches_over_a_step_up() {
    let target = Target { name: "pattern", longest: 1300, executions: 150_000, cost: 1 };
    let mut covered = 0_u64;
    target.run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return Outcome::Refused };
        let mut lines = text.splitn(3, '\n');
        let [outer, inner, resource] = [lines.next(), lines.next(), lines.next()].map(Option::unwrap_or_default);
        let parsed = Resource::parse(resource);
        assert_eq!(parsed.is_ok(), is_plain(resource) && !resource.is_empty(), "{resource:?}");
        let (Ok(wide), Ok(narrow)) = (Pattern::parse(outer), Pattern::parse(inner)) else { return Outcome::Refused };
        assert_eq!((wide.as_str(), narrow.as_str()), (outer, inner), "none is repaired");
        for pattern in [outer, inner] {
            assert!(!apart(pattern).2.iter().any(|segment| [".", ".."].contains(segment)), "{pattern:?}");
        }
        let Ok(asked) = parsed else { return Outcome::Refused };
        assert_eq!(wide.covers(asked), lies_in(resource, outer), "{resource:?} in {outer:?}");
        assert_eq!(narrow.covers(asked), lies_in(resource, inner), "{resource:?} in {inner:?}");
        assert!(!wide.contains(&narrow) || !narrow.covers(asked) || wide.covers(asked), "{text:?}");
        assert!(wide.contains(&narrow) || narrow.contains(&wide) || !(wide.covers(asked) && narrow.covers(asked)));
        covered += u64::from(wide.covers(asked));
        Outcome::Accepted
    });
    assert!(covered > 0);
}
