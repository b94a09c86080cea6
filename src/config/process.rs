//! What else of this process's surroundings somebody may want to know.

use std::ffi::OsStr;
use std::path::Path;

use zeroize::Zeroizing;

/// The token in `REMIT_TOKEN`, if there is one.
///
/// # Errors
/// It is not UTF-8.
pub fn token() -> Result<Option<Zeroizing<String>>, super::ConfigError> {
    let why = || "it is not UTF-8, and a token is ASCII".to_owned();
    match std::env::var("REMIT_TOKEN") {
        Ok(token) if token.trim().is_empty() => Ok(None),
        Ok(token) => Ok(Some(Zeroizing::new(token))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(super::ConfigError::Setting { place: "REMIT_TOKEN".to_owned(), why: why() })
        }
    }
}

/// Whether people asked programs not to colour their text (<https://no-color.org>).
#[must_use]
pub fn wants_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// How to call this program from a shell in the working directory: by its name where `PATH` leads to it, else by
/// the shortest path.
#[must_use]
pub fn program() -> String {
    let Ok(binary) = std::env::current_exe() else { return "remit".to_owned() };
    let folder = std::env::current_dir().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    call(&binary, &folder, &path)
}

fn call(binary: &Path, folder: &Path, path: &OsStr) -> String {
    let named = binary.file_name().unwrap_or_default();
    let first = std::env::split_paths(path).map(|folder| folder.join(named)).find(|candidate| candidate.is_file());
    if first.is_some_and(|first| first == binary) {
        return named.to_string_lossy().into_owned();
    }
    match binary.strip_prefix(folder) {
        Ok(below) => format!("./{}", below.display()),
        Err(_) => binary.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_the_program_by_what_a_shell_would_find() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for bin in [&first, &second] {
            std::fs::create_dir(bin).unwrap();
            std::fs::write(bin.join("remit"), "").unwrap();
        }
        let path = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(call(&first.join("remit"), folder.path(), &path), "remit");
        assert_eq!(call(&second.join("remit"), folder.path(), &path), "./b/remit", "another remit comes first");
        let elsewhere = second.join("remit");
        assert_eq!(call(&elsewhere, &first, OsStr::new("")), elsewhere.display().to_string());
    }
}
