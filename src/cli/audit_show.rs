//! `remit audit show`: what did this agent do, and what became of this token?

use std::path::PathBuf;

use clap::Args;

use super::output::{self, Output};
use super::{CliError, Outcome};
use crate::audit::{Ask, Line, ShowError, show};

/// Show the events of audit files, one line each: of an agent, of a token's whole chain, within a time.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit audit show audit.jsonl* --agent agent-deployer --since 2026-11-21T21:00:00Z --until 2026-11-21T22:00:00Z\n  remit audit show audit.jsonl* --chain 5f1c0f6f5f9a4d0c8a52a6a0b1e4a7d3\n\nGive the current file and those that it was renamed to, in any order. With --output json the lines are those of the\nfiles. `remit audit verify` tells whether they are what was written."
)]
pub(super) struct Show {
    /// The audit files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Only events in which this agent acts, asks, is acted on, is aimed at or is in the chain
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Only events of this token, of those that it was made from and of those that were made from it
    #[arg(long, value_name = "TOKEN_ID", value_parser = token_id)]
    chain: Option<String>,
    /// Only events from this time on, such as 2026-11-21T21:51:43Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
}

impl Show {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { files, agent, chain, since, until } = self;
        let ask = Ask { agent, token: chain, since, until };
        let shown = show(files, &ask, |line, text| match output {
            Output::Json => output::say(text),
            Output::Text => output::say(&row(line)),
        });
        let shown = shown.map_err(|error| match error {
            ShowError::Unread(unread) => CliError(unread.to_string()),
            ShowError::TooManyTokens(many) => CliError(many.to_string()),
            ShowError::Taker(error) => error,
        })?;
        if shown.others > 0 {
            output::complain(&format!("warning: {} lines are no events: see `remit audit verify`", shown.others));
        }
        if shown.events == 0 {
            output::complain("no event is of this kind");
        }
        Ok(Outcome::Done)
    }
}

fn token_id(text: &str) -> Result<String, String> {
    let is_one = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_one { Ok(text.to_owned()) } else { Err("a token's id has 32 hexadecimal digits, in lower case".to_owned()) }
}

/// As it stands in a line: in UTC, and in whole seconds.
fn moment(text: &str) -> Result<String, String> {
    let at = text.parse::<jiff::Timestamp>().map_err(|_| "write a time such as 2026-11-21T21:51:43Z".to_owned())?;
    jiff::Timestamp::from_second(at.as_second()).map(|at| at.to_string()).map_err(|error| error.to_string())
}

fn row(line: &Line<'_>) -> String {
    let who = match line.delegation_chain.as_slice() {
        [] => line.from_agent.to_string(),
        chain => chain.join(" > "),
    };
    let what = [line.capabilities_used.join(","), line.resource.to_string(), line.target.to_string()];
    let what = what.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let to = if line.to_agent.is_empty() { String::new() } else { format!("  to {}", line.to_agent) };
    let token = if line.token_id.is_empty() { String::new() } else { format!("  token {}", line.token_id) };
    let mut row = format!(
        "{}  #{:<5} {:<8}  {:<18}  {who}{to}  {what}{token}",
        line.timestamp, line.sequence, line.result, line.message_type
    );
    if line.result != "accepted" {
        row = format!("{}  {}  {}", row.trim_end(), line.reason, line.message);
    }
    if line.dry_run {
        row.push_str("  (dry run)");
    }
    if line.repeated > 0 {
        row = format!("{row}  (and {} more like it)", line.repeated);
    }
    // The files are only believed: a name in them must not move a terminal's cursor.
    row.trim_end().replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_row_and_harmless() {
        let text = r#"{"timestamp":"2026-11-21T21:51:43Z","from_agent":"b","to_agent":"gate","message_type":"delegate",
            "delegation_chain":["a","b"],"capabilities_used":["read"],"token_id":"t1","result":"denied","sequence":7,
            "reason":"TOKEN_EXPIRED","message":"ask \u001b[2Jagain","resource":"/x","target":"t0","repeated":2}"#;
        let line: Line<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(
            row(&line),
            "2026-11-21T21:51:43Z  #7     denied    delegate            a > b  to gate  read /x t0  token t1  TOKEN_EXPIRED  ask \u{fffd}[2Jagain  (and 2 more like it)"
        );
    }

    #[test]
    fn times_are_read_from_any_zone_and_ids_from_none_but_hex() {
        assert_eq!(moment("2026-11-21T23:51:43.5+02:00"), Ok("2026-11-21T21:51:43Z".to_owned()));
        assert!(moment("yesterday").is_err());
        assert!(token_id(&"ab".repeat(16)).is_ok() && token_id(&"AB".repeat(16)).is_err() && token_id("ab").is_err());
    }
}
