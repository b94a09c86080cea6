//! Where tokens come from: a file, standard input, `REMIT_TOKEN`. Never an argument, which others could read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::CliError;
use crate::config::process;

/// Far more than a token has, in bytes; what has more is no token.
const MOST: u64 = 64 * 1024;

/// The token in this file (`-`: standard input), else in `REMIT_TOKEN`, if there is one.
///
/// # Errors
/// The file can't be read, or has no token in it.
pub(super) fn token(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, CliError> {
    let text = match file {
        Some(path) if path == Path::new("-") => read(io::stdin().lock(), "standard input")?,
        Some(path) => {
            let name = format!("the token file {}", path.display());
            let file = File::open(path).map_err(|error| CliError::new(format!("{name} can't be read"), error))?;
            read(file, &name)?
        }
        None => match process::token()? {
            Some(text) => text,
            None => return Ok(None),
        },
    };
    Ok(Some(Zeroizing::new(text.trim().to_owned())))
}

/// The token that a command can't do without.
///
/// # Errors
/// As [`token`], and there is none.
pub(super) fn required(file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    let missing = || {
        CliError(
            "there is no token: name its file with --token-file (`-`: standard input), or set REMIT_TOKEN".to_owned(),
        )
    };
    token(file)?.ok_or_else(missing)
}

fn read(from: impl Read, name: &str) -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    let read = from
        .take(MOST)
        .read_to_string(&mut text)
        .map_err(|error| CliError::new(format!("{name} can't be read"), error))?;
    if u64::try_from(read).is_ok_and(|read| read >= MOST) {
        return Err(CliError::new(name, "it is too long to be a token"));
    }
    if text.trim().is_empty() {
        return Err(CliError::new(name, "it has no token in it"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_has_one_token_and_nothing_else_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "abc.def\n").unwrap();
        assert_eq!(token(Some(&path)).unwrap().unwrap().as_str(), "abc.def");
        std::fs::write(&path, " \n").unwrap();
        assert!(token(Some(&path)).unwrap_err().to_string().contains("no token in it"));
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        let error = token(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("too long") && !error.contains("xx"), "{error}");
        assert!(token(Some(&folder.path().join("none"))).unwrap_err().to_string().contains("can't be read"));
    }
}
