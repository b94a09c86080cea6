//! A request's body, as far as the proxy sent it. What was cut, compressed or is of another form is unknown, never absent.

use super::headers::Headers;
use crate::domain::reason::Denial;

/// A body that is looked at, in bytes. Larger ones are unknown: calls of tools are small.
const MOST: usize = 256 * 1024;
/// Whether Envoy cut the body. It is there wherever Envoy sends bodies at all.
const PARTIAL: &str = "x-envoy-auth-partial-body";

/// A body. It has no `Debug`: it may hold a token for the receiver.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// All of it, and JSON by its own account.
    Json(&'a [u8]),
    /// It can't be known, and why.
    Unknown(&'static str),
}

impl<'a> Body<'a> {
    /// The body that Envoy sent with a request: `text` or `bytes`, and its size or -1.
    ///
    /// # Errors
    /// A header that says what it is, is there twice.
    pub fn of(headers: &Headers<'a>, text: &'a str, bytes: &'a [u8], size: i64) -> Result<Self, Denial> {
        let body = match (text.as_bytes(), bytes) {
            (text, []) => text,
            ([], bytes) => bytes,
            _ => return Ok(Self::Unknown("it came twice")),
        };
        let length = i64::try_from(body.len()).unwrap_or(i64::MAX);
        let declared = headers.single("content-length")?;
        let unknown = match headers.single(PARTIAL)? {
            None => Some("the proxy sends no bodies: set with_request_body"),
            Some("false") if body.len() > MOST => Some("it is too large"),
            Some("false") if size >= 0 && size != length => Some("it was cut"),
            Some("false") if declared.is_some_and(|declared| declared.parse() != Ok(length)) => Some("it was cut"),
            Some("false") if !is_plain(headers.single("content-encoding")?) => Some("it is compressed"),
            Some("false") if !is_json(headers.single("content-type")?) => {
                Some("its content-type is not application/json")
            }
            Some("false") => None,
            Some(_) => Some("it was cut"),
        };
        Ok(unknown.map_or(Self::Json(body), Self::Unknown))
    }
}

fn is_plain(encoding: Option<&str>) -> bool {
    encoding.is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"))
}

/// `application/json`, in UTF-8 if it says so.
fn is_json(media_type: Option<&str>) -> bool {
    let Some(text) = media_type else { return false };
    let (essence, parameter) = text.split_once(';').unwrap_or((text, ""));
    let charset = parameter.trim().to_ascii_lowercase();
    let is_utf_8 = matches!(charset.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"");
    essence.trim().eq_ignore_ascii_case("application/json") && is_utf_8
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{}";

    fn of(headers: &[(&'static str, &'static str)], size: i64) -> Result<(), &'static str> {
        let headers = Headers::new(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        match Body::of(&headers, TEXT, &[], size).unwrap() {
            Body::Json(body) => {
                assert_eq!(body, TEXT.as_bytes());
                Ok(())
            }
            Body::Unknown(why) => Err(why),
        }
    }

    const WHOLE: (&str, &str) = ("x-envoy-auth-partial-body", "false");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn c16_what_was_cut_compressed_or_not_sent_is_unknown_and_never_absent() {
        assert_eq!(of(&[WHOLE, JSON], 2), Ok(()));
        assert_eq!(of(&[WHOLE, JSON, ("content-length", "2"), ("content-encoding", "identity")], -1), Ok(()));
        assert!(of(&[JSON], 2).unwrap_err().contains("with_request_body"));
        assert_eq!(of(&[("x-envoy-auth-partial-body", "true"), JSON], -1), Err("it was cut"));
        assert_eq!(of(&[("x-envoy-auth-partial-body", ""), JSON], -1), Err("it was cut"));
        assert_eq!(of(&[WHOLE, JSON], 3), Err("it was cut"));
        for length in ["3", "x", "-2", " 2"] {
            let headers = Headers::new([
                ("content-length", length.as_bytes()),
                (WHOLE.0, b"false"),
                (JSON.0, b"application/json"),
            ]);
            assert!(matches!(Body::of(&headers, TEXT, &[], -1), Ok(Body::Unknown("it was cut"))), "{length}");
        }
        assert_eq!(of(&[WHOLE, JSON, ("content-encoding", "gzip")], 2), Err("it is compressed"));
        assert_eq!(of(&[WHOLE, JSON, ("content-encoding", "identity, gzip")], 2), Err("it is compressed"));
    }

    #[test]
    fn c16_only_json_in_utf_8_is_read() {
        for good in ["Application/JSON", "application/json; charset=UTF-8", "application/json;"] {
            assert_eq!(of(&[WHOLE, ("content-type", good)], 2), Ok(()), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/grpc",
            "multipart/form-data",
            "application/json, text/plain",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-16",
            "application/jsonp",
        ] {
            assert!(of(&[WHOLE, ("content-type", bad)], 2).is_err(), "{bad}");
        }
        assert!(of(&[WHOLE], 2).is_err());
    }

    #[test]
    fn c16_a_body_that_came_in_both_forms_is_unknown() {
        let headers = Headers::new([(WHOLE.0, &b"false"[..]), (JSON.0, b"application/json")]);
        assert!(matches!(Body::of(&headers, "{}", b"[]", 2), Ok(Body::Unknown("it came twice"))));
        assert!(matches!(Body::of(&headers, "", b"[]", 2), Ok(Body::Json(b"[]"))));
        let huge = "x".repeat(MOST + 1);
        assert!(matches!(Body::of(&headers, &huge, &[], -1), Ok(Body::Unknown("it is too large"))));
    }
}
