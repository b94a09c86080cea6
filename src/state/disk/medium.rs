//! A folder's file as the log needs it: begun beside the old one, put in its place, appended to, synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

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
    /// Puts the begun file in the place of the one in use, and returns when that is on the disk.
    fn put_in_place(&self) -> io::Result<()>;
}

/// A file of this name in this folder.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) folder: PathBuf,
    pub(super) name: &'static str,
}

impl Disk {
    fn begun(&self) -> PathBuf {
        self.folder.join(format!("{}.new", self.name))
    }
}

impl Medium for Disk {
    type File = File;

    fn begin(&self) -> io::Result<File> {
        match std::fs::remove_file(self.begun()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
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

    fn put_in_place(&self) -> io::Result<()> {
        std::fs::rename(self.begun(), self.folder.join(self.name))?;
        sync_folder(&self.folder)
    }
}

/// Returns when the folder's names are on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
