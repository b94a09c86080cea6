//! An event as one line of JSON.

mod read;

use std::sync::Arc;

use serde::ser::{Serialize, SerializeSeq as _, Serializer};

pub use read::Place;
pub(super) use read::read_line;

use super::event::Event;
use super::text::{Brief, clean};
use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::domain::trace::TraceId;

/// What stands in `event`, on every line.
const COMMUNICATION: &str = "agent.communication";

impl Event {
    /// Appends the event's JSON object, without a line end. `stamp` is its timestamp's text: many events share a second.
    pub(super) fn write_json(&self, out: &mut Vec<u8>, stream_id: &str, stamp: &str) {
        let written = serde_json::to_writer(out, &Line::of(self, stream_id, stamp));
        debug_assert!(written.is_ok(), "writing to memory can't fail, and every key is a text");
    }
}

impl Event {
    /// The line of the audit log, without its end. Without its place in the chain where it has none.
    #[must_use]
    pub fn line(&self, stream_id: &str) -> String {
        let mut out = Vec::with_capacity(LINE_BYTES);
        self.write_json(&mut out, stream_id, &stamp(self.at));
        if let Some(links) = self.links() {
            links.close(&mut out);
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

/// Most lines are shorter.
const LINE_BYTES: usize = 1024;

/// `2026-11-21T21:51:43Z`.
pub(super) fn stamp(at: Timestamp) -> String {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The keys in the order in which they stand in a line. The first ten are in every line.
#[derive(serde::Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    event: &'static str,
    from_agent: Name<'a>,
    to_agent: Name<'a>,
    message_type: &'static str,
    delegation_chain: Names<'a>,
    delegation_depth: usize,
    capabilities_used: Texts<'a>,
    token_id: Shown<Option<crate::domain::token::TokenId>>,
    result: &'static str,

    stream_id: &'a str,
    sequence: u64,
    decision_id: Shown<Option<super::event::DecisionId>>,
    reason: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Name::is_empty")]
    caller: Name<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Name::is_empty")]
    issuer: Name<'a>,
    #[serde(skip_serializing_if = "is_false")]
    is_self_asserted: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    http_method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    http_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_uses: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    obo: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    task: &'a str,
    #[serde(skip_serializing_if = "Shown::is_nothing")]
    trace_id: Shown<Option<TraceId>>,
    #[serde(skip_serializing_if = "is_false")]
    dry_run: bool,
    #[serde(skip_serializing_if = "is_zero")]
    repeated: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(event: &'a Event, stream_id: &'a str, stamp: &'a str) -> Self {
        Self {
            timestamp: stamp,
            event: COMMUNICATION,
            from_agent: Name(&event.from_agent),
            to_agent: Name(&event.to_agent),
            message_type: event.message_type.as_str(),
            delegation_chain: Names(&event.chain),
            delegation_depth: event.depth(),
            capabilities_used: Texts(&event.capabilities),
            token_id: Shown(event.token_id),
            result: event.outcome.as_str(),
            stream_id,
            sequence: event.sequence(),
            decision_id: Shown(Some(event.decision_id)),
            reason: event.reason.as_str(),
            message: event.message.as_str(),
            caller: Name(&event.caller),
            identity_method: event.identity_method.map(crate::domain::caller::IdentityMethod::as_str),
            issuer: Name(&event.issuer),
            is_self_asserted: event.is_self_asserted,
            resource: event.resource.as_str(),
            http_method: event.http_method.as_str(),
            http_path: event.http_path.as_str(),
            remaining_uses: event.remaining_uses,
            target: event.target.as_str(),
            note: event.note.as_str(),
            obo: event.obo.as_str(),
            policy_revision: event.policy.as_ref().map(|policy| policy.revision),
            policy_digest: event.policy.as_ref().map(|policy| &*policy.digest),
            request_id: event.request_id.as_str(),
            task: event.task.as_str(),
            trace_id: Shown(event.trace.map(|trace| trace.id)),
            dry_run: event.dry_run,
            repeated: event.repeated(),
            checkpoint: event.checkpoint(),
        }
    }
}

/// Shared text, whose type does not bound it.
struct Name<'a>(&'a str);

impl Name<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&clean(self.0, limits::AGENT_NAME_BYTES))
    }
}

struct Names<'a>(&'a [Arc<str>]);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for name in self.0.iter().take(limits::CHAIN_AGENTS) {
            list.serialize_element(&Name(name))?;
        }
        list.end()
    }
}

struct Texts<'a>(&'a [Brief]);

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().take(limits::TOKEN_CAPABILITIES).map(Brief::as_str))
    }
}

/// What has a text of its own; nothing is the empty text.
struct Shown<T>(T);

impl<T> Shown<Option<T>> {
    fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

impl<T: std::fmt::Display> Serialize for Shown<Option<T>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands the field by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands the field by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::caller::IdentityMethod;
    use crate::domain::policy::PolicyId;
    use crate::domain::reason::Reason;
    use crate::domain::token::TokenId;
    use crate::domain::trace::TraceContext;
    use crate::events::event::{DecisionIds, MessageType, Outcome};

    fn least() -> Event {
        let decision_id = DecisionIds::new(0x00ff).next();
        let at = Timestamp::from_nanos(1_795_297_903_999_999_999);
        Event::new(MessageType::CapabilityRequest, Outcome::Accepted, Reason::Allowed, decision_id, at)
    }

