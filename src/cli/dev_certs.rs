//! `remit dev-certs`: certificates for trying things out.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{Answer, Output};
use super::{CliError, Outcome};
use crate::dev_folder::Certificates;
use crate::domain::agent::AgentName;
use crate::engine::clock::Clock;

/// Make a CA, a server's certificate for localhost, and agents' certificates. Not for production.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit dev-certs --dir certs --agent agent-coordinator --agent agent-deployer\n\nIt makes ca.pem, ca.key, server.pem, server.key, and agents/AGENT.pem and .key with the agent's SPIFFE ID\nspiffe://cluster.local/ns/ai-agents/sa/AGENT-sa, good for 90 days. What is there and good for another day is kept."
)]
pub(super) struct DevCerts {
    /// The folder to put them in
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// An agent that gets a certificate; may be repeated
    #[arg(long = "agent", value_name = "AGENT", value_parser = agent)]
    agents: Vec<AgentName>,
}

fn agent(text: &str) -> Result<AgentName, String> {
    AgentName::parse(text).map_err(|error| error.to_string())
}

impl DevCerts {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { dir, agents } = self;
        let failed = |error| CliError::new("the certificates can't be made", error);
        std::fs::create_dir_all(&dir).map_err(|error| CliError::new(dir.display(), error))?;
        let certificates = Certificates::open(&dir, Clock::system().now()).map_err(failed)?;
        certificates.server().map_err(failed)?;
        for agent in &agents {
            if !certificates.agent(agent).map_err(failed)? {
                return Err(CliError(format!(
                    "{agent} can't be part of a SPIFFE ID: use letters, digits, `.`, `-` and `_`"
                )));
            }
        }
        let names: Vec<&str> = agents.iter().map(AgentName::as_str).collect();
        let rows = vec![("CA", "ca.pem".to_owned()), ("server", "server.pem".to_owned()), ("agents", names.join(", "))];
        let title = Some(format!("{} has, not for production:", dir.display()));
        Answer { title, rows, json: json!({"dir": dir.display().to_string(), "agents": names}) }.print(output)?;
        Ok(Outcome::Done)
    }
}
