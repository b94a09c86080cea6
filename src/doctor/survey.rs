//! What one part of a file says of another: who is asked, which filters ask, which secrets there are.

use serde_json::Value;

use super::asking::{EXT_AUTHZ, may_ask};
use super::reading::{at, every_object, field, holds, is_message, items, may_be_set, number, text};

/// What the whole file says, read before its parts are judged.
#[derive(Default)]
pub(super) struct Survey {
    /// Clusters that filters or routes ask.
    pub(super) asked_clusters: Vec<String>,
    /// Clusters that may get trailers: those of HTTP/2 and 3, and of HTTP/1 where they are switched on.
    pub(super) trailer_clusters: Vec<String>,
    /// Names under which filters that ask stand in a chain: routes override them by it.
    pub(super) filters: Vec<String>,
    /// Names of secrets, and the validation context of each.
    pub(super) secrets: Vec<(String, Value)>,
    /// Istio's providers: host and port.
    pub(super) services: Vec<(String, u64)>,
    /// Istio's and Kubernetes' objects.
    pub(super) objects: Vec<Value>,
}

impl Survey {
    pub(super) fn of(documents: &[Value], levels: usize) -> Self {
        let mut survey = Self::default();
        for document in documents {
            every_object(document, levels, &mut |value| survey.take(value));
        }
        survey
    }

    fn take(&mut self, value: &Value) {
        if is_message(value, EXT_AUTHZ) {
            self.take_cluster(value);
        }
        if let Some(settings) = field(value, "check_settings") {
            self.take_cluster(settings);
        }
        if may_ask(value)
            && let Some(name) = text(value, "name")
        {
            self.filters.push(name.to_owned());
        }
        if let (Some(name), Some(context)) = (text(value, "name"), field(value, "validation_context")) {
            self.secrets.push((name.to_owned(), context.clone()));
        }
        if let Some(name) = text(value, "name").filter(|_| takes_trailers(value)) {
            self.trailer_clusters.push(name.to_owned());
        }
        for provider in ["envoyExtAuthzGrpc", "envoyExtAuthzHttp"].iter().filter_map(|name| field(value, name)) {
            if let Some(service) = text(provider, "service") {
                let host = service.rsplit('/').next().unwrap_or(service);
                self.services.push((host.to_owned(), number(provider, "port").unwrap_or_default()));
            }
        }
        if field(value, "kind").is_some() && field(value, "apiVersion").is_some() {
            self.objects.push(value.clone());
        }
    }

    fn take_cluster(&mut self, value: &Value) {
        let name = at(value, &["grpc_service", "envoy_grpc", "cluster_name"]).and_then(Value::as_str);
        self.asked_clusters.extend(name.map(str::to_owned));
    }

    /// Objects of a kind.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.objects.iter().filter(|object| text(object, "kind") == Some(kind)).cloned().collect()
    }

    /// The validation context of a secret that stands in the file.
    pub(super) fn secret(&self, name: &str) -> Option<&Value> {
        self.secrets.iter().find(|(known, _)| known == name).map(|(_, context)| context)
    }

    /// Whether a provider asks at this port.
    pub(super) fn is_asked_port(&self, port: u64) -> bool {
        self.services.iter().any(|(_, asked)| *asked == port)
    }

    /// Whether a host of a `DestinationRule`, short or with a star, is that of a provider.
    pub(super) fn is_asked_host(&self, host: &str) -> bool {
        self.services.iter().any(|(asked, _)| {
            let is_short = asked.strip_prefix(host).is_some_and(|rest| rest.starts_with('.'));
            let is_under = host.strip_prefix('*').is_some_and(|end| asked.ends_with(end));
            asked == host || is_short || is_under
        })
    }
}

/// Whether a cluster's own protocol options speak of one that has trailers.
fn takes_trailers(cluster: &Value) -> bool {
    let newer = ["http2_protocol_options", "http3_protocol_options", "auto_config", "use_downstream_protocol_config"];
    let options = field(cluster, "typed_extension_protocol_options").into_iter();
    let is_there =
        |value: &Value| newer.iter().any(|name| field(value, name).is_some()) || may_be_set(value, "enable_trailers");
    let is_old = ["http2_protocol_options", "load_assignment"].iter().all(|name| field(cluster, name).is_some());
    is_old || options.into_iter().any(|options| holds(options, is_there))
}

/// Names in a list of items that have one.
pub(super) fn names(value: &Value, list: &str) -> Vec<String> {
    items(value, list).filter_map(|item| text(item, "name")).map(str::to_owned).collect()
}
