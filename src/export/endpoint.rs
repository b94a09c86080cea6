//! Where the collector is.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use url::{Host, Url};

use super::ExportError;

/// A collector that has not answered by then is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that nobody uses is looked after, so that a collector that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The address of a collector: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(Url);

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEndpoint(String);

impl std::fmt::Display for InvalidEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidEndpoint {}

impl Collector {
    /// From its URL: `https://…`, or `http://…` on loopback.
    ///
    /// # Errors
    /// It is no such URL. What it says is not repeated: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = |why: &str| Err(InvalidEndpoint(why.to_owned()));
        let Ok(url) = Url::parse(text) else {
            return invalid("is not a URL such as https://collector.example.com:4317");
        };
        if !["https", "http"].contains(&url.scheme()) {
            return invalid("begins with neither https:// nor http://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("has a user or a password: put credentials into otlp_headers_file");
        }
        if !url.path().trim_matches('/').is_empty() || url.query().is_some() || url.fragment().is_some() {
            return invalid("has more than scheme, host and port: over gRPC there is no path");
        }
        match (url.scheme(), url.host()) {
            (_, None) => invalid("has no host"),
            ("http", Some(host)) if !is_loopback(&host) => {
                invalid("is http:// and off this machine, where others could read along: use https://")
            }
            _ => Ok(Self(url)),
        }
    }

    /// Whether what is sent there is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// How it is connected to, checked as far as that goes without doing it.
    pub(super) fn endpoint(&self, ca: Option<&Path>) -> Result<Endpoint, ExportError> {
        let tls = |error: &dyn std::fmt::Display| ExportError::Tls(error.to_string());
        let endpoint = Channel::from_shared(self.0.to_string()).map_err(|error| tls(&error))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(PATIENCE);
        if !self.is_encrypted() {
            return Ok(endpoint);
        }
        let config = match ca {
            None => ClientTlsConfig::new().with_native_roots(),
            Some(file) => {
                let pem = std::fs::read(file).map_err(|error| tls(&format!("{} {error}", file.display())))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
        };
        endpoint.tls_config(config).map_err(|error| tls(&error))
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_machine() {
        for good in [
            "http://127.0.0.1:4317",
            "http://localhost:4317/",
            "http://[::1]:4317",
            "https://collector.example.com:4317",
            "https://127.0.0.1:1",
        ] {
            assert!(Collector::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "collector:4317",
            "http://collector:4317",
            "http://localhost.example.com:4317",
            "http://192.168.0.1:4317",
            "http://0.0.0.0:4317",
            "grpc://127.0.0.1:4317",
            "https://",
            "https://collector:4317/v1/traces",
            "https://collector:4317?a=b",
            "https://collector:4317#a",
            "unix:///run/otel.sock",
        ] {
            assert!(Collector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let refused = Collector::parse("https://user:hunter2@collector:4317").unwrap_err().to_string();
        assert!(refused.contains("otlp_headers_file") && !refused.contains("hunter2"), "{refused}");
    }
}
