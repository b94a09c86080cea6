//! Fetching keys: pinned addresses, no redirects, no proxy, bounded in time and size.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::redirect::Policy;
use serde_json::Value;
use url::Url;

use super::compact::LEVELS;
use super::terms::{Source, Terms, parse_url};
use crate::json;

/// Metadata or a key set, in bytes.
const BODY_BYTES: usize = 256 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(10);

/// Fetches keys.
#[derive(Clone)]
pub struct Client(reqwest::Client);

/// Why keys could not be fetched. It shows no address, which may have secrets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError(String);

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FetchError {}

impl Client {
    /// A client that trusts this machine's certificate authorities.
    ///
    /// # Errors
    /// TLS can't be set up, such as when the machine has no certificate authorities.
    pub fn new() -> Result<Self, FetchError> {
        Self::build(|builder| builder)
    }

    /// A client for this machine itself, without TLS: it needs no certificate authorities.
    ///
    /// # Errors
    /// It can't be set up.
    pub fn loopback() -> Result<Self, FetchError> {
        Self::build(|builder| builder.tls_certs_only([]))
    }

    fn build(with: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Result<Self, FetchError> {
        let builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .pool_max_idle_per_host(0)
            .user_agent("remit");
        with(builder).build().map(Self).map_err(|error| failed("the HTTP client can't be made", &error))
    }

    /// The text of the issuer's key set.
    pub(super) async fn key_set(&self, terms: &Terms) -> Result<Vec<u8>, FetchError> {
        match &terms.source {
            Source::KeySet(url) => self.get(url, "the key set").await,
            Source::Metadata(url) => {
                let metadata = self.get(url, "the metadata").await?;
                self.get(&key_set_url(&metadata, url, &terms.issuer)?, "the key set").await
            }
        }
    }

    async fn get(&self, url: &Url, what: &str) -> Result<Vec<u8>, FetchError> {
        let request = self.0.get(url.clone()).header(ACCEPT, HeaderValue::from_static("application/json"));
        let failed = |error| failed(&format!("{what} can't be fetched"), &error);
        let mut response = request.send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            let status = response.status().as_u16();
            return Err(FetchError(format!("{what} is answered with status {status} and not 200")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > BODY_BYTES {
                return Err(FetchError(format!("{what} is over 256 KiB")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Where metadata says that the keys are. It has to be the issuer's own (OIDC Discovery §4.3, RFC 8414
/// §3.3), and keys that came by way of TLS are not fetched without.
fn key_set_url(metadata: &[u8], at: &Url, issuer: &str) -> Result<Url, FetchError> {
    let metadata =
        json::parse_object(metadata, LEVELS).map_err(|_| FetchError("the metadata is not strict JSON".to_owned()))?;
    if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(FetchError("the metadata is that of another issuer".to_owned()));
    }
    let uri = metadata.get("jwks_uri").and_then(Value::as_str);
    let uri = uri.ok_or_else(|| FetchError("the metadata has no jwks_uri".to_owned()))?;
    let url = parse_url(uri).map_err(|why| FetchError(format!("the metadata's jwks_uri {why}")))?;
    if at.scheme() == "https" && url.scheme() != "https" {
        return Err(FetchError("the metadata's jwks_uri has to be https".to_owned()));
    }
    Ok(url)
}

/// The error with what caused it, and without the address.
fn failed(what: &str, error: &reqwest::Error) -> FetchError {
    let kind = match () {
        () if error.is_timeout() => "it took too long",
        () if error.is_connect() => "there is no connection",
        () => "the exchange failed",
    };
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    FetchError(format!("{what}: {kind}{cause}"))
}
