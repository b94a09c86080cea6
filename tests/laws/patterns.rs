//! Resources and patterns: the crate's text comparison against the oracle's split segments.

use proptest::collection::vec;
use proptest::prelude::*;
use remit::domain::resource::{Pattern, Resource};

use crate::histories::for_each_case;
use crate::model::{is_resource, lies_within, split};
use crate::story::Told;

/// Texts of few letters, so that many are alike; most are patterns.
fn texts() -> impl Strategy<Value = String> {
    let start = prop::sample::select(vec!["", "/", "s:", "s:/", "s://", "s2+:", "S:", "//", "1:"]);
    let segment =
        prop::sample::select(vec!["a", "a", "b", "ab", "*", "a*", ".", "..", "", "a:", "s:", "%2e", "a b", "\u{e9}"]);
    let plain = prop::sample::select(vec!["a", "b", "ab", "a:b"]);
    let last = prop::sample::select(vec!["*", "*", "a", "b", "ab"]);
    let likely = (start.clone(), vec(plain, 0..3), last).prop_map(|(start, mut path, last)| {
        path.push(last);
        format!("{start}{}", path.join("/"))
    });
    let wild = (start, vec(segment, 0..4)).prop_map(|(start, path)| format!("{start}{}", path.join("/")));
    prop_oneof![6 => likely, 3 => wild, 1 => "[a/*:.s]{0,6}"]
}

#[test]
fn l3_patterns_cover_what_their_segments_say() {
    for_each_case(1, &vec((texts(), texts()), 8), |pairs| -> Told {
        for (inner, outer) in pairs {
            for text in [inner.as_str(), outer.as_str()] {
                prop_assert_eq!(Pattern::parse(text).is_ok(), split(text).is_some(), "pattern {:?}", text);
                prop_assert_eq!(Resource::parse(text).is_ok(), is_resource(text), "resource {:?}", text);
            }
            let Ok(wide) = Pattern::parse(outer.as_str()) else { continue };
            let within = lies_within(&inner, &outer);
            if let Ok(narrow) = Pattern::parse(inner.as_str()) {
                prop_assert_eq!(wide.contains(&narrow), within, "{:?} in {:?}", inner, outer);
            }
            if let Ok(resource) = Resource::parse(&inner) {
                prop_assert_eq!(wide.covers(resource), within, "{:?} in {:?}", inner, outer);
            }
        }
        Ok(())
    });
}

#[test]
fn the_oracles_patterns_mean_what_the_grammar_says() {
    for (inner, outer, within) in [
        ("record:a", "record:*", true),
        ("record:a/b", "record:*", true),
        ("record:/a", "record:*", false),
        ("record://a", "record:*", false),
        ("/data/reports-secret", "/data/reports/*", false),
        ("/data/reports", "/data/reports/*", false),
        ("/data/reports/*", "/data/*", true),
        ("/data/*", "/data/*", true),
        ("/data/*", "/data/reports/*", false),
        ("*", "/*", false),
        ("/*", "*", true),
        ("data/x", "/*", false),
        ("DB:orders", "DB:orders", true),
    ] {
        assert_eq!(lies_within(inner, outer), within, "{inner} in {outer}");
    }
}
