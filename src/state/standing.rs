//! Who stands under a revocation or a quarantine: one small value, replaced whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::limits;
use crate::domain::time::Timestamp;

/// A numbered revocation: what was minted under a lower number is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoff {
    /// The revocation's number, from one counter.
    pub number: u64,
    /// When; tokens of other issuers made up to this second are dead.
    pub at: Timestamp,
}

impl Cutoff {
    /// Whether it ends a token that was entered under this number, or made at this second by another issuer.
    #[must_use]
    pub(super) fn ends(self, born: Birth) -> bool {
        let by_number = born.number.is_some_and(|number| number < self.number);
        let by_second = born.second.is_some_and(|second| second <= self.at.seconds());
        by_number || by_second
    }

    /// The later of the two, in both respects.
    fn greater(self, other: Self) -> Self {
        Self { number: self.number.max(other.number), at: self.at.max(other.at) }
    }

    fn lives(&self, now: Timestamp) -> bool {
        self.at.seconds().saturating_add(limits::UNKNOWN_REVOCATION_SECONDS) > now.seconds()
    }
}

/// By what a token is compared with a revocation; either is enough to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Birth {
    /// The counter's value when the token's root was minted or entered.
    pub(super) number: Option<u64>,
    /// A foreign token's `iat`.
    pub(super) second: Option<u64>,
}

impl Birth {
    pub(super) fn numbered(number: u64) -> Self {
        Self { number: Some(number), second: None }
    }
}

/// Who puts an agent under quarantine, beside the policy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineSource {
    /// An administrator.
    Api,
    /// Remit itself, for what the agent attempted.
    Automatic,
}

/// Who put an agent under quarantine, beside the policy file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineSources {
    /// An administrator did.
    pub api: bool,
    /// Remit itself did.
    pub automatic: bool,
}

impl QuarantineSources {
    const API: u8 = 1;
    const AUTOMATIC: u8 = 2;

    /// With this one too.
    pub(super) fn and(self, source: QuarantineSource) -> Self {
        match source {
            QuarantineSource::Api => Self { api: true, ..self },
            QuarantineSource::Automatic => Self { automatic: true, ..self },
        }
    }

    /// Their names, as they are shown.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let named = [(self.api, "api"), (self.automatic, "automatic")];
        named.into_iter().filter_map(|(is_so, name)| is_so.then_some(name))
    }

    /// From these names, separated by commas; none if no known one is among them.
    pub(super) fn from_names(names: &str) -> Option<Self> {
        let has = |wanted| names.split(',').any(|name| name == wanted);
        let found = Self { api: has("api"), automatic: has("automatic") };
        (found != Self::default()).then_some(found)
    }

    /// Those of both.
    fn with(self, other: Self) -> Self {
        Self { api: self.api || other.api, automatic: self.automatic || other.automatic }
    }

    /// As one byte, a bit a source.
    pub(super) fn bits(self) -> u8 {
        let bit = |is_so, bit| if is_so { bit } else { 0 };
        bit(self.api, Self::API) | bit(self.automatic, Self::AUTOMATIC)
    }

    /// From that byte. One without a known source is an administrator's: a quarantine is never lost.
    pub(super) fn from_bits(bits: u8) -> Self {
        let automatic = bits & Self::AUTOMATIC != 0;
        Self { api: bits & Self::API != 0 || !automatic, automatic }
    }
}

/// Every revocation by agent or of all, and every quarantine.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    number: u64,
    /// The moment of the last revocation.
    latest: Timestamp,
    all: Option<Cutoff>,
    agents: HashMap<Arc<str>, Cutoff>,
    quarantined: BTreeMap<Arc<str>, QuarantineSources>,
    /// Of quarantines that a shared store knows, in force or lifted: which word is the newer one. One in force without a
    /// version was entered here, and the store has not confirmed it yet.
    versions: BTreeMap<Arc<str>, u64>,
}

impl Standing {
    /// The number of the last revocation.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The revocation of everything, if there was one lately.
    #[must_use]
    pub fn all(&self) -> Option<Cutoff> {
        self.all
    }

