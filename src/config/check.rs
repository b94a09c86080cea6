//! Whether settings can be acted on: what is required is there, numbers are in range, plain text stays on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::{Config, ConfigError};
use crate::domain::limits;
use crate::domain::token::is_free_text;
use crate::export::Collector;
use crate::identity::jwt::{self, Clients};
use crate::identity::signing::{ALSO_PUBLISHED, LONGEST_LIFE};
use crate::identity::spiffe::Template;
use crate::proxied::Rules;
use crate::transport::listen::require_loopback;

/// What has to be written where something required is missing.
const REQUIRED: [(&str, &str); 6] = [
    ("[policy] file", "[policy]\nfile = \"policy.json\"          # what agents may do"),
    ("[[key]]", "[[key]]\nfile = \"hmac.key\"             # made by `remit keygen --out hmac.key`"),
    ("[tls] certificate", "[tls]\ncertificate = \"server.pem\"    # the server's certificate"),
    ("[tls] key", "[tls]\nkey = \"server.key\"            # its private key"),
    ("[tls] client_ca", "[tls]\nclient_ca = \"ca.pem\"          # who issues certificates to clients"),
    ("[state] dir", "[state]\ndir = \"state\"                 # where revocations are kept; one process a directory"),
];

/// Checks everything that can be checked without reading a file.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    missing(config)?;
    http(config)?;
    numbers(config)?;
    telemetry(config)?;
    config.events.check().map_err(|error| ConfigError::Invalid(error.to_string()))?;
    config.audit.check().map_err(|error| ConfigError::Invalid(error.to_string()))?;
    config.detection.check().map_err(|error| ConfigError::Invalid(error.to_string()))?;
    Rules::new(&config.ext_authz).map_err(|error| ConfigError::Invalid(error.to_string()))?;
    forward(config)?;
    oauth(config)?;
    // Its files are read later.
    let no_password = |_, _| -> crate::state::ReadPassword { Arc::new(|| Err(String::new())) };
    let no_tls = |_| -> crate::state::ReadTls { Arc::new(|| Err(String::new())) };
    config.state.store(no_password, no_tls).map_err(ConfigError::Invalid)?;
    jwt::check(&config.identity.jwt).map_err(|error| ConfigError::Invalid(error.to_string()))?;
    templates(config)
}

/// Checks what holds under `--dev`: nobody but this machine is answered.
pub(super) fn check_dev(config: &Config) -> Result<(), ConfigError> {
    let listeners = [("grpc", config.grpc.listen), ("http", config.http.listen), ("admin", config.admin.listen)];
    let off = |(_, listen): &&(&str, SocketAddr)| require_loopback(*listen).is_err();
    match listeners.iter().find(off) {
        None => Ok(()),
        Some((section, listen)) => Err(invalid(
            &format!("[{section}] listen"),
            &format!("is {listen}, and --dev listens on loopback alone: listen on 127.0.0.1, or serve without --dev"),
        )),
    }
}

fn missing(config: &Config) -> Result<(), ConfigError> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    let there = [
        given(&config.policy.file),
        !config.keys.is_empty(),
        given(&config.tls.certificate),
        given(&config.tls.key),
        given(&config.tls.client_ca),
        given(&config.state.dir),
    ];
    let missing: Vec<_> =
        REQUIRED.iter().zip(there).filter(|(_, there)| !there).map(|(required, _)| *required).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ConfigError::Missing(missing))
}

fn http(config: &Config) -> Result<(), ConfigError> {
    let http = &config.http;
    match (&http.tls_certificate, &http.tls_key) {
        (Some(_), None) => return Err(invalid("[http] tls_key", "is missing beside tls_certificate: name its file")),
        (None, Some(_)) => return Err(invalid("[http] tls_certificate", "is missing beside tls_key: name its file")),
        (Some(_), Some(_)) => return Ok(()),
        (None, None) => {}
    }
    if http.client_ca.is_some() {
        return Err(invalid(
            "[http] client_ca",
            "needs tls_certificate and tls_key beside it: plain text has no clients",
        ));
    }
    require_loopback(http.listen).map_err(|_| {
        let why = format!(
            "is {}, which others reach, without TLS: write tls_certificate and tls_key beside it, or listen on 127.0.0.1",
            http.listen
        );
        invalid("[http] listen", &why)
    })
}

fn numbers(config: &Config) -> Result<(), ConfigError> {
    let Config { grpc, policy, state, .. } = config;
    let at_least_one: [(&str, bool); 4] = [
        ("[grpc] max_connections", grpc.max_connections > 0),
        ("[grpc] max_concurrent_streams", grpc.max_concurrent_streams > 0),
        ("[policy] poll_seconds", policy.poll_seconds > 0),
        ("[state] capacity", state.capacity > 0),
    ];
    if let Some((key, _)) = at_least_one.iter().find(|(_, good)| !good) {
        return Err(invalid(key, "is 0 and has to be at least 1"));
    }
    if !(state.per_agent_share > 0.0 && state.per_agent_share <= 1.0) {
        let why = format!("is {} and has to be above 0 and at most 1", state.per_agent_share);
        return Err(invalid("[state] per_agent_share", &why));
    }
    if policy.max_age_seconds > 0 && policy.max_age_seconds <= policy.poll_seconds {
        let why =
            format!("is {} and has to be more than poll_seconds, {}", policy.max_age_seconds, policy.poll_seconds);
        return Err(invalid("[policy] max_age_seconds", &why));
    }
    if grpc.runtimes > MOST_RUNTIMES {
        let why = format!("is {} and has to be at most {MOST_RUNTIMES}; 0 is one for each core", grpc.runtimes);
        return Err(invalid("[grpc] runtimes", &why));
    }
    if config.keys.len() > limits::KEYS {
        let why = format!("is there {} times, and a keyring has at most {} keys", config.keys.len(), limits::KEYS);
        return Err(invalid("[[key]]", &why));
    }
    Ok(())
}

