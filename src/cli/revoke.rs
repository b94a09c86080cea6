//! `remit revoke`: this is over.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::json;

use super::client::ClientArgs;
use super::output::{self, Answer, Output};
use super::refusal::Refusal;
use super::{CliError, Outcome, token_source};
use crate::api::RevokeRequest;
use crate::api::revoke_request::Target;

/// End a token with its descendants, an agent's tokens, or every token minted up to now.
#[derive(Args)]
#[command(
    group = ArgGroup::new("target").args(["token_file", "token_id", "agent", "all"]),
    after_help = "Example:\n  remit revoke --as ops-admin --agent agent-deployer --quarantine --note 'prompt injection'\n\nWithout a target, the token in REMIT_TOKEN is ended."
)]
pub(super) struct Revoke {
    /// The token in this file (`-`: standard input), and all below it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token with this id, and all below it
    #[arg(long, value_name = "ID")]
    token_id: Option<String>,
    /// Every token with this agent anywhere in its chain
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Every token minted up to now
    #[arg(long)]
    all: bool,
    /// With --agent: and nothing more for it until `remit reinstate`
    #[arg(long, requires = "agent", conflicts_with_all = ["token_file", "token_id", "all"])]
    quarantine: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Revoke {
    pub(super) async fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { token_file, token_id, agent, all, quarantine, note, client } = self;
        let (target, what) = match (token_id, agent, all) {
            (Some(id), _, _) => (Target::TokenId(id), "the token and all below it".to_owned()),
            (None, Some(agent), _) => {
                let what = format!("every token with {agent} in its chain");
                (Target::Agent(agent), what)
            }
            (None, None, true) => (Target::All(true), "every token minted up to now".to_owned()),
            (None, None, false) => {
                let token = token_source::required(token_file.as_deref())?;
                (Target::Token(token.to_string()), "the token and all below it".to_owned())
            }
        };
        let request = RevokeRequest { target: Some(target), quarantine, note: note.unwrap_or_default() };
        let response = match client.decisions().await?.revoke(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Refusal::from_status(&status)?.print(output),
        };
        let and = if quarantine { ", and the agent is quarantined" } else { "" };
        let rows = vec![
            ("at", output::moment(response.revoked_at.as_ref())),
            ("state revision", response.state_revision.to_string()),
        ];
        let json = json!({
            "revoked_at": output::json_moment(response.revoked_at.as_ref()),
            "state_revision": response.state_revision,
        });
        Answer { title: Some(format!("revoked {what}{and}")), rows, json }.print(output)?;
        Ok(Outcome::Done)
    }
}
