//! Events as messages, and the filter of a subscription.

use super::Malformed;
use super::answer::{method, reason, timestamp};
use crate::api as pb;
use crate::decision_feed::{InvalidEntry, is_stream_id, want_agent, want_message_type, want_reason, want_result};
use crate::events::{Filter, Item, Published, Since};

/// From where somebody wants to watch, and what.
pub(in crate::grpc) fn watch(request: &pb::WatchDecisionsRequest) -> Result<(Filter, Since<'_>), Malformed> {
    let pb::WatchDecisionsRequest { stream_id, after_sequence, agents, results, reasons, message_types } = request;
    if !is_stream_id(stream_id) {
        return Err(Malformed::new("stream_id", "at most 64 letters and digits, as an event's stream_id has them"));
    }
    let since = match after_sequence {
        None => Since::Now,
        Some(sequence) => Since::After { stream_id, sequence: *sequence },
    };
    let mut filter = Filter::default();
    let at = |field: &'static str| move |invalid: InvalidEntry| Malformed::new(field, invalid.to_string());
    agents.iter().try_for_each(|name| want_agent(&mut filter, name)).map_err(at("agents"))?;
    results.iter().try_for_each(|name| want_result(&mut filter, name)).map_err(at("results"))?;
    reasons.iter().try_for_each(|number| want_reason(&mut filter, reason_name(*number))).map_err(at("reasons"))?;
    message_types.iter().try_for_each(|name| want_message_type(&mut filter, name)).map_err(at("message_types"))?;
    Ok((filter, since))
}

/// The name of a reason; a number that is none has none.
fn reason_name(number: i32) -> &'static str {
    let reason = pb::Reason::try_from(number).unwrap_or_default();
    reason.as_str_name().strip_prefix("REASON_").unwrap_or_default()
}

pub(in crate::grpc) fn watched(item: &Item) -> pb::WatchDecisionsResponse {
    use pb::watch_decisions_response::Item as Kind;
    let item = match item {
        Item::Event(event) => Kind::Event(Box::new(decision_event(event))),
        Item::Gap { stream_id, from, to } => {
            Kind::Gap(pb::Gap { from: *from, to: *to, stream_id: stream_id.to_string() })
        }
        Item::Heartbeat { stream_id, sequence } => {
            Kind::Heartbeat(pb::Heartbeat { sequence: *sequence, stream_id: stream_id.to_string() })
        }
    };
    pb::WatchDecisionsResponse { item: Some(item) }
}

fn decision_event(event: &Published) -> pb::DecisionEvent {
    let policy = event.policy.as_ref();
    pb::DecisionEvent {
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
        stream_id: event.stream_id().to_string(),
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
    }
}
