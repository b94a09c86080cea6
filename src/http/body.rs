//! A request's body: bounded in bytes and in time, and read strictly. It is never logged.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use tokio_stream::StreamExt as _;

use super::refusal::Refusal;
use crate::domain::limits;
use crate::domain::reason::Reason;
use crate::json;

/// Of a body that is too large this much is read and dropped: a client that is still sending would not see the refusal.
const PASSED_OVER_BYTES: usize = 4 * 1024 * 1024;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It has more bytes than this.
    TooLarge(usize),
    /// It did not come within [`limits::REQUEST_DEADLINE`].
    TooSlow,
    /// The connection ended in the middle of it.
    Broken,
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Self {
        let refusal = |status, message: String| Self::new(status, Reason::RequestMalformed, message);
        match unreadable {
            Unreadable::TooLarge(most) => {
                refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes"))
            }
            Unreadable::TooSlow => refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()),
            Unreadable::Broken => refusal(StatusCode::BAD_REQUEST, "the body ended before its end".to_owned()),
        }
    }
}

/// The whole body, if it has at most `most` bytes.
pub(super) async fn read(headers: &HeaderMap, body: Body, most: usize) -> Result<Vec<u8>, Unreadable> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > PASSED_OVER_BYTES) {
        return Err(Unreadable::TooLarge(most));
    }
    within(limits::REQUEST_DEADLINE, body, most).await
}

async fn within(patience: Duration, body: Body, most: usize) -> Result<Vec<u8>, Unreadable> {
    tokio::time::timeout(patience, collect(body, most)).await.unwrap_or(Err(Unreadable::TooSlow))
}

async fn collect(body: Body, most: usize) -> Result<Vec<u8>, Unreadable> {
    let mut chunks = body.into_data_stream();
    let (mut whole, mut length) = (Vec::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Unreadable::Broken)?;
        length = length.saturating_add(chunk.len());
        if length > PASSED_OVER_BYTES {
            break;
        }
        if length <= most {
            whole.extend_from_slice(&chunk);
        }
    }
    if length <= most { Ok(whole) } else { Err(Unreadable::TooLarge(most)) }
}

/// Whether the body is said, once, to be of this media type; parameters such as `charset` are passed over.
pub(super) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let mut said = headers.get_all(CONTENT_TYPE).iter();
    let (Some(first), None) = (said.next(), said.next()) else { return false };
    let essence = first.to_str().ok().and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim_matches([' ', '\t']).eq_ignore_ascii_case(media_type))
}

/// The body as a JSON object of at most so many bytes and levels.
pub(super) async fn json_object(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    levels: usize,
) -> Result<Map<String, Value>, Refusal> {
    if !is_of_type(headers, "application/json") {
        return Err(Refusal::malformed("the body has to be JSON: send content-type: application/json"));
    }
    let bytes = read(headers, body, most).await?;
    json::parse_object(&bytes, levels).map_err(|invalid| Refusal::malformed(format!("the body: {invalid}")))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of_type(values: &[&'static str]) -> bool {
        let headers = values.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))).collect::<Vec<_>>();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        is_of_type(&map, "application/json")
    }

    #[test]
    fn the_media_type_counts_and_its_parameters_do_not() {
        for good in ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json ;a=b"]
        {
            assert!(of_type(&[good]), "{good}");
        }
        for bad in [&[][..], &["text/json"], &["application/json-seq"], &["application/json", "application/json"]] {
            assert!(!of_type(bad), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        let headers = HeaderMap::new();
        assert_eq!(read(&headers, Body::from("12345"), 5).await.unwrap(), b"12345");
        assert_eq!(read(&headers, Body::from("123456"), 5).await, Err(Unreadable::TooLarge(5)));
        let chunks = tokio_stream::iter(["123", "456"].map(Ok::<_, std::io::Error>));
        assert_eq!(read(&headers, Body::from_stream(chunks), 5).await, Err(Unreadable::TooLarge(5)));
        let chunks = tokio_stream::iter([Ok("1"), Err(std::io::Error::other("gone"))]);
        assert_eq!(read(&headers, Body::from_stream(chunks), 5).await, Err(Unreadable::Broken));
    }

    #[tokio::test]
    async fn what_is_far_too_large_is_not_waited_for() {
        let never = || Body::from_stream(tokio_stream::pending::<Result<&str, std::io::Error>>());
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("4194305"))]);
        assert_eq!(read(&headers, never(), 5).await, Err(Unreadable::TooLarge(5)));
        let endless = tokio_stream::iter(std::iter::repeat(vec![b' '; 65_536]).map(Ok::<_, std::io::Error>));
        assert_eq!(read(&HeaderMap::new(), Body::from_stream(endless), 5).await, Err(Unreadable::TooLarge(5)));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = Body::from_stream(tokio_stream::pending::<Result<&str, std::io::Error>>());
        assert_eq!(within(Duration::from_millis(1), never, 5).await, Err(Unreadable::TooSlow));
    }
}
