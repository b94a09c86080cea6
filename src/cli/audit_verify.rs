//! `remit audit verify`: is this log what was written?

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{self, Output};
use super::{CliError, Outcome};
use crate::audit::{Report, verify};

/// The line about progress is written anew after this many bytes.
const SHOW_BYTES: u64 = 32 * 1024 * 1024;

/// Check that audit files are what was written: nothing changed, missing, added or moved.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit audit verify audit.jsonl*\n\nGive the current file and those that it was renamed to, in any order. Whoever may write the files could\nwrite all of them anew, or cut off the end: compare the last hash with one that was kept elsewhere."
)]
pub(super) struct Verify {
    /// The audit files
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

impl Verify {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let sizes = self.files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len());
        let mut progress = Progress::of(sizes.fold(0, u64::saturating_add));
        let report = verify(self.files, |bytes| progress.read(bytes));
        progress.end();
        let report = report.map_err(|error| CliError(error.to_string()))?;
        match output {
            Output::Json => output::say(&as_json(&report).to_string())?,
            Output::Text => output::say(&as_text(&report))?,
        }
        Ok(if report.fault_count == 0 { Outcome::Done } else { Outcome::Denied })
    }
}

fn as_text(report: &Report) -> String {
    let mut lines = report.faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let told = u64::try_from(report.faults.len()).unwrap_or(u64::MAX);
    if report.fault_count > told {
        lines.push(format!("and {} faults more", report.fault_count.saturating_sub(told)));
    }
    let verdict = if report.fault_count == 0 { "as they were written" } else { "not as they were written" };
    lines.push(format!("{} events in {} files: {verdict}", report.events, report.files.len()));
    if report.continues {
        lines.push("the first of them is not the first of the log: older files are not here".to_owned());
    }
    if report.unrecorded > 0 {
        lines.push(format!("{} numbers have no event: their decisions were given unrecorded", report.unrecorded));
    }
    if let Some(head) = report.head {
        let (stream, sequence) = &report.last;
        lines.push(format!("last: sequence {sequence} of stream {stream}, hash {head}"));
    }
    lines.join("\n")
}

fn as_json(report: &Report) -> serde_json::Value {
    let faults = report.faults.iter().map(|fault| {
        let file = fault.file.display().to_string();
        json!({"file": file, "line": fault.line, "sequence": fault.sequence, "what": fault.what.to_string()})
    });
    json!({
        "intact": report.fault_count == 0,
        "files": report.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "events": report.events,
        "faults": faults.collect::<Vec<_>>(),
        "fault_count": report.fault_count,
        "unrecorded": report.unrecorded,
        "begins_with_the_log": !report.continues,
        "last_stream_id": report.last.0,
        "last_sequence": report.last.1,
        "last_hash": report.head.map(|head| head.to_string()),
    })
}

/// How far it is, for a person who waits.
struct Progress {
    total: u64,
    read: u64,
    shown: u64,
    is_watched: bool,
}

impl Progress {
    fn of(total: u64) -> Self {
        Self { total, read: 0, shown: 0, is_watched: std::io::stderr().is_terminal() }
    }

    fn read(&mut self, bytes: u64) {
        self.read = self.read.saturating_add(bytes);
        if self.is_watched && self.read.saturating_sub(self.shown) >= SHOW_BYTES {
            self.shown = self.read;
            let percent = self.read.saturating_mul(100).checked_div(self.total).unwrap_or(100);
            // Nobody can be told that nobody listens.
            let _ = write!(std::io::stderr().lock(), "\r{:3} % of {} MB", percent.min(100), self.total >> 20);
        }
    }

    fn end(&self) {
        if self.shown > 0 {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
