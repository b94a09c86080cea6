//! A request's headers, in either form in which proxies tell of them.

use crate::domain::reason::{Denial, Reason};
use crate::domain::trace::{TRACEPARENT, TraceContext};

/// The proof of the sender of this request. It goes no further.
pub const TOKEN_HEADER: &str = "x-remit-token";
/// Every name that begins so is ours: what a client says under one of them is removed.
const OURS: &str = "x-remit-";
/// More headers than proxies let through.
const MOST: usize = 512;
/// What decides who or what a request is may be there once.
const ONCE: [&str; 8] = [
    TOKEN_HEADER,
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "x-envoy-auth-partial-body",
    "x-forwarded-client-cert",
];

/// A credential of this scheme has no comma (RFC 6750 §2.1), those of others may: one is a second value, since Envoy merges
/// this header in either form. Of `x-forwarded-client-cert`, whoever believes it takes one element alone.
const BEARER: &[u8] = b"bearer ";
/// By these some frameworks serve another method or path than the one that is decided about.
const REWRITES: [&str; 9] = [
    "x-method",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-rewrite-path",
];
/// Every name that begins so asks for another method.
const METHODS: &str = "x-http-method";

/// Headers by lower-case name. It has no `Debug`: it holds tokens.
pub struct Headers<'a> {
    entries: Vec<(String, &'a [u8])>,
}

impl<'a> Headers<'a> {
    /// Headers as they came, in any case of letters.
    pub fn new(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        // One more than is allowed is enough to refuse them.
        let entries = entries.into_iter().take(MOST.saturating_add(1));
        Self { entries: entries.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect() }
    }

    /// Whether every header can be read in one way.
    ///
    /// # Errors
    /// There are too many; one has bytes that are no text, is there twice and may be there once, or asks for another
    /// method or path.
    pub(super) fn check(&self) -> Result<(), Denial> {
        if self.entries.len() > MOST {
            return Err(unclear(format!("it has more than {MOST} headers")));
        }
        for (name, value) in &self.entries {
            if !is_name(name) {
                return Err(unclear("a header's name has characters that no name has".to_owned()));
            }
            let is_text = std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(is_control));
            if !is_text {
                return Err(unclear(format!("the header {name} is not text")));
            }
            if REWRITES.iter().any(|rewrite| is_alike(name, rewrite)) || plain(name).starts_with(METHODS) {
                return Err(unclear(format!("the header {name} asks for another method or path")));
            }
        }
        ONCE.iter().try_for_each(|name| self.single(name).map(|_| ()))
    }

    /// The value of a header that may be there once.
    ///
    /// # Errors
    /// It is there twice or may have been, has a `_` or another mark for a `-`, as which some readers take it for this one,
    /// or is not UTF-8.
    pub(super) fn single(&self, name: &str) -> Result<Option<&'a str>, Denial> {
        let mut values = self.entries.iter().filter(|(known, _)| is_alike(known, name));
        let Some((known, value)) = values.next() else { return Ok(None) };
        let is_bearer = value.get(..BEARER.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(BEARER));
        let may_be_several = name == "authorization" && is_bearer && value.contains(&b',');
        if values.next().is_some() || may_be_several {
            return Err(unclear(format!("the header {name} is there more than once")));
        }
        if known != name {
            return Err(unclear(format!("the header {name} is there with another mark for a -")));
        }
        std::str::from_utf8(value).map(Some).map_err(|_| unclear(format!("the header {name} is not text")))
    }

    /// The sender's token. One that was merged of several has a comma, which no token has.
    ///
    /// # Errors
    /// There are several.
    pub(super) fn token(&self) -> Result<Option<&'a str>, Denial> {
        let token = self.single(TOKEN_HEADER)?.filter(|token| !token.is_empty());
        if token.is_some_and(|token| token.contains(',')) {
            return Err(unclear(format!("the header {TOKEN_HEADER} is there more than once")));
        }
        Ok(token)
    }

    /// The trace that the request belongs to. One that is there twice is as good as none.
    pub(super) fn trace(&self) -> Option<TraceContext> {
        let mut values = self.entries.iter().filter(|(known, _)| known == TRACEPARENT);
        let (_, value) = values.next()?;
        if values.next().is_some() { None } else { TraceContext::parse(std::str::from_utf8(value).ok()?) }
    }

    /// What the client sent under names that are ours, also with `_`, `.` or another mark for `-`: programs behind CGI see
    /// no difference.
    pub fn ours(&self) -> impl Iterator<Item = &str> {
        let is_ours = |name: &&str| plain(name).starts_with(OURS);
        self.entries.iter().map(|(name, _)| name.as_str()).filter(is_ours)
    }
}

/// Whether a header of this name may be there once, since it decides who or what a request is.
pub(super) fn is_once(name: &str) -> bool {
    ONCE.contains(&name)
}

