//! The state directory: what of the state outlives this process, and how it is found again.
//!
//! | file | |
//! |---|---|
//! | `lock` | The number of the one process that uses the directory, which holds a lock on the directory itself. |
//! | `revocations` | Revocations, quarantines, and the mark; each change is on the disk before it is answered. |
//! | `ledger` | Live tokens: written at an orderly stop and used up by the next start (memory), or each change as it is made (journal). |
//!
//! Each start writes what it found to fresh files before it serves, and never adds to a file that it found.

mod closed;
mod committer;
mod error;
mod frame;
mod log;
mod medium;
mod open;
mod pairing;
mod waiting;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use committer::{Beside, Committer, MARK_AHEAD, OnFailure, Plan, STOP_WAIT, Thread};
pub use error::StateError;
use frame::Kind;
use log::{CommitError, Log};
use medium::{Disk, sync_folder};
use pairing::Pairing;
pub(super) use waiting::{Clock, NotDurable, Waiting};

use super::change::{Sink, Snapshot};
use super::ledger::export::Left;
use super::ledger::{Ledger, Sinks};
use super::recovered;
use super::register::Capacity;
use crate::domain::time::Timestamp;

const REVOCATIONS: &str = "revocations";
const LEDGER: &str = "ledger";
/// What is appended to them, at least, before they are written anew. A day of marks is 3 MB; a second of many uses as
/// much, and the ledger is long.
const REVOCATIONS_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 4 << 20 };
const LEDGER_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 32 << 20 };
/// How long an orderly stop writes the ledger: two million tokens are 300 MB, and whoever stops a process seldom waits
/// longer than 30 s.
const LEAVE_WAIT: Duration = Duration::from_secs(15);

/// A state directory that is locked for this process, and what an earlier one left in it.
pub struct Directory {
    folder: PathBuf,
    lock: Arc<File>,
    register: recovered::Register,
    tokens: Option<recovered::Tokens>,
}

/// Whether uses are written down as they are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uses {
    /// At an orderly stop.
    AtStop,
    /// Before the answer.
    Each,
}

/// A directory in use.
pub(super) struct Kept {
    folder: PathBuf,
    register: Thread,
    /// Only where uses are written down as they are spent.
    tokens: Option<Thread>,
    /// The ledger is being written down for the next process.
    closing: AtomicBool,
    clock: Clock,
    salt: u64,
    pairing: Arc<Pairing>,
    restored: bool,
    /// Unlocked when the last closes it: all that writes has it open.
    lock: Arc<File>,
}

impl Directory {
    /// Locks the directory, makes it if only it is missing, and reads what is there. Nothing is changed yet.
    ///
    /// # Errors
    /// Another process has it, or a file in it can't be read or is damaged.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let lock = Arc::new(open::lock(folder)?);
        let register = open::register(&folder.join(REVOCATIONS))?;
        let tokens = open::tokens(&folder.join(LEDGER), register.as_ref())?;
        Ok(Self { folder: folder.to_owned(), lock, register: register.unwrap_or_default(), tokens })
    }

    /// The latest moment that is known to have passed: time goes on from there.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        let saved = self.tokens.as_ref().and_then(|tokens| tokens.snapshot).map(|snapshot| snapshot.time);
        passed(self.register.mark).max(saved.unwrap_or_default())
    }

    /// The same without the ledger that was found: tokens are counted elsewhere.
    pub(super) fn without_tokens(self) -> Self {
        Self { tokens: None, ..self }
    }

    /// Tokens of other issuers made up to this moment are refused: those that the ledger that was found doesn't know, or
    /// without one all that may have been taken.
    fn fence(&self, now: Timestamp) -> Timestamp {
        let saved = self.tokens.as_ref().and_then(|tokens| tokens.snapshot);
        saved.map_or_else(|| now.max(self.register.mark), |snapshot| snapshot.fence)
    }

    /// Writes what was found to fresh files. The ledger that was found is used up when this returns.
    ///
    /// # Errors
    /// A file can't be written.
    pub(super) fn begin(
        self,
        uses: Uses,
        capacity: Capacity,
        clock: Clock,
        salt: u64,
    ) -> Result<(Arc<Ledger>, Kept), StateError> {
        // What an earlier process had on its way takes the room that is needed now.
        for name in [REVOCATIONS, LEDGER] {
            let disk = Disk { folder: self.folder.clone(), name, _lock: Arc::clone(&self.lock) };
            disk.remove_begun().map_err(|error| StateError::Io(self.folder.join(name), error))?;
        }
        let now = clock();
        let fence = self.fence(now);
        let Self { folder, lock, register, tokens } = self;
        let restored = tokens.is_some();
        let waiting = Arc::new(Waiting::new(register.sequence, Arc::clone(&clock)));
        let sequence = tokens.as_ref().map_or(0, |tokens| tokens.sequence);
        let uses = (uses == Uses::Each).then(|| Arc::new(Waiting::new(sequence, Arc::clone(&clock))));
        let found = tokens.as_ref().map(|tokens| (tokens.lineage.own, tokens.sequence));
        let pairing = Arc::new(Pairing::new(salt, found, &waiting, uses.as_ref()));
        let sinks = Sinks { register: Some(sink(&waiting)), tokens: uses.as_ref().map(sink) };
        let ledger = Arc::new(Ledger::restored(capacity, super::SHARDS, Left { register, tokens, fence, now }, sinks));

        let on_failure = if uses.is_some() { OnFailure::Stop } else { OnFailure::BeginAnew };
        let logs = Logs { folder: &folder, lock: &lock, clock: &clock, on_failure, salt };
        let mut register =
            logs.begin(Kind::Register, register_source(&ledger, &clock, &pairing), &pairing, &waiting)?;
        let tokens = match &uses {
            // The register in its place names no ledger any more.
            None => {
                use_up(&folder).map_err(|error| StateError::Io(folder.join(LEDGER), error))?;
                None
            }
            Some(uses) => {
                let source = tokens_source(&ledger, &clock, &waiting, &pairing);
                let tokens = logs.begin(Kind::Ledger, source, &pairing, uses)?;
                let named = register.commit_first(&pairing.take_own());
                named.map_err(|error| StateError::Io(folder.join(REVOCATIONS), error))?;
                Some(tokens)
            }
        };
        // All that can fail on the disk is done.
        let started =
            |committer: Committer<Disk>| committer.start().map_err(|error| StateError::Io(folder.clone(), error));
        let register = started(register)?;
        let tokens = tokens.map(started).transpose()?;
        let closing = AtomicBool::new(false);
        let kept = Kept { folder, lock, register, tokens, closing, clock, salt: salt ^ 1 << 63, pairing, restored };
        Ok((ledger, kept))
    }
}

