//! The sections of `remit.toml` that belong to no single room, each field with its default and unit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PublicUrl;
use crate::domain::agent::AgentName;
use crate::keyring::{KeyFile, KeyFiles};
use crate::policy_file::ExtraRoles;
use crate::state::{self, Capacity};
use crate::transport::{ClientAuth, Limits, TlsFiles};

/// `[grpc]`: the listener for services and agents. Always TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Address and port. Default 127.0.0.1:7443; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections open at once, at least 1; further ones wait. Default 4096.
    pub max_connections: usize,
    /// HTTP/2 streams open at once on a connection, at least 1. Default 100; 256 suits proxies.
    pub max_concurrent_streams: u32,
    /// How long requests in flight may take after the first signal. Default 30.
    pub drain_seconds: u64,
    /// Single-threaded runtimes that share the port. 0 (the default): one for each core.
    pub runtimes: usize,
}

/// `[tls]`: what the gRPC and admin listeners show, and whom they let in. PEM files, each read again when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, then its intermediates. Required.
    #[serde(skip_serializing_if = "is_empty")]
    pub certificate: PathBuf,
    /// The private key of that certificate, closed to others. Required.
    #[serde(skip_serializing_if = "is_empty")]
    pub key: PathBuf,
    /// The CAs that issue to clients. Required.
    #[serde(skip_serializing_if = "is_empty")]
    pub client_ca: PathBuf,
    /// Certificates that were taken back. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
    /// Whether a client must show a certificate: `required` or `optional`. By default it is required unless a client
    /// may be known by something else, such as an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<Asked>,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// No certificate, no connection.
    Required,
    /// A client without one is let in and shows other evidence; one with a bad certificate is refused.
    Optional,
}

/// `[http]`: the listener for JSON, metrics and health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port. Default 127.0.0.1:7480. Off loopback only with a certificate and key.
    pub listen: SocketAddr,
    /// Scheme, host and port at which others reach this listener, such as `https://remit.example.com`: the base of every
    /// address that is published. On loopback the default is `localhost` and the port; else nothing is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<PublicUrl>,
    /// Whether a token exchange may make JWTs for use without Remit, where counting and revocation end. Needs a signing
    /// key in `[identity.forward]`. Default false.
    pub offline_jwt: bool,
    /// The server's certificate, then its intermediates. None by default: plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// The private key of that certificate, closed to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// The CAs that issue to clients. None by default: clients are not asked for a certificate. With one, a client
    /// may come without a certificate, and is then anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Certificates that were taken back. Default: those of `[tls]`, where `client_ca` is the same file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
}

/// `[admin]`: the listener for administrators. Always TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address and port. Default 127.0.0.1:7444.
    pub listen: SocketAddr,
    /// Whether an administrator must show a certificate: `required` (the default, whatever `[tls]` says) or `optional`,
    /// for those that have an API key or a JWT of a privileged issuer alone.
    pub client_auth: Asked,
}

/// `[policy]`: the policy file, and roles that hold whatever the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// The policy file. Required.
    #[serde(skip_serializing_if = "is_empty")]
    pub file: PathBuf,
    /// How often the file is looked at when no change is announced, at least 1. Default 2.
    pub poll_seconds: u64,
    /// A policy that could not be read and found valid for longer denies everything. 0 (the default): never.
    pub max_age_seconds: u64,
    /// Agents that may revoke anything, reinstate, and use the admin service; added to the file's.
    #[serde(with = "names")]
    pub administrators: Vec<AgentName>,
    /// Agents that may watch every decision; added to the file's.
    #[serde(with = "names")]
    pub auditors: Vec<AgentName>,
    /// Agents that may state which agent they authenticated; added to the file's.
    #[serde(with = "names")]
    pub enforcement_points: Vec<AgentName>,
}

/// `[[key]]`: a file with an HMAC key. The first entry's key seals, all open; at most four.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The file, as `remit keygen` makes it; closed to others.
    pub file: PathBuf,
    /// Whether other issuers hold this key too, so that tokens without an id are taken. Default false.
    #[serde(default)]
    pub foreign: bool,
}

/// `[state]`: where uses are counted and revocations kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// `memory` (the default): uses are counted in this process, and a crash ends every token; `journal`: uses are on
    /// the disk before the answer; or `valkey`: uses are counted in a Redis or Valkey that many processes share.
    pub backend: Backend,
    /// The state directory, one process each. Required; with `--dev` it is in the dev folder.
    #[serde(skip_serializing_if = "is_empty")]
    pub dir: PathBuf,
    /// Live tokens at most, at least 1. Default 2,000,000.
    pub capacity: u32,
    /// The part of them whose chains one agent began, above 0, at most 1. Default 0.25.
    pub per_agent_share: f64,
    /// `backend = "valkey"`, as all that follow: where the store is: `redis://host:6379/0`, or `rediss://` for TLS. No password in it. Either this or `sentinels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The Sentinels that know where the primary is, `redis://host:26379` each; `rediss://` for TLS, also to the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinels: Option<Vec<String>>,
    /// The name under which they know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_service: Option<String>,
    /// The store's user. Default: the store's own default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with its password, closed to others; read for each connection. Default: no password is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The user of the Sentinels, which is another than the store's. Default: their own default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_username: Option<String>,
    /// A file with its password, as for `password_file`. Default: no password is sent to Sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_password_file: Option<PathBuf>,
    /// A PEM file with the CAs that the certificates of store and Sentinels may be of. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate that store and Sentinels are shown. Default: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with its private key, closed to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// What every key in the store begins with. Default `remit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How many replicas the primary is configured with. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// How long an operation may take, in milliseconds, 10 to 1000. Default 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Where uses are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In this process.
    #[default]
    Memory,
    /// On the disk, before the answer.
    Journal,
    /// In a Redis or Valkey that many processes share.
    Valkey,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for GrpcConfig {
    fn default() -> Self {
        let Limits { connections, streams, .. } = Limits::default();
        Self {
            listen: loopback(7443),
            max_connections: connections,
            max_concurrent_streams: streams,
            drain_seconds: 30,
            runtimes: 0,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: loopback(7480),
            public_url: None,
            offline_jwt: false,
            tls_certificate: None,
            tls_key: None,
            client_ca: None,
            crl: None,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: loopback(7444), client_auth: Asked::Required }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            poll_seconds: 2,
            max_age_seconds: 0,
            administrators: Vec::new(),
            auditors: Vec::new(),
            enforcement_points: Vec::new(),
        }
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Memory,
            dir: PathBuf::new(),
            capacity: 2_000_000,
            per_agent_share: 0.25,
            url: None,
            sentinels: None,
            sentinel_service: None,
            username: None,
            password_file: None,
            sentinel_username: None,
            sentinel_password_file: None,
            ca: None,
            certificate: None,
            key: None,
            prefix: None,
            replicas: None,
            timeout_ms: None,
        }
    }
}

