//! `remit watch`: every decision as it is made.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::client::ClientArgs;
use super::output::{self, Output};
use super::refusal::{Refusal, reason_name};
use super::{CliError, Outcome};
use crate::api::watch_decisions_response::Item;
use crate::api::{DecisionEvent, Gap, Reason, WatchDecisionsRequest};

/// A lost connection is tried again after this time, then after twice as long, and so on.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// But not later than after this time.
const TRY_AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// Watch decisions as they are made, one line each. Auditors only.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit watch --as ops-admin --after 0 --result denied\n\nWith --output json each line has the keys of the audit log; events that were missed are {\"gap\": {\"from\", \"to\"}}.\nA connection that breaks is made again, and goes on after the last event; standard error says so."
)]
pub(super) struct Watch {
    /// From the event after this one; 0: from the earliest that is kept [default: from now on]
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// The stream that --after counts in: one of an earlier process, as events have it [default: the service's own]
    #[arg(long, value_name = "ID", requires = "after")]
    stream: Option<String>,
    /// Only events of this agent; may be repeated
    #[arg(long = "agent", value_name = "AGENT")]
    agents: Vec<String>,
    /// Only events with this result; may be repeated
    #[arg(long = "result", value_name = "RESULT", value_parser = ["accepted", "denied", "error"])]
    results: Vec<String>,
    /// Only events with this reason, e.g. `TOKEN_EXPIRED`; may be repeated
    #[arg(long = "reason", value_name = "REASON", value_parser = reason)]
    reasons: Vec<Reason>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

fn reason(text: &str) -> Result<Reason, String> {
    let known = Reason::from_str_name(&format!("REASON_{text}")).filter(|reason| *reason != Reason::Unspecified);
    known.ok_or_else(|| "there is no such reason; reasons look like TOKEN_EXPIRED".to_owned())
}

impl Watch {
    pub(super) async fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { after, stream, agents, results, reasons, count, client } = self;
        let request = WatchDecisionsRequest {
            stream_id: stream.unwrap_or_default(),
            after_sequence: after,
            agents,
            results,
            reasons: reasons.into_iter().map(i32::from).collect(),
            message_types: Vec::new(),
        };
        let mut session = Session { client, request, left: count.unwrap_or(u64::MAX), is_begun: false, output };
        let mut pause = TRY_AGAIN;
        loop {
            let was_begun = std::mem::take(&mut session.is_begun);
            let lost = match session.watch(was_begun).await {
                Ended::Done => return Ok(Outcome::Done),
                Ended::Failed(error) => return Err(error),
                Ended::Refused(refusal) => return refusal.print(output),
                Ended::Lost(why) => why,
            };
            pause = if session.is_begun { TRY_AGAIN } else { pause.saturating_mul(2).min(TRY_AGAIN_AT_MOST) };
            session.is_begun = true;
            output::complain(&format!("not connected ({lost}): trying again, to go on {}", session.place()));
            tokio::time::sleep(pause).await;
        }
    }
}

/// A watch over as many connections as it takes.
struct Session {
    client: ClientArgs,
    /// From where to go on.
    request: WatchDecisionsRequest,
    left: u64,
    /// Something came on this connection, or on one before it.
    is_begun: bool,
    output: Output,
}

/// How a connection ended.
enum Ended {
    Done,
    Failed(CliError),
    Refused(Refusal),
    /// Another one may do.
    Lost(String),
}

impl Session {
    /// Watches over one connection. The first one fails at once: what is wrong there is wrong with the command.
    async fn watch(&mut self, is_another: bool) -> Ended {
        let failed = |error: CliError| {
            if is_another { Ended::Lost(error.to_string().replace('\n', "; ")) } else { Ended::Failed(error) }
        };
        let connected = match self.client.decisions().await {
            Ok(mut client) => client.watch_decisions(self.request.clone()).await,
            Err(error) => return failed(error),
        };
        let mut stream = match connected {
            Ok(response) => response.into_inner(),
            Err(status) => return ended(&status, is_another),
        };
        if is_another {
            output::complain(&format!("connected again, going on {}", self.place()));
        }
        while self.left > 0 {
            let item = match stream.message().await {
                Ok(Some(response)) => response.item,
                Ok(None) => return Ended::Lost("the service ended the stream".to_owned()),
                Err(status) => return ended(&status, true),
            };
            self.is_begun = true;
            if let Err(error) = item.map_or(Ok(()), |item| self.show(&item)) {
                return Ended::Failed(error);
            }
        }
        Ended::Done
    }

    fn show(&mut self, item: &Item) -> Result<(), CliError> {
        match item {
            Item::Event(event) => {
                self.left = self.left.saturating_sub(1);
                output::say(&event_line(event, self.output))?;
                self.go_on_after(&event.stream_id, event.sequence);
            }
            Item::Gap(gap) => {
                output::say(&gap_line(gap, self.output))?;
                // After a gap of which nobody knows the end there is no place to go on from.
                if gap.to > 0 {
                    self.go_on_after(&gap.stream_id, gap.to);
                }
            }
            Item::Heartbeat(heartbeat) => self.go_on_after(&heartbeat.stream_id, heartbeat.sequence),
        }
        Ok(())
    }

    fn go_on_after(&mut self, stream_id: &str, sequence: u64) {
        self.request.after_sequence = Some(sequence);
        if self.request.stream_id != stream_id {
            stream_id.clone_into(&mut self.request.stream_id);
        }
    }

    fn place(&self) -> String {
        match self.request.after_sequence {
            None => "from then on".to_owned(),
            Some(sequence) => format!("after #{sequence} of {}", self.request.stream_id),
        }
    }
}

