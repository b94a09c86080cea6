//! What an issuer's configuration comes to: everything in it that can be wrong is wrong here, before the start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use super::config::{Algorithm, Config, Discovery};

/// An issuer's name, in bytes: it is compared with every token.
const ISSUER_BYTES: usize = 512;
/// An audience or the name of a claim, in bytes.
const NAME_BYTES: usize = 256;
/// Audiences, algorithms or claims to carry on: each is looked for in every token.
const LIST: usize = 32;
/// A day: longer, and a token or a check of keys is none.
const DAY_SECONDS: u64 = 86_400;
/// A week without the issuer is no outage any more.
const WEEK_SECONDS: u64 = 604_800;
/// OIDC Discovery §4.1.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// The terms on which an issuer's word is taken.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) issuer: Arc<str>,
    /// At least one.
    pub(super) audiences: Box<[Box<str>]>,
    /// At least one.
    pub(super) algorithms: Box<[Algorithm]>,
    pub(super) agent_claim: Option<Box<str>>,
    pub(super) forward_claims: Box<[Box<str>]>,
    pub(super) privileged: bool,
    pub(super) id_tokens: bool,
    pub(super) max_lifetime_seconds: u64,
    pub(super) refresh: Duration,
    pub(super) max_stale: Duration,
    pub(super) source: Source,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A JWK set (RFC 7517 §5).
    KeySet(Url),
    /// Metadata that names the JWK set (OIDC Discovery §4, RFC 8414).
    Metadata(Url),
}

impl Source {
    /// What is fetched first.
    pub(super) fn url(&self) -> &Url {
        match self {
            Self::KeySet(url) | Self::Metadata(url) => url,
        }
    }
}

/// Why issuers can't be configured so. The text says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidIssuer(String);

impl std::fmt::Display for InvalidIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidIssuer {}

/// Whether issuers can be configured so.
///
/// # Errors
/// The first that can't, and what to write.
pub fn check(configs: &[Config]) -> Result<(), InvalidIssuer> {
    all(configs).map(|_| ())
}

/// The terms of all issuers, each of which has one section.
pub(super) fn all(configs: &[Config]) -> Result<Vec<Terms>, InvalidIssuer> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = configs.iter().find(|config| !seen.insert(config.issuer.as_str())) {
        return Err(invalid(twice, "issuer", "has a section already: write one section for each issuer"));
    }
    configs.iter().map(Terms::read).collect()
}

impl Terms {
    fn read(config: &Config) -> Result<Self, InvalidIssuer> {
        let Config { issuer, audience, algorithms, agent_claim, forward_claims, .. } = config;
        check_issuer(config)?;
        if audience.0.is_empty() {
            let why =
                "is missing: write audience = \"…\", the value of `aud` in tokens that are meant for this service";
            return Err(invalid(config, "audience", why));
        }
        if algorithms.is_empty() {
            let why = "is empty: write the algorithms that the issuer signs with, or leave the key out";
            return Err(invalid(config, "algorithms", why));
        }
        check_names(config, "audience", &audience.0)?;
        check_names(config, "forward_claims", forward_claims)?;
        check_names(config, "agent_claim", agent_claim.as_slice())?;
        check_numbers(config)?;
        let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        Ok(Self {
            issuer: issuer.as_str().into(),
            audiences: boxed(&audience.0),
            algorithms: algorithms.as_slice().into(),
            agent_claim: agent_claim.as_deref().map(Box::from),
            forward_claims: boxed(forward_claims),
            privileged: config.privileged,
            id_tokens: config.id_tokens,
            max_lifetime_seconds: config.max_lifetime_seconds,
            refresh: Duration::from_secs(config.refresh_seconds),
            max_stale: Duration::from_secs(config.max_stale_seconds),
            source: source(config)?,
        })
    }
}

