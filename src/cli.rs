//! The command line: one file a command.
//!
//! Every command answers in text for people or in JSON for programs, and ends with 0 if it was done or allowed, 1 if
//! it was denied or a check failed, 2 if it was called wrongly or something broke. A token comes from a file, from
//! standard input or from `REMIT_TOKEN`, and never stands in an argument or an error.

mod agent_card;
mod api_key;
mod audit_show;
mod audit_verify;
mod authorize;
mod client;
mod delegate;
mod dev_certs;
mod doctor;
mod introspect;
mod keygen;
mod output;
mod policy_check;
mod policy_istio;
mod refusal;
mod reinstate;
mod revoke;
mod serve;
mod status;
mod token_inspect;
mod token_source;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Output;

/// A policy decision point for systems of AI agents: authorize, delegate, revoke.
#[derive(Parser)]
#[command(
    name = "remit",
    version,
    after_help = "To try it out:\n  remit serve --dev\n\nExit status: 0 allowed or done, 1 denied or a failed check, 2 wrong usage or an error."
)]
struct Cli {
    /// Answer in text for people or in JSON for programs.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, value_name = "FORM")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Keygen(keygen::Keygen),
    DevCerts(dev_certs::DevCerts),
    /// Make API keys.
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Look at policy files.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look at tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at audit logs.
    #[command(subcommand)]
    Audit(AuditCommand),
    AgentCard(agent_card::AgentCard),
    Authorize(authorize::Authorize),
    Delegate(delegate::Delegate),
    Revoke(revoke::Revoke),
    Reinstate(reinstate::Reinstate),
    Introspect(introspect::Introspect),
    Watch(watch::Watch),
    Status(status::Status),
    Doctor(doctor::Doctor),
}

#[derive(Subcommand)]
enum ApiKeyCommand {
    New(api_key::New),
}

#[derive(Subcommand)]
enum PolicyCommand {
    Check(policy_check::Check),
    ExportIstio(policy_istio::Export),
    ImportIstio(policy_istio::Import),
}

#[derive(Subcommand)]
enum TokenCommand {
    Inspect(token_inspect::Inspect),
}

#[derive(Subcommand)]
enum AuditCommand {
    Verify(audit_verify::Verify),
    Show(audit_show::Show),
}

/// How a command ended that was not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Allowed, or done.
    Done,
    /// Denied, or a check failed.
    Denied,
}

/// Why a command could not do its work. Never has a token in it.
#[derive(Debug)]
struct CliError(String);

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl CliError {
    fn new(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }

    /// An error that nobody wants to read about.
    fn unspoken() -> Self {
        Self(String::new())
    }
}

/// Runs the command that these arguments name; the first argument is the program's own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nobody can be told that nobody listens.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match cli.command.run(cli.output) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Denied) => ExitCode::from(1),
        Err(error) => {
            if !error.0.is_empty() {
                output::complain(&format!("error: {error}"));
            }
            ExitCode::from(2)
        }
    }
}

impl Command {
    fn run(self, output: Output) -> Result<Outcome, CliError> {
        match self {
            Self::Serve(command) => command.run(),
            Self::Keygen(command) => command.run(output),
            Self::DevCerts(command) => command.run(output),
            Self::ApiKey(ApiKeyCommand::New(command)) => command.run(output),
            Self::Policy(PolicyCommand::Check(command)) => command.run(output),
            Self::Policy(PolicyCommand::ExportIstio(command)) => command.run(output),
            Self::Policy(PolicyCommand::ImportIstio(command)) => command.run(output),
            Self::Token(TokenCommand::Inspect(command)) => command.run(output),
            Self::Audit(AuditCommand::Verify(command)) => command.run(output),
            Self::Audit(AuditCommand::Show(command)) => command.run(output),
            Self::AgentCard(command) => command.run(output),
            Self::Authorize(command) => client::wait(command.run(output)),
            Self::Delegate(command) => client::wait(command.run(output)),
            Self::Revoke(command) => client::wait(command.run(output)),
            Self::Reinstate(command) => client::wait(command.run(output)),
            Self::Introspect(command) => client::wait(command.run(output)),
            Self::Watch(command) => client::wait(command.run(output)),
            Self::Status(command) => client::wait(command.run(output)),
            Self::Doctor(command) => command.run(output),
        }
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        output::complain(&format!("warning: {warning}"));
    }
}

#[cfg(test)]
mod tests;