/// What a status ends: a refusal stays one, unless it is one for lack of room on another connection.
fn ended(status: &Status, is_another: bool) -> Ended {
    let is_final = matches!(status.code(), Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied);
    match Refusal::from_status(status) {
        Ok(refusal) if is_final || !is_another => Ended::Refused(refusal),
        Err(error) if is_final || !is_another => Ended::Failed(error),
        Ok(refusal) => Ended::Lost(refusal.message),
        Err(error) => Ended::Lost(error.to_string().replace('\n', "; ")),
    }
}

fn event_line(event: &DecisionEvent, output: Output) -> String {
    match output {
        Output::Json => event_json(event).to_string(),
        Output::Text => event_text(event),
    }
}

fn event_text(event: &DecisionEvent) -> String {
    let at = output::moment(event.timestamp.as_ref());
    let who = match event.delegation_chain.as_slice() {
        [] => event.from_agent.clone(),
        chain => output::chain(chain),
    };
    let what = [event.capabilities_used.join(","), event.resource.clone(), event.target.clone()];
    let what: Vec<String> = what.into_iter().filter(|part| !part.is_empty()).collect();
    let to = if event.to_agent.is_empty() { String::new() } else { format!("  to {}", event.to_agent) };
    let mut line = format!(
        "{at}  #{:<5} {:<8}  {:<18}  {who}{to}  {}",
        event.sequence,
        event.result,
        event.message_type,
        what.join(" ")
    );
    if event.result != "accepted" {
        line = format!("{}  {}  {}", line.trim_end(), reason_name(event.reason), event.message);
    }
    if event.dry_run {
        line.push_str("  (dry run)");
    }
    if event.repeated > 0 {
        line = format!("{line}  (and {} more like it)", event.repeated);
    }
    line.trim_end().to_owned()
}

fn event_json(event: &DecisionEvent) -> Value {
    json!({
        "timestamp": output::moment(event.timestamp.as_ref()),
        "event": event.event,
        "from_agent": event.from_agent,
        "to_agent": event.to_agent,
        "message_type": event.message_type,
        "delegation_chain": event.delegation_chain,
        "delegation_depth": event.delegation_depth,
        "capabilities_used": event.capabilities_used,
        "token_id": event.token_id,
        "result": event.result,
        "stream_id": event.stream_id,
        "sequence": event.sequence,
        "decision_id": event.decision_id,
        "reason": reason_name(event.reason),
        "message": event.message,
        "caller": event.caller,
        "identity_method": event.identity_method().as_str_name().trim_start_matches("IDENTITY_METHOD_"),
        "issuer": event.issuer,
        "is_self_asserted": event.is_self_asserted,
        "resource": event.resource,
        "http_method": event.http_method,
        "http_path": event.http_path,
        "remaining_uses": event.remaining_uses,
        "target": event.target,
        "note": event.note,
        "obo": event.obo,
        "policy_revision": event.policy_revision,
        "policy_digest": event.policy_digest,
        "request_id": event.request_id,
        "task": event.task,
        "trace_id": event.trace_id,
        "dry_run": event.dry_run,
        "repeated": event.repeated,
        "prev_hash": event.prev_hash,
        "hash": event.hash,
        "checkpoint": event.checkpoint,
    })
}

fn gap_line(gap: &Gap, output: Output) -> String {
    let Gap { from, to, stream_id } = gap;
    let count = to.saturating_sub(*from).saturating_add(1);
    match output {
        Output::Json => json!({"gap": {"from": from, "to": to, "stream_id": stream_id}}).to_string(),
        Output::Text if *to == 0 => {
            format!("!!! GAP: what stream {stream_id} had after this is not kept, and nobody knows how much it was")
        }
        Output::Text => format!("!!! GAP: {count} events of stream {stream_id} were missed, #{from} to #{to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> DecisionEvent {
        DecisionEvent {
            timestamp: Some(prost_types::Timestamp { seconds: 1_780_000_000, nanos: 0 }),
            from_agent: "b".to_owned(),
            to_agent: "gate".to_owned(),
            message_type: "capability_request".to_owned(),
            delegation_chain: vec!["a".to_owned(), "b".to_owned()],
            capabilities_used: vec!["read".to_owned()],
            result: "denied".to_owned(),
            sequence: 7,
            reason: Reason::TokenExpired.into(),
            message: "ask again".to_owned(),
            resource: "/x".to_owned(),
            repeated: 2,
            ..DecisionEvent::default()
        }
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            event_text(&event()),
            "2026-05-28T20:26:40Z  #7     denied    capability_request  a > b  to gate  read /x  TOKEN_EXPIRED  ask again  (and 2 more like it)"
        );
        let accepted = DecisionEvent { result: "accepted".to_owned(), repeated: 0, ..event() };
        assert!(event_text(&accepted).ends_with("read /x"));
        assert_eq!(event_json(&event())["reason"], "TOKEN_EXPIRED");
    }

    #[test]
    fn a_gap_is_loud() {
        let gap = Gap { from: 3, to: 9, stream_id: "s".to_owned() };
        assert!(gap_line(&gap, Output::Text).starts_with("!!! GAP: 7 events of stream s were missed, #3 to #9"));
        assert_eq!(gap_line(&gap, Output::Json), r#"{"gap":{"from":3,"stream_id":"s","to":9}}"#);
    }

    #[test]
    fn reasons_are_known_by_name() {
        assert_eq!(reason("TOKEN_EXPIRED"), Ok(Reason::TokenExpired));
        assert!(reason("UNSPECIFIED").is_err() && reason("token_expired").is_err());
    }
}
