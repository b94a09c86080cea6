//! Revocations that the policy file asks for and that the state could not take yet.
//!
//! Who is put under quarantine by the file loses its tokens. A shared store may be out of reach at that moment, and the
//! file may let the agent go before the store is back: until its tokens are ended, the agent stays under quarantine.
//!
//! The debt is in memory. Nothing was promised to anybody: a file has no answer. A start ends the tokens of all agents that
//! the file names then, which makes good what a crash forgot, but for agents that were taken out of the file between.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::domain::agent::AgentName;

/// The agents whose tokens have yet to be ended.
#[derive(Default)]
pub(super) struct Owed {
    agents: Mutex<BTreeSet<AgentName>>,
    /// Requests look here first.
    any: AtomicBool,
}

impl Owed {
    pub(super) fn add(&self, agent: AgentName) {
        let mut agents = self.agents.lock();
        agents.insert(agent);
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn paid(&self, agent: &AgentName) {
        let mut agents = self.agents.lock();
        agents.remove(agent);
        self.any.store(!agents.is_empty(), Ordering::Release);
    }

    pub(super) fn has(&self, agent: &str) -> bool {
        self.any.load(Ordering::Acquire) && self.agents.lock().iter().any(|owed| owed.as_str() == agent)
    }

    pub(super) fn list(&self) -> Vec<AgentName> {
        if self.any.load(Ordering::Acquire) { self.agents.lock().iter().cloned().collect() } else { Vec::new() }
    }
}
