//! A folder's file as the log needs it: begun beside the old one, put in its place, appended to, synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a log's file is. A trait, so that tests can have it fail.
pub(super) trait Medium: Clone + Send + 'static {
    /// An open file.
    type File: Send + 'static;

    /// An empty file beside the one in use; one that was left behind is replaced.
    fn begin(&self) -> io::Result<Self::File>;
    /// Appends.
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to this length.
    fn cut(&self, file: &mut Self::File, length: u64) -> io::Result<()>;
    /// Returns when what was written is on the disk.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Removes the begun file, so that it takes no room.
    fn discard(&self);
    /// Puts the begun file in the place of the one in use, and returns when that is on the disk.
    fn put_in_place(&self) -> io::Result<()>;
}

/// A file of this name in this folder. It holds the lock, so that nobody else gets it while a write may still come.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) folder: PathBuf,
    pub(super) name: &'static str,
    pub(super) _lock: Arc<File>,
}

impl Disk {
    fn begun(&self) -> PathBuf {
        self.folder.join(format!("{}.new", self.name))
    }

    /// Removes what was begun and never came to its place, if there is any.
    pub(super) fn remove_begun(&self) -> io::Result<()> {
        match std::fs::remove_file(self.begun()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Medium for Disk {
    type File = File;

    fn begin(&self) -> io::Result<File> {
        self.remove_begun()?;
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(self.begun())
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn cut(&self, file: &mut File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn discard(&self) {
        if let Err(error) = self.remove_begun() {
            tracing::warn!(target: "state", %error, "{} can't be removed, and takes room", self.begun().display());
        }
    }

    fn put_in_place(&self) -> io::Result<()> {
        std::fs::rename(self.begun(), self.folder.join(self.name))?;
        sync_folder(&self.folder)
    }
}

/// Returns when the folder's names are on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
