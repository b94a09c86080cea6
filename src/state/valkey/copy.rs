//! What this process knows of the store: the epoch, who is revoked, how old that is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::demands::Verdict;
use super::link::{Link, Looked};
use super::reply::{Entry, Kind, News, Reply};
use super::script::{Call, Script, Scripts};
use super::settings::StoreSettings;
use super::source::Unsourced;
use super::trouble::Trouble;
use super::{Chance, FRESH};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::state::disk::{Clock, Kept};
use crate::state::ledger::Ledger;
use crate::state::standing::{Cutoff, Standing};

/// An epoch that is served: its id, and the names of its keys.
pub(super) struct Epoch {
    pub(super) id: String,
    pub(super) record: String,
    pub(super) quarantines: String,
    pub(super) cutoffs: String,
    pub(super) unknown: String,
    pub(super) log: String,
    /// What stands before a token's id.
    pub(super) token: String,
}

impl Epoch {
    /// The names of an epoch's keys. All have one hash tag, so that a cluster would keep them together. Keys of an
    /// earlier epoch have other names, and go by themselves.
    pub(super) fn new(prefix: &str, id: &str) -> Self {
        let short = id.get(..16).unwrap_or(id);
        let own = |name: &str| format!("{prefix}:{{0}}:{short}:{name}");
        Self {
            id: id.to_owned(),
            record: format!("{prefix}:{{0}}:epoch"),
            quarantines: format!("{prefix}:{{0}}:quarantines"),
            cutoffs: own("revoked"),
            unknown: own("unknown"),
            log: own("log"),
            token: own("t:"),
        }
    }

    pub(super) fn token(&self, id: TokenId) -> String {
        format!("{}{id}", self.token)
    }
}

/// How far the copy follows.
#[derive(Default)]
struct Progress {
    /// The epoch that it is of.
    epoch: String,
    /// The last change in it.
    changes: u64,
}

/// What this process knows of the store, and how it asks it.
pub(super) struct Copy {
    pub(super) settings: StoreSettings,
    pub(super) scripts: Scripts,
    /// Holds the copy of revocations, and makes quarantines durable. It counts no token.
    pub(super) ledger: Arc<Ledger>,
    pub(super) kept: Arc<Kept>,
    pub(super) clock: Clock,
    chance: Chance,
    link: ArcSwapOption<Link>,
    epoch: ArcSwapOption<Epoch>,
    progress: Mutex<Progress>,
    unknown: Mutex<HashMap<TokenId, u64>>,
    pub(super) unsourced: Unsourced,
    /// When the newest answer that is wholly in the copy was asked for, in nanoseconds.
    heard: AtomicU64,
    fence: AtomicU64,
    /// Something wants the thread.
    pub(super) wake: Notify,
    /// A quarantine is in force here that the store may not have.
    pub(super) owes: AtomicBool,
    /// The connection broke under a request.
    pub(super) is_broken: AtomicBool,
    /// What is wrong, or [`Trouble::Reading`].
    trouble: Mutex<Trouble>,
    verdict: Mutex<Option<(Verdict, Looked)>>,
    counts_foreign: AtomicBool,
    known_id: Mutex<String>,
    epoch_changes: AtomicU64,
    connections: AtomicU64,
    contact: AtomicU64,
}

/// How the store is, for operators.
#[derive(Clone, Debug, Default)]
pub struct StoreReport {
    /// Requests are answered.
    pub is_up: bool,
    /// The epoch that was heard of last; empty: none yet.
    pub epoch: String,
    /// How often another epoch was found than before.
    pub epoch_changes: u64,
    /// Where the primary is; empty: not connected.
    pub address: String,
    /// Connections after the first.
    pub reconnects: u64,
    /// Since the store last answered; none: never.
    pub last_contact: Option<Duration>,
    /// How old the copy of revocations is; none: there is none.
    pub copy_age: Option<Duration>,
    /// The settings that count, as the store runs with them.
    pub settings: Vec<(String, String)>,
    /// Keys in its database, tokens and the few others, when it was last looked at.
    pub keys: u64,
    /// What is wrong with them, and what to do.
    pub wrong_settings: Vec<String>,
    /// Why nothing is allowed, for callers.
    pub halted: Option<&'static str>,
    /// The same for operators.
    pub trouble: Option<String>,
}

