//! `/v1/events`: the decision feed, as server-sent events (WHATWG HTML, section 9.2).
//!
//! Every event's id is the place to come back to, `<stream_id>:<sequence>`. A gap of which nobody knows the size has none:
//! who comes back before the next event is told of it again.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Pages;
use super::authenticate::{enter, peer};
use super::refusal::Refusal;
use crate::decision_feed::{
    End, Feed, Refused, WAITING, is_stream_id, may_watch, want_agent, want_message_type, want_reason, want_result,
};
use crate::events::{Filter, Item, Since};

/// Where the client was, if it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What nginx and those like it need to be told to pass on what they get at once.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
/// No cache keeps it, and no proxy may rewrite or collect it.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store, no-transform");
/// Said at once, so that the client and who stands between know that it began. The empty line is left out on purpose: it
/// would end an event of which there is nothing, and some clients would show it.
const BEGINNING: &str = ": the decisions of Remit\nretry: 2000\n";
/// Another instance may answer at once; this one needs longer.
const COME_BACK: &str = ": the service asks to come back\nretry: 1000\n";

type Chunk = Result<String, Infallible>;

/// The decisions as they are made, for auditors and administrators.
pub(super) async fn stream(State(pages): State<Pages>, request: Request) -> Result<Response, Refusal> {
    let (head, _) = request.into_parts();
    let visit = enter(&pages.door, &head)?;
    // Who may not watch learns nothing of its request.
    may_watch(pages.door.engine(), visit.policy(), &visit.caller).map_err(|refused| refusal(&refused))?;
    let asked = Asked::read(&head.uri, &head.headers).map_err(Refusal::malformed)?;
    let evidence = (peer(&head).cloned(), head.headers);
    let Asked { filter, after } = asked;
    let since = match &after {
        None => Since::Now,
        Some((stream_id, sequence)) => Since::After { stream_id, sequence: *sequence },
    };
    let feed = Feed::begin(&pages.door, &visit, evidence, since, filter, pages.drain);
    let feed = feed.map_err(|refused| refusal(&refused))?;
    let (sender, receiver) = mpsc::channel::<Chunk>(WAITING);
    // There is room for it.
    let _ = sender.try_send(Ok(BEGINNING.to_owned()));
    tokio::spawn(feed.deliver(sender, |item| Ok(written(item)), |end| ended(end).map(Ok)));
    let about =
        [(CONTENT_TYPE, HeaderValue::from_static("text/event-stream")), (CACHE_CONTROL, NOT_KEPT), NO_BUFFERING];
    Ok((about, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

/// What the query and the headers say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    filter: Filter,
    after: Option<(String, u64)>,
}

impl Asked {
    /// A client that comes back repeats its first query, so that its `Last-Event-ID` counts more than `after`.
    fn read(uri: &Uri, headers: &HeaderMap) -> Result<Self, String> {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let filter = &mut asked.filter;
            let taken = match &*name {
                "agent" => want_agent(filter, &value),
                "result" => want_result(filter, &value),
                "reason" => want_reason(filter, &value),
                "message_type" => want_message_type(filter, &value),
                "after" => {
                    if asked.after.replace(place(&value).ok_or_else(|| form("after"))?).is_some() {
                        return Err("after is said twice".to_owned());
                    }
                    Ok(())
                }
                _ => {
                    return Err(
                        "the query has something other than after, agent, result, reason and message_type".to_owned()
                    );
                }
            };
            taken.map_err(|invalid| format!("{name}: {invalid}"))?;
        }
        if let Some(last) = headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty()) {
            let last = last.to_str().ok().and_then(place);
            asked.after = Some(last.ok_or_else(|| form("last-event-id"))?);
        }
        Ok(asked)
    }
}

fn form(name: &str) -> String {
    format!("{name}: STREAM_ID:SEQUENCE is expected as an event's id has it, or a sequence of this process's stream")
}

/// `<stream_id>:<sequence>`, or only the sequence.
fn place(text: &str) -> Option<(String, u64)> {
    let (stream_id, sequence) = text.split_once(':').unwrap_or(("", text));
    let is_number = !sequence.is_empty() && sequence.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && is_stream_id(stream_id)).then_some(())?;
    Some((stream_id.to_owned(), sequence.parse().ok()?))
}

