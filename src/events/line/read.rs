//! A line of the log as the event that it was.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use crate::domain::caller::IdentityMethod;
use crate::domain::policy::PolicyId;
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::events::chain;
use crate::events::event::{DecisionId, Event, MessageType, Outcome};
use crate::events::text::{Brief, Long};

/// What a line says of itself, read from its bytes without parsing all of it. The names can't stand inside a text, where
/// quotes are written `\"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place<'a> {
    /// `timestamp`.
    pub timestamp: &'a str,
    /// `stream_id`.
    pub stream_id: &'a str,
    /// `sequence`; 0 if the line says none.
    pub sequence: u64,
    /// `message_type`.
    pub message_type: &'a str,
}

impl<'a> Place<'a> {
    /// What this line says; nothing, where it says nothing.
    #[must_use]
    pub fn of(line: &'a [u8]) -> Self {
        let Ok(text) = std::str::from_utf8(line) else { return Self::default() };
        let mut place = Self::default();
        if let Some(value) = text.strip_prefix("{\"timestamp\":\"") {
            place.timestamp = until_quote(value);
        }
        // In the order in which they are written, so that the rest of the line need not be looked at.
        let mut rest = text;
        while let Some((_, key)) = rest.split_once(',') {
            rest = key;
            if let Some(value) = key.strip_prefix("\"message_type\":\"") {
                place.message_type = until_quote(value);
            } else if let Some(value) = key.strip_prefix("\"stream_id\":\"") {
                place.stream_id = until_quote(value);
            } else if let Some(value) = key.strip_prefix("\"sequence\":") {
                place.sequence =
                    value.split([',', '}']).next().and_then(|number| number.parse().ok()).unwrap_or_default();
                break;
            }
        }
        place
    }
}

fn until_quote(text: &str) -> &str {
    text.split_once('"').map_or("", |(value, _)| value)
}

/// The event of a line, given without its line end; its time is in whole seconds. None: it is no such line.
pub(in crate::events) fn read_line(line: &[u8]) -> Option<Event> {
    let seen = chain::read(line)?;
    let written: Written<'_> = serde_json::from_slice(line).ok()?;
    Some(Event { links: Some(seen.links), ..written.event()? })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written<'a> {
    timestamp: &'a str,
    #[serde(borrow)]
    from_agent: Cow<'a, str>,
    #[serde(borrow)]
    to_agent: Cow<'a, str>,
    message_type: &'a str,
    delegation_chain: Vec<String>,
    capabilities_used: Vec<String>,
    token_id: &'a str,
    result: &'a str,
    sequence: u64,
    decision_id: &'a str,
    reason: &'a str,
    message: String,
    #[serde(borrow)]
    caller: Cow<'a, str>,
    identity_method: &'a str,
    #[serde(borrow)]
    issuer: Cow<'a, str>,
    is_self_asserted: bool,
    resource: String,
    http_method: String,
    http_path: String,
    remaining_uses: Option<u32>,
    target: String,
    note: String,
    obo: String,
    policy_revision: Option<u64>,
    policy_digest: &'a str,
    request_id: String,
    task: String,
    trace_id: String,
    dry_run: bool,
    repeated: u64,
    checkpoint: Option<&'a str>,
}

impl Written<'_> {
    fn event(self) -> Option<Event> {
        let at: jiff::Timestamp = self.timestamp.parse().ok()?;
        let event = Event::new(
            MessageType::from_name(self.message_type)?,
            Outcome::from_name(self.result)?,
            Reason::from_name(self.reason)?,
            DecisionId::parse(self.decision_id)?,
            Timestamp::from_seconds(u64::try_from(at.as_second()).ok()?),
        );
        Some(Event {
            sequence: self.sequence,
            repeated: self.repeated,
            checkpoint: self.checkpoint.map(Arc::from),
            from_agent: Arc::from(&*self.from_agent),
            to_agent: Arc::from(&*self.to_agent),
            chain: self.delegation_chain.into_iter().map(Arc::from).collect(),
            capabilities: self.capabilities_used.into_iter().map(Brief::from).collect(),
            token_id: TokenId::parse(self.token_id),
            message: Long::from(self.message),
            caller: Arc::from(&*self.caller),
            identity_method: IdentityMethod::from_name(self.identity_method),
            issuer: Arc::from(&*self.issuer),
            is_self_asserted: self.is_self_asserted,
            resource: Long::from(self.resource),
            http_method: Brief::from(self.http_method),
            http_path: Long::from(self.http_path),
            remaining_uses: self.remaining_uses,
            target: Brief::from(self.target),
            note: Brief::from(self.note),
            obo: Brief::from(self.obo),
            policy: self.policy_revision.map(|revision| PolicyId { revision, digest: self.policy_digest.into() }),
            request_id: Brief::from(self.request_id),
            task: Brief::from(self.task),
            trace_id: Brief::from(self.trace_id),
            dry_run: self.dry_run,
            ..event
        })
    }
}
