//! `remit reinstate`: lift a quarantine.

use clap::Args;
use serde_json::json;

use super::client::ClientArgs;
use super::output::{Answer, Output};
use super::refusal::Refusal;
use super::{CliError, Outcome};
use crate::api::ReinstateRequest;

/// Lift an agent's quarantine. Its revoked tokens stay revoked.
#[derive(Args)]
#[command(after_help = "Example:\n  remit reinstate --as ops-admin --agent agent-deployer --note 'patched'")]
pub(super) struct Reinstate {
    /// The agent
    #[arg(long, value_name = "AGENT")]
    agent: String,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Reinstate {
    pub(super) async fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { agent, note, client } = self;
        let request = ReinstateRequest { agent: agent.clone(), note: note.unwrap_or_default() };
        let response = match client.decisions().await?.reinstate(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Refusal::from_status(&status)?.print(output),
        };
        let rows = vec![("state revision", response.state_revision.to_string())];
        let json = json!({"agent": agent, "state_revision": response.state_revision});
        Answer { title: Some(format!("reinstated {agent}")), rows, json }.print(output)?;
        Ok(Outcome::Done)
    }
}
