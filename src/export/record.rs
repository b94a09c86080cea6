//! An event as OTLP writes it: a log record, and for a decision a span.
//!
//! Both say what the audit log says and nothing beyond it: no token, no context, no credential has a way in.

use std::sync::Arc;

use crate::api::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use crate::api::opentelemetry::proto::logs::v1::{LogRecord, SeverityNumber};
use crate::api::opentelemetry::proto::resource::v1::Resource;
use crate::api::opentelemetry::proto::trace::v1::{Span, Status, span::SpanKind, status::StatusCode};
use crate::domain::trace::{SpanId, TraceContext};
use crate::events::{Brief, Event, MessageType, Outcome, Published};

const NAME: &str = "remit";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Whether the caller's span is of another process is known (`SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`): it is
/// (`SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`).
const REMOTE_PARENT: u32 = 0x300;
/// The parent of a trace that begins here is known not to be of another process.
const NO_PARENT: u32 = 0x100;

/// What all records share.
#[derive(Clone)]
pub(super) struct Origin {
    /// The stream that the events are numbered in.
    pub(super) stream_id: Arc<str>,
}

/// The event's verb, where it is one that somebody asked for.
fn verb(event: &Event) -> Option<&'static str> {
    match event.message_type {
        MessageType::CapabilityRequest => Some("authorize"),
        MessageType::Delegate => Some("delegate"),
        MessageType::Revoke | MessageType::Quarantine => Some("revoke"),
        MessageType::Reinstate => Some("reinstate"),
        MessageType::Response => Some("record_message"),
        MessageType::Policy | MessageType::Checkpoint | MessageType::Anomaly => None,
    }
}

/// Whether the event is a span too.
pub(super) fn is_span(event: &Event) -> bool {
    sampled(event).is_some() && verb(event).is_some()
}

fn sampled(event: &Event) -> Option<TraceContext> {
    event.trace.filter(TraceContext::is_sampled)
}

impl Origin {
    /// Which process all of it is of.
    pub(super) fn resource(&self) -> Resource {
        let attributes = vec![
            text("service.name", NAME),
            text("service.version", VERSION),
            text("service.instance.id", &*self.stream_id),
        ];
        Resource { attributes }
    }

    pub(super) fn scope() -> InstrumentationScope {
        InstrumentationScope { name: NAME.to_owned(), version: VERSION.to_owned() }
    }

    /// The event as a log record: its body is the line of the audit log.
    pub(super) fn log(event: &Published) -> LogRecord {
        let severity = match event.outcome {
            Outcome::Accepted => SeverityNumber::Info,
            Outcome::Denied => SeverityNumber::Warn,
            Outcome::Error => SeverityNumber::Error,
        };
        let span = span_id(event).filter(|_| is_span(event));
        LogRecord {
            time_unix_nano: event.at.nanos(),
            observed_time_unix_nano: event.at.after(event.took).nanos(),
            severity_number: severity.into(),
            severity_text: match severity {
                SeverityNumber::Error => "ERROR",
                SeverityNumber::Warn => "WARN",
                SeverityNumber::Info | SeverityNumber::Unspecified => "INFO",
            }
            .to_owned(),
            body: Some(AnyValue { value: Some(Value::StringValue(event.line().into_owned())) }),
            attributes: vec![
                text("remit.message_type", event.message_type.as_str()),
                text("remit.result", event.outcome.as_str()),
                text("remit.reason", event.reason.as_str()),
                number("remit.sequence", event.sequence()),
            ],
            flags: event.trace.map(|trace| u32::from(trace.flags())).unwrap_or_default(),
            trace_id: event.trace.map(|trace| trace.id.bytes().to_vec()).unwrap_or_default(),
            span_id: span.map(|span| span.bytes().to_vec()).unwrap_or_default(),
            event_name: "agent.communication".to_owned(),
        }
    }
}

/// The event as a span; none where nobody asked for it, or its trace is not sampled.
pub(super) fn span(event: &Event) -> Option<Span> {
    let (trace, name, id) = (sampled(event)?, verb(event)?, span_id(event)?);
    let remote = if trace.parent.is_some() { REMOTE_PARENT } else { NO_PARENT };
    // That something is refused is no error of the service.
    let status = (event.outcome == Outcome::Error)
        .then(|| Status { message: event.reason.as_str().to_owned(), code: StatusCode::Error.into() });
    Some(Span {
        trace_id: trace.id.bytes().to_vec(),
        span_id: id.bytes().to_vec(),
        parent_span_id: trace.parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(trace.flags()) | remote,
        name: name.to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: event.at.nanos(),
        end_time_unix_nano: event.at.after(event.took).nanos(),
        attributes: attributes(event),
        status,
    })
}

