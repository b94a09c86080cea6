//! The filters of a connection manager: which one asks, and what acts before and after it.

use serde_json::Value;

use super::EXT_AUTHZ;
use crate::doctor::Report;
use crate::doctor::reading::{field, holds, is_message, items, kind, may_be_set, text};

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

/// Whether a filter asks.
#[derive(PartialEq, Eq)]
pub(super) enum Asks {
    Plainly,
    /// The filter that asks is inside of another, or comes from elsewhere.
    Within,
    No,
}

/// Whether this entry of a filter chain is, or holds, the filter that asks.
pub(in crate::doctor) fn may_ask(filter: &Value) -> bool {
    let has_configuration = field(filter, "typed_config").is_some() || field(filter, "config_discovery").is_some();
    has_configuration && field(filter, "filters").is_none() && !is_manager(filter) && asks(filter) != Asks::No
}

fn is_manager(filter: &Value) -> bool {
    configuration(filter).is_some_and(|config| is_message(config, super::MANAGER))
}

pub(super) fn asks(filter: &Value) -> Asks {
    let Some(config) = configuration(filter) else {
        return if is_discovered(filter) { Asks::Within } else { Asks::No };
    };
    if is_message(config, EXT_AUTHZ) {
        return Asks::Plainly;
    }
    if holds(config, |value| is_message(value, EXT_AUTHZ)) { Asks::Within } else { Asks::No }
}

fn is_discovered(filter: &Value) -> bool {
    field(filter, "config_discovery").is_some_and(|discovery| {
        items(discovery, "type_urls").any(|url| url.as_str().is_some_and(|url| url.ends_with(EXT_AUTHZ)))
    })
}

/// A filter's own message: `FilterConfig` is a wrapper.
fn configuration(filter: &Value) -> Option<&Value> {
    let config = field(filter, "typed_config")?;
    if is_message(config, "route.v3.FilterConfig") { field(config, "config") } else { Some(config) }
}

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
        if asks(filter) == Asks::Plainly {
            continue;
        }
        let what =
            format!("can't judge whether {} changes what ext_authz decided about: look at it yourself", label(filter));
        report.warn(place, what, "let nothing after ext_authz change path, method, host or headers");
    }
}

fn is_one_of(filter: &Value, names: &[&str]) -> bool {
    configuration(filter).is_some_and(|config| names.iter().any(|name| is_message(config, name)))
}

fn label(filter: &Value) -> String {
    let name = text(filter, "name").unwrap_or("without a name");
    configuration(filter).and_then(kind).map_or_else(|| name.to_owned(), |kind| format!("{name} ({kind})"))
}
