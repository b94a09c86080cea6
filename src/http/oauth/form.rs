//! A form from a stranger (RFC 6749 appendix B), read so that no two readers see different things in it.

use std::collections::HashSet;

use axum::body::Body;
use axum::http::HeaderMap;

use super::refusal::{Error, Refusal};
use crate::http::body::{self, is_of_type};

/// A form, in bytes: a capability token, an actor's JWT and the longest list of wishes fit several times.
const FORM_BYTES: usize = 64 * 1024;
/// Fields of a form: every capability, pattern and place that a token can have, and the rest.
const FIELDS: usize = 512;
/// The parameters that may stand more than once (RFC 8693 §2.1).
const SEVERAL: [&str; 3] = ["resource", "audience", "remit_resource"];
/// The parameters that carry a token.
const TOKENS: [&str; 3] = ["token", "subject_token", "actor_token"];

/// The fields of a form that are not empty. It has no `Debug`: it holds tokens.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a request's body.
    ///
    /// # Errors
    /// `invalid_request`: it is no form, or a single-valued parameter stands in it twice.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Refusal> {
        // Parameters of the type, such as a charset, say nothing that isn't fixed: UTF-8 alone is read.
        if !is_of_type(headers, "application/x-www-form-urlencoded") {
            return Err(refused("the body has to be application/x-www-form-urlencoded"));
        }
        let bytes = body::read(headers, body, FORM_BYTES).await;
        let bytes = bytes.map_err(|_| refused("the body can't be read in time, or has more than 65536 bytes"))?;
        Self::parse(&bytes).map_err(refused)
    }

    /// The fields of a form.
    ///
    /// # Errors
    /// What makes it none.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut fields = Vec::new();
        let mut seen = HashSet::new();
        for field in bytes.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
            if fields.len() >= FIELDS {
                return Err("the form has more than 512 parameters");
            }
            let at = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
            let (name, value) = field.split_at_checked(at).unwrap_or((field, &[]));
            let (name, value) = (decode(name)?, decode(value.strip_prefix(b"=").unwrap_or(value))?);
            // Also where one of the two is empty: another reader may take the other one.
            if !SEVERAL.contains(&name.as_str()) && !seen.insert(name.clone()) {
                return Err("a parameter that has one value stands twice");
            }
            // No token has such a character (RFC 6749 appendix A.12; JWTs and ours no space either). It has to be said here:
            // to revoke a text that is no token is answered like success.
            if TOKENS.contains(&name.as_str()) && value.chars().any(|character| !matches!(character, '!'..='~')) {
                return Err("a token has no white space in it: a file's final newline was perhaps sent along");
            }
            fields.push((name, value));
        }
        // Without a value is as if it were not there (RFC 6749 §3.2).
        fields.retain(|(_, value)| !value.is_empty());
        Ok(Self(fields))
    }

    /// The value of a parameter.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The values of a parameter that may stand several times.
    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that has to be there.
    ///
    /// # Errors
    /// `invalid_request`.
    pub(super) fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        self.one(name).ok_or_else(|| Refusal::new(Error::InvalidRequest, format!("{name} is missing")))
    }
}

fn refused(why: &'static str) -> Refusal {
    Refusal::new(Error::InvalidRequest, why)
}

/// `+` and `%XX` undone; nothing is repaired.
fn decode(text: &[u8]) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let code = high.zip(low).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
                code.ok_or("a % in the form is not followed by two hexadecimal digits")?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map_err(|_| "the form is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Form, &'static str> {
        Form::parse(text.as_bytes())
    }

    #[test]
    fn reads_fields_and_takes_empty_ones_for_absent() {
        let form = parse("a=1&b=x%20y+z&c=&d&resource=r1&resource=r2&%C3%A9=%e2%82%AC&e==").unwrap();
        assert_eq!(form.one("a"), Some("1"));
        assert_eq!(form.one("b"), Some("x y z"));
        assert_eq!((form.one("c"), form.one("d"), form.one("f")), (None, None, None));
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["r1", "r2"]);
        assert_eq!(form.one("é"), Some("€"));
        assert_eq!(form.one("e"), Some("="));
    }

    #[test]
    fn a_single_valued_parameter_stands_once_however_it_is_written() {
        for text in ["a=1&a=1", "a=&a=1", "a=1&%61=2", "scope=x&scope=y", "unknown=1&unknown=2"] {
            assert_eq!(parse(text).err(), Some("a parameter that has one value stands twice"), "{text}");
        }
    }

    #[test]
    fn a_token_with_a_newline_is_told_and_not_taken_for_one_that_is_over() {
        for name in TOKENS {
            for text in ["abc.def%0A", "abc.def+", "%0D%0Aabc.def", "abc.d%00ef", "abc.d%C3%A9f"] {
                assert!(parse(&format!("{name}={text}")).is_err_and(|why| why.contains("newline")), "{name}={text}");
            }
            assert_eq!(parse(&format!("{name}=abc.d_-f")).unwrap().one(name), Some("abc.d_-f"));
        }
        assert_eq!(parse("scope=a%0Ab").unwrap().one("scope"), Some("a\nb"));
    }

    #[test]
    fn what_is_not_a_form_is_refused_and_never_repaired() {
        for text in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=%C3", "a=%+1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(Form::parse(b"a=\xff").is_err());
        assert!(parse(&"resource=r&".repeat(FIELDS + 1)).is_err());
    }
}
