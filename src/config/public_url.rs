//! Where others reach this service: the base of every address that it publishes.

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// An origin (RFC 6454 §6.2): scheme, host, and the port if it is not the scheme's own; `https`, or `http` on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicUrl(String);

/// Why a text is not such an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidPublicUrl {
    /// It is no URL of `http` or `https`.
    NoUrl,
    /// `http` would let others read and change what is published.
    Plain,
    /// It has more than an origin, or is not written in the usual form; this is what to write.
    MoreThanOrigin(String),
}

impl std::fmt::Display for InvalidPublicUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoUrl => f.write_str("write an https URL, such as https://remit.example.com"),
            Self::Plain => f.write_str("http is for localhost alone: write https"),
            Self::MoreThanOrigin(origin) => {
                write!(f, "it is scheme, host and port alone, in lower case and without a / at the end: write {origin}")
            }
        }
    }
}

impl std::error::Error for InvalidPublicUrl {}

impl PublicUrl {
    /// The origin, if the text is one.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, InvalidPublicUrl> {
        let url = Url::parse(text).map_err(|_| InvalidPublicUrl::NoUrl)?;
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            "http" => return Err(InvalidPublicUrl::Plain),
            _ => return Err(InvalidPublicUrl::NoUrl),
        }
        let origin = url.origin().ascii_serialization();
        if origin == text { Ok(Self(origin)) } else { Err(InvalidPublicUrl::MoreThanOrigin(origin)) }
    }

    /// The text, without a `/` at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = InvalidPublicUrl;

    fn try_from(text: String) -> Result<Self, InvalidPublicUrl> {
        Self::parse(&text)
    }
}

impl From<PublicUrl> for String {
    fn from(url: PublicUrl) -> Self {
        url.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_taken_as_it_is_written() {
        for good in [
            "https://remit.example.com",
            "https://remit.example.com:8443",
            "https://10.0.0.1",
            "http://localhost:7480",
            "http://127.0.0.1:7480",
            "http://[::1]:7480",
        ] {
            assert_eq!(PublicUrl::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        let write = |text: &str| InvalidPublicUrl::MoreThanOrigin(text.to_owned());
        for (bad, why) in [
            ("", InvalidPublicUrl::NoUrl),
            ("remit.example.com", InvalidPublicUrl::NoUrl),
            ("ftp://a", InvalidPublicUrl::NoUrl),
            ("http://remit.example.com", InvalidPublicUrl::Plain),
            ("http://localhost.example.com", InvalidPublicUrl::Plain),
            ("https://remit.example.com/", write("https://remit.example.com")),
            ("https://remit.example.com/pdp", write("https://remit.example.com")),
            ("https://Remit.example.com:443", write("https://remit.example.com")),
            ("https://user:secret@remit.example.com", write("https://remit.example.com")),
            ("https://remit.example.com?x", write("https://remit.example.com")),
            ("https://remit.example.com#x", write("https://remit.example.com")),
        ] {
            assert_eq!(PublicUrl::parse(bad), Err(why), "{bad}");
        }
    }
}
