//! Finding again what an earlier process left, or saying why not and how to go on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::REVOCATIONS;
use super::closed::closed;
use super::error::StateError;
use super::frame::{self, Damage, End, Kind};
use super::medium::sync_folder;
use super::pairing::{Fit, fit};
use crate::state::recovered::{Register, Tokens};

/// Makes the directory if only it is missing, and locks it.
pub(super) fn lock(folder: &Path) -> Result<File, StateError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_folder(above).map_err(|error| StateError::Io(above.to_owned(), error))?;
            tracing::info!(target: "state", folder = %folder.display(), "a new state directory");
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StateError::Io(folder.to_owned(), error)),
    }
    let metadata = std::fs::metadata(folder).map_err(|error| StateError::Io(folder.to_owned(), error))?;
    closed(folder, &metadata)?;
    let path = folder.join("lock");
    let failed = |error| StateError::Io(path.clone(), error);
    // The directory itself is locked: nobody unlocks it by removing a file.
    let directory = File::open(folder).map_err(|error| StateError::Io(folder.to_owned(), error))?;
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    closed(&path, &file.metadata().map_err(failed)?)?;
    if let Err(error) = flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(error.into()));
        }
        let mut owner = String::new();
        let _ = file.take(32).read_to_string(&mut owner);
        let owner = owner.trim().parse::<u32>().map(|number| format!(" (number {number})")).unwrap_or_default();
        return Err(StateError::Locked(folder.to_owned(), owner));
    }
    // For people; the directory's lock alone counts.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(directory)
}

/// The revocations that were left; none if there is no such file.
pub(super) fn register(path: &Path) -> Result<Option<Register>, StateError> {
    let mut register = Register::default();
    if !fold(path, Kind::Register, |frame| register.apply(frame))? {
        return Ok(None);
    }
    if register.is_whole { Ok(Some(register)) } else { Err(StateError::Damaged(path.to_owned(), 0)) }
}

/// The ledger that was left; none if there is no such file.
pub(super) fn tokens(path: &Path, register: Option<&Register>) -> Result<Option<Tokens>, StateError> {
    let mut tokens = Tokens::default();
    if !fold(path, Kind::Ledger, |frame| tokens.apply(frame))? {
        return Ok(None);
    }
    if !tokens.is_whole || tokens.snapshot.is_none() {
        return Err(StateError::Damaged(path.to_owned(), 0));
    }
    match fit(register, &tokens) {
        Fit::Together => Ok(Some(tokens)),
        Fit::UsedUp => {
            tracing::warn!(
                target: "state",
                file = %path.display(),
                "an earlier start used this ledger up: it is left out, and every live token ends"
            );
            Ok(None)
        }
        Fit::RegisterBehind => Err(StateError::Behind(path.with_file_name(REVOCATIONS))),
        Fit::LedgerBehind => Err(StateError::Older(path.to_owned())),
    }
}

/// Hands over each frame of a file; whether there is such a file.
fn fold(path: &Path, kind: Kind, each: impl FnMut(&[u8]) -> bool) -> Result<bool, StateError> {
    let failed = |error| StateError::Io(path.to_owned(), error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    closed(path, &file.metadata().map_err(failed)?)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    match frame::read(&bytes, kind, each) {
        Ok(End::Whole) => Ok(true),
        Ok(End::Torn(bytes)) => {
            tracing::warn!(
                target: "state",
                file = %path.display(),
                bytes,
                "the last write was never finished, and nobody was answered: it is left out"
            );
            Ok(true)
        }
        Err(Damage::NotOurs) => Err(StateError::NotOurs(path.to_owned())),
        Err(Damage::Version(version)) => Err(StateError::Version(path.to_owned(), version)),
        Err(Damage::At(at)) => Err(StateError::Damaged(path.to_owned(), at)),
    }
}
