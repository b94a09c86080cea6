//! The one that writes a log: all that came while the last batch was synced is the next.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::frame::Kind;
use super::log::{CommitError, Log, Tell};
use super::medium::Medium;
use super::waiting::{Clock, Records, Waiting};
use crate::domain::time::Timestamp;
use crate::state::change::{Change, Sink as _};

/// How far ahead the mark is, and how much of it is left when it is written again.
pub(super) const MARK_AHEAD: Duration = Duration::from_secs(2);
const MARK_LEFT: Duration = Duration::from_secs(1);
/// The thread looks at the time this often when nothing is to be written; also how soon a full disk is tried again.
const IDLE: Duration = Duration::from_millis(250);
/// How long a stop waits for a disk that doesn't answer: what it holds back then is lost.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(5);

/// Tells all that is, up to at least the change of this number; the mark is the committer's.
pub(super) type Source = Arc<dyn Fn(u64, Timestamp, Tell<'_>) + Send + Sync>;

/// What happens after a log could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// All that is, is written to a fresh file.
    BeginAnew,
    /// A full disk is waited for; anything else ends it until the next start.
    Stop,
}

/// What is said in this log of the one beside it, each second.
pub(super) type Beside = Arc<dyn Fn() -> Option<Change<'static>> + Send + Sync>;

/// How a log is written.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) on_failure: OnFailure,
    /// Whether the mark is in this log.
    pub(super) marks: bool,
    /// The log is written anew when this much was appended, in bytes, and more than its snapshot is long.
    pub(super) long: u64,
    /// By which files are told apart; the next one's is one more.
    pub(super) salt: u64,
}

/// Writes one log.
pub(super) struct Committer<M: Medium> {
    medium: M,
    plan: Plan,
    clock: Clock,
    source: Source,
    beside: Beside,
    /// When that was said last.
    said_at: Timestamp,
    waiting: Arc<Waiting>,
    /// None once it is broken.
    log: Option<Log<M>>,
    /// What is being written; more than empty between turns only while the disk is full.
    batch: Records,
    /// The newest mark that was noted.
    mark: Timestamp,
    rewriting: Option<Rewriting<M>>,
    /// Not before so much was appended, after a rewriting that failed.
    long: u64,
}

/// A fresh file on its way, and what came since its snapshot began.
struct Rewriting<M: Medium> {
    begun: Receiver<Result<Log<M>, CommitError>>,
    since: Records,
}

/// The thread of a committer.
pub(in crate::state) struct Thread {
    waiting: Arc<Waiting>,
    /// Says nothing; closed when the thread ends.
    ended: Mutex<Receiver<()>>,
    /// A stop waited for it in vain.
    is_stuck: AtomicBool,
}

impl<M: Medium> Committer<M> {
    /// Writes all that is to a fresh file in its place.
    pub(super) fn begin(
        medium: M,
        plan: Plan,
        clock: Clock,
        source: Source,
        beside: Beside,
        waiting: Arc<Waiting>,
    ) -> io::Result<Self> {
        let mark = if plan.marks { clock().after(MARK_AHEAD) } else { Timestamp::default() };
        let (batch, long, said_at) = (Records::default(), plan.long, clock());
        let mut committer = Self {
            medium,
            plan,
            clock,
            source,
            beside,
            said_at,
            waiting,
            log: None,
            batch,
            mark,
            rewriting: None,
            long,
        };
        let sequence = committer.waiting.begin_again();
        committer.log = Some(committer.fresh(sequence)?);
        committer.waiting.is_durable(sequence);
        committer.waiting.mark(mark);
        Ok(committer)
    }

    /// Writes this now, before anything is answered.
    pub(super) fn commit_first(&mut self, change: &Change<'_>) -> io::Result<()> {
        self.waiting.note(std::slice::from_ref(change));
        self.turn();
        if self.waiting.backlog() == 0 {
            return Ok(());
        }
        Err(io::Error::other(self.waiting.trouble().unwrap_or_else(|| "it could not be written".to_owned())))
    }