    fn most() -> Event {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        Event {
            sequence: 42,
            repeated: 3,
            checkpoint: Some("e30.e30.c2ln".into()),
            from_agent: "agent-deployer".into(),
            to_agent: "svc-demo".into(),
            chain: names(&["agent-coordinator", "agent-deployer"]),
            capabilities: vec!["kubectl_get".into(), "kubectl_apply".into()],
            token_id: Some(TokenId::from_bytes([0xab; 16])),
            message: "say \"why\"".into(),
            caller: "svc-demo".into(),
            identity_method: Some(IdentityMethod::Spiffe),
            issuer: "spiffe://cluster.local".into(),
            is_self_asserted: true,
            resource: "prod/web".into(),
            http_method: "POST".into(),
            http_path: "/v1/delegate".into(),
            remaining_uses: Some(0),
            target: "agent-validator".into(),
            note: "incident 7".into(),
            obo: "user:alice".into(),
            policy: Some(PolicyId { revision: 5, digest: "d1".into() }),
            request_id: "r-1".into(),
            task: "t-1".into(),
            trace: TraceId::parse("0af7651916cd43dd8448eb211c80319c").map(TraceContext::of_id),
            dry_run: true,
            ..least()
        }
    }

    fn line(event: &Event) -> String {
        let mut out = b"before\n".to_vec();
        event.write_json(&mut out, "00000000000000ff", &stamp(event.at));
        String::from_utf8(out).unwrap().strip_prefix("before\n").unwrap().to_owned()
    }

    #[test]
    fn an_event_with_everything() {
        let wanted = concat!(
            r#"{"timestamp":"2026-11-21T21:51:43Z","event":"agent.communication","#,
            r#""from_agent":"agent-deployer","to_agent":"svc-demo","message_type":"capability_request","#,
            r#""delegation_chain":["agent-coordinator","agent-deployer"],"delegation_depth":1,"#,
            r#""capabilities_used":["kubectl_get","kubectl_apply"],"token_id":"abababababababababababababababab","#,
            r#""result":"accepted","stream_id":"00000000000000ff","sequence":42,"#,
            r#""decision_id":"00000000000000ff0000000000000001","reason":"ALLOWED","message":"say \"why\"","#,
            r#""caller":"svc-demo","identity_method":"SPIFFE","issuer":"spiffe://cluster.local","#,
            r#""is_self_asserted":true,"resource":"prod/web","http_method":"POST","http_path":"/v1/delegate","#,
            r#""remaining_uses":0,"target":"agent-validator","note":"incident 7","obo":"user:alice","#,
            r#""policy_revision":5,"policy_digest":"d1","request_id":"r-1","task":"t-1","#,
            r#""trace_id":"0af7651916cd43dd8448eb211c80319c","dry_run":true,"repeated":3,"checkpoint":"e30.e30.c2ln"}"#,
        );
        assert_eq!(line(&most()), wanted);
    }

    #[test]
    fn an_event_with_nothing_has_the_ten_keys_and_its_number() {
        let wanted = concat!(
            r#"{"timestamp":"2026-11-21T21:51:43Z","event":"agent.communication","from_agent":"","to_agent":"","#,
            r#""message_type":"capability_request","delegation_chain":[],"delegation_depth":0,"#,
            r#""capabilities_used":[],"token_id":"","result":"accepted","stream_id":"00000000000000ff","#,
            r#""sequence":0,"decision_id":"00000000000000ff0000000000000001","reason":"ALLOWED"}"#,
        );
        assert_eq!(line(&least()), wanted);
    }

    #[test]
    fn no_text_breaks_out_of_its_line_or_grows_without_bound() {
        let hostile = format!("a\n\r\0\u{1b}[2J\u{2028}\u{202e}\"\\}}{{{}", "\u{85}".repeat(5000));
        let shared: Arc<str> = hostile.as_str().into();
        let event = Event {
            from_agent: Arc::clone(&shared),
            to_agent: Arc::clone(&shared),
            chain: vec![Arc::clone(&shared)],
            capabilities: vec![hostile.clone().into()],
            message: hostile.clone().into(),
            caller: Arc::clone(&shared),
            issuer: shared,
            resource: hostile.clone().into(),
            note: hostile.into(),
            ..least()
        };
        let line = line(&event);
        assert!(line.len() < 6 * 256 + 2 * 1024 + 1000, "{}", line.len());
        assert_eq!(line.find(|c: char| c.is_control()), None, "{line:?}");
        assert!(!line.contains(['\u{2028}', '\u{202e}']));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(read["message"].as_str().unwrap().starts_with("a\u{fffd}\u{fffd}\u{fffd}\u{fffd}[2J"));
        assert!(read["note"].as_str().unwrap().ends_with('…'));
    }

    #[test]
    fn times_are_whole_seconds_of_utc() {
        assert_eq!(stamp(Timestamp::default()), "1970-01-01T00:00:00Z");
        assert_eq!(stamp(Timestamp::from_seconds(1_709_164_800)), "2024-02-29T00:00:00Z");
        assert_eq!(stamp(Timestamp::from_nanos(u64::MAX)), "2554-07-21T23:34:33Z");
    }
}
