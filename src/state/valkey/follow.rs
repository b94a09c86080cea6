//! The thread that keeps this process in touch with the store: connects, polls, reads anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::copy::{Copy, Epoch, Everything};
use super::link::{Link, Looked};
use super::reply::{News, Page, Reply};
use super::script::Call;
use super::settings::Place;
use super::trouble::Trouble;
use super::{demands, source};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::state::standing::{Cutoff, Standing};

/// How often changes are asked for: five polls fit into the time after which a copy is too old.
const POLL: Duration = Duration::from_millis(200);
/// Between two tries to connect: the second soon, for a store that restarts; none later than would keep a store that is
/// back from being found within 5 s.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Polls in a row that may get no answer before the connection is given up.
const PATIENCE: u32 = 5;
/// Polls between two looks at the store's settings.
const LOOK_EVERY: u32 = 50;

/// Begins to follow, in a thread of its own, until `stopped` is.
pub(super) fn start(copy: Arc<Copy>, mut stopped: watch::Receiver<()>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async move {
            tokio::select! {
                () = follow(Arc::clone(&copy)) => {}
                // It is never sent anything: it says that the sender is gone.
                _ = stopped.changed() => copy.disconnected(&Trouble::Broken("the service is stopping".to_owned())),
            }
        });
    };
    std::thread::Builder::new().name("remit-store".to_owned()).spawn(work).map(|_| ())
}

