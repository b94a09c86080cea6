//! `remit policy check`: is this policy file good, and what does it amount to?

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{self, Output};
use super::{CliError, Outcome};
use crate::config::process;
use crate::digest::sha256_hex;
use crate::policy_file::{Compiled, ExtraRoles, LoadError, PolicyError, PolicyFile, summary};

/// Check a policy file, and say what it amounts to.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit policy check policy.json\n\nErrors and warnings are shown at their places; with an error the exit status is 1."
)]
pub(super) struct Check {
    /// The policy file
    file: PathBuf,
}

impl Check {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        match PolicyFile::new(self.file, ExtraRoles::default(), sha256_hex).load(1) {
            Ok(compiled) => good(&compiled, output),
            Err(LoadError::Policy(error)) => bad(&error, output),
            Err(LoadError::Read(error)) => Err(CliError(error.to_string())),
        }
    }
}

fn good(compiled: &Compiled, output: Output) -> Result<Outcome, CliError> {
    let summary = summary(&compiled.policy);
    match output {
        Output::Json => {
            let answer = json!({"valid": true, "errors": [], "warnings": compiled.warnings, "summary": summary});
            output::say(&answer.to_string())?;
        }
        Output::Text => {
            for warning in &compiled.warnings {
                output::complain(&format!("{}\n", warning.render(colors())));
            }
            output::say(&summary.to_string())?;
        }
    }
    Ok(Outcome::Done)
}

fn bad(error: &PolicyError, output: Output) -> Result<Outcome, CliError> {
    match output {
        Output::Json => {
            let answer = json!({"valid": false, "errors": error.errors(), "error_count": error.count()});
            output::say(&answer.to_string())?;
        }
        Output::Text => output::complain(&error.render(colors())),
    }
    Ok(Outcome::Denied)
}

fn colors() -> bool {
    std::io::stderr().is_terminal() && !process::wants_no_color()
}
