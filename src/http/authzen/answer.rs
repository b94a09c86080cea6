//! Decisions, as JSON.

use serde_json::{Map, Value, json};

use super::question::Malformed;
use crate::domain::policy::PolicyId;
use crate::domain::reason::{Denial, Reason};
use crate::engine::{Decision, TokenShown};
use crate::events::DecisionId;

/// The answer to an evaluation.
pub(super) fn decision(decision: &Decision) -> Value {
    let Decision { outcome, id, agent: _, chain, on_behalf_of: _, token, policy, dry_run: _ } = decision;
    let mut context = match outcome {
        Ok(()) => context(Reason::Allowed, "", *id, policy),
        Err(denial) => context(denial.reason(), denial.message(), *id, policy),
    };
    if let Some(hop) = outcome.as_ref().err().and_then(Denial::failed_hop) {
        context.insert("failed_hop".to_owned(), hop.into());
    }
    if let Some(millis) = outcome.as_ref().err().and_then(Denial::wait_millis) {
        context.insert("retry_after_ms".to_owned(), millis.into());
    }
    if let Some(TokenShown { id, expires_at, left }) = token {
        context.insert("token_id".to_owned(), id.to_string().into());
        context.insert("expires_at".to_owned(), expires_at.seconds().into());
        context.insert("delegation_chain".to_owned(), chain.iter().map(|name| Value::from(name.as_ref())).collect());
        context.extend(left.map(|left| ("remaining_uses".to_owned(), left.into())));
    }
    json!({ "decision": outcome.is_ok(), "context": context })
}

/// An evaluation of a batch that is not of its form, denied in its place.
pub(super) fn malformed(malformed: &Malformed, id: DecisionId, policy: &PolicyId) -> Value {
    let context = context(Reason::RequestMalformed, &malformed.to_string(), id, policy);
    json!({ "decision": false, "context": context })
}

fn context(reason: Reason, message: &str, id: DecisionId, policy: &PolicyId) -> Map<String, Value> {
    let mut context = Map::new();
    context.insert("reason".to_owned(), reason.as_str().into());
    if !message.is_empty() {
        context.insert("message".to_owned(), message.into());
    }
    context.insert("decision_id".to_owned(), id.to_string().into());
    context.insert("policy_revision".to_owned(), policy.revision.into());
    context.insert("policy_digest".to_owned(), policy.digest.as_ref().into());
    context
}
