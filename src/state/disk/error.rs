//! Why a state directory can't be used, and how to go on.

use std::io;
use std::path::{Path, PathBuf};

use super::LEDGER;

/// Why there is no state to begin with, or none was left for the next start. The text says how to go on.
#[derive(Debug)]
pub enum StateError {
    /// A file or the directory can't be used.
    Io(PathBuf, io::Error),
    /// Others could write to the directory or a file in it.
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The number of its owner.
        owner: u32,
        /// The number of this process's user.
        user: u32,
    },
    /// Another process, by its number where it is known, has the directory.
    Locked(PathBuf, String),
    /// A file has bytes that nobody wrote, from this place on.
    Damaged(PathBuf, usize),
    /// A file is not one of Remit's.
    NotOurs(PathBuf),
    /// Another version of Remit wrote the file.
    Version(PathBuf, u8),
    /// The ledger knows of revocations that the other file doesn't have, or there is none.
    Behind(PathBuf),
    /// The other file knows of a newer ledger than this one.
    Older(PathBuf),
    /// What is in the file is not all of it, so that the ledger was not left for the next start.
    NotSaved(PathBuf, Option<String>),
    /// What is in the file of a journal is not all of it: what was answered with success is.
    NotWritten(PathBuf, Option<String>),
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{} can't be used: {error}", path.display()),
            Self::Exposed { path, mode, owner, user } => write!(
                f,
                "{} has mode {mode:04o} and is user {owner}'s, so that others than this user ({user}) could change it: chown it to this user and chmod o-w it, and g-w where its group is not this process's own; or name a folder inside it in [state] dir, which is made",
                path.display()
            ),
            Self::Locked(path, by) => write!(
                f,
                "{} is used by another process{by}: one process a state directory; give this one its own in [state] dir",
                path.display()
            ),
            Self::Damaged(path, at) => {
                write!(f, "{} is damaged at byte {at}, so nothing of it is believed; {}", path.display(), way_on(path))
            }
            Self::NotOurs(path) => {
                write!(f, "{} is not a file of Remit's, and is left alone; {}", path.display(), way_on(path))
            }
            Self::Version(path, version) => write!(
                f,
                "{} was written by another version of Remit (format {version}): start that one; or {}",
                path.display(),
                way_on(path)
            ),
            Self::Behind(path) => write!(
                f,
                "{} is missing or older than the ledger beside it, so revoked tokens could come back; put the newest one back; or {}",
                path.display(),
                way_on(path)
            ),
            Self::Older(path) => write!(
                f,
                "{} is not the newest ledger that was written here, so spent uses could come back; put the newest one back; or {}",
                path.display(),
                way_on(path)
            ),
            Self::NotSaved(path, why) => write!(
                f,
                "not everything could be written to {}{}: the next start ends every live token, and revocations that were not answered with success may be lost",
                path.display(),
                in_brackets(why.as_deref())
            ),
            Self::NotWritten(path, why) => write!(
                f,
                "not everything could be written to {}{}: live tokens stay, and revocations that were not answered with success may be lost",
                path.display(),
                in_brackets(why.as_deref())
            ),
        }
    }
}

impl std::error::Error for StateError {}

fn in_brackets(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

/// What is lost by going on without this file.
fn way_on(path: &Path) -> &'static str {
    if path.file_name().is_some_and(|name| name == LEDGER) {
        "to go on without it, remove it: every live token ends, and agents ask for new ones"
    } else {
        "to go on without it, remove it and the ledger beside it: every live token ends, and agents under quarantine are free unless the policy lists them in quarantined"
    }
}
