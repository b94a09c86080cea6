//! The filters of a connection manager: which one asks, and what acts before and after it.

use serde_json::Value;

use crate::doctor::Report;
use crate::doctor::asking::{Asks, asks, configuration};
use crate::doctor::reading::{at, field, is_message, is_set, items, kind, may_be_set, plain_name, text};

/// Filters, by their message, that may stand before the one that asks: they refuse or measure, and act on nothing.
const EARLY: [&str; 10] = [
    "jwt_authn.v3.JwtAuthentication",
    "http.rbac.v3.RBAC",
    "cors.v3.Cors",
    "csrf.v3.CsrfPolicy",
    "health_check.v3.HealthCheck",
    "local_ratelimit.v3.LocalRateLimit",
    "http.ratelimit.v3.RateLimit",
    "grpc_stats.v3.FilterConfig",
    "ip_tagging.v3.IPTagging",
    "buffer.v3.Buffer",
];
/// Filters that may stand after it as well: they change nothing that was decided about.
const LATE: [&str; 4] =
    ["router.v3.Router", "compressor.v3.Compressor", "grpc_web.v3.GrpcWeb", "http.fault.v3.HTTPFault"];

const HEADER_MUTATION: &str = "header_mutation.v3.HeaderMutation";

fn is_disabled(filter: &Value) -> bool {
    may_be_set(filter, "disabled") || field(filter, "typed_config").is_some_and(|config| may_be_set(config, "disabled"))
}

/// Judges a chain of filters in which one asks.
pub(super) fn look(report: &mut Report, filters: &[&Value], place: &str) {
    let asking = filters.iter().position(|filter| asks(filter) != Asks::No);
    let (before, from) = filters.split_at_checked(asking.unwrap_or(filters.len())).unwrap_or_default();
    for filter in before.iter().filter(|filter| !is_one_of(filter, &EARLY)) {
        let what = format!("the filter {} acts before ext_authz", label(filter));
        report.fatal(place, what, "move ext_authz before it");
    }
    let Some((asking, after)) = from.split_first() else { return };
    if is_disabled(asking) {
        report.fatal(place, "the ext_authz filter is disabled", "remove disabled");
    }
    if asks(asking) == Asks::Within {
        let what = format!("can't judge which requests {} lets past ext_authz: look at it yourself", label(asking));
        report.fatal(place, what, "put ext_authz into http_filters as it is");
    }
    for filter in after.iter().filter(|filter| !is_one_of(filter, &EARLY) && !is_one_of(filter, &LATE)) {
        if asks(filter) == Asks::Plainly || mutates_trailers_alone(filter) {
            continue;
        }
        let what =
            format!("can't judge whether {} changes what ext_authz decided about: look at it yourself", label(filter));
        report.warn(place, what, "let nothing after ext_authz change path, method, host or headers");
    }
}

/// Whether one of these filters removes our names from trailers, where `ext_authz` does not see them.
pub(super) fn removes_our_trailers(filters: &[&Value]) -> bool {
    filters.iter().any(|filter| {
        trailer_mutations(filter).any(|mutation| {
            let matcher = at(mutation, &["remove_on_match", "key_matcher"]);
            matcher
                .is_some_and(|matcher| text(matcher, "prefix") == Some("x-remit-") && (is_set(matcher, "ignore_case")))
        }) && !is_disabled(filter)
    })
}

/// Whether this is a `HeaderMutation` that removes something from a request's trailers, and does nothing else.
fn mutates_trailers_alone(filter: &Value) -> bool {
    let is_other = |name: &String| plain_name(name) != "request_trailers_mutations";
    let removes = |mutation: &Value| {
        let removing = ["remove", "remove_on_match"];
        mutation
            .as_object()
            .is_some_and(|fields| fields.keys().all(|name| removing.contains(&plain_name(name).as_str())))
    };
    let Some(config) = configuration(filter).filter(|config| is_message(config, HEADER_MUTATION)) else { return false };
    let Some(Value::Object(mutations)) = field(config, "mutations") else { return false };
    let has_more =
        config.as_object().is_none_or(|fields| fields.keys().any(|name| name != "@type" && name != "mutations"));
    !has_more && !mutations.keys().any(is_other) && trailer_mutations(filter).all(removes)
}

fn trailer_mutations(filter: &Value) -> impl Iterator<Item = &Value> {
    let config = configuration(filter).filter(|config| is_message(config, HEADER_MUTATION));
    let mutations = config.and_then(|config| field(config, "mutations"));
    mutations.into_iter().flat_map(|mutations| items(mutations, "request_trailers_mutations"))
}

fn is_one_of(filter: &Value, names: &[&str]) -> bool {
    configuration(filter).is_some_and(|config| names.iter().any(|name| is_message(config, name)))
}

fn label(filter: &Value) -> String {
    let name = text(filter, "name").unwrap_or("without a name");
    configuration(filter).and_then(kind).map_or_else(|| name.to_owned(), |kind| format!("{name} ({kind})"))
}
