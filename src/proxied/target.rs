//! Method, host and path of a request. There is one normaliser, and it changes nothing: what is not written in the one
//! canonical form is refused, since the upstream may read it in another way (Istio CVE-2021-31920, Envoy CVE-2019-9901).

use super::Held;
use super::headers::unclear;
use crate::domain::limits;
use crate::domain::reason::{Denial, Reason};
use crate::domain::resource::Resource;

/// Where a request goes, read in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) method: &'a str,
    /// Lower case, without its port.
    pub(super) host: String,
    /// Without the query. It begins with `/`; whether it is canonical says [`Target::is_canonical`].
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Target<'a> {
    /// Reads method, host and path.
    ///
    /// # Errors
    /// One is missing or not of its form, or a pseudo-header says something else.
    pub(super) fn of(held: &Held<'a>) -> Result<Self, Denial> {
        let Held { method, target, host, headers, .. } = held;
        for (name, field) in [(":method", method), (":path", target), (":authority", host), ("host", host)] {
            if headers.single(name)?.is_some_and(|told| told != *field) {
                return Err(unclear(format!("{name} is not what the proxy says of it")));
            }
        }
        let is_method = (1..=limits::METHOD_BYTES).contains(&method.len())
            && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !is_method {
            return Err(unclear("it has no HTTP method in capital letters".to_owned()));
        }
        if REFLECTING.contains(method) {
            return Err(unclear(format!("{method} sends back what only the service is to see")));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !path.starts_with('/') {
            let message = "the path is not in its canonical form: it does not begin with /";
            return Err(Denial::new(Reason::ResourceNotCanonical, message));
        }
        if query.chars().any(char::is_control) {
            return Err(unclear("its query has control characters".to_owned()));
        }
        Ok(Self { method, host: self::host(host)?, path, query })
    }

    /// Whether the path is written in its one form. The engine refuses one that is not.
    pub(super) fn is_canonical(&self) -> bool {
        self.path == "/" || Resource::parse(self.path).is_ok()
    }
}

/// A host without its port, in lower case.
fn host(text: &str) -> Result<String, Denial> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let is_port =
        port.is_none_or(|port| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_address_byte = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
    let is_host = match name.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(address) => address.is_some_and(|address| !address.is_empty() && address.bytes().all(is_address_byte)),
        None => !name.is_empty() && !name.ends_with('.') && name.bytes().all(is_name_byte),
    };
    if is_host && is_port && name.len() <= HOST_BYTES {
        return Ok(name.to_ascii_lowercase());
    }
    Err(unclear("its host is not a name or an address with a port at most".to_owned()))
}

/// Methods by which a service answers with the request that it got, and so with the identity that Remit signed for it.
const REFLECTING: [&str; 2] = ["TRACE", "TRACK"];
/// A DNS name's text (RFC 1035 §2.3.4).
const HOST_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxied::{Body, Headers, Route};

    fn held<'a>(method: &'a str, target: &'a str, host: &'a str, headers: Headers<'a>) -> Held<'a> {
        Held {
            method,
            target,
            host,
            headers,
            body: Body::Unknown("there is none"),
            source_principal: "",
            source_certificate: "",
            destination_principal: "",
            route: Route::default(),
        }
    }

    fn of<'a>(method: &'a str, target: &'a str, host: &'a str) -> Result<Target<'a>, Denial> {
        Target::of(&held(method, target, host, Headers::new([])))
    }

    #[test]
    fn a_method_that_reflects_the_request_denies() {
        for method in REFLECTING {
            assert!(of(method, "/a", "a").unwrap_err().message().contains("sends back"), "{method}");
        }
    }

    #[test]
    fn c13_a_path_that_could_be_read_two_ways_is_not_canonical() {
        for bad in [
            "//a",
            "/a//b",
            "/a/",
            "/a/./b",
            "/a/../b",
            "/..",
            "/a/..;/b",
            "/a;x=1",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/%2e%2e/a",
            "/a%252fb",
            "/a%00",
            "/a\\b",
            "/a b",
            "/a*",
            "/a\0",
            "/a#b",
            "/ä",
            "/a/%61",
        ] {
            assert!(!of("GET", bad, "h").unwrap().is_canonical(), "{bad}");
        }
        for good in ["/", "/a", "/a/b.c-d_e~f", "/a@b:c", "/v1?x=%2f..//#"] {
            assert!(of("GET", good, "h").unwrap().is_canonical(), "{good}");
        }
    }

    #[test]
    fn c13_the_query_is_no_part_of_the_path() {
        let target = of("GET", "/a?b=/c?d", "h").unwrap();
        assert_eq!((target.path, target.query), ("/a", "b=/c?d"));
    }

    #[test]
    fn c13_control_characters_in_the_query_deny() {
        for bad in ["/a?\0", "/a?b=\r\nc", "/a?\t", "/a?\x7f", "/a?\u{85}"] {
            assert_eq!(of("GET", bad, "h").unwrap_err().reason(), Reason::RequestMalformed, "{bad:?}");
        }
        assert!(of("GET", "/a?b=%00", "h").is_ok());
    }

    #[test]
    fn a_target_that_is_no_path_denies() {
        for bad in ["", "*", "host:443", "http://h/a", "a", "?x"] {
            assert_eq!(of("CONNECT", bad, "h").unwrap_err().reason(), Reason::ResourceNotCanonical, "{bad}");
        }
    }

    #[test]
    fn a_missing_method_denies() {
        for bad in ["", "get", "GET ", "G\0T", "GETGETGETGETGETGETGETGETGETGETGETGET"] {
            assert_eq!(of(bad, "/", "h").unwrap_err().reason(), Reason::RequestMalformed, "{bad:?}");
        }
    }

    #[test]
    fn c14_hosts_are_compared_without_case_and_port() {
        for (text, host) in
            [("API.example.com:443", "api.example.com"), ("[::1]:80", "[::1]"), ("[2001:DB8::1]", "[2001:db8::1]")]
        {
            assert_eq!(of("GET", "/", text).unwrap().host, host);
        }
        for bad in ["", ":80", "a:", "a:x", "a:123456", "u@h", "h.", "[::1", "[]", "::1", "a b", "a\0", "a/b", "a,b"] {
            assert!(of("GET", "/", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn c14_pseudo_headers_must_say_what_the_fields_say() {
        let with = |name: &'static str, value: &'static [u8]| {
            Target::of(&held("GET", "/a", "h", Headers::new([(name, value)])))
        };
        assert!(with(":path", b"/a").is_ok());
        for (name, value) in [(":path", &b"/b"[..]), (":method", b"PUT"), (":authority", b"i"), ("host", b"i")] {
            assert!(with(name, value).is_err(), "{name}");
        }
    }
}
