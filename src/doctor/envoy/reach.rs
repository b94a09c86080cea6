//! Which clusters stand behind which way in: one that is guarded here and open there is open.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::reading::{every_object, field, text};
use crate::doctor::survey::names;

/// A way in.
pub(in crate::doctor) struct Door {
    place: String,
    guard: Guard,
    clusters: Vec<String>,
    /// Why its clusters are not all known.
    unclear: Option<&'static str>,
}

/// What of a request is looked at on a way in.
#[derive(PartialEq, Eq)]
pub(in crate::doctor) enum Guard {
    /// Nothing is asked.
    None,
    /// It is asked about, and its trailers pass as the client wrote them.
    Headers,
    /// It is asked about, and our names are removed from its trailers.
    HeadersAndTrailers,
}

pub(super) fn manager(report: &mut Report, value: &Value, place: &str, guard: Guard) {
    let mut clusters = Vec::new();
    let mut unclear = None;
    every_object(value, crate::doctor::LEVELS, &mut |object| {
        clusters.extend(text(object, "cluster").map(str::to_owned));
        clusters.extend(field(object, "weighted_clusters").into_iter().flat_map(|list| names(list, "clusters")));
        for name in ["rds", "scoped_routes", "cluster_header", "cluster_specifier_plugin"] {
            unclear = unclear.or(field(object, name).map(|_| name));
        }
    });
    report.doors.push(Door { place: place.to_owned(), guard, clusters, unclear });
}

pub(super) fn tcp(report: &mut Report, value: &Value, place: &str) {
    let mut clusters: Vec<String> = text(value, "cluster").map(str::to_owned).into_iter().collect();
    clusters.extend(field(value, "weighted_clusters").into_iter().flat_map(|list| names(list, "clusters")));
    report.doors.push(Door { place: place.to_owned(), guard: Guard::None, clusters, unclear: None });
}

pub(super) fn conclude(report: &mut Report) {
    let doors = std::mem::take(&mut report.doors);
    let (guarded, open): (Vec<&Door>, Vec<&Door>) = doors.iter().partition(|door| door.guard != Guard::None);
    if guarded.is_empty() {
        return;
    }
    trailers(report, &guarded);
    let kept: Vec<&String> = guarded.iter().flat_map(|door| &door.clusters).collect();
    for door in &open {
        let mut reached: Vec<&str> =
            door.clusters.iter().filter(|name| kept.contains(name)).map(String::as_str).collect();
        reached.sort_unstable();
        reached.dedup();
        for name in reached {
            let what = format!("the cluster {name}, guarded elsewhere, is reached here without being asked about");
            report.fatal(&door.place, what, "put ext_authz here too, or take the route away");
        }
        if let Some(why) = door.unclear {
            let what = format!("can't judge what this way in without ext_authz reaches ({why}): look at it yourself");
            report.warn(&door.place, what, "put ext_authz here too");
        }
    }
    let unclear = guarded.iter().find_map(|door| door.unclear);
    if let (Some(why), false) = (unclear, open.is_empty()) {
        let what =
            format!("can't judge what is guarded ({why}), and there are ways in without ext_authz: look at them");
        report.warn("listeners", what, "put ext_authz into every way in to what is guarded");
    }
}

/// A service behind HTTP/2 gets trailers, which nobody asks about.
fn trailers(report: &mut Report, guarded: &[&Door]) {
    for door in guarded.iter().filter(|door| door.guard == Guard::Headers) {
        let mut reached: Vec<String> =
            door.clusters.iter().filter(|name| report.survey.trailer_clusters.contains(name)).cloned().collect();
        reached.sort_unstable();
        reached.dedup();
        for name in reached {
            let what = format!("the cluster {name} gets trailers, and x-remit-… in them is the client's");
            let fix = "before the router HeaderMutation with request_trailers_mutations: [{ remove_on_match: { key_matcher: { prefix: x-remit-, ignore_case: true } } }]";
            report.warn(&door.place, what, fix);
        }
    }
}