/// An item as an event. Names of streams and lines of the log have no line end in them.
fn written(item: &Item) -> String {
    match item {
        Item::Event(event) => {
            let (stream_id, sequence, line) = (event.stream_id(), event.sequence(), event.line());
            format!("id: {stream_id}:{sequence}\nevent: decision\ndata: {line}\n\n")
        }
        Item::Gap { stream_id, from, to } => {
            let data = json!({"stream_id": &**stream_id, "from": from, "to": to});
            format!("{}event: gap\ndata: {data}\n\n", id(stream_id, *to))
        }
        Item::Heartbeat { stream_id, sequence } => {
            let data = json!({"stream_id": &**stream_id, "sequence": sequence});
            format!("{}event: heartbeat\ndata: {data}\n\n", id(stream_id, *sequence))
        }
    }
}

/// Nothing, where nothing is passed yet: after 0 what is missing at the beginning would not be told.
fn id(stream_id: &str, sequence: u64) -> String {
    if sequence == 0 { String::new() } else { format!("id: {stream_id}:{sequence}\n") }
}

/// Who is asked to leave may come back; who has no right to it any more learns why.
fn ended(end: &End) -> Option<String> {
    match end {
        End::Refused(Refused::Denied(denial)) => Some(format!(": {}\n", denial.reason().as_str())),
        End::Refused(Refused::Nobody(_) | Refused::Full(_)) => None,
        End::Leave | End::Over => Some(COME_BACK.to_owned()),
    }
}

fn refusal(refused: &Refused) -> Refusal {
    match refused {
        Refused::Nobody(nobody) => Refusal::unidentified(nobody),
        Refused::Denied(denial) => Refusal::forbidden(denial),
        Refused::Full(full) => Refusal::full(*full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;
    use crate::events::Outcome;

    fn asked(query: &str, last: Option<&'static str>) -> Result<Asked, String> {
        let mut headers = HeaderMap::new();
        headers.extend(last.map(|last| (LAST_EVENT_ID, HeaderValue::from_static(last))));
        Asked::read(&Uri::try_from(format!("/v1/events?{query}")).unwrap(), &headers)
    }

    #[test]
    fn a_query_says_what_and_from_where() {
        assert_eq!(asked("", None), Ok(Asked::default()));
        let all = asked("agent=a&agent=b&result=denied&reason=TOKEN_EXPIRED&after=00ff:7", None).unwrap();
        assert_eq!(all.filter.agents, ["a", "b"].map(Box::<str>::from));
        assert_eq!((all.filter.results, all.filter.reasons), (vec![Outcome::Denied], vec![Reason::TokenExpired]));
        assert_eq!(all.after, Some(("00ff".to_owned(), 7)));
        assert_eq!(asked("after=0", None).unwrap().after, Some((String::new(), 0)));
        assert_eq!(asked("after=0", Some("00ff:9")).unwrap().after, Some(("00ff".to_owned(), 9)), "it comes back");
        assert_eq!(asked("after=0", Some("")).unwrap().after, Some((String::new(), 0)));
    }

    #[test]
    fn what_is_not_of_its_form_is_refused_and_not_guessed() {
        for bad in
            ["after=", "after=x", "after=-1", "after=+1", "after=a:b:1", "after=a%0Aid:1", "after=1&after=2", "agnt=a"]
        {
            assert!(asked(bad, None).is_err(), "{bad}");
        }
        assert!(asked("after=18446744073709551616", None).is_err());
        assert!(asked("", Some("7;")).is_err());
        assert_eq!(asked("result=refused", None), Err("result: one of accepted, denied, error".to_owned()));
    }

    #[test]
    fn only_a_place_to_come_back_to_is_an_id() {
        let gap = |from, to| written(&Item::Gap { stream_id: "ab".into(), from, to });
        assert_eq!(gap(2, 5), "id: ab:5\nevent: gap\ndata: {\"from\":2,\"stream_id\":\"ab\",\"to\":5}\n\n");
        assert_eq!(gap(0, 0), "event: gap\ndata: {\"from\":0,\"stream_id\":\"ab\",\"to\":0}\n\n");
        let heartbeat = written(&Item::Heartbeat { stream_id: "ab".into(), sequence: 3 });
        assert_eq!(heartbeat, "id: ab:3\nevent: heartbeat\ndata: {\"sequence\":3,\"stream_id\":\"ab\"}\n\n");
    }
}