/// What the logs of a directory have in common.
struct Logs<'d> {
    folder: &'d Path,
    lock: &'d Arc<File>,
    clock: &'d Clock,
    on_failure: OnFailure,
    salt: u64,
}

impl Logs<'_> {
    fn begin(
        &self,
        kind: Kind,
        source: committer::Source,
        pairing: &Arc<Pairing>,
        waiting: &Arc<Waiting>,
    ) -> Result<Committer<Disk>, StateError> {
        let (name, marks, long, salt) = match kind {
            Kind::Register => (REVOCATIONS, true, REVOCATIONS_BYTES, self.salt),
            Kind::Ledger => (LEDGER, false, LEDGER_BYTES, !self.salt),
        };
        let plan = Plan { name, kind, on_failure: self.on_failure, marks, long, salt };
        let disk = Disk { folder: self.folder.to_owned(), name, _lock: Arc::clone(self.lock) };
        let begun =
            Committer::begin(disk, plan, Arc::clone(self.clock), source, beside(kind, pairing), Arc::clone(waiting));
        begun.map_err(|error| StateError::Io(self.folder.join(name), error))
    }
}

impl Kept {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The log of revocations.
    pub(super) fn register(&self) -> &Waiting {
        self.register.waiting()
    }

    /// The log of uses, where they are written down as they are spent.
    pub(super) fn tokens(&self) -> Option<&Waiting> {
        self.tokens.as_ref().map(|thread| &**thread.waiting())
    }

    /// Whether tokens of an earlier process are in the ledger.
    pub(super) fn restored(&self) -> bool {
        self.restored
    }

    /// The latest moment that a next process will know to have passed.
    pub(super) fn passed(&self) -> Timestamp {
        passed(self.register().marked_until())
    }

    /// Waits until every revocation up to now is on the disk: this long for both logs together.
    pub(super) async fn revocations_settled(&self, within: Duration) -> Result<(), NotDurable> {
        let settled = tokio::time::timeout(within, self.both_settled(within)).await;
        settled.unwrap_or(Err(NotDurable))
    }

    async fn both_settled(&self, within: Duration) -> Result<(), NotDurable> {
        if let Some(tokens) = self.tokens() {
            tokens.settled(within).await?;
        }
        // What is revoked while the ledger is written down may be missing from it.
        if self.closing.load(Ordering::SeqCst) {
            return Err(NotDurable);
        }
        self.register().settled(within).await
    }

    /// Waits until every use up to now is on the disk, where they are written down as they are spent.
    pub(super) async fn uses_settled(&self, within: Duration) -> Result<(), NotDurable> {
        match self.tokens() {
            Some(tokens) => tokens.settled(within).await,
            None => Ok(()),
        }
    }

    /// Writes down what waits of revocations and quarantines, and nothing else.
    pub(super) fn save_register(&self) -> Result<(), StateError> {
        self.closing.store(true, Ordering::SeqCst);
        if self.register.finish(STOP_WAIT) {
            return Ok(());
        }
        Err(StateError::NotWritten(self.folder.join(REVOCATIONS), self.register().trouble()))
    }