impl Copy {
    pub(super) fn new(
        settings: StoreSettings,
        ledger: Arc<Ledger>,
        kept: Arc<Kept>,
        clock: Clock,
        chance: Chance,
    ) -> Self {
        Self {
            settings,
            scripts: Scripts::new(),
            ledger,
            kept,
            clock,
            chance,
            link: ArcSwapOption::empty(),
            epoch: ArcSwapOption::empty(),
            progress: Mutex::default(),
            unknown: Mutex::default(),
            unsourced: Unsourced::default(),
            heard: AtomicU64::new(0),
            fence: AtomicU64::new(0),
            wake: Notify::new(),
            owes: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            trouble: Mutex::new(Trouble::Broken("no connection yet".to_owned())),
            verdict: Mutex::default(),
            counts_foreign: AtomicBool::new(false),
            known_id: Mutex::default(),
            epoch_changes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            contact: AtomicU64::new(0),
        }
    }

    /// Whether an answer may be given now.
    pub(super) fn accepts(&self) -> Result<(), Trouble> {
        if self.link.load().is_none() || self.epoch.load().is_none() {
            return Err(self.trouble.lock().clone());
        }
        if self.age() > FRESH {
            // Where it was well a moment ago, the thread has not noticed yet.
            let trouble = self.trouble.lock().clone();
            return Err(if trouble == Trouble::Reading { Trouble::Stale } else { trouble });
        }
        Ok(())
    }

    /// How old the copy is.
    fn age(&self) -> Duration {
        (self.clock)().since(Timestamp::from_nanos(self.heard.load(Ordering::SeqCst)))
    }

    /// The connection, and the epoch that is served.
    pub(super) fn serving(&self) -> Result<(Arc<Link>, Arc<Epoch>), Trouble> {
        match (self.link.load_full(), self.epoch.load_full()) {
            (Some(link), Some(epoch)) => Ok((link, epoch)),
            _ => Err(self.trouble.lock().clone()),
        }
    }

