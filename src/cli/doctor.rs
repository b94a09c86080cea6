//! `remit doctor`: is this proxy's configuration good?

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{self, Output};
use super::{CliError, Outcome};
use crate::doctor::{Finding, examine_all};

/// Read a proxy's configuration, and name the settings that would open a hole.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit doctor --envoy envoy.yaml\n  remit doctor --envoy mesh.yaml objects.yaml\n\nIt reads Envoy's files and Istio's objects; several files are judged together. With a fatal finding the exit status is 1."
)]
pub(super) struct Doctor {
    /// Envoy's configuration, or Istio's objects, in YAML or JSON
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    envoy: Vec<PathBuf>,
}

impl Doctor {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let read = |file: &PathBuf| {
            let text = std::fs::read_to_string(file).map_err(|error| CliError::new(file.display(), error))?;
            Ok((file.display().to_string(), text))
        };
        let files = self.envoy.iter().map(read).collect::<Result<Vec<_>, CliError>>()?;
        let findings = examine_all(&files).map_err(|error| CliError(error.to_string()))?;
        let fatal = findings.iter().filter(|finding| finding.is_fatal).count();
        match output {
            Output::Json => output::say(&json!({ "fatal": fatal, "findings": list(&findings) }).to_string())?,
            Output::Text => output::say(&report(&findings))?,
        }
        Ok(if fatal > 0 { Outcome::Denied } else { Outcome::Done })
    }
}

fn list(findings: &[Finding]) -> Vec<serde_json::Value> {
    let one = |finding: &Finding| {
        let Finding { is_fatal, place, what, fix } = finding;
        json!({ "fatal": is_fatal, "place": place, "what": what, "fix": fix })
    };
    findings.iter().map(one).collect()
}

fn report(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found".to_owned();
    }
    let one = |finding: &Finding| {
        let Finding { is_fatal, place, what, fix } = finding;
        let kind = if *is_fatal { "fatal" } else { "warning" };
        format!("{kind}: {what}\n  at   {place}\n  fix  {fix}")
    };
    findings.iter().map(one).collect::<Vec<_>>().join("\n")
}
