//! By whom an agent was put under quarantine, for those who look: a word beside the store's records, on which nothing is
//! decided. Where it is missing an administrator is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::copy::Copy;
use super::link::Link;
use crate::state::standing::QuarantineSources;

/// Asked for at once; the rest comes with the next poll.
const AT_ONCE: usize = 500;

/// Agents of whose quarantine this process heard and not yet by whom, and whether it knew of none before.
#[derive(Default)]
pub(super) struct Unsourced(Mutex<BTreeMap<String, bool>>);

impl Unsourced {
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// It was heard of; `was_free`: and of none of this agent before.
    pub(super) fn add(&self, name: &str, was_free: bool) {
        let mut agents = self.0.lock();
        let was_free = was_free || agents.get(name).copied().unwrap_or_default();
        agents.insert(name.to_owned(), was_free);
    }

    /// Some of them, to be asked for.
    fn take(&self, most: usize) -> Vec<(String, bool)> {
        let mut agents = self.0.lock();
        std::iter::from_fn(|| agents.pop_first()).take(most).collect()
    }

    /// They were asked for in vain.
    fn put_back(&self, pending: Vec<(String, bool)>) {
        for (name, was_free) in pending {
            self.add(&name, was_free);
        }
    }
}

/// Leaves word for the others by whom this agent is under quarantine here.
pub(super) async fn tell(copy: &Copy, link: &Link, name: &str) {
    let found = copy.ledger.standing(|standing| {
        standing.quarantined().find(|(quarantined, _)| &***quarantined == name).map(|(_, sources)| sources)
    });
    let Some(sources) = found else { return };
    let names = sources.names().collect::<Vec<_>>().join(",");
    if let Err(trouble) = link.note(&key(copy), name, &names).await {
        tracing::warn!(target: "state", agent = name, "the store was not told by whom it is under quarantine: {}", trouble.detail());
    }
}

/// Asks by whom those are under quarantine of which this process just heard.
pub(super) async fn ask(copy: Arc<Copy>, link: Arc<Link>) {
    let pending = copy.unsourced.take(AT_ONCE);
    if pending.is_empty() {
        return;
    }
    let names = pending.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    match link.noted(&key(&copy), &names).await {
        Ok(words) => {
            for ((name, was_free), word) in pending.iter().zip(words) {
                if let Some(sources) = word.as_deref().and_then(QuarantineSources::from_names) {
                    copy.ledger.hear_sources(name, sources, *was_free);
                }
            }
        }
        // Whoever looks meanwhile is told of an administrator.
        Err(_) => copy.unsourced.put_back(pending),
    }
}

fn key(copy: &Copy) -> String {
    format!("{}:{{0}}:sources", copy.settings.prefix)
}
