//! `remit keygen`: a new HMAC key.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::output::{self, Answer, Output};
use super::{CliError, Outcome};
use crate::dev_folder::private_file;
use crate::domain::limits::KEY_BYTES;
use crate::engine::chance::Chance;

/// Make an HMAC key: 64 hexadecimal characters.
#[derive(Args)]
#[command(after_help = "Example:\n  remit keygen --out hmac.key")]
pub(super) struct Keygen {
    /// Write it to this new file, for its owner alone [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Keygen {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let key = new_key();
        let Some(path) = self.out else {
            output::say(&key)?;
            return Ok(Outcome::Done);
        };
        private_file::create(&path, &key).map_err(|error| {
            if error.kind() != std::io::ErrorKind::AlreadyExists {
                return CliError::new(format!("{} can't be written", path.display()), error);
            }
            let message = "is there and stays as it is: its tokens would be invalid without it; name another file";
            CliError(format!("{} {message}", path.display()))
        })?;
        let title = Some(format!("wrote {}, readable for its owner alone", path.display()));
        Answer { title, rows: Vec::new(), json: json!({"file": path.display().to_string()}) }.print(output)?;
        Ok(Outcome::Done)
    }
}

/// A key as it stands in a key file.
pub(super) fn new_key() -> Zeroizing<String> {
    let bytes = Zeroizing::new(Chance::system().bytes::<KEY_BYTES>());
    Zeroizing::new(faster_hex::hex_string(bytes.as_slice()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn makes_a_private_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hmac.key");
        let keygen = || Keygen { out: Some(path.clone()) };
        assert_eq!(keygen().run(Output::Text).unwrap(), Outcome::Done);
        let first = std::fs::read_to_string(&path).unwrap();
        assert_eq!(first.trim_end().len(), 64);
        assert!(first.trim_end().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = keygen().run(Output::Text).unwrap_err().to_string();
        assert!(error.contains("stays as it is") && !error.contains(first.trim_end()), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        assert_ne!(new_key(), new_key());
    }
}