    /// Goes on in a thread of its own.
    pub(super) fn start(self) -> io::Result<Thread> {
        let waiting = Arc::clone(&self.waiting);
        let name = format!("remit-{}", self.plan.name);
        let (running, ended) = channel();
        let work = move || {
            let _running: Sender<()> = running;
            self.run();
        };
        std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Thread { waiting, ended: Mutex::new(ended), is_stuck: AtomicBool::new(false) })
    }

    fn run(mut self) {
        loop {
            let stop = if self.batch.is_empty() {
                self.waiting.wait(IDLE)
            } else {
                std::thread::sleep(IDLE);
                self.waiting.wait(Duration::ZERO)
            };
            self.turn();
            if stop {
                self.waiting.is_over();
                return self.end_rewriting();
            }
        }
    }

    /// One round: the mark if it is due, and all that waits.
    pub(super) fn turn(&mut self) {
        self.note_what_is_due();
        if self.log.is_some() {
            self.take_over();
            self.commit();
            self.rewrite_if_long();
        } else if self.plan.on_failure == OnFailure::BeginAnew && self.waiting.has_news() {
            self.begin_anew();
        }
    }

    /// The mark, and how far the log beside this one is.
    fn note_what_is_due(&mut self) {
        let now = (self.clock)();
        let is_due =
            if self.plan.marks { self.mark.since(now) <= MARK_LEFT } else { now.since(self.said_at) >= MARK_LEFT };
        if !is_due {
            return;
        }
        self.said_at = now;
        let mut due = Vec::new();
        if self.plan.marks {
            self.mark = now.after(MARK_AHEAD);
            due.push(Change::Mark { until: self.mark });
        }
        due.extend((self.beside)());
        if !due.is_empty() {
            self.waiting.note(&due);
        }
    }

    fn commit(&mut self) {
        let last = self.waiting.take(&mut self.batch);
        let Some(log) = self.log.as_mut().filter(|_| !self.batch.is_empty()) else { return };
        match (log.commit(self.batch.iter()), self.plan.on_failure) {
            (Ok(()), _) => {
                if let Some(rewriting) = &mut self.rewriting {
                    rewriting.since.append(&self.batch);
                }
                self.batch.clear();
                self.waiting.mark(self.mark);
                self.waiting.is_durable(last);
            }
            (Err(CommitError::NoRoom(error)), OnFailure::Stop) => {
                let trouble = format!(
                    "there is no room to write the state directory's {} ({error}): make room, and it goes on by itself",
                    self.plan.name
                );
                self.waiting.has_failed(trouble, true);
            }
            (Err(CommitError::NoRoom(error) | CommitError::Broken(error)), _) => self.break_off(&error),
        }
    }

    /// Never writes to this file again.
    fn break_off(&mut self, error: &io::Error) {
        self.log = None;
        self.batch.clear();
        let name = self.plan.name;
        match self.plan.on_failure {
            OnFailure::BeginAnew => {
                let trouble = format!(
                    "the state directory's {name} can't be written ({error}): revocations are in force, and may not outlive this process; tokens of other issuers are refused"
                );
                self.waiting.has_failed(trouble, false);
            }
            OnFailure::Stop => {
                let trouble = format!(
                    "the state directory's {name} could not be written ({error}), so nothing is allowed until a restart on a disk that works"
                );
                self.waiting.has_failed(trouble, false);
                self.waiting.is_over();
            }
        }
        // Only now that those who wait were told: this waits for the disk itself.
        self.end_rewriting();
    }

    /// Waits for the fresh file on its way, which has the same name as the next, and removes it.
    fn end_rewriting(&mut self) {
        let Some(rewriting) = self.rewriting.take() else { return };
        if let Ok(Ok(log)) = rewriting.begun.recv() {
            log.discard();
        }
    }

    fn begin_anew(&mut self) {
        let sequence = self.waiting.begin_again();
        match self.fresh(sequence) {
            Ok(log) => {
                self.log = Some(log);
                self.waiting.mark(self.mark);
                self.waiting.is_durable(sequence);
            }
            Err(error) => self.break_off(&error),
        }
    }

    fn fresh(&mut self, sequence: u64) -> io::Result<Log<M>> {
        self.plan.salt = self.plan.salt.wrapping_add(1);
        let (source, mark) = (Arc::clone(&self.source), self.mark);
        let begun = Log::begin(&self.medium, self.plan.kind, self.plan.salt, move |tell| source(sequence, mark, tell));
        let log = begun.map_err(CommitError::into_inner)?;
        log.put_in_place()?;
        Ok(log)
    }

    /// A log that grew long is written anew beside the one in use, in another thread, while commits go on.
    fn rewrite_if_long(&mut self) {
        let Some(log) = self.log.as_ref().filter(|_| self.rewriting.is_none() && self.batch.is_empty()) else { return };
        let (appended, fresh) = log.lengths();
        if appended < self.long.max(fresh) {
            return;
        }
        self.plan.salt = self.plan.salt.wrapping_add(1);
        let (done, begun) = channel();
        let (medium, source, mark) = (self.medium.clone(), Arc::clone(&self.source), self.mark);
        let (kind, salt, sequence) = (self.plan.kind, self.plan.salt, self.waiting.durable());
        let work = move || {
            let begun = Log::begin(&medium, kind, salt, move |tell| source(sequence, mark, tell));
            // It holds the lock.
            drop(medium);
            // Nobody waits for it any more if this fails.
            let _ = done.send(begun);
        };
        match std::thread::Builder::new().name("remit-rewrite".to_owned()).spawn(work) {
            Ok(_) => self.rewriting = Some(Rewriting { begun, since: Records::default() }),
            Err(error) => self.put_off(&error),
        }
    }

    /// Takes the fresh file into use, once it is whole and has what came since.
    fn take_over(&mut self) {
        let Some(rewriting) = &self.rewriting else { return };
        let begun = match rewriting.begun.try_recv() {
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                self.medium.discard();
                Err(CommitError::NoRoom(io::Error::other("the thread that wrote it ended")))
            }
            Ok(begun) => begun,
        };
        let Some(Rewriting { since, .. }) = self.rewriting.take() else { return };
        let caught_up = begun.and_then(|mut log| match log.commit(since.iter()) {
            Ok(()) => Ok(log),
            Err(error) => {
                log.discard();
                Err(error)
            }
        });
        match (caught_up, self.plan.on_failure) {
            // The disk may have lost what it took of the other file, too.
            (Err(CommitError::Broken(error)), OnFailure::Stop) => self.break_off(&error),
            (Err(CommitError::NoRoom(error) | CommitError::Broken(error)), _) => self.put_off(&error),
            (Ok(log), _) => match log.put_in_place() {
                Ok(()) => {
                    self.log = Some(log);
                    self.long = self.plan.long;
                }
                // Nobody knows which of the two a crash would leave.
                Err(error) => self.break_off(&error),
            },
        }
    }

    fn put_off(&mut self, error: &io::Error) {
        tracing::warn!(target: "state", %error, "the state directory's {} can't be written anew yet, and grows on", self.plan.name);
        self.long = self.log.as_ref().map_or(0, |log| log.lengths().0).saturating_add(self.plan.long);
    }
}

impl<M: Medium> Drop for Committer<M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let trouble = format!("the thread that writes the state directory's {} ended: restart", self.plan.name);
            self.waiting.has_failed(trouble, false);
        }
        self.waiting.is_over();
    }
}

impl Thread {
    /// What it writes.
    pub(in crate::state) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// Asks it to write what waits, and to end.
    pub(in crate::state) fn stop(&self) {
        self.waiting.stop();
    }

    /// Writes what waits, and ends; whether all of it is durable after this long at most.
    pub(in crate::state) fn finish(&self, within: Duration) -> bool {
        self.stop();
        let is_over = self.waiting.wait_for_end(within);
        self.is_stuck.fetch_or(!is_over, Ordering::SeqCst);
        is_over && self.waiting.backlog() == 0
    }

    /// Whether a stop waited for it in vain.
    pub(in crate::state) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::SeqCst)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Whoever waited for it in vain does not wait again. It keeps the lock as long as it runs.
        if !self.is_stuck() {
            self.finish(STOP_WAIT);
        }
        if !self.is_stuck() {
            let _ = self.ended.lock().recv_timeout(STOP_WAIT);
        }
    }
}

#[cfg(test)]
#[path = "committer_tests.rs"]
mod tests;
