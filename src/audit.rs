//! Reads audit logs: are they what was written? Anybody can ask who has the files, and is told what is missing.
//!
//! The log's lines are chained (see [`crate::events::chain`]). A chain shows every change but one: whoever may write the
//! file can write all of it anew, or cut off its end. Signed checkpoints leave only the lines after the last of them to
//! that.

mod batch;
mod order;
mod show;
mod signatures;
#[cfg(test)]
mod tamper_tests;
mod verify;

use std::io;
use std::path::PathBuf;

use crate::events::LinePlace as Place;
pub use show::{Ask, Line, ShowError, Shown, TooManyTokens, show};
pub use signatures::{Keys, Signatures};
pub use verify::{Fault, Report, What, verify};

/// How much is read at once.
const READ_BYTES: usize = 1024 * 1024;

/// Why a file could not be read.
#[derive(Debug)]
pub struct Unread {
    /// Which file.
    pub file: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} can't be read: {}", self.file.display(), self.error)
    }
}

impl std::error::Error for Unread {}
