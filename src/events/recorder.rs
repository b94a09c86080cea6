//! The one thread that writes: it takes what is committed, writes it, and only then shows it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::chain::Chain;
use super::checkpoint::Notary;
use super::event::{Event, MessageType, Outcome};
use super::line::stamp;
use super::log::Log;
use super::mask::Mask;
use super::queue::{Share, Unwritten};
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;

/// How long events wait for company. Decisions don't wake the recorder: that would be a system call each.
const TURN: Duration = Duration::from_millis(2);
/// A write that failed is tried again after this time.
const RETRY: Duration = Duration::from_millis(100);
/// About as much is written at once.
const WRITE_BYTES: usize = 256 * 1024;
/// Events written at once, where nothing is written.
const WRITE_EVENTS: usize = 1024;

pub(super) struct Recorder {
    shared: Arc<Shared>,
    log: Option<Log>,
    /// Taken from the queue; the first `encoded` of them are in `lines`.
    taken: VecDeque<Unwritten>,
    encoded: usize,
    lines: Vec<u8>,
    chain: Chain,
    notary: Option<Notary>,
    mask: Option<Mask>,
    /// The second whose text is at hand.
    second: (u64, String),
    retry_at: Option<Timestamp>,
}

impl Recorder {
    pub(super) fn new(shared: Arc<Shared>, log: Option<Log>, notary: Option<Notary>, mask: Option<Mask>) -> Self {
        let second = (0, stamp(Timestamp::default()));
        let chain = Chain::after(log.as_ref().map(Log::ends_with).unwrap_or_default());
        Self {
            shared,
            log,
            taken: VecDeque::new(),
            encoded: 0,
            lines: Vec::new(),
            chain,
            notary,
            mask,
            second,
            retry_at: None,
        }
    }

    /// Records until the queue is closed and everything is written.
    pub(super) fn run(mut self) {
        while !self.is_done() {
            std::thread::park_timeout(TURN);
            self.turn();
        }
        if self.notary.as_ref().is_some_and(Notary::has_uncovered) {
            let now = self.shared.queue.now();
            self.commit_checkpoint(now);
            // No turn: where a checkpoint is due, that would take a second one.
            self.record(now);
        }
        self.shared.stream.end();
        // Whoever begins after this one finds the file free.
        self.log = None;
        self.shared.finished.send_replace(true);
    }

    fn is_done(&self) -> bool {
        let queue = &self.shared.queue;
        queue.is_closed() && (queue.waiting() == 0 || self.retry_at.is_some() && self.shared.is_abandoned())
    }

    /// Writes what is there now.
    pub(super) fn turn(&mut self) {
        let now = self.shared.queue.now();
        self.shared.denials.flush(&self.shared.queue, now);
        if self.taken.is_empty() && self.notary.as_ref().is_some_and(|notary| notary.is_due(now)) {
            self.commit_checkpoint(now);
        }
        self.record(now);
    }

    fn record(&mut self, now: Timestamp) {
        if self.taken.is_empty() {
            self.shared.queue.take(&mut self.taken);
        }
        while !self.taken.is_empty() {
            if self.retry_at.is_some_and(|at| now < at) {
                return;
            }
            self.encode(now);
            if self.write(now) {
                self.show();
            }
        }
        self.shared.queue.settle();
    }

    /// Takes the next number for a checkpoint. Its place in the chain is known when it is encoded, and signed then.
    fn commit_checkpoint(&self, now: Timestamp) {
        let id = self.shared.decision_ids.next();
        let event = Event::new(MessageType::Checkpoint, Outcome::Accepted, Reason::Allowed, id, now);
        self.shared.queue.commit_own(event);
    }

    fn encode(&mut self, now: Timestamp) {
        if self.encoded > 0 {
            return;
        }
        if self.log.is_none() {
            self.encoded = self.taken.len().min(WRITE_EVENTS);
            if let Some(mask) = &self.mask {
                self.taken.iter_mut().take(self.encoded).for_each(|one| mask.apply(Arc::make_mut(&mut one.event)));
            }
            return;
        }
        for Unwritten { event, .. } in &mut self.taken {
            let start = self.lines.len();
            if start >= WRITE_BYTES {
                break;
            }
            if let Some(notary) = &mut self.notary {
                if event.message_type == MessageType::Checkpoint {
                    let signed = notary.sign(&self.shared.stream_id, event.sequence(), self.chain.head(), now);
                    attest(Arc::make_mut(event), signed);
                } else {
                    notary.count(now);
                }
            }
            if let Some(mask) = &self.mask {
                mask.apply(Arc::make_mut(event));
            }
            if self.second.0 != event.at.seconds() {
                self.second = (event.at.seconds(), stamp(event.at));
            }
            event.write_json(&mut self.lines, &self.shared.stream_id, &self.second.1);
            // Nobody else has it before it is shown.
            Arc::make_mut(event).links = Some(self.chain.add(&mut self.lines, start));
            self.encoded = self.encoded.saturating_add(1);
        }
    }

    /// Whether the lines are written; if not, they are tried again.
    fn write(&mut self, now: Timestamp) -> bool {
        let Some(log) = &mut self.log else { return true };
        let number = |index: usize| self.taken.get(index).map_or(0, |unwritten| unwritten.event.sequence());
        let numbers = (number(0), number(self.encoded.saturating_sub(1)));
        match log.write(&self.lines, numbers, now) {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    self.shared.queue.set_failing(false);
                    tracing::info!("the audit log is written again");
                }
                true
            }
            Err(error) => {
                self.shared.queue.count_failure();
                self.shared.queue.set_failing(true);
                if self.retry_at.replace(now.after(RETRY)).is_none() {
                    tracing::error!(%error, "the audit log can't be written, and is tried again");
                }
                false
            }
        }
    }

    /// Shows what is written, makes its places free, and tells those who wait for it.
    fn show(&mut self) {
        let last = self.encoded.checked_sub(1).and_then(|last| self.taken.get(last));
        if let (Some(synced), Some(last)) = (&self.shared.synced, last) {
            synced.send_replace(last.event.sequence());
        }
        let denials = self.taken.iter().take(self.encoded).filter(|one| one.share == Some(Share::Denial)).count();
        let answers = self.taken.iter().take(self.encoded).filter(|one| one.share == Some(Share::Answer)).count();
        self.shared.stream.publish(self.taken.drain(..self.encoded).map(|one| one.event));
        self.shared.queue.release(Share::Denial, denials);
        self.shared.queue.release(Share::Answer, answers);
        self.encoded = 0;
        self.lines.clear();
    }
}

/// What the checkpoint's line says of its signature. A line that could not be signed stays: its number is given.
fn attest(event: &mut Event, signed: Result<String, String>) {
    match signed {
        Ok(jwt) => event.checkpoint = Some(jwt.into()),
        Err(why) => {
            tracing::error!(target: "audit", why, "a checkpoint can't be signed");
            event.outcome = Outcome::Error;
            event.message = format!("the checkpoint can't be signed: {why}").into();
        }
    }
}

#[cfg(test)]
impl Recorder {
    pub(super) fn now(&self) -> Timestamp {
        self.shared.queue.now()
    }
}
