//! `remit audit verify`: is this log what was written?

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{self, Output};
use super::{CliError, Outcome};
use crate::audit::{Keys, Report, Signatures, Unsigned, verify};
use crate::digest::Digest;
use crate::identity::jwt_type::JwtType;
use crate::identity::signing::KeptKeys;

/// The line about progress is written anew after this many bytes.
const SHOW_BYTES: u64 = 32 * 1024 * 1024;
/// A list of published keys has some KiB.
const KEYS_BYTES: u64 = 256 * 1024;

/// Check that audit files are what was written: nothing changed, missing, added or moved.
#[derive(Args)]
#[command(
    after_help = "Example:\n  remit audit verify audit.jsonl* --jwks jwks.json\n\nGive the current file and those that it was renamed to, in any order. Whoever may write the files could\nwrite all of them anew, or cut off the end. With --jwks the signed checkpoints show what was changed before them, in\nthe stream of the process that signed; what none of its own process follows is told. Keep what\n/.well-known/jwks.json answers where those can't write who may write the log, and each time that the signing key\nchanges. That an end was cut off, with its checkpoints, shows only --head, or a copy of the log elsewhere."
)]
pub(super) struct Verify {
    /// The audit files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Published keys that were kept, a JWK set, against which checkpoints are checked; may be repeated
    #[arg(long, value_name = "FILE")]
    jwks: Vec<PathBuf>,
    /// A line's hash that was kept elsewhere, such as the last of an earlier check: that line has to be there
    #[arg(long, value_name = "HASH", value_parser = hash)]
    head: Option<Digest>,
}

impl Verify {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let keys = kept(&self.jwks)?;
        let open = |jwt: &str| keys.open(JwtType::Checkpoint, jwt);
        let open: Option<&Keys<'_>> = if self.jwks.is_empty() { None } else { Some(&open) };
        let sizes = self.files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len());
        let mut progress = Progress::of(sizes.fold(0, u64::saturating_add));
        let report = verify(self.files, open, self.head, |bytes| progress.read(bytes));
        progress.end();
        let report = report.map_err(|error| CliError(error.to_string()))?;
        match output {
            Output::Json => output::say(&as_json(&report).to_string())?,
            Output::Text => output::say(&as_text(&report))?,
        }
        Ok(if is_proven(&report) { Outcome::Done } else { Outcome::Denied })
    }
}

fn hash(text: &str) -> Result<Digest, String> {
    Digest::from_hex(text).ok_or_else(|| "a line's hash has 64 hexadecimal digits, in lower case".to_owned())
}

/// There is something, nothing is wrong with it, and where somebody asks who signed, somebody did in each stream.
fn is_proven(report: &Report) -> bool {
    let Report { signatures, .. } = report;
    is_intact(report) && (!signatures.are_checked || signatures.prove_each_stream())
}

/// A process writes an event as it starts: a log without one was emptied.
const fn is_intact(report: &Report) -> bool {
    report.fault_count == 0 && report.events > 0
}

fn kept(files: &[PathBuf]) -> Result<KeptKeys, CliError> {
    let mut keys = KeptKeys::default();
    for file in files {
        let wrong = |why: &dyn std::fmt::Display| CliError::new(file.display(), why);
        let size = file.metadata().map_err(|error| wrong(&error))?.len();
        if size > KEYS_BYTES {
            return Err(wrong(&"it is too long for a list of keys"));
        }
        let text = std::fs::read(file).map_err(|error| wrong(&error))?;
        keys.add(&text).map_err(|error| wrong(&error))?;
    }
    Ok(keys)
}

fn signed(signatures: &Signatures) -> String {
    let Signatures { are_checked, checkpoints, good, last_good, uncovered, .. } = signatures;
    match (are_checked, last_good) {
        (false, _) => format!("{checkpoints} checkpoints: their signatures were not checked; --jwks names the keys"),
        (true, Some((stream, sequence))) => format!(
            "{good} of {checkpoints} checkpoints are signed, the last at sequence {sequence} of stream {stream}; \
             {uncovered} events follow on it, which could be replaced or cut off unseen"
        ),
        (true, None) => {
            format!("no checkpoint is signed: all {uncovered} events could have been written by anybody")
        }
    }
}

