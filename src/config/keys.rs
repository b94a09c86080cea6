//! Every key that this version acts on, and the kind of its value: for settings that come as text.

use toml::{Table, Value};

/// How the text of a setting becomes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// In a file, relative to the file.
    Path,
    /// A path, or `-` for standard output.
    PathOrDash,
    Integer,
    Fraction,
    Flag,
    /// Comma-separated.
    List,
    /// Comma-separated; in a file, relative to the file.
    Paths,
    /// `[[key]]`: comma-separated paths, none of them `foreign`.
    KeyFiles,
    /// Tables: they can't be written in one text.
    Tables,
}

/// A key of `remit.toml`; a section within another has both names, with a dot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// Every key.
pub(super) const KEYS: &[Key] = &[
    key("grpc", "listen", Kind::Text),
    key("grpc", "max_connections", Kind::Integer),
    key("grpc", "max_concurrent_streams", Kind::Integer),
    key("grpc", "drain_seconds", Kind::Integer),
    key("grpc", "runtimes", Kind::Integer),
    key("tls", "certificate", Kind::Path),
    key("tls", "key", Kind::Path),
    key("tls", "client_ca", Kind::Path),
    key("tls", "crl", Kind::Path),
    key("tls", "client_auth", Kind::Text),
    key("http", "listen", Kind::Text),
    key("http", "public_url", Kind::Text),
    key("http", "offline_jwt", Kind::Flag),
    key("http", "tls_certificate", Kind::Path),
    key("http", "tls_key", Kind::Path),
    key("http", "client_ca", Kind::Path),
    key("admin", "listen", Kind::Text),
    key("admin", "client_auth", Kind::Text),
    key("policy", "file", Kind::Path),
    key("policy", "poll_seconds", Kind::Integer),
    key("policy", "max_age_seconds", Kind::Integer),
    key("policy", "administrators", Kind::List),
    key("policy", "auditors", Kind::List),
    key("policy", "enforcement_points", Kind::List),
    key("key", "file", Kind::KeyFiles),
    key("state", "backend", Kind::Text),
    key("state", "dir", Kind::Path),
    key("state", "capacity", Kind::Integer),
    key("state", "per_agent_share", Kind::Fraction),
    key("state", "url", Kind::Text),
    key("state", "sentinels", Kind::List),
    key("state", "sentinel_service", Kind::Text),
    key("state", "username", Kind::Text),
    key("state", "password_file", Kind::Path),
    key("state", "sentinel_username", Kind::Text),
    key("state", "sentinel_password_file", Kind::Path),
    key("state", "ca", Kind::Path),
    key("state", "certificate", Kind::Path),
    key("state", "key", Kind::Path),
    key("state", "prefix", Kind::Text),
    key("state", "replicas", Kind::Integer),
    key("state", "timeout_ms", Kind::Integer),
    key("audit", "file", Kind::PathOrDash),
    key("audit", "rotate_bytes", Kind::Integer),
    key("audit", "keep", Kind::Integer),
    key("audit", "on_failure", Kind::Text),
    key("audit", "sync", Kind::Text),
    key("audit", "mask", Kind::List),
    key("audit", "checkpoint_events", Kind::Integer),
    key("audit", "checkpoint_seconds", Kind::Integer),
    key("events", "ring", Kind::Integer),
    key("events", "subscriber_buffer", Kind::Integer),
    key("events", "max_subscribers", Kind::Integer),
    key("events", "heartbeat_seconds", Kind::Integer),
    key("detection", "baseline", Kind::Flag),
    key("detection", "learn_seconds", Kind::Integer),
    key("detection", "rate_factor", Kind::Integer),
    key("detection", "rate_minimum", Kind::Integer),
    key("identity", "spiffe_templates", Kind::List),
    key("identity", "allow_dns_san", Kind::Flag),
    key("identity", "dns_templates", Kind::List),
    key("identity", "allow_common_name", Kind::Flag),
    key("identity", "api_keys_file", Kind::Path),
    key("identity.forward", "signing_key", Kind::Path),
    key("identity.forward", "issuer", Kind::Text),
    key("identity.forward", "ttl_seconds", Kind::Integer),
    key("identity.forward", "also_published", Kind::Paths),
    key("identity.forward", "jwks_cache_seconds", Kind::Integer),
    key("ext_authz", "xfcc_from", Kind::List),
    key("ext_authz", "client_certificate_header", Kind::Tables),
    key("ext_authz", "rules", Kind::Tables),
    key("telemetry", "log", Kind::Text),
    key("telemetry", "format", Kind::Text),
    key("telemetry", "otlp_endpoint", Kind::Text),
    key("telemetry", "otlp_ca", Kind::Path),
    key("telemetry", "otlp_headers_file", Kind::Path),
    key("telemetry", "otlp_sample_ratio", Kind::Fraction),
];

const fn key(section: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { section, name, kind }
}

impl Key {
    /// `REMIT_<SECTION>_<KEY>`.
    pub(super) fn variable(&self) -> String {
        format!("REMIT_{}_{}", self.section, self.name).replace('.', "_").to_uppercase()
    }

    /// A table with this key alone.
    ///
    /// # Errors
    /// What the text should have been.
    pub(super) fn table(&self, text: &str) -> Result<Table, &'static str> {
        let value = self.value(text)?;
        if self.kind == Kind::KeyFiles {
            return Ok(key_entries(&value));
        }
        let key = Table::from_iter([(self.name.to_owned(), value)]);
        let around = |inner, name: &str| Table::from_iter([(name.to_owned(), Value::Table(inner))]);
        Ok(self.section.rsplit('.').fold(key, around))
    }

    fn value(&self, text: &str) -> Result<Value, &'static str> {
        let list = || text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect();
        if text.is_empty() && !matches!(self.kind, Kind::List | Kind::Paths) {
            return Err("it is empty: give it a value, or don't set it");
        }
        match self.kind {
            Kind::Text | Kind::Path | Kind::PathOrDash => Ok(Value::String(text.to_owned())),
            Kind::Integer => text.parse().map(Value::Integer).map_err(|_| "it has to be a whole number"),
            Kind::Fraction => text.parse().map(Value::Float).map_err(|_| "it has to be a number"),
            Kind::Flag => text.parse().map(Value::Boolean).map_err(|_| "it has to be true or false"),
            Kind::List | Kind::Paths | Kind::KeyFiles => Ok(Value::Array(list())),
            Kind::Tables => Err("it can only be written in the file"),
        }
    }
}

/// `[[key]]` entries with these files.
fn key_entries(files: &Value) -> Table {
    let entry = |file: &Value| Value::Table(Table::from_iter([("file".to_owned(), file.clone())]));
    let entries = files.as_array().into_iter().flatten().map(entry).collect();
    Table::from_iter([("key".to_owned(), Value::Array(entries))])
}
