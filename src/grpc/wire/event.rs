//! Events as messages, and the filter of a subscription.

use super::Malformed;
use super::answer::{method, reason, timestamp};
use crate::api as pb;
use crate::domain::agent::AgentName;
use crate::domain::reason::Reason;
use crate::events::{Event, Filter, MessageType, Outcome};

/// Entries of one filter list at most.
const FILTER_ENTRIES: usize = 64;

pub(in crate::grpc) fn filter(request: &pb::WatchDecisionsRequest) -> Result<Filter, Malformed> {
    let pb::WatchDecisionsRequest { stream_id: _, after_sequence: _, agents, results, reasons, message_types } =
        request;
    for (field, entries) in [
        ("agents", agents.len()),
        ("results", results.len()),
        ("reasons", reasons.len()),
        ("message_types", message_types.len()),
    ] {
        if entries > FILTER_ENTRIES {
            return Err(Malformed::new(field, format!("at most {FILTER_ENTRIES} entries")));
        }
    }
    let outcome = |name: &String| {
        Outcome::from_name(name).ok_or_else(|| Malformed::new("results", "one of accepted, denied, error"))
    };
    let kind = |name: &String| {
        MessageType::from_name(name).ok_or_else(|| Malformed::new("message_types", "no event has this message_type"))
    };
    let agent = |name: &String| match AgentName::check(name) {
        Ok(()) => Ok(name.as_str().into()),
        Err(invalid) => Err(Malformed::new("agents", invalid.to_string())),
    };
    Ok(Filter {
        agents: agents.iter().map(agent).collect::<Result<_, _>>()?,
        results: results.iter().map(outcome).collect::<Result<_, _>>()?,
        reasons: reasons.iter().map(|number| reason_of(*number)).collect::<Result<_, _>>()?,
        message_types: message_types.iter().map(kind).collect::<Result<_, _>>()?,
    })
}

fn reason_of(number: i32) -> Result<Reason, Malformed> {
    let unknown = || Malformed::new("reasons", "no such reason");
    let name = pb::Reason::try_from(number).map_err(|_| unknown())?.as_str_name();
    name.strip_prefix("REASON_").and_then(Reason::from_name).ok_or_else(unknown)
}

pub(in crate::grpc) fn gap(from: u64, to: u64, stream_id: &str) -> pb::WatchDecisionsResponse {
    item(pb::watch_decisions_response::Item::Gap(pb::Gap { from, to, stream_id: stream_id.to_owned() }))
}

pub(in crate::grpc) fn heartbeat(sequence: u64, stream_id: &str) -> pb::WatchDecisionsResponse {
    item(pb::watch_decisions_response::Item::Heartbeat(pb::Heartbeat { sequence, stream_id: stream_id.to_owned() }))
}

fn item(item: pb::watch_decisions_response::Item) -> pb::WatchDecisionsResponse {
    pb::WatchDecisionsResponse { item: Some(item) }
}

pub(in crate::grpc) fn decision_event(event: &Event, stream_id: &str) -> pb::WatchDecisionsResponse {
    let policy = event.policy.as_ref();
    item(pb::watch_decisions_response::Item::Event(Box::new(pb::DecisionEvent {
        timestamp: Some(timestamp(event.at)),
        event: "agent.communication".to_owned(),
        from_agent: event.from_agent.to_string(),
        to_agent: event.to_agent.to_string(),
        message_type: event.message_type.as_str().to_owned(),
        delegation_chain: event.chain.iter().map(ToString::to_string).collect(),
        delegation_depth: u64::try_from(event.depth()).unwrap_or(u64::MAX),
        capabilities_used: event.capabilities.iter().map(|name| name.as_str().to_owned()).collect(),
        token_id: event.token_id.map(|id| id.to_string()).unwrap_or_default(),
        result: event.outcome.as_str().to_owned(),
        stream_id: stream_id.to_owned(),
        sequence: event.sequence(),
        decision_id: event.decision_id.to_string(),
        reason: reason(event.reason).into(),
        message: event.message.as_str().to_owned(),
        caller: event.caller.to_string(),
        identity_method: event.identity_method.map_or(pb::IdentityMethod::Unspecified, method).into(),
        issuer: event.issuer.to_string(),
        is_self_asserted: event.is_self_asserted,
        resource: event.resource.as_str().to_owned(),
        http_method: event.http_method.as_str().to_owned(),
        http_path: event.http_path.as_str().to_owned(),
        remaining_uses: event.remaining_uses.map(u64::from).unwrap_or_default(),
        target: event.target.as_str().to_owned(),
        note: event.note.as_str().to_owned(),
        obo: event.obo.as_str().to_owned(),
        policy_revision: policy.map(|policy| policy.revision).unwrap_or_default(),
        policy_digest: policy.map(|policy| policy.digest.to_string()).unwrap_or_default(),
        request_id: event.request_id.as_str().to_owned(),
        task: event.task.as_str().to_owned(),
        trace_id: event.trace.map(|trace| trace.id.to_string()).unwrap_or_default(),
        dry_run: event.dry_run,
        repeated: event.repeated(),
        prev_hash: event.links().map(|links| links.previous.to_string()).unwrap_or_default(),
        checkpoint: event.checkpoint().unwrap_or_default().to_owned(),
        hash: event.links().map(|links| links.own.to_string()).unwrap_or_default(),
    })))
}