async fn follow(copy: Arc<Copy>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match Link::open(&copy.settings, &copy.scripts).await {
            Ok(link) => {
                let link = Arc::new(link);
                tracing::info!(target: "state", store = %link.address, "connected to the store");
                copy.connected(&link);
                let mut session = Session { copy: Arc::clone(&copy), link, epoch: None, failures: 0, polls: 0 };
                let trouble = session.last().await;
                if session.polls > PATIENCE {
                    pause = FIRST_PAUSE;
                }
                copy.disconnected(&trouble);
            }
            Err(trouble) => copy.disconnected(&trouble),
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// One connection's time.
struct Session {
    copy: Arc<Copy>,
    link: Arc<Link>,
    /// The epoch that the store last named.
    epoch: Option<String>,
    /// Polls without an answer, in a row.
    failures: u32,
    polls: u32,
}

impl Session {
    /// Follows until the connection is of no more use; why it isn't.
    async fn last(&mut self) -> Trouble {
        loop {
            if self.polls.checked_rem(LOOK_EVERY) == Some(0) {
                self.copy.forget_outlived();
                // On the other connection, where it holds no poll up.
                tokio::spawn(look(Arc::clone(&self.copy), Arc::clone(&self.link)));
            }
            self.polls = self.polls.saturating_add(1);
            match self.turn().await {
                Ok(()) => {
                    self.failures = 0;
                    self.copy.note(&Trouble::Reading);
                    if !self.copy.unsourced.is_empty() {
                        tokio::spawn(source::ask(Arc::clone(&self.copy), Arc::clone(&self.link)));
                    }
                }
                Err(Trouble::Epoch(id)) => {
                    self.epoch = Some(id);
                    self.failures = 0;
                }
                Err(trouble) => {
                    self.copy.note(&trouble);
                    self.failures = self.failures.saturating_add(1);
                    if trouble.ends_connection() || self.is_hopeless(&trouble) {
                        return trouble;
                    }
                }
            }
            if self.copy.is_broken.load(Ordering::SeqCst) {
                return Trouble::Broken("the connection broke".to_owned());
            }
            let news = self.copy.wake.notified();
            let _ = tokio::time::timeout(POLL, news).await;
        }
    }

    /// A store that doesn't answer may answer on another connection; a Sentinel may know another one.
    fn is_hopeless(&self, trouble: &Trouble) -> bool {
        let asks = matches!(self.copy.settings.place, Place::AskSentinels { .. });
        self.failures >= PATIENCE && (asks || *trouble == Trouble::Slow)
    }

    /// One poll, or a reading of everything.
    async fn turn(&mut self) -> Result<(), Trouble> {
        let serving = self.copy.serving().ok().map(|(_, epoch)| epoch);
        let owes = self.copy.owes.swap(false, Ordering::SeqCst);
        if let Some(epoch) = serving.filter(|_| !owes) {
            let caught_up = self.catch_up(&epoch).await;
            return match caught_up {
                // Changes are gone that this copy doesn't have.
                Err(Trouble::Reading) => {
                    self.copy.stop_serving(&Trouble::Reading);
                    self.read_anew(&epoch.id).await
                }
                Err(Trouble::Epoch(id)) => self.read_anew(&id).await,
                caught_up => caught_up,
            };
        }
        let read = match self.epoch.clone() {
            Some(id) => self.read_anew(&id).await,
            None => self.read_anew("").await,
        };
        match read {
            Err(Trouble::Epoch(id)) => {
                self.epoch = Some(id.clone());
                self.read_anew(&id).await
            }
            read => {
                if owes && read.is_err() {
                    self.copy.owes.store(true, Ordering::SeqCst);
                }
                read
            }
        }
    }

    async fn ask(&self, call: &Call<'_>) -> Result<Reply, Trouble> {
        self.copy.understood(self.link.run(call).await)
    }

    /// Polls until the copy has every change.
    async fn catch_up(&self, epoch: &Epoch) -> Result<(), Trouble> {
        loop {
            let (news, sent) = self.poll(epoch).await?;
            if self.copy.hear(&epoch.id, &news, sent)? {
                return Ok(());
            }
        }
    }

    async fn poll(&self, epoch: &Epoch) -> Result<(News, Timestamp), Trouble> {
        let sent = (self.copy.clock)();
        let keys = [&epoch.record, &epoch.cutoffs, &epoch.log, &epoch.quarantines].map(String::as_str);
        let call = self.copy.call(&self.copy.scripts.poll, &epoch.id, keys).number(self.copy.changes());
        let reply = self.ask(&call).await?;
        let Reply::News(news) = reply else { return Err(reply.unexpected()) };
        Ok((news, sent))
    }

    /// Reads everything there is of this epoch, tells the store the quarantines that it lacks, and serves the epoch.
    async fn read_anew(&self, id: &str) -> Result<(), Trouble> {
        let epoch = Epoch::new(&self.copy.settings.prefix, id);
        let mut read = Everything::default();
        let changes = self.read_pages(&epoch, &mut read).await?;
        self.copy.replace(id, changes, &read);
        self.catch_up(&epoch).await?;
        self.publish(&epoch, &read).await?;
        self.catch_up(&epoch).await?;
        if self.copy.serving().is_err() {
            self.copy.serve(epoch);
        }
        Ok(())
    }

    /// Reads page after page; the number of the last change before the first.
    async fn read_pages(&self, epoch: &Epoch, read: &mut Everything) -> Result<u64, Trouble> {
        let mut first = None;
        for which in ["2", "3", "4"] {
            let mut next = "0".to_owned();
            loop {
                let keys = [&epoch.record, &epoch.cutoffs, &epoch.quarantines, &epoch.unknown].map(String::as_str);
                let call = self.copy.call(&self.copy.scripts.read, &epoch.id, keys).with(which).with(&next);
                let reply = self.ask(&call).await?;
                let Reply::Page(page) = reply else { return Err(reply.unexpected()) };
                first = first.or(Some(page.changes));
                keep(which, &page, read).ok_or_else(|| Trouble::Odd("a page has another form".to_owned()))?;
                next = page.next;
                if next == "0" {
                    break;
                }
            }
        }
        Ok(first.unwrap_or_default())
    }

    /// Tells the store every quarantine, and every end of one, that it doesn't know yet.
    async fn publish(&self, epoch: &Epoch, read: &Everything) -> Result<(), Trouble> {
        for (name, version, is_quarantine) in self.copy.ledger.standing(kept_here) {
            let known = read.quarantines.get(&name).copied();
            if known.is_some_and(|known| known == (version, is_quarantine)) {
                continue;
            }
            // One that was entered here, or that another backend kept, and that the store has not confirmed has no version:
            // it is a new one.
            let is_untold = version == 0;
            let mode = if is_untold { "" } else { "again" };
            let kind = if is_quarantine { "quarantine" } else { "reinstate" };
            source::tell(&self.copy, &self.link, &name).await;
            let keys = [&epoch.record, &epoch.cutoffs, &epoch.log, &epoch.quarantines].map(String::as_str);
            let call = self.copy.call(&self.copy.scripts.revoke, &epoch.id, keys).number(self.copy.changes());
            let call = call.with(kind).with(&name).number(version.max(1)).with(mode);
            let sent = (self.copy.clock)();
            let reply = self.ask(&call).await?;
            if matches!(reply, Reply::Full(_)) {
                tracing::error!(target: "state", agent = name, "the store has no room for its quarantine, which is in force here");
                continue;
            }
            let Reply::News(news) = reply else { return Err(reply.unexpected()) };
            self.copy.hear(&epoch.id, &news, sent)?;
            if is_untold {
                self.copy.confirm(&name, &news);
            }
        }
        Ok(())
    }
}

/// What this process keeps of quarantines, in force and lifted.
fn kept_here(standing: &Standing) -> Vec<(String, u64, bool)> {
    let lifted = standing.versions().filter(|(name, _)| !standing.is_quarantined(name));
    let lifted = lifted.map(|(name, version)| (name.to_string(), version, false));
    let in_force = standing.quarantined().map(|(name, _)| (name.to_string(), standing.version(name), true));
    in_force.chain(lifted).collect()
}

fn keep(which: &str, page: &Page, read: &mut Everything) -> Option<()> {
    for (name, value) in &page.entries {
        match which {
            "2" => {
                let (number, at) = value.split_once(':')?;
                let cutoff = Cutoff { number: number.parse().ok()?, at: Timestamp::from_seconds(at.parse().ok()?) };
                read.cutoffs.insert(name.clone(), cutoff);
            }
            "3" => {
                let (version, state) = value.split_once(':')?;
                read.quarantines.insert(name.clone(), (version.parse().ok()?, state == "q"));
            }
            _ => {
                read.unknown.insert(TokenId::parse(name)?, value.parse().ok()?);
            }
        }
    }
    Some(())
}

/// Looks at the settings that the store runs with.
async fn look(copy: Arc<Copy>, link: Arc<Link>) {
    match link.look().await {
        Ok(looked) => copy.looked(demands::judge(&copy.settings, &looked), looked),
        Err(trouble @ (Trouble::Forbidden(_) | Trouble::Odd(_))) => {
            copy.looked(demands::unseen(&trouble.detail()), Looked::default());
        }
        // The polls will say it.
        Err(_) => {}
    }
}
