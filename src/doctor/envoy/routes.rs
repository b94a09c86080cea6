//! What a route, a virtual host or a cluster says in place of the filter.

use serde_json::Value;

use super::authorizer;
use crate::doctor::Report;
use crate::doctor::asking::EXT_AUTHZ_PER_ROUTE;
use crate::doctor::reading::{field, is_message, kind, may_be_set};

const DISABLED: &str = "this route is not asked about";
const REMOVE: &str = "remove disabled, or be sure that the route is for everybody";

/// Settings under a filter's name.
pub(super) fn look(report: &mut Report, filter: &str, settings: &Value, place: &str) {
    let is_ours = report.survey.filters.iter().any(|name| name == filter) || filter == "envoy.filters.http.ext_authz";
    if is_message(settings, "route.v3.FilterConfig") {
        let inner = field(settings, "config");
        let is_ours = is_ours || inner.is_some_and(|inner| is_message(inner, EXT_AUTHZ_PER_ROUTE));
        if is_ours && may_be_set(settings, "disabled") {
            report.fatal(place, DISABLED, REMOVE);
        }
        if let Some(inner) = inner {
            unknown(report, is_ours, inner, place);
        }
        return;
    }
    unknown(report, is_ours, settings, place);
}

fn unknown(report: &mut Report, is_ours: bool, settings: &Value, place: &str) {
    if is_ours && !is_message(settings, EXT_AUTHZ_PER_ROUTE) {
        let kind = kind(settings).unwrap_or("what has no @type");
        let what = format!("can't judge {kind} in place of ext_authz: look at it yourself");
        report.fatal(place, what, "ExtAuthzPerRoute with check_settings.context_extensions, or nothing");
    }
}

/// `ExtAuthzPerRoute`, wherever it stands.
pub(super) fn per_route(report: &mut Report, value: &Value, place: &str) {
    if may_be_set(value, "disabled") {
        report.fatal(place, DISABLED, REMOVE);
    }
    let Some(settings) = field(value, "check_settings") else { return };
    authorizer::service(report, settings, place, false);
    if may_be_set(settings, "disable_request_body_buffering") {
        report.warn(
            place,
            "disable_request_body_buffering: rules that need the body deny on this route",
            "remove disable_request_body_buffering",
        );
    }
    if let Some(body) = field(settings, "with_request_body") {
        authorizer::with_body(report, body, place);
    }
}
