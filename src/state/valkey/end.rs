//! Revocations and quarantines. What this process revoked is in its own copy before it says so.

use std::sync::atomic::Ordering;

use super::Store;
use super::copy::{Copy, Epoch};
use super::link::Link;
use super::reply::{News, Reply};
use super::script::Call;
use super::source;
use super::trouble::Trouble;
use crate::domain::limits;
use crate::domain::token::TokenId;
use crate::state::standing::QuarantineSource;
use crate::state::{Refused, TokenRecord};

const IN_FORCE_HERE: &str =
    "it is in force on this node, and the others hear of it when the store answers again: ask again then";
const MAY_NOT_SURVIVE: &str = "it is in force, and fewer replicas than [state] replicas confirmed it, so that it may not survive a change of primary: ask again when they are back";

impl Store {
    /// Ends a token that is held, and its descendants. Whether it is.
    pub(in crate::state) async fn revoke_held(&self, token: &TokenRecord<'_>) -> Result<bool, Refused> {
        self.end(token.id, token.tag.bytes(), None).await
    }

    /// The same by its id alone.
    pub(in crate::state) async fn revoke_held_id(&self, id: TokenId) -> Result<bool, Refused> {
        self.end(id, &[], None).await
    }

    /// Ends a token whether it is held or not.
    pub(in crate::state) async fn revoke_unknown(&self, id: TokenId, keep_until: u64) -> Result<(), Refused> {
        self.end(id, &[], Some(keep_until)).await.map(|_| ())
    }

    /// Ends every token that has this agent in its chain; the revocation's number.
    pub(in crate::state) async fn revoke_agent(&self, name: &str) -> Result<u64, Refused> {
        self.change("agent", name).await
    }

    /// Ends every token; the revocation's number.
    pub(in crate::state) async fn revoke_all(&self) -> Result<u64, Refused> {
        self.change("all", "").await
    }

    /// Lifts a quarantine; the last revocation's number.
    pub(in crate::state) async fn reinstate(&self, name: &str) -> Result<u64, Refused> {
        let copy = &self.copy;
        let owing = Owing::begin(copy);
        // What comes late must not lift a quarantine that was entered since.
        let version = copy.ledger.standing(|standing| standing.version(name));
        let mut lifted = self.lift(name, version).await?;
        if let Err(stored) = lifted {
            // This node had not heard of it yet, and whoever asks is still there: once more, for the one in force now.
            lifted = self.lift(name, stored).await?;
        }
        let number = lifted.map_err(|_| Trouble::Changed.refused())?;
        if copy.ledger.standing(|standing| standing.is_quarantined(name)) {
            // It is in force here, and the store had nothing to lift: it is told first.
            return Err(Trouble::Changed.refused());
        }
        owing.paid();
        Ok(number)
    }

    /// Puts an agent under quarantine: here first and durably, then in the store, then on every replica.
    pub(in crate::state) async fn quarantine(&self, name: &str, source: QuarantineSource) -> Result<u64, Refused> {
        // Whoever asked may go away: the thread then tells the store.
        let owing = Owing::begin(&self.copy);
        self.copy.ledger.quarantine_here(name, source)?;
        // A disk that fails is said when this is done: it keeps nobody else from hearing.
        let durable = self.copy.kept.revocations_settled(limits::STATE_WAIT).await;
        let number = self.spread(name).await?;
        owing.paid();
        durable.map_err(|_| Refused::Unavailable { why: crate::state::MAY_NOT_LAST })?;
        Ok(number)
    }

    async fn spread(&self, name: &str) -> Result<u64, Refused> {
        let here = |trouble: Trouble| {
            tracing::error!(target: "state", agent = name, "its quarantine is in force here alone: {}", trouble.detail());
            Refused::Unavailable { why: IN_FORCE_HERE }
        };
        let copy = &self.copy;
        let (link, epoch) = copy.serving().map_err(here)?;
        let call = self.changing(&epoch).with("quarantine").with(name).number(1).with("");
        let sent = (copy.clock)();
        // Both on one connection, the word on who did it first: whoever hears of the quarantine finds it.
        let ((), answered) = tokio::join!(source::tell(copy, &link, name), link.run_replicated(&call));
        let news = copy.understood(answered).map_err(here)?.news()?;
        let number = self.heard(&epoch, &news, sent);
        copy.confirm(name, &news);
        self.on_every_replica(&link).await?;
        Ok(number)
    }

