//! `remit introspect`: what is in this token, and is it still good?

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::client::ClientArgs;
use super::output::{self, Answer, Output};
use super::refusal::{Refusal, reason_name};
use super::{CliError, Outcome, token_source};
use crate::api::introspect_request::Target;
use crate::api::{IntrospectRequest, IntrospectResponse};

/// Ask the service what is in a token, and whether it is still good. Spends nothing.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit introspect --as agent-deployer --token-file token\n\nThe exit status is 1 if the token is not active."
)]
pub(super) struct Introspect {
    /// The token's file, `-` for standard input [default: `REMIT_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token's id
    #[arg(long, value_name = "ID", conflicts_with = "token_file")]
    token_id: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Introspect {
    pub(super) async fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { token_file, token_id, client } = self;
        let target = match token_id {
            Some(id) => Target::TokenId(id),
            None => Target::Token(token_source::required(token_file.as_deref())?.to_string()),
        };
        let request = IntrospectRequest { target: Some(target) };
        let response = match client.decisions().await?.introspect(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Refusal::from_status(&status)?.print(output),
        };
        let title = if response.active {
            "active".to_owned()
        } else {
            format!("not active  {}  {}", reason_name(response.reason), response.message)
        };
        Answer { title: Some(title), rows: rows(&response), json: as_json(&response) }.print(output)?;
        Ok(if response.active { Outcome::Done } else { Outcome::Denied })
    }
}

fn rows(response: &IntrospectResponse) -> Vec<(&'static str, String)> {
    if response.delegation_chain.is_empty() {
        return Vec::new();
    }
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let max_depth = if response.max_depth == 0 { String::new() } else { response.max_depth.to_string() };
    vec![
        ("chain", output::chain(&response.delegation_chain)),
        ("capabilities", response.capabilities.join(", ")),
        ("resources", response.resources.join(", ")),
        ("uses left", format!("{} of {}", response.remaining_uses, response.max_uses)),
        ("issued", output::moment(response.issued_at.as_ref())),
        ("expires", output::moment(response.expires_at.as_ref())),
        ("delegatable", yes(response.delegatable)),
        ("max depth", max_depth),
        ("audience", response.audience.join(", ")),
        ("on behalf of", response.on_behalf_of.clone()),
        ("task", response.task.clone()),
        ("root capabilities", response.root_capabilities.join(", ")),
        ("other issuer", if response.foreign { yes(true) } else { String::new() }),
        ("token id", response.token_id.clone()),
        ("root id", response.root_id.clone()),
    ]
}

fn as_json(response: &IntrospectResponse) -> Value {
    json!({
        "active": response.active,
        "reason": reason_name(response.reason),
        "message": response.message,
        "token_id": response.token_id,
        "issuer": response.issuer,
        "holder": response.holder,
        "capabilities": response.capabilities,
        "resources": response.resources,
        "max_uses": response.max_uses,
        "remaining_uses": response.remaining_uses,
        "issued_at": output::json_moment(response.issued_at.as_ref()),
        "expires_at": output::json_moment(response.expires_at.as_ref()),
        "delegatable": response.delegatable,
        "delegation_chain": response.delegation_chain,
        "depth": response.depth,
        "max_depth": response.max_depth,
        "root_id": response.root_id,
        "ancestor_ids": response.ancestor_ids,
        "audience": response.audience,
        "on_behalf_of": response.on_behalf_of,
        "task": response.task,
        "root_capabilities": response.root_capabilities,
        "foreign": response.foreign,
    })
}
