//! A log: a snapshot of what is, then every change since. Begun fresh, never continued from an earlier process.

use std::io;

use super::frame::{Framing, Kind};
use super::medium::Medium;
use crate::state::change::Change;

/// How much of a snapshot is kept in memory before it is written, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Tells a snapshot, frame by frame.
pub(super) type Tell<'t> = &'t mut dyn FnMut(&[Change<'_>]);

/// Why a batch is not on the disk.
#[derive(Debug)]
pub(super) enum CommitError {
    /// There is no room, or no new file. What was written of it is taken back; it may be tried again.
    NoRoom(io::Error),
    /// Nobody knows what of it is on the disk: this file must not be written to again.
    Broken(io::Error),
}

impl CommitError {
    pub(super) fn into_inner(self) -> io::Error {
        match self {
            Self::NoRoom(error) | Self::Broken(error) => error,
        }
    }
}

/// An open log.
pub(super) struct Log<M: Medium> {
    medium: M,
    file: M::File,
    framing: Framing,
    length: u64,
    /// Its length when the snapshot was whole.
    fresh: u64,
    buffer: Vec<u8>,
}

impl<M: Medium> Log<M> {
    /// Writes a snapshot to a new file and syncs it. It is not in its place yet; where this fails, it is removed.
    pub(super) fn begin(
        medium: &M,
        kind: Kind,
        salt: u64,
        snapshot: impl FnOnce(Tell<'_>),
    ) -> Result<Self, CommitError> {
        // Nothing is written yet.
        let file = medium.begin().map_err(CommitError::NoRoom)?;
        Self::written(medium, file, (kind, salt), snapshot).map_err(|error| {
            medium.discard();
            if is_no_room(&error) { CommitError::NoRoom(error) } else { CommitError::Broken(error) }
        })
    }

    fn written(
        medium: &M,
        mut file: M::File,
        (kind, salt): (Kind, u64),
        snapshot: impl FnOnce(Tell<'_>),
    ) -> io::Result<Self> {
        let mut framing = Framing::new(salt);
        let mut buffer = framing.header(kind);
        let (mut payload, mut length, mut failed) = (Vec::new(), 0_u64, None);
        snapshot(&mut |changes| {
            if failed.is_some() {
                return;
            }
            encode(changes, &mut payload);
            framing.frame(&payload, &mut buffer);
            if buffer.len() >= CHUNK_BYTES {
                failed = medium.write(&mut file, &buffer).err();
                length = length.saturating_add(size(&buffer));
                buffer.clear();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        medium.write(&mut file, &buffer)?;
        length = length.saturating_add(size(&buffer));
        buffer.clear();
        medium.sync(&mut file)?;
        Ok(Self { medium: medium.clone(), file, framing, length, fresh: length, buffer })
    }

    /// Puts the file in its place; where it doesn't come there, it is removed.
    pub(super) fn put_in_place(&self) -> io::Result<()> {
        self.medium.put_in_place().inspect_err(|_| self.medium.discard())
    }

    /// A file that is not wanted and not in its place takes no room.
    pub(super) fn discard(self) {
        let Self { medium, file, .. } = self;
        // The room is free when nobody has it open.
        drop(file);
        medium.discard();
    }

    /// Appends these records, one frame each, and returns when they are on the disk.
    pub(super) fn commit<'r>(&mut self, records: impl Iterator<Item = &'r [u8]>) -> Result<(), CommitError> {
        let place = self.framing.place();
        self.buffer.clear();
        for record in records {
            self.framing.frame(record, &mut self.buffer);
        }
        if let Err(error) = self.medium.write(&mut self.file, &self.buffer) {
            self.framing.go_back(place);
            if !is_no_room(&error) {
                return Err(CommitError::Broken(error));
            }
            return Err(match self.medium.cut(&mut self.file, self.length) {
                Ok(()) => CommitError::NoRoom(error),
                Err(error) => CommitError::Broken(error),
            });
        }
        self.medium.sync(&mut self.file).map_err(CommitError::Broken)?;
        self.length = self.length.saturating_add(size(&self.buffer));
        Ok(())
    }

    /// How much was appended since the snapshot, and how long that is, in bytes.
    pub(super) fn lengths(&self) -> (u64, u64) {
        (self.length.saturating_sub(self.fresh), self.fresh)
    }
}

/// The bytes of a frame with these changes.
pub(super) fn encode(changes: &[Change<'_>], payload: &mut Vec<u8>) {
    payload.clear();
    for change in changes {
        change.write(payload);
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// A full disk, a quota or a limit on files' sizes; somebody can make room.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
