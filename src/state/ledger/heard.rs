//! The ledger as the copy of what a shared store says of revocations and quarantines.

use super::Ledger;
use crate::state::Refused;
use crate::state::change::Change;
use crate::state::locks::{Locks, Mutex as _, Snapshot as _};
use crate::state::standing::{QuarantineSource, QuarantineSources, Standing};

impl<K: Locks> Ledger<K> {
    /// Changes the copy of what the store keeps durable itself: nothing is noted.
    pub(in crate::state) fn follow(&self, change: impl FnOnce(&mut Standing)) {
        self.revoking.with(|()| {
            let mut standing = self.standing.read(Clone::clone);
            change(&mut standing);
            self.standing.replace(standing);
        });
    }

    /// Takes the store's word on a quarantine, if it is the newer one, and notes it.
    pub(in crate::state) fn hear(&self, name: &str, version: u64, is_quarantine: bool) {
        let heard = self.change_standing(|standing| {
            Ok(if standing.hear(name, version, is_quarantine) { word(standing, name) } else { Vec::new() })
        });
        // Only a bound could refuse it, and none is asked.
        drop(heard);
    }

    /// Takes the word on who put an agent under quarantine, and notes it.
    pub(in crate::state) fn hear_sources(&self, name: &str, sources: QuarantineSources, replaces: bool) {
        let heard = self.change_standing(|standing| {
            Ok(if standing.hear_sources(name, sources, replaces) { word(standing, name) } else { Vec::new() })
        });
        drop(heard);
    }

    /// Puts an agent under quarantine on this node, before the store knows, and notes it. No word of the store lifts it
    /// before it was confirmed.
    pub(in crate::state) fn quarantine_here(&self, name: &str, source: QuarantineSource) -> Result<(), Refused> {
        self.change_standing(|standing| {
            super::room_for_agent(standing, name)?;
            standing.quarantine(name, source);
            Ok(word(standing, name))
        })?;
        Ok(())
    }

    /// The store took the quarantine that was entered here, under this version. It is noted.
    pub(in crate::state) fn confirm(&self, name: &str, version: u64) {
        let confirmed = self.change_standing(|standing| {
            Ok(if standing.confirm(name, version) { word(standing, name) } else { Vec::new() })
        });
        // Only a bound could refuse it, and none is asked.
        drop(confirmed);
    }
}

/// The word on an agent's quarantine, as it is noted.
fn word<'n>(standing: &Standing, name: &'n str) -> Vec<Change<'n>> {
    let sources = standing.quarantined().find(|(quarantined, _)| &***quarantined == name).map(|(_, sources)| sources);
    let state = match sources {
        Some(sources) => Change::Quarantined { name: name.into(), sources },
        None => Change::Reinstated { name: name.into() },
    };
    vec![state, Change::QuarantineVersion { name: name.into(), version: standing.version(name) }]
}
