//! `remit delegate`: hand a part of one's authority to another agent.

use std::path::{Path, PathBuf};

use clap::Args;
use prost_types::Duration;
use serde_json::json;

use super::client::ClientArgs;
use super::output::{self, Answer, Output};
use super::refusal::Refusal;
use super::{CliError, Outcome, token_source};
use crate::api::{DelegateRequest, DelegateResponse};
use crate::dev_folder::private_file;

/// Hand a part of one's authority to another agent, as a token for exactly that part.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit delegate --as agent-coordinator --to agent-deployer --capability kubectl_get --resource 'prod/*' --out token\n\nThe parent token comes from --parent-file (`-`: standard input) or REMIT_TOKEN; without one a chain is started."
)]
pub(super) struct Delegate {
    /// The agent that gets the token
    #[arg(long, value_name = "AGENT")]
    to: String,
    /// A capability that it gets; may be repeated
    #[arg(long = "capability", value_name = "NAME", required = true)]
    capabilities: Vec<String>,
    /// A resource, or a pattern ending in `*`, that it gets them on; may be repeated
    #[arg(long = "resource", value_name = "PATTERN", required = true)]
    resources: Vec<String>,
    /// How often the token may be used [default: the policy's]
    #[arg(long, value_name = "N")]
    uses: Option<u64>,
    /// How long it lives, e.g. 60s, 5m or 1h [default: the policy's, or what the parent has left]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    ttl: Option<i64>,
    /// Its holder may delegate from it
    #[arg(long)]
    delegatable: bool,
    /// An enforcement point or destination at which alone it may be used; may be repeated
    #[arg(long, value_name = "AGENT")]
    audience: Vec<String>,
    /// The greatest depth of any token below it, in hops from the root
    #[arg(long, value_name = "N")]
    max_depth: Option<u64>,
    /// An id of the task, for the audit log
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// The file of the token to delegate from, `-` for standard input [default: `REMIT_TOKEN`]
    #[arg(long, value_name = "FILE")]
    parent_file: Option<PathBuf>,
    /// Write the token to this file, for its owner alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the token and nothing else
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Whole seconds in `60`, `60s`, `5m` or `1h`.
fn seconds(text: &str) -> Result<i64, String> {
    let wrong = || "write whole seconds, minutes or hours: 60s, 5m, 1h".to_owned();
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    i64::from(number).checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

impl Delegate {
    pub(super) async fn run(self, output: Output) -> Result<Outcome, CliError> {
        let parent = token_source::token(self.parent_file.as_deref())?;
        let request = DelegateRequest {
            to_agent: self.to,
            capabilities: self.capabilities,
            resources: self.resources,
            parent_token: parent.map(|token| token.to_string()).unwrap_or_default(),
            max_uses: self.uses,
            ttl: self.ttl.map(|seconds| Duration { seconds, nanos: 0 }),
            max_depth: self.max_depth,
            delegatable: self.delegatable,
            audience: self.audience,
            obo_credential: None,
            task: self.task.unwrap_or_default(),
            request_id: String::new(),
        };
        let response = match self.client.decisions().await?.delegate(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                // Whoever redirects the token into a file must not find a refusal there.
                let output = if self.quiet { Output::Text } else { output };
                return Refusal::from_status(&status)?.print(output);
            }
        };
        if let Some(path) = &self.out {
            private_file::replace(path, &response.token)
                .map_err(|error| CliError::new(format!("{} can't be written", path.display()), error))?;
        }
        match (self.quiet, &self.out) {
            (true, Some(_)) => {}
            (true, None) => output::say(&response.token)?,
            (false, out) => answer(&response, out.as_deref()).print(output)?,
        }
        Ok(Outcome::Done)
    }
}

fn answer(response: &DelegateResponse, out: Option<&Path>) -> Answer {
    let parent_left = response.parent_remaining_uses.map(|left| left.to_string()).unwrap_or_default();
    let token = out.map_or_else(|| response.token.clone(), |path| format!("in {}", path.display()));
    let rows = vec![
        ("chain", output::chain(&response.delegation_chain)),
        ("capabilities", response.capabilities.join(", ")),
        ("resources", response.resources.join(", ")),
        ("uses", response.max_uses.to_string()),
        ("parent's uses left", parent_left),
        ("expires", output::moment(response.expires_at.as_ref())),
        ("token id", response.token_id.clone()),
        ("token", token),
    ];
    let mut json = json!({
        "token_id": response.token_id,
        "expires_at": output::json_moment(response.expires_at.as_ref()),
        "delegation_chain": response.delegation_chain,
        "depth": response.depth,
        "capabilities": response.capabilities,
        "resources": response.resources,
        "max_uses": response.max_uses,
        "parent_remaining_uses": response.parent_remaining_uses,
        "decision_id": response.decision_id,
        "policy_revision": response.policy_revision,
        "policy_digest": response.policy_digest,
    });
    let (key, value) = match out {
        None => ("token", response.token.clone()),
        Some(path) => ("token_file", path.display().to_string()),
    };
    if let Some(object) = json.as_object_mut() {
        object.insert(key.to_owned(), value.into());
    }
    Answer { title: Some("delegated".to_owned()), rows, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_whole_seconds() {
        for (text, wanted) in [("60", 60), ("60s", 60), ("5m", 300), ("1h", 3600)] {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        for bad in ["", "s", "0s", "-1s", "1.5s", "1d", "1ms", "1 h", "99999999999s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