    async fn on_every_replica(&self, link: &Link) -> Result<(), Refused> {
        let wanted = self.copy.settings.replicas;
        if wanted == 0 {
            return Ok(());
        }
        match link.replicated(wanted).await {
            Ok(replicas) if replicas >= u64::from(wanted) => Ok(()),
            found => {
                let found = found.map_or_else(|trouble| trouble.detail(), |replicas| replicas.to_string());
                tracing::error!(target: "state", wanted, found, "a quarantine is not on every replica");
                Err(Refused::Unavailable { why: MAY_NOT_SURVIVE })
            }
        }
    }

    async fn end(&self, id: TokenId, tag: &[u8], keep_until: Option<u64>) -> Result<bool, Refused> {
        let copy = &self.copy;
        let (link, epoch) = copy.serving().map_err(|trouble| trouble.refused())?;
        let token = epoch.token(id);
        let keys = [&epoch.record, &epoch.unknown, &epoch.log, &token].map(String::as_str);
        let call = copy.call(&copy.scripts.end, &epoch.id, keys).number(copy.changes()).with(tag);
        let until = keep_until.map(|second| second.to_string()).unwrap_or_default();
        let ended = self.changed(&link, &epoch, call.with(id.to_string()).with(until)).await?;
        Ok(ended != 0)
    }

    async fn change(&self, kind: &str, name: &str) -> Result<u64, Refused> {
        let (link, epoch) = self.copy.serving().map_err(|trouble| trouble.refused())?;
        let call = self.changing(&epoch).with(kind).with(name).number(1).with("");
        self.changed(&link, &epoch, call).await
    }

    /// Lifts the quarantine of this version; the last revocation's number, or the version that is stored instead.
    async fn lift(&self, name: &str, version: u64) -> Result<Result<u64, u64>, Refused> {
        let copy = &self.copy;
        let (link, epoch) = copy.serving().map_err(|trouble| trouble.refused())?;
        let call = self.changing(&epoch).with("reinstate").with(name).number(version).with("");
        let sent = (copy.clock)();
        let reply = copy.ask(&link, &call).await.map_err(|trouble| trouble.refused())?;
        if let Reply::Changed(stored) = reply {
            return Ok(Err(stored));
        }
        Ok(Ok(self.heard(&epoch, &reply.news()?, sent)))
    }

    fn changing(&self, epoch: &Epoch) -> Call<'_> {
        let keys = [&epoch.record, &epoch.cutoffs, &epoch.log, &epoch.quarantines].map(String::as_str);
        self.copy.call(&self.copy.scripts.revoke, &epoch.id, keys).number(self.copy.changes())
    }

    /// Asks for a change and takes it into the copy; what the script answers.
    async fn changed(&self, link: &Link, epoch: &Epoch, call: Call<'_>) -> Result<u64, Refused> {
        let sent = (self.copy.clock)();
        let reply = self.copy.ask(link, &call).await.map_err(|trouble| trouble.refused())?;
        Ok(self.heard(epoch, &reply.news()?, sent))
    }

    /// Takes what changed into the copy. Where some of it is missing nothing is allowed until all of it was read.
    fn heard(&self, epoch: &Epoch, news: &News, sent: crate::domain::time::Timestamp) -> u64 {
        if self.copy.hear(&epoch.id, news, sent) != Ok(true) {
            self.copy.stop_serving(&Trouble::Reading);
            self.copy.wake.notify_one();
        }
        news.number
    }
}

/// That the store may lack what is in force here, until it was told; also where the request is given up meanwhile.
struct Owing<'c> {
    copy: Option<&'c Copy>,
}

impl<'c> Owing<'c> {
    fn begin(copy: &'c Copy) -> Self {
        Self { copy: Some(copy) }
    }

    fn paid(mut self) {
        self.copy = None;
    }
}

impl Drop for Owing<'_> {
    fn drop(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.owes.store(true, Ordering::SeqCst);
            copy.wake.notify_one();
        }
    }
}