    /// The revocation of this agent's tokens, if there was one lately.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<Cutoff> {
        self.agents.get(name).copied()
    }

    /// Every agent with a revocation.
    pub fn agents(&self) -> impl Iterator<Item = (&Arc<str>, Cutoff)> {
        self.agents.iter().map(|(name, cutoff)| (name, *cutoff))
    }

    /// Whether an administrator, or Remit itself, put the agent under quarantine.
    #[must_use]
    pub fn is_quarantined(&self, name: &str) -> bool {
        !self.quarantined.is_empty() && self.quarantined.contains_key(name)
    }

    /// Every agent under quarantine.
    pub fn quarantined(&self) -> impl Iterator<Item = (&Arc<str>, QuarantineSources)> {
        self.quarantined.iter().map(|(name, sources)| (name, *sources))
    }

    /// How many revocations there are, by agent and of all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.agents.len().saturating_add(usize::from(self.all.is_some()))
    }

    /// Whether there is no revocation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no more agents can be remembered: then nothing is minted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.agents.len() >= limits::AGENT_REVOCATIONS
    }

    /// The first revocation that ends a token of this birth with these agents in its chain; the name is empty for all.
    pub(super) fn ended_by<'a>(&self, born: Birth, mut chain: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        if self.all.is_some_and(|cutoff| cutoff.ends(born)) {
            return Some("");
        }
        if self.agents.is_empty() {
            return None;
        }
        chain.find(|agent| self.agent(agent).is_some_and(|cutoff| cutoff.ends(born)))
    }

    pub(super) fn revoke_agent(&mut self, name: &str, at: Timestamp) -> Cutoff {
        let cutoff = self.next(at);
        self.agents.insert(name.into(), cutoff);
        cutoff
    }

    pub(super) fn revoke_all(&mut self, at: Timestamp) -> Cutoff {
        let cutoff = self.next(at);
        self.all = Some(cutoff);
        // Everything before is dead now, so the revocations before it say nothing more.
        self.agents.clear();
        cutoff
    }

    /// Also by this source; by which ones it is now. No shared store was told of it yet.
    pub(super) fn quarantine(&mut self, name: &str, source: QuarantineSource) -> QuarantineSources {
        let sources = self.quarantined.get(name).copied().unwrap_or_default().and(source);
        self.restore_quarantine(name, sources);
        sources
    }

    /// The moment of the last revocation.
    pub(super) fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Goes on counting from here; never back.
    pub(super) fn continue_from(&mut self, number: u64, latest: Timestamp) {
        self.number = self.number.max(number);
        self.latest = self.latest.max(latest);
    }

    /// Puts back a revocation of everything. What came after it stays.
    pub(super) fn restore_all(&mut self, cutoff: Cutoff) {
        self.continue_from(cutoff.number, cutoff.at);
        self.all = Some(self.all.map_or(cutoff, |all| all.greater(cutoff)));
        self.agents.retain(|_, agent| agent.number > cutoff.number);
    }

    /// Puts back a revocation of an agent's tokens; of two the later one counts.
    pub(super) fn restore_agent(&mut self, name: &str, cutoff: Cutoff) {
        self.continue_from(cutoff.number, cutoff.at);
        let kept = self.agent(name).map_or(cutoff, |kept| kept.greater(cutoff));
        self.agents.insert(name.into(), kept);
    }

    /// Puts back a quarantine. A shared store has a word on it if its version is put back after it.
    pub(super) fn restore_quarantine(&mut self, name: &str, sources: QuarantineSources) {
        self.quarantined.insert(name.into(), sources);
        self.versions.remove(name);
    }

    pub(super) fn reinstate(&mut self, name: &str) -> bool {
        self.quarantined.remove(name).is_some()
    }

    /// The version of the last word on this agent's quarantine; 0 where a shared store has none.
    pub(super) fn version(&self, name: &str) -> u64 {
        self.versions.get(name).copied().unwrap_or_default()
    }

    /// Every agent on whose quarantine a shared store has a word.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.versions.iter().map(|(name, version)| (name, *version))
    }

    /// Whether the agent was put under quarantine here, and the shared store has not confirmed it yet.
    fn is_untold(&self, name: &str) -> bool {
        self.version(name) == 0 && self.quarantined.contains_key(name)
    }

    /// Puts back the version of the last word; 0 is none.
    pub(super) fn restore_version(&mut self, name: &str, version: u64) {
        if version == 0 {
            self.versions.remove(name);
        } else {
            self.versions.insert(name.into(), version);
        }
    }

    /// The shared store took the quarantine that was entered here, under this version. Whether anything changed.
    pub(super) fn confirm(&mut self, name: &str, version: u64) -> bool {
        let is_untold = self.is_untold(name);
        if is_untold {
            self.restore_version(name, version);
        }
        is_untold
    }

    /// Takes a shared store's word on a quarantine, if it is the newer one. Of two equal ones a quarantine wins. One that
    /// the store has still to be told of is newer than all that it says. Whether anything changed.
    pub(super) fn hear(&mut self, name: &str, version: u64, is_quarantine: bool) -> bool {
        if self.is_untold(name) {
            return false;
        }
        let known = self.version(name);
        let is_free = !self.quarantined.contains_key(name);
        let is_news = version > known || (version == known && is_quarantine && is_free);
        if is_news {
            if !is_quarantine {
                self.reinstate(name);
            } else if is_free {
                // The store doesn't say whose word it is.
                self.quarantine(name, QuarantineSource::Api);
            }
            self.restore_version(name, version);
        }
        is_news
    }

    /// Takes the word on who put an agent under quarantine, in the place of what stood there or beside it. Whether
    /// anything changed.
    pub(super) fn hear_sources(&mut self, name: &str, heard: QuarantineSources, replaces: bool) -> bool {
        let Some(known) = self.quarantined.get_mut(name) else { return false };
        let sources = if replaces { heard } else { known.with(heard) };
        std::mem::replace(known, sources) != sources
    }

    /// The same quarantines, and no revocation: those are read anew.
    pub(super) fn without_revocations(&self) -> Self {
        Self { quarantined: self.quarantined.clone(), versions: self.versions.clone(), ..Self::default() }
    }

    /// Whether there are revocations that are older than any token can be.
    pub(super) fn has_outlived(&self, now: Timestamp) -> bool {
        self.agents.values().chain(&self.all).any(|cutoff| !cutoff.lives(now))
    }

    /// Drops revocations that are older than any token can be.
    pub(super) fn forget_outlived(&mut self, now: Timestamp) {
        self.agents.retain(|_, cutoff| cutoff.lives(now));
        self.all = self.all.filter(|cutoff| cutoff.lives(now));
    }

    /// The next number. Its moment never goes back, though two that revoke may have read the clock in either order.
    fn next(&mut self, at: Timestamp) -> Cutoff {
        self.number = self.number.saturating_add(1);
        self.latest = self.latest.max(at);
        Cutoff { number: self.number, at: self.latest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_has_every_source_that_said_so_and_one_without_is_an_administrators() {
        let mut standing = Standing::default();
        standing.quarantine("a", QuarantineSource::Automatic);
        let sources = standing.quarantine("a", QuarantineSource::Api);
        assert_eq!(sources.names().collect::<Vec<_>>(), ["api", "automatic"]);
        assert_eq!(standing.quarantine("b", QuarantineSource::Automatic).names().collect::<Vec<_>>(), ["automatic"]);
        for sources in standing.quarantined().map(|(_, sources)| sources).collect::<Vec<_>>() {
            assert_eq!(QuarantineSources::from_bits(sources.bits()), sources);
        }
        assert_eq!(QuarantineSources::from_names("automatic,another"), Some(QuarantineSources::from_bits(2)));
        assert_eq!(QuarantineSources::from_names("another"), None);
        assert!(standing.hear_sources("b", QuarantineSources::from_bits(1), false), "beside what is known");
        assert_eq!(standing.quarantined().last().unwrap().1, QuarantineSources::from_bits(3));
        assert!(standing.hear_sources("b", QuarantineSources::from_bits(1), true), "in its place");
        assert!(!standing.hear_sources("b", QuarantineSources::from_bits(1), true));
        assert!(!standing.hear_sources("c", QuarantineSources::from_bits(1), true), "it enters no quarantine");
        for unknown in [0, 4, 128] {
            assert_eq!(QuarantineSources::from_bits(unknown), QuarantineSources { api: true, automatic: false });
        }
        assert!(standing.reinstate("a") && !standing.is_quarantined("a"), "one reinstatement lifts them all");
    }
}