/// What no checkpoint of its own stream covers.
fn unsigned(signatures: &Signatures) -> Vec<String> {
    // Where nobody signed anything, that is said already.
    let told = signatures.unsigned.iter().filter(|_| signatures.good > 0);
    let mut lines: Vec<_> = told
        .map(|Unsigned { stream_id, from, to, count, good }| {
            let why = if *good > 0 {
                "it ended by force, or they were replaced"
            } else {
                "it has none at all, so that anybody could have written them"
            };
            format!(
                "{count} events of stream {stream_id} ({from} to {to}) were followed by no checkpoint of its own process: \
                 {why}; a later process's signature doesn't vouch for them"
            )
        })
        .collect();
    let told = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    if told > 0 && signatures.unsigned_count > told {
        lines.push(format!("and {} such streams more", signatures.unsigned_count.saturating_sub(told)));
    }
    lines
}

fn as_text(report: &Report) -> String {
    let mut lines = report.faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let told = u64::try_from(report.faults.len()).unwrap_or(u64::MAX);
    if report.fault_count > told {
        lines.push(format!("and {} faults more", report.fault_count.saturating_sub(told)));
    }
    let verdict = match (report.fault_count, report.events) {
        (0, 0) => "a process writes one as it starts, so they were emptied, or are not the log",
        (0, _) => "as they were written",
        _ => "not as they were written",
    };
    lines.push(format!("{} events in {} files: {verdict}", report.events, report.files.len()));
    if let Some(unfinished) = &report.unfinished {
        lines.push(format!(
            "whole up to sequence {}: {}:{} is half a line, as a crash or a write under way leaves it; a start cuts it off",
            report.last.1,
            unfinished.file.display(),
            unfinished.line
        ));
    }
    if report.continues {
        lines.push("the first of them is not the first of the log: older files are not here".to_owned());
    }
    if report.unrecorded > 0 {
        lines.push(format!("{} numbers have no event: their decisions were given unrecorded", report.unrecorded));
    }
    if report.events > 0 {
        lines.push(signed(&report.signatures));
        lines.extend(unsigned(&report.signatures));
    }
    if let Some(head) = last(report) {
        let (stream, sequence) = &report.last;
        lines.push(format!("last: sequence {sequence} of stream {stream}, hash {head}"));
    }
    lines.join("\n")
}

/// The digest of the last line, to be kept. Where something is wrong, the line that was read last needn't be the one
/// that was written last.
fn last(report: &Report) -> Option<Digest> {
    report.head.filter(|_| report.fault_count == 0)
}

fn as_json(report: &Report) -> serde_json::Value {
    let faults = report.faults.iter().map(|fault| {
        let file = fault.file.display().to_string();
        json!({"file": file, "line": fault.line, "sequence": fault.sequence, "what": fault.what.to_string()})
    });
    let unsigned = report.signatures.unsigned.iter();
    let unsigned: Vec<_> = unsigned
        .map(|Unsigned { stream_id, from, to, count, good }| {
            json!({"stream_id": stream_id, "from": from, "to": to, "count": count, "good": good})
        })
        .collect();
    json!({
        "intact": is_intact(report),
        "files": report.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "events": report.events,
        "faults": faults.collect::<Vec<_>>(),
        "fault_count": report.fault_count,
        "unfinished_line": report.unfinished.as_ref().map(|unfinished| unfinished.line),
        "unrecorded": report.unrecorded,
        "begins_with_the_log": !report.continues,
        "signatures": {
            "checked": report.signatures.are_checked,
            "checkpoints": report.signatures.checkpoints,
            "good": report.signatures.are_checked.then_some(report.signatures.good),
            "last_good_stream_id": report.signatures.last_good.as_ref().map(|(stream, _)| stream),
            "last_good_sequence": report.signatures.last_good.as_ref().map(|(_, sequence)| sequence),
            "events_after_last_good": report.signatures.are_checked.then_some(report.signatures.uncovered),
            "unsigned": report.signatures.are_checked.then_some(unsigned),
            "unsigned_count": report.signatures.are_checked.then_some(report.signatures.unsigned_count),
        },
        "last_stream_id": last(report).map(|_| &report.last.0),
        "last_sequence": last(report).map(|_| report.last.1),
        "last_hash": last(report).map(|head| head.to_string()),
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
            let done = usize::try_from(percent.min(100)).unwrap_or_default();
            let bar = format!("{:50}", "#".repeat(done.div_euclid(2)));
            let _ = write!(std::io::stderr().lock(), "\r[{bar}] {done:3} % of {} MB", self.total >> 20);
        }
    }

    fn end(&self) {
        if self.shown > 0 {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
