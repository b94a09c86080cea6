//! What commands print: answers on standard output, everything else on standard error.

use std::io::{self, Write as _};

use serde_json::Value;

use super::CliError;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}

/// An answer in both forms.
pub(super) struct Answer {
    /// The first line, if the rows don't speak for themselves.
    pub(super) title: Option<String>,
    /// Names and values; a row without a value is not shown.
    pub(super) rows: Vec<(&'static str, String)>,
    /// The same, and everything else, for programs.
    pub(super) json: Value,
}

impl Answer {
    /// Prints it in the wanted form.
    pub(super) fn print(&self, output: Output) -> Result<(), CliError> {
        match output {
            Output::Json => say(&self.json.to_string()),
            Output::Text => say(&self.text()),
        }
    }

    fn text(&self) -> String {
        let shown: Vec<_> = self.rows.iter().filter(|(_, value)| !value.is_empty()).collect();
        let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let indent = if self.title.is_some() { "  " } else { "" };
        let rows = shown.iter().map(|(name, value)| format!("{indent}{name:width$}  {value}"));
        self.title.iter().cloned().chain(rows).collect::<Vec<_>>().join("\n")
    }
}

/// A line, or several, on standard output.
pub(super) fn say(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // As in `remit watch | head`: whoever read has enough.
            return CliError::unspoken();
        }
        CliError::new("can't write the answer", error)
    })
}

/// A line, or several, on standard error. Nobody can be told that nobody listens.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// From the first agent to the last.
pub(super) fn chain(agents: &[String]) -> String {
    agents.join(" > ")
}

/// `2026-11-21T21:51:43Z`; nothing for none.
pub(super) fn moment(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(|at| jiff::Timestamp::from_second(at.seconds).ok()).map(|at| at.to_string()).unwrap_or_default()
}

/// A moment's text, or `null`.
pub(super) fn json_moment(at: Option<&prost_types::Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(moment(Some(at))))
}

/// Which policy answered.
pub(super) fn policy(revision: u64, digest: &str) -> String {
    format!("revision {revision}, sha256 {}", digest.get(..12).unwrap_or(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_columns_and_empty_ones_nowhere() {
        let rows = vec![("a", "1".to_owned()), ("none", String::new()), ("long", "2".to_owned())];
        let answer = Answer { title: Some("title".to_owned()), rows, json: Value::Null };
        assert_eq!(answer.text(), "title\n  a     1\n  long  2");
    }

    #[test]
    fn moments_are_whole_seconds() {
        let at = prost_types::Timestamp { seconds: 1_780_000_000, nanos: 5 };
        assert_eq!(moment(Some(&at)), "2026-05-28T20:26:40Z");
        assert_eq!(json_moment(None), Value::Null);
    }
}