/// Where events are sent, and how many traces begin.
fn telemetry(config: &Config) -> Result<(), ConfigError> {
    let telemetry = &config.telemetry;
    let ratio = telemetry.otlp_sample_ratio;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(invalid("[telemetry] otlp_sample_ratio", &format!("is {ratio} and has to be 0 to 1")));
    }
    let Some(endpoint) = &telemetry.otlp_endpoint else {
        let beside = [("otlp_ca", &telemetry.otlp_ca), ("otlp_headers_file", &telemetry.otlp_headers_file)];
        return match beside.iter().find(|(_, file)| file.is_some()) {
            Some((key, _)) => Err(invalid(&format!("[telemetry] {key}"), "needs otlp_endpoint beside it")),
            None => Ok(()),
        };
    };
    let collector = Collector::parse(endpoint);
    let collector = collector.map_err(|why| invalid("[telemetry] otlp_endpoint", &why.to_string()))?;
    if telemetry.otlp_ca.is_some() && !collector.is_encrypted() {
        return Err(invalid("[telemetry] otlp_ca", "is of no use beside an otlp_endpoint of http://"));
    }
    Ok(())
}

/// More threads than machines have cores would be a slip.
const MOST_RUNTIMES: usize = 1024;

/// What a token exchange may make, and for whom.
fn oauth(config: &Config) -> Result<(), ConfigError> {
    if config.http.offline_jwt && config.identity.forward.signing_key.is_none() {
        return Err(invalid(
            "[http] offline_jwt",
            "needs a key to sign with: write [identity.forward] signing_key and issuer",
        ));
    }
    Clients::check(&config.identity.client)
        .map_err(|error| ConfigError::Invalid(format!("[[identity.client]] {error}")))?;
    // Remit never takes back what it signs for others.
    let own = config.http.published_at(config.http.listen);
    if config.identity.jwt.iter().any(|jwt| Some(jwt.issuer.as_str()) == own.as_deref()) {
        return Err(invalid("[[identity.jwt]] issuer", "is [http] public_url: Remit takes no JWT of its own"));
    }
    Ok(())
}

fn forward(config: &Config) -> Result<(), ConfigError> {
    let forward = &config.identity.forward;
    let text = |key: &str| format!("[identity.forward] {key}");
    match (&forward.signing_key, &forward.issuer) {
        (Some(_), None) => {
            let why = "is missing beside signing_key: write the URL of this service";
            return Err(invalid(&text("issuer"), why));
        }
        (None, Some(_)) => {
            return Err(invalid(&text("signing_key"), "is missing beside issuer: name a PEM file with a private key"));
        }
        (None, None) if !forward.also_published.is_empty() => {
            return Err(invalid(&text("also_published"), "needs a signing_key beside it"));
        }
        _ => {}
    }
    // As an agent's name it would make what is meant for that agent evidence here.
    let is_url =
        |issuer: &str| is_free_text(issuer) && ["https://", "http://"].iter().any(|scheme| issuer.starts_with(scheme));
    if forward.issuer.as_deref().is_some_and(|issuer| !is_url(issuer)) {
        return Err(invalid(
            &text("issuer"),
            "has to be a URL of at most 256 bytes, such as https://remit.example.com",
        ));
    }
    let ranges = [
        ("ttl_seconds", forward.ttl_seconds, LONGEST_LIFE.as_secs()),
        ("jwks_cache_seconds", forward.jwks_cache_seconds, LONGEST_CACHE_SECONDS),
    ];
    if let Some((key, found, most)) = ranges.iter().find(|(_, found, most)| !(1..=*most).contains(found)) {
        return Err(invalid(&text(key), &format!("is {found} and has to be 1 to {most}")));
    }
    if forward.also_published.len() > ALSO_PUBLISHED {
        return Err(invalid(&text("also_published"), &format!("has at most {ALSO_PUBLISHED} files")));
    }
    Ok(())
}

/// A key that is taken back has to be gone from everywhere within the hour.
const LONGEST_CACHE_SECONDS: u64 = 3600;

fn templates(config: &Config) -> Result<(), ConfigError> {
    let spiffe = config.identity.spiffe_templates.iter().map(|text| ("spiffe_templates", Template::spiffe(text)));
    let dns = config.identity.dns_templates.iter().map(|text| ("dns_templates", Template::dns(text)));
    for (key, template) in spiffe.chain(dns) {
        template.map_err(|error| ConfigError::Invalid(format!("[identity] {key}: {error}")))?;
    }
    Ok(())
}

fn invalid(key: &str, why: &str) -> ConfigError {
    ConfigError::Invalid(format!("{key} {why}"))
}
