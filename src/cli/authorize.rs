//! `remit authorize`: may it?

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::client::ClientArgs;
use super::output::{self, Answer, Output};
use super::refusal::{Refusal, reason_name};
use super::{CliError, Outcome, token_source};
use crate::api::{AuthorizeRequest, AuthorizeResponse, Decision};

/// Ask whether an agent may use a capability on a resource. An allow spends one use of the token.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit authorize kubectl_get prod/web --as agent-deployer --token-file token\n\nThe token comes from --token-file (`-`: standard input) or REMIT_TOKEN, and is never an argument."
)]
pub(super) struct Authorize {
    /// The name of the action, e.g. `kubectl_get`
    #[arg(required_unless_present = "method")]
    capability: Option<String>,
    /// What it is done to, e.g. prod/web
    #[arg(required_unless_present = "method")]
    resource: Option<String>,
    /// The agent that acts, where an enforcement point asks for it [default: who is asking]
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Decide, but spend nothing. A dry run's allow must not be acted on
    #[arg(long)]
    dry_run: bool,
    /// The token's file, `-` for standard input [default: `REMIT_TOKEN`; without a token the agent's own grants count]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The agent that is called or guarded, where it isn't who is asking
    #[arg(long, value_name = "AGENT")]
    destination: Option<String>,
    /// With --path, for a call between agents: its HTTP method
    #[arg(long, requires = "path")]
    method: Option<String>,
    /// With --method, for a call between agents: its path
    #[arg(long, requires = "method")]
    path: Option<String>,
    /// An id of one's own, for the audit log
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Authorize {
    pub(super) async fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { capability, resource, agent, dry_run, token_file, destination, method, path, request_id, client } =
            self;
        let token = token_source::token(token_file.as_deref())?;
        let request = AuthorizeRequest {
            capability: capability.unwrap_or_default(),
            resource: resource.unwrap_or_default(),
            token: token.map(|token| token.to_string()).unwrap_or_default(),
            agent: agent.unwrap_or_default(),
            context: None,
            dry_run,
            request_id: request_id.unwrap_or_default(),
            method: method.unwrap_or_default(),
            path: path.unwrap_or_default(),
            destination: destination.unwrap_or_default(),
            agent_credential: None,
            forward_identity: false,
        };
        match client.decisions().await?.authorize(request).await {
            Ok(response) => answer(response.get_ref(), output),
            Err(status) => Refusal::from_status(&status)?.print(output),
        }
    }
}

fn answer(response: &AuthorizeResponse, output: Output) -> Result<Outcome, CliError> {
    let allowed = response.decision() == Decision::Allow;
    let refusal = Refusal {
        reason: reason_name(response.reason),
        failed_hop: response.failed_hop.clone(),
        message: response.message.clone(),
    };
    let title = match (allowed, response.dry_run) {
        (true, false) => format!("allowed  {}", refusal.message),
        (true, true) => format!("allowed (dry run: nothing was spent, don't act on it)  {}", refusal.message),
        (false, _) => refusal.text(),
    };
    let policy = output::policy(response.policy_revision, &response.policy_digest);
    let uses =
        if allowed && !response.token_id.is_empty() { response.remaining_uses.to_string() } else { String::new() };
    let rows = vec![
        ("agent", response.agent.as_ref().map(|agent| agent.agent.clone()).unwrap_or_default()),
        ("chain", output::chain(&response.delegation_chain)),
        ("uses left", uses),
        ("token expires", output::moment(response.expires_at.as_ref())),
        ("token id", response.token_id.clone()),
        ("policy", policy),
        ("decision", response.decision_id.clone()),
    ];
    let title = Some(title.trim_end().to_owned());
    Answer { title, rows, json: as_json(response, allowed) }.print(output)?;
    Ok(if allowed { Outcome::Done } else { Outcome::Denied })
}

fn as_json(response: &AuthorizeResponse, allowed: bool) -> Value {
    let agent = response.agent.as_ref().map(|agent| {
        json!({"agent": agent.agent, "subject": agent.subject, "method": agent.method().as_str_name().trim_start_matches("IDENTITY_METHOD_"),
            "issuer": agent.issuer, "is_self_asserted": agent.is_self_asserted})
    });
    json!({
        "decision": if allowed { "allow" } else { "deny" },
        "reason": reason_name(response.reason),
        "message": response.message,
        "decision_id": response.decision_id,
        "agent": agent,
        "token_id": response.token_id,
        "delegation_chain": response.delegation_chain,
        "failed_hop": response.failed_hop,
        "remaining_uses": response.remaining_uses,
        "expires_at": output::json_moment(response.expires_at.as_ref()),
        "policy_revision": response.policy_revision,
        "policy_digest": response.policy_digest,
        "dry_run": response.dry_run,
    })
}