    /// Writes down what the next process needs. Nothing is spent or minted any more.
    pub(super) fn save(&self, ledger: &Arc<Ledger>) -> Result<(), StateError> {
        self.closing.store(true, Ordering::SeqCst);
        // Both write at the same time.
        self.tokens.iter().for_each(Thread::stop);
        let register_trouble = || self.register().trouble();
        if self.tokens.is_none() {
            // Before the ledger is in its place, so that no other ledger is ever taken for it.
            self.register().note(&[self.pairing.take_own()]);
        }
        let is_durable = self.register.finish(STOP_WAIT);
        if let Some(tokens) = &self.tokens {
            // A disk that doesn't answer the one doesn't answer the other.
            let within = if self.register.is_stuck() { Duration::ZERO } else { STOP_WAIT };
            let kept = tokens.finish(within);
            let (name, trouble) =
                if is_durable { (LEDGER, tokens.waiting().trouble()) } else { (REVOCATIONS, register_trouble()) };
            return if is_durable && kept {
                Ok(())
            } else {
                Err(StateError::NotWritten(self.folder.join(name), trouble))
            };
        }
        if !is_durable {
            // A ledger without the revocations that it rests on would bring tokens back.
            return Err(StateError::NotSaved(self.folder.join(REVOCATIONS), register_trouble()));
        }
        self.leave(ledger)
    }

    /// Writes the ledger down, in a thread of its own, since a disk may not answer.
    fn leave(&self, ledger: &Arc<Ledger>) -> Result<(), StateError> {
        let not_saved = |why: String| StateError::NotSaved(self.folder.join(LEDGER), Some(why));
        let now = (self.clock)();
        let snapshot = Snapshot { sequence: 0, register: self.register().durable(), time: now, fence: ledger.fence() };
        let disk = Disk { folder: self.folder.clone(), name: LEDGER, _lock: Arc::clone(&self.lock) };
        let (ledger, salt, lineage) = (Arc::clone(ledger), self.salt, self.pairing.lineage());
        let (done, left) = channel();
        let work = move || {
            let begun = Log::begin(&disk, Kind::Ledger, salt, |tell| ledger.tell_tokens(snapshot, lineage, true, tell));
            let saved = begun.map_err(CommitError::into_inner).and_then(|log| log.put_in_place());
            // It holds the lock.
            drop(disk);
            // Nobody waits for it any more if this fails.
            let _ = done.send(saved);
        };
        let begun = std::thread::Builder::new().name("remit-leave".to_owned()).spawn(work);
        begun.map_err(|error| not_saved(error.to_string()))?;
        match left.recv_timeout(LEAVE_WAIT) {
            Ok(saved) => saved.map_err(|error| not_saved(error.to_string())),
            Err(_) => Err(not_saved(format!("it took more than {} s", LEAVE_WAIT.as_secs()))),
        }
    }
}

/// When this mark was written.
fn passed(mark: Timestamp) -> Timestamp {
    let ahead = u64::try_from(MARK_AHEAD.as_nanos()).unwrap_or(u64::MAX);
    Timestamp::from_nanos(mark.nanos().saturating_sub(ahead))
}

fn sink(waiting: &Arc<Waiting>) -> Arc<dyn Sink> {
    let waiting: Arc<Waiting> = Arc::clone(waiting);
    waiting
}

/// What each log says of the other.
fn beside(kind: Kind, pairing: &Arc<Pairing>) -> Beside {
    let pairing = Arc::clone(pairing);
    match kind {
        Kind::Register => Arc::new(move || Some(pairing.named())),
        Kind::Ledger => Arc::new(move || Some(pairing.register())),
    }
}

fn register_source(ledger: &Arc<Ledger>, clock: &Clock, pairing: &Arc<Pairing>) -> committer::Source {
    let (ledger, clock, pairing) = (Arc::clone(ledger), Arc::clone(clock), Arc::clone(pairing));
    Arc::new(move |sequence, mark, tell| {
        let snapshot = Snapshot { sequence, register: sequence, time: clock(), fence: ledger.fence() };
        ledger.tell_register(snapshot, pairing.named(), mark, tell);
    })
}

fn tokens_source(
    ledger: &Arc<Ledger>,
    clock: &Clock,
    register: &Arc<Waiting>,
    pairing: &Arc<Pairing>,
) -> committer::Source {
    let (ledger, clock, register) = (Arc::clone(ledger), Arc::clone(clock), Arc::clone(register));
    let pairing = Arc::clone(pairing);
    Arc::new(move |sequence, _, tell| {
        let snapshot = Snapshot { sequence, register: register.durable(), time: clock(), fence: ledger.fence() };
        ledger.tell_tokens(snapshot, pairing.lineage(), false, tell);
    })
}

/// Removes the ledger that was read, for good: a crash from now on ends every token in it.
fn use_up(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(folder.join(LEDGER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests;
