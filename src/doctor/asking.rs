//! Which entries of a configuration ask.

use serde_json::Value;

use super::reading::{field, holds, is_message, items};

pub(super) const EXT_AUTHZ: &str = "http.ext_authz.v3.ExtAuthz";
pub(super) const EXT_AUTHZ_PER_ROUTE: &str = "ext_authz.v3.ExtAuthzPerRoute";
pub(super) const MANAGER: &str = "http_connection_manager.v3.HttpConnectionManager";

/// Whether a filter asks.
#[derive(PartialEq, Eq)]
pub(super) enum Asks {
    Plainly,
    /// The filter that asks is inside of another, or comes from elsewhere.
    Within,
    No,
}

/// Whether this entry of a filter chain is, or holds, the filter that asks.
pub(super) fn may_ask(filter: &Value) -> bool {
    let has_configuration = field(filter, "typed_config").is_some() || field(filter, "config_discovery").is_some();
    has_configuration && field(filter, "filters").is_none() && !is_manager(filter) && asks(filter) != Asks::No
}

/// Whether, and how, it asks.
pub(super) fn asks(filter: &Value) -> Asks {
    let Some(config) = configuration(filter) else {
        return if is_discovered(filter) { Asks::Within } else { Asks::No };
    };
    if is_message(config, EXT_AUTHZ) {
        return Asks::Plainly;
    }
    if holds(config, |value| is_message(value, EXT_AUTHZ)) { Asks::Within } else { Asks::No }
}

/// A filter's own message: `FilterConfig` is a wrapper.
pub(super) fn configuration(filter: &Value) -> Option<&Value> {
    let config = field(filter, "typed_config")?;
    if is_message(config, "route.v3.FilterConfig") { field(config, "config") } else { Some(config) }
}

fn is_manager(filter: &Value) -> bool {
    configuration(filter).is_some_and(|config| is_message(config, MANAGER))
}

fn is_discovered(filter: &Value) -> bool {
    field(filter, "config_discovery").is_some_and(|discovery| {
        items(discovery, "type_urls").any(|url| url.as_str().is_some_and(|url| url.ends_with(EXT_AUTHZ)))
    })
}