/// Whether a lower-case name is this one to a reader that sees no difference between `-` and other marks: CGI and its
/// heirs make a `_` of whatever is no letter or digit.
fn is_alike(name: &str, known: &str) -> bool {
    let same = |(byte, other): (u8, u8)| byte == other || other == b'-' && !byte.is_ascii_alphanumeric();
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(same)
}

/// A name as such a reader sees it, with `-` for each mark.
fn plain(name: &str) -> String {
    name.replace(|character: char| !character.is_ascii_alphanumeric(), "-")
}

/// The request can be read in two ways, or in none.
pub(super) fn unclear(why: String) -> Denial {
    Denial::new(Reason::RequestMalformed, why)
}

/// A header's name (RFC 9110 §5.1), or a pseudo-header's.
fn is_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// Everything that no header's value has (RFC 9110 §5.5); the tab is one that it has.
fn is_control(character: char) -> bool {
    character.is_control() && character != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(entries: &[(&'a str, &'a [u8])]) -> Headers<'a> {
        Headers::new(entries.iter().copied())
    }

    #[test]
    fn c12_a_repeated_security_header_denies_in_both_forms() {
        for name in ONCE {
            let twice = of(&[(name, b"a"), ("accept", b"x"), (name, b"a")]);
            assert_eq!(twice.check().unwrap_err().message(), &format!("the header {name} is there more than once"));
        }
        assert!(of(&[("x-remit-token", b"a"), ("X-Remit-Token", b"a")]).check().is_err());
        assert!(of(&[("x-remit-token", b"a.b,c.d")]).token().is_err());
        assert!(of(&[("accept", b"a"), ("accept", b"b"), ("x-remit-token", b"t")]).check().is_ok());
    }

    #[test]
    fn c12_a_security_header_with_a_line_below_is_not_another_header() {
        for name in ONCE.into_iter().filter(|name| name.contains('-')) {
            let twin = name.replace('-', "_");
            assert!(of(&[(&twin, b"a")]).check().is_err() && of(&[(&twin, b"a")]).single(name).is_err(), "{twin}");
            assert!(of(&[(name, b"a"), (&twin, b"a")]).single(name).is_err(), "{twin}");
            let dotted = name.replace('-', ".");
            assert!(of(&[(&dotted, b"a")]).check().is_err(), "{dotted}");
        }
        assert!(of(&[("x_mine", b"a")]).check().is_ok());
    }

    #[test]
    fn c12_a_comma_is_a_second_value_where_one_value_has_none() {
        let entry = ("authorization", &b"Bearer a,Bearer b"[..]);
        assert!(of(&[entry]).check().is_err() && of(&[entry]).single(entry.0).is_err());
        let signed = ("authorization", &b"AWS4-HMAC-SHA256 Credential=a, Signature=b"[..]);
        for one in [signed, ("accept", b"a,b"), ("x-forwarded-client-cert", b"URI=spiffe://a/b,URI=spiffe://a/c")] {
            assert!(of(&[one]).check().is_ok());
        }
    }

    #[test]
    fn c15_what_asks_for_another_method_or_path_denies() {
        for name in REWRITES.into_iter().chain(["x-http-method", "x-http-method-override", "x-http-methods"]) {
            for spelt in
                [name.to_owned(), name.to_ascii_uppercase(), name.replace('-', "_"), name.replacen('-', ".", 1)]
            {
                assert!(of(&[(&spelt, b"DELETE")]).check().is_err(), "{spelt}");
            }
        }
        for other in ["x-methods", "x-original", "x-http", "xmethod"] {
            assert!(of(&[(other, b"DELETE")]).check().is_ok(), "{other}");
        }
    }

    #[test]
    fn c12_bytes_that_are_no_text_deny_wherever_they_stand() {
        for bad in [&b"a\0"[..], b"a\r\nb", b"\xff\xfe", b"\x7f", b"\x1b[0m", "\u{85}".as_bytes()] {
            assert!(of(&[("x-other", bad)]).check().is_err(), "{bad:?}");
        }
        assert!(of(&[("x-other", "a\tä!".as_bytes())]).check().is_ok());
        for bad in ["", ":", "a b", "a\0", "ä", "a:b"] {
            assert!(of(&[(bad, b"x")]).check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn c05_everything_under_our_names_is_removed_however_it_is_spelt() {
        let headers =
            of(&[("X-Remit-Agent", b"a"), ("x_remit_chain", b"b"), ("x-remit-new", b"c"), ("x-remitted", b"d")]);
        assert_eq!(headers.ours().collect::<Vec<_>>(), ["x-remit-agent", "x_remit_chain", "x-remit-new"]);
        let headers = of(&[("x.remit.agent", b"a"), ("X!Remit!Agent", b"b"), ("x-remit~", b"c"), ("xxremit-a", b"d")]);
        assert_eq!(headers.ours().collect::<Vec<_>>(), ["x.remit.agent", "x!remit!agent", "x-remit~"]);
    }

    #[test]
    fn more_headers_than_anybody_needs_deny() {
        let many = Headers::new(std::iter::repeat_n(("accept", &b"x"[..]), MOST + 1));
        assert!(many.check().is_err());
    }
}