fn check_issuer(config: &Config) -> Result<(), InvalidIssuer> {
    let issuer = config.issuer.as_str();
    if issuer.is_empty() {
        return Err(invalid(
            config,
            "issuer",
            "is missing: write issuer = \"https://…\", the value of `iss` in its tokens",
        ));
    }
    // `#` ends the issuer in the policy's principals; quotes and backslashes would have to be escaped in metrics.
    let plain = issuer.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"\\".contains(&byte));
    if !plain || issuer.len() > ISSUER_BYTES {
        return Err(invalid(config, "issuer", "has to be printable ASCII without spaces, quotes, backslash and #"));
    }
    Ok(())
}

fn check_names(config: &Config, key: &str, names: &[String]) -> Result<(), InvalidIssuer> {
    let good = |name: &String| (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    if names.len() > LIST || !names.iter().all(good) {
        let why = format!("has to be at most {LIST} texts of 1 to {NAME_BYTES} bytes");
        return Err(invalid(config, key, &why));
    }
    Ok(())
}

fn check_numbers(config: &Config) -> Result<(), InvalidIssuer> {
    let Config { max_lifetime_seconds, refresh_seconds, max_stale_seconds, .. } = *config;
    let numbers = [
        ("max_lifetime_seconds", max_lifetime_seconds, 1, DAY_SECONDS),
        ("refresh_seconds", refresh_seconds, 1, DAY_SECONDS),
        ("max_stale_seconds", max_stale_seconds, refresh_seconds.saturating_add(1), WEEK_SECONDS),
    ];
    match numbers.iter().find(|(_, number, least, most)| !(least..=most).contains(&number)) {
        Some((key, number, least, most)) => {
            Err(invalid(config, key, &format!("is {number} and has to be {least} to {most}")))
        }
        None => Ok(()),
    }
}

fn source(config: &Config) -> Result<Source, InvalidIssuer> {
    let standard = || format!("{}{WELL_KNOWN}", config.issuer.trim_end_matches('/'));
    match (&config.jwks_uri, &config.discovery) {
        (Some(uri), None | Some(Discovery::Standard(false))) => {
            parse_url(uri).map(Source::KeySet).map_err(|why| invalid(config, "jwks_uri", why))
        }
        (None, Some(Discovery::Url(uri))) => {
            parse_url(uri).map(Source::Metadata).map_err(|why| invalid(config, "discovery", why))
        }
        (None, Some(Discovery::Standard(true))) => parse_url(&standard()).map(Source::Metadata).map_err(|why| {
            let why = format!("is true, and the issuer {why}: write the metadata's URL instead of true, or a jwks_uri");
            invalid(config, "discovery", &why)
        }),
        (Some(_), Some(_)) => Err(invalid(config, "discovery", "is there beside jwks_uri: write only one of the two")),
        (None, None | Some(Discovery::Standard(false))) => {
            let why = "is missing: write discovery = true, or jwks_uri = \"https://…\"";
            Err(invalid(config, "jwks_uri", why))
        }
    }
}

/// A URL that may be fetched: `https`, or `http` to this machine itself; without a name and password in it.
pub(super) fn parse_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    let is_safe = match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url),
        _ => false,
    };
    if !is_safe {
        return Err("has to be https, or http on loopback");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("has to be without a user, a password and a fragment");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

fn invalid(config: &Config, key: &str, why: &str) -> InvalidIssuer {
    let of = if config.issuer.is_empty() { String::new() } else { format!(" of {:?}", config.issuer) };
    InvalidIssuer(format!("[[identity.jwt]] {key}{of} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Terms, String> {
        let config: Config = toml::from_str(toml).map_err(|error| error.message().to_owned())?;
        all(&[config]).map(|mut terms| terms.remove(0)).map_err(|error| error.to_string())
    }

    const LEAST: &str = "issuer = \"https://idp.example\"\naudience = \"us\"\n";

    #[test]
    fn an_issuer_needs_a_name_an_audience_and_a_place_of_keys() {
        let terms = read(&format!("{LEAST}discovery = true")).unwrap();
        assert_eq!(terms.source.url().as_str(), "https://idp.example/.well-known/openid-configuration");
        assert_eq!(*terms.audiences, [Box::from("us")]);
        assert!(
            !terms.privileged && !terms.id_tokens && terms.agent_claim.is_none() && terms.forward_claims.is_empty()
        );
        assert_eq!((terms.max_lifetime_seconds, terms.algorithms.len()), (3600, 5));

        for (toml, wanted) in [
            ("audience = \"us\"", "issuer is missing: write issuer ="),
            ("issuer = \"https://a\"\ndiscovery = true", "audience of \"https://a\" is missing: write audience ="),
            ("issuer = \"https://a\"\naudience = []\ndiscovery = true", "audience of \"https://a\" is missing"),
            (LEAST, "jwks_uri of \"https://idp.example\" is missing: write discovery = true, or jwks_uri ="),
        ] {
            let error = read(toml).unwrap_err();
            assert!(error.starts_with("[[identity.jwt]] ") && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn keys_come_from_one_place() {
        let both = format!("{LEAST}jwks_uri = \"https://a/k\"\ndiscovery = true");
        assert!(read(&both).unwrap_err().contains("write only one of the two"));
        let off = format!("{LEAST}jwks_uri = \"https://a/k\"\ndiscovery = false");
        assert_eq!(read(&off).unwrap().source, Source::KeySet(Url::parse("https://a/k").unwrap()));
        let tenant = "issuer = \"https://a/t/\"\naudience = [\"us\"]\ndiscovery = true";
        assert_eq!(read(tenant).unwrap().source.url().as_str(), "https://a/t/.well-known/openid-configuration");
        let at = format!("{LEAST}discovery = \"https://inside/metadata\"");
        assert_eq!(read(&at).unwrap().source.url().as_str(), "https://inside/metadata");
        let name = "issuer = \"idp\"\naudience = \"us\"\ndiscovery = true";
        assert!(read(name).unwrap_err().contains("write the metadata's URL instead of true"));
    }

    #[test]
    fn addresses_are_https_or_on_loopback() {
        let uri = |uri: &str| read(&format!("{LEAST}jwks_uri = \"{uri}\""));
        for good in ["https://a/k?p=1", "http://127.0.0.1:8080/k", "http://[::1]/k", "http://localhost/k"] {
            assert!(uri(good).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example/k",
            "http://localhost.example/k",
            "http://127.0.0.1.example/k",
            "http://10.0.0.1/k",
            "ftp://a/k",
            "file:///k",
            "https://user@a/k",
            "https://:secret@a/k",
            "https://a/k#f",
            "/k",
            "",
        ] {
            let error = uri(bad).unwrap_err();
            assert!(error.contains("jwks_uri") && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn values_that_can_not_be_acted_on_are_refused() {
        for (line, wanted) in [
            ("algorithms = []", "algorithms of"),
            ("algorithms = [\"HS256\"]", "unknown variant"),
            ("algorithms = [\"none\"]", "unknown variant"),
            ("agent_claim = \"\"", "agent_claim of"),
            ("forward_claims = [\"\"]", "forward_claims of"),
            ("max_lifetime_seconds = 0", "is 0 and has to be 1 to 86400"),
            ("max_lifetime_seconds = 86401", "has to be 1 to 86400"),
            ("refresh_seconds = 0", "refresh_seconds of"),
            ("refresh_seconds = 60\nmax_stale_seconds = 60", "is 60 and has to be 61 to"),
            ("discovery = 7", "discovery is true or a URL"),
            ("leeway = 60", "unknown field `leeway`"),
        ] {
            let place = if line.starts_with("discovery") { "" } else { "discovery = true\n" };
            let error = read(&format!("{LEAST}{place}{line}")).unwrap_err();
            assert!(error.contains(wanted), "{line}: {error}");
        }
        for issuer in ["https://a#b", "https://a b", "https://ä", "a\\\"b"] {
            let toml = format!("issuer = \"{issuer}\"\naudience = \"us\"\njwks_uri = \"https://a/k\"");
            assert!(read(&toml).unwrap_err().contains("has to be printable ASCII"), "{issuer}");
        }
    }

    #[test]
    fn an_issuer_has_one_section() {
        let config: Config = toml::from_str(&format!("{LEAST}discovery = true")).unwrap();
        assert!(check(&[config.clone(), config]).unwrap_err().to_string().contains("has a section already"));
    }
}