    /// A run of a script of this epoch: the keys begin with the epoch's record.
    pub(super) fn call<'s, const N: usize>(&self, script: &'s Script, epoch: &str, keys: [&str; N]) -> Call<'s> {
        let random = TokenId::from_bytes((self.chance)()).to_string();
        let number = self.ledger.standing(Standing::number);
        Call::new(script, keys).with(random).with(epoch).number(number)
    }

    /// Asks on behalf of a request. The thread is told of what it has to see to.
    pub(super) async fn ask(&self, link: &Link, call: &Call<'_>) -> Result<Reply, Trouble> {
        let answered = link.run(call).await;
        self.understood(answered).inspect_err(|_| self.wake.notify_one())
    }

    /// What an answer says, and what it means for this process.
    pub(super) fn understood(&self, answered: Result<redis::Value, Trouble>) -> Result<Reply, Trouble> {
        let reply = answered.and_then(|value| {
            self.contact.store((self.clock)().nanos(), Ordering::Relaxed);
            Reply::read(&value).ok_or_else(|| Trouble::Odd(format!("{value:?}").chars().take(120).collect()))
        });
        let trouble = match reply {
            Ok(Reply::Replica) => Trouble::Replica,
            Ok(Reply::Epoch(id)) => Trouble::Epoch(id),
            Ok(Reply::Wait(_)) => Trouble::Waiting,
            Ok(Reply::Strange) => return Err(Trouble::Strange),
            Ok(Reply::Clocks) => return Err(Trouble::Clocks),
            Ok(reply) => return Ok(reply),
            Err(trouble) => trouble,
        };
        match &trouble {
            Trouble::Broken(_) => self.is_broken.store(true, Ordering::SeqCst),
            Trouble::Replica | Trouble::Epoch(_) | Trouble::Waiting => self.stop_serving(&trouble),
            // The polls will say whether more is wrong.
            Trouble::Slow
            | Trouble::Reading
            | Trouble::Stale
            | Trouble::Strange
            | Trouble::Clocks
            | Trouble::Changed
            | Trouble::Replicas
            | Trouble::Loading
            | Trouble::Disk
            | Trouble::Memory
            | Trouble::Files(_)
            | Trouble::Forbidden(_)
            | Trouble::NoScript
            | Trouble::Odd(_) => return Err(trouble),
        }
        Err(trouble)
    }

    /// A connection is there.
    pub(super) fn connected(&self, link: &Arc<Link>) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.is_broken.store(false, Ordering::SeqCst);
        // It may be set otherwise than the last one: not before it was looked at.
        self.counts_foreign.store(false, Ordering::SeqCst);
        self.link.store(Some(Arc::clone(link)));
    }

    /// It no longer is.
    pub(super) fn disconnected(&self, trouble: &Trouble) {
        self.stop_serving(trouble);
        self.link.store(None);
    }

    /// Nothing is allowed any more, for this reason.
    pub(super) fn stop_serving(&self, trouble: &Trouble) {
        self.note(trouble);
        self.epoch.store(None);
    }

    /// Notes what is wrong; a new trouble is logged once.
    pub(super) fn note(&self, trouble: &Trouble) {
        if let Trouble::Epoch(id) = trouble {
            self.met(id);
        }
        let mut last = self.trouble.lock();
        if last.detail() != trouble.detail() && *trouble != Trouble::Reading {
            tracing::warn!(target: "state", "{}", trouble.detail());
        }
        *last = trouble.clone();
    }

    fn met(&self, id: &str) {
        let mut known = self.known_id.lock();
        if *known != id {
            if !known.is_empty() {
                self.epoch_changes.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(target: "state", epoch = id, "the store began a new epoch: every token of before has ended");
            }
            id.clone_into(&mut known);
        }
    }

    /// This epoch is in the copy, as it was at that moment, and is served from now on.
    pub(super) fn serve(&self, epoch: Epoch) {
        self.met(&epoch.id);
        self.note(&Trouble::Reading);
        tracing::info!(target: "state", epoch = epoch.id, "the store's revocations are read: serving");
        self.epoch.store(Some(Arc::new(epoch)));
    }

    /// Puts what was read in the place of all that was known of revocations; quarantines that are newer here stay.
    pub(super) fn replace(&self, epoch: &str, changes: u64, read: &Everything) {
        let mut progress = self.progress.lock();
        let goes_on = progress.epoch == epoch;
        *progress = Progress { epoch: epoch.to_owned(), changes };
        self.ledger.follow(|standing| {
            let mut fresh = standing.without_revocations();
            if goes_on {
                // Requests that begin now begin after it.
                fresh.continue_from(standing.number(), Timestamp::default());
            }
            // Of all first: what came after it stays.
            let (all, agents): (Vec<_>, Vec<_>) = read.cutoffs.iter().partition(|(name, _)| name.is_empty());
            for (_, cutoff) in all {
                fresh.restore_all(*cutoff);
            }
            for (name, cutoff) in agents {
                fresh.restore_agent(name, *cutoff);
            }
            *standing = fresh;
        });
        for (name, (version, is_quarantine)) in &read.quarantines {
            self.hear_word(name, *version, *is_quarantine);
        }
        self.unknown.lock().clone_from(&read.unknown);
    }

    /// Takes what changed into the copy. `sent`: when it was asked for. Whether all of it is there now.
    ///
    /// # Errors
    /// Changes are missing in between.
    pub(super) fn hear(&self, epoch: &str, news: &News, sent: Timestamp) -> Result<bool, Trouble> {
        let mut progress = self.progress.lock();
        if progress.epoch != epoch {
            return Err(Trouble::Reading);
        }
        for entry in &news.entries {
            let next = progress.changes.saturating_add(1);
            if entry.change > next {
                return Err(Trouble::Reading);
            }
            if entry.change == next {
                self.take(entry);
                progress.changes = next;
            }
        }
        if progress.changes < news.changes && news.entries.is_empty() {
            return Err(Trouble::Reading);
        }
        let is_all = progress.changes >= news.changes;
        if is_all {
            self.fence.fetch_max(news.fence, Ordering::Relaxed);
            if self.ledger.standing(Standing::number) < news.counter {
                self.ledger.follow(|standing| standing.continue_from(news.counter, Timestamp::default()));
            }
            self.heard.fetch_max(sent.nanos(), Ordering::SeqCst);
        }
        Ok(is_all)
    }

    fn take(&self, entry: &Entry) {
        let cutoff = Cutoff { number: entry.number, at: Timestamp::from_seconds(entry.at) };
        match entry.kind {
            Kind::Agent => self.ledger.follow(|standing| standing.restore_agent(&entry.name, cutoff)),
            Kind::All => self.ledger.follow(|standing| standing.restore_all(cutoff)),
            Kind::Quarantine => {
                self.ledger.follow(|standing| standing.restore_agent(&entry.name, cutoff));
                self.hear_word(&entry.name, entry.version, true);
            }
            Kind::Reinstate => self.hear_word(&entry.name, entry.version, false),
            Kind::Unknown => {
                if let Some(id) = TokenId::parse(&entry.name) {
                    self.unknown.lock().insert(id, entry.number);
                }
            }
        }
    }

    /// The store's word on a quarantine. It doesn't say whose word it is: that is asked for later.
    fn hear_word(&self, name: &str, version: u64, is_quarantine: bool) {
        let is_quarantined = || self.ledger.standing(|standing| standing.is_quarantined(name));
        let was_free = !is_quarantined();
        let is_news = self.ledger.standing(|standing| standing.version(name)) < version || was_free;
        self.ledger.hear(name, version, is_quarantine);
        if is_news && is_quarantine && is_quarantined() {
            self.unsourced.add(name, was_free);
        }
    }

    /// The store took the quarantine that was entered here: from now on its word on it counts.
    pub(super) fn confirm(&self, name: &str, news: &News) {
        let is_own =
            |entry: &&Entry| entry.kind == Kind::Quarantine && entry.name == name && entry.number == news.number;
        let own = news.entries.iter().find(is_own);
        if let Some(own) = own {
            self.ledger.confirm(name, own.version);
            self.unsourced.add(name, false);
        }
        // What another answer brought of it meanwhile was not taken; and of very many changes it may be missing.
        if own.is_none_or(|own| self.changes() > own.change) {
            self.owes.store(true, Ordering::SeqCst);
            self.wake.notify_one();
        }
    }

    /// The last change in the copy.
    pub(super) fn changes(&self) -> u64 {
        self.progress.lock().changes
    }

    /// Forgets what is older than any token.
    pub(super) fn forget_outlived(&self) {
        let now = (self.clock)();
        self.ledger.forget_outlived_revocations(now);
        self.unknown.lock().retain(|_, until| *until > now.seconds());
    }

    /// What the store is set to.
    pub(super) fn looked(&self, verdict: Verdict, looked: Looked) {
        self.counts_foreign.store(verdict.counts_foreign, Ordering::SeqCst);
        let mut last = self.verdict.lock();
        let known = last.as_ref().map(|(verdict, _)| verdict.wrong.as_slice()).unwrap_or_default();
        for wrong in verdict.wrong.iter().filter(|wrong| !known.contains(wrong)) {
            tracing::warn!(target: "state", "{wrong}");
        }
        *last = Some((verdict, looked));
    }

    pub(super) fn counts_foreign(&self) -> bool {
        self.counts_foreign.load(Ordering::SeqCst)
    }

    pub(super) fn fence(&self) -> Timestamp {
        Timestamp::from_seconds(self.fence.load(Ordering::Relaxed))
    }

    pub(super) fn unknown_revocations(&self) -> Vec<(TokenId, u64)> {
        self.unknown.lock().iter().map(|(id, until)| (*id, *until)).collect()
    }

    pub(super) fn report(&self) -> StoreReport {
        let halted = self.accepts().err();
        let ago = |at: &AtomicU64| match at.load(Ordering::Relaxed) {
            0 => None,
            at => Some((self.clock)().since(Timestamp::from_nanos(at))),
        };
        let (verdict, looked) = self.verdict.lock().clone().unwrap_or_default();
        StoreReport {
            is_up: halted.is_none(),
            epoch: self.known_id.lock().clone(),
            epoch_changes: self.epoch_changes.load(Ordering::Relaxed),
            address: self.link.load().as_ref().map(|link| link.address.to_string()).unwrap_or_default(),
            reconnects: self.connections.load(Ordering::Relaxed).saturating_sub(1),
            last_contact: ago(&self.contact),
            copy_age: ago(&self.heard),
            settings: looked.settings,
            keys: looked.keys,
            wrong_settings: verdict.wrong,
            trouble: halted.as_ref().map(Trouble::detail),
            halted: halted.map(|trouble| trouble.why()),
        }
    }
}

/// All that nodes keep a copy of.
#[derive(Default)]
pub(super) struct Everything {
    /// By agent; of all under the empty name.
    pub(super) cutoffs: HashMap<String, Cutoff>,
    /// Versions, and whether they are in force.
    pub(super) quarantines: HashMap<String, (u64, bool)>,
    /// Ids, and the second up to which each is kept.
    pub(super) unknown: HashMap<TokenId, u64>,
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