impl GrpcConfig {
    /// The listener's bounds: those of the transport, with the configured ones in their places.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            streams: self.max_concurrent_streams,
            drain: self.drain(),
            ..Limits::default()
        }
    }

    /// How long requests in flight may take after the first signal.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

impl TlsConfig {
    /// The files as the transport takes them. `takes_other_evidence`: a client may be known by something else.
    #[must_use]
    pub fn files(&self, takes_other_evidence: bool) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            client_ca: Some(self.client_ca.clone()),
            crl: self.crl.clone(),
            client_auth: match self.client_auth {
                Some(asked) => asked.into(),
                None if takes_other_evidence => ClientAuth::Optional,
                None => ClientAuth::Required,
            },
        }
    }
}

impl AdminConfig {
    /// The files as the transport takes them: those of `[tls]`.
    #[must_use]
    pub fn files(&self, tls: &TlsConfig) -> TlsFiles {
        TlsFiles { client_auth: self.client_auth.into(), ..tls.files(false) }
    }
}

impl From<Asked> for ClientAuth {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Required => Self::Required,
            Asked::Optional => Self::Optional,
        }
    }
}

impl HttpConfig {
    /// The base of every address that is published, for a listener at `at`; none: nothing is published. It never comes
    /// from a request, whose `Host` anybody may write.
    #[must_use]
    pub fn published_at(&self, at: SocketAddr) -> Option<String> {
        let scheme = if self.tls_certificate.is_some() { "https" } else { "http" };
        let local = || at.ip().is_loopback().then(|| format!("{scheme}://localhost:{}", at.port()));
        self.public_url.as_ref().map(|url| url.as_str().to_owned()).or_else(local)
    }

    /// The files as the transport takes them; none: plain text.
    #[must_use]
    pub fn files(&self, tls: &TlsConfig) -> Option<TlsFiles> {
        // What the same authority took back is taken back here too.
        let inherited = tls.crl.as_ref().filter(|_| self.client_ca.as_ref() == Some(&tls.client_ca));
        Some(TlsFiles {
            certificate: self.tls_certificate.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.client_ca.clone(),
            crl: self.crl.as_ref().or(inherited).cloned(),
            client_auth: ClientAuth::Optional,
        })
    }
}

impl PolicyConfig {
    /// The roles as the policy file's room takes them.
    #[must_use]
    pub fn roles(&self) -> ExtraRoles {
        ExtraRoles {
            administrators: self.administrators.clone(),
            auditors: self.auditors.clone(),
            enforcement_points: self.enforcement_points.clone(),
        }
    }

    /// How often the file is looked at.
    #[must_use]
    pub fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_seconds)
    }

    /// How long a policy is good without being found valid again; none: for ever.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        (self.max_age_seconds > 0).then(|| Duration::from_secs(self.max_age_seconds))
    }
}

impl StateConfig {
    /// The backend as the state's room takes it; none: a store.
    #[must_use]
    pub fn backend(&self) -> Option<state::Backend> {
        match self.backend {
            Backend::Memory => Some(state::Backend::Memory),
            Backend::Journal => Some(state::Backend::Journal),
            Backend::Valkey => None,
        }
    }

    /// The bounds as the ledger takes them; an agent's share is at least one token.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let entries = usize::try_from(self.capacity).unwrap_or(usize::MAX);
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the share is above 0 and at most 1, so the product is at most the capacity; a cast saturates"
        )]
        let share = (f64::from(self.capacity) * self.per_agent_share) as usize;
        Capacity { entries, per_agent: share.clamp(1, entries.max(1)) }
    }
}

/// The `[[key]]` entries as the keyring takes them.
pub(super) fn key_files(keys: &[KeyConfig]) -> KeyFiles {
    KeyFiles(keys.iter().map(|key| KeyFile { path: key.file.clone(), foreign: key.foreign }).collect())
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Agents' names as a list of strings.
mod names {
    use super::{AgentName, Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(names: &[AgentName], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(AgentName::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AgentName>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parse = |text: &String| {
            let invalid = |why| serde::de::Error::custom(format!("{text:?} is not an agent's name: {why}"));
            AgentName::parse(text).map_err(invalid)
        };
        texts.iter().map(parse).collect()
    }
}