fn attributes(event: &Event) -> Vec<KeyValue> {
    let capabilities = event.capabilities.iter().map(|name| string(name.as_str())).collect();
    let depth = u64::try_from(event.depth()).unwrap_or(u64::MAX);
    let mut attributes = vec![
        text("remit.result", event.outcome.as_str()),
        text("remit.reason", event.reason.as_str()),
        text("remit.decision_id", event.decision_id.to_string()),
        number("remit.sequence", event.sequence()),
        text("remit.agent", Brief::copied(&event.from_agent).as_str()),
        text("remit.caller", Brief::copied(&event.caller).as_str()),
        number("remit.chain_depth", depth),
    ];
    if !event.capabilities.is_empty() {
        let list = Value::ArrayValue(ArrayValue { values: capabilities });
        attributes.push(KeyValue { key: "remit.capability".to_owned(), value: Some(AnyValue { value: Some(list) }) });
    }
    if !event.resource.is_empty() {
        attributes.push(text("remit.resource", event.resource.as_str()));
    }
    if let Some(id) = event.token_id {
        attributes.push(text("remit.token_id", id.to_string()));
    }
    if let Some(policy) = &event.policy {
        attributes.push(number("remit.policy_revision", policy.revision));
        attributes.push(text("remit.policy_digest", &*policy.digest));
    }
    if event.dry_run {
        let value = Some(AnyValue { value: Some(Value::BoolValue(true)) });
        attributes.push(KeyValue { key: "remit.dry_run".to_owned(), value });
    }
    if event.repeated() > 0 {
        attributes.push(number("remit.repeated", event.repeated()));
    }
    attributes
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(string(value)) }
}

fn string(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

fn number(key: &str, value: u64) -> KeyValue {
    let value = Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// The decision's own span: made of its id, which is its alone. A random process number and a count, so that two
/// processes in one trace don't meet; the factor is odd, so that two decisions of one process don't.
fn span_id(event: &Event) -> Option<SpanId> {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (process, count) = event.decision_id.bytes().split_at(8);
    let [process, count] = [process, count].map(|half| half.try_into().map(u64::from_be_bytes).unwrap_or_default());
    let mixed = process ^ count.wrapping_mul(ODD);
    // A decision that was recorded too late has a second event, which says so.
    let mixed = if event.outcome == Outcome::Error { !mixed } else { mixed };
    SpanId::new(mixed.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::reason::Reason;
    use crate::domain::time::Timestamp;
    use crate::events::{AuditConfig, Events, EventsConfig};

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn event(events: &Events, kind: MessageType, outcome: Outcome, traceparent: &str) -> Event {
        let reason = if outcome == Outcome::Accepted { Reason::Allowed } else { Reason::PolicyStale };
        let mut event = Event::new(kind, outcome, reason, events.decision_id(), Timestamp::from_seconds(1_795_297_903));
        event.trace = TraceContext::parse(traceparent);
        event.took = std::time::Duration::from_micros(7);
        event
    }

    fn events(process: u64) -> Events {
        Events::start(&AuditConfig::default(), &EventsConfig::default(), process, Timestamp::default).unwrap()
    }

    #[test]
    fn only_what_somebody_asked_for_and_samples_is_a_span() {
        let events = events(1);
        for kind in MessageType::ALL {
            let asked_for = !matches!(kind, MessageType::Policy | MessageType::Checkpoint | MessageType::Anomaly);
            for (traceparent, is_sampled) in [(SAMPLED, true), (NOT_SAMPLED, false), ("", false)] {
                let event = event(&events, *kind, Outcome::Accepted, traceparent);
                assert_eq!(span(&event).is_some(), asked_for && is_sampled, "{kind:?} {traceparent}");
                assert_eq!(is_span(&event), span(&event).is_some());
            }
        }
    }

    #[test]
    fn a_span_ends_when_the_decision_was_made_and_fails_only_where_there_was_none() {
        let events = events(1);
        for (outcome, code) in [(Outcome::Accepted, None), (Outcome::Denied, None), (Outcome::Error, Some(2))] {
            let span = span(&event(&events, MessageType::Delegate, outcome, SAMPLED)).unwrap();
            assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 7_000);
            assert_eq!(span.status.map(|status| status.code), code);
        }
    }

    #[test]
    fn no_two_decisions_have_the_same_span() {
        let mut seen = HashSet::new();
        for process in [0, 1, 0xfedc_ba98_7654_3210, u64::MAX] {
            let events = events(process);
            for _ in 0..1000 {
                let event = event(&events, MessageType::Delegate, Outcome::Accepted, SAMPLED);
                assert!(seen.insert(span(&event).unwrap().span_id), "{process}");
            }
        }
    }
}
