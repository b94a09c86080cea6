//! `remit api-key new`: a new API key, and the line that makes it known.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{Answer, Output};
use super::{CliError, Outcome, keygen};
use crate::dev_folder::private_file;
use crate::domain::agent::AgentName;
use crate::identity::api_key::{is_key_id, line_for, new_key};

/// Make an API key. It is shown once; the service knows it by the line that is shown beside it.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit api-key new --id ci-1 --agent svc-ci --out svc-ci.key\n\nPut the line in the file that [identity] api_keys_file names: it takes effect within seconds. A line that is removed\nends its key."
)]
pub(super) struct New {
    /// A name for the key, in the audit log and for taking it back
    #[arg(long, value_name = "ID", value_parser = id)]
    id: String,
    /// The agent whose key it is
    #[arg(long, value_name = "AGENT", value_parser = agent)]
    agent: AgentName,
    /// Write the key to this new file, for its owner alone [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn id(text: &str) -> Result<String, String> {
    let wrong = || "an id has 1 to 128 printable ASCII characters without space and #".to_owned();
    is_key_id(text).then(|| text.to_owned()).ok_or_else(wrong)
}

fn agent(text: &str) -> Result<AgentName, String> {
    AgentName::parse(text).map_err(|error| error.to_string())
}

impl New {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let Self { id, agent, out } = self;
        let key = new_key(&keygen::new_key());
        let line = line_for(&id, &agent, &key);
        let (shown, file) = match &out {
            None => (Some(key.to_string()), None),
            Some(path) => {
                private_file::create(path, &key).map_err(|error| unwritten(path, &error))?;
                (None, Some(path.display().to_string()))
            }
        };
        let rows = vec![
            ("key", shown.clone().unwrap_or_default()),
            ("file", file.clone().unwrap_or_default()),
            ("line", line.clone()),
        ];
        let json = json!({"id": id, "agent": agent.as_str(), "key": shown, "file": file, "line": line});
        Answer { title: None, rows, json }.print(output)?;
        Ok(Outcome::Done)
    }
}

fn unwritten(path: &std::path::Path, error: &std::io::Error) -> CliError {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return CliError(format!("{} is there and stays as it is: name another file", path.display()));
    }
    CliError::new(format!("{} can't be written", path.display()), error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::identity::api_key::ApiKeys;

    #[test]
    fn the_line_makes_the_key_known_and_only_the_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ci.key");
        let new = || New { id: "ci-1".to_owned(), agent: AgentName::parse("svc-ci").unwrap(), out: Some(path.clone()) };
        assert_eq!(new().run(Output::Text).unwrap(), Outcome::Done);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let key = std::fs::read_to_string(&path).unwrap();
        let digests = folder.path().join("digests");
        let line = line_for("ci-1", &new().agent, key.trim_end());
        std::fs::write(&digests, &line).unwrap();
        let found = ApiKeys::read(digests).unwrap().find(key.trim_end()).unwrap();
        assert_eq!((found.id.as_ref(), found.agent.as_str()), ("ci-1", "svc-ci"));
        assert!(!line.contains(key.trim_end()));
        let error = new().run(Output::Text).unwrap_err().to_string();
        assert!(error.contains("stays as it is"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), key);
    }

    #[test]
    fn ids_are_one_word_without_comment() {
        for bad in ["", "a b", "a#b", "\u{e9}", &"x".repeat(129)] {
            assert!(id(bad).is_err(), "{bad}");
        }
        assert!(id("ci-1").is_ok());
    }
}
