//! Names as small numbers, and how many live tokens each root's issuer has.

use std::collections::HashMap;
use std::sync::Arc;

use super::Refused;
use super::book::{Symbol, Symbols};

/// Bounds of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Capacity {
    /// Live tokens at most.
    pub entries: usize,
    /// Live tokens at most whose chain one agent began.
    pub per_agent: usize,
}

/// Names and counts, behind one lock that only minting and sweeping take.
#[derive(Default)]
pub(super) struct Register {
    capacity: Capacity,
    symbols: HashMap<Arc<str>, Symbol>,
    names: Vec<Arc<str>>,
    live: usize,
    /// By the issuer's symbol.
    live_by_issuer: Vec<usize>,
    unknown_revocations: usize,
}

impl Register {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// The same names and counts within other bounds. What is there stays, also beyond them.
    pub(super) fn within(self, capacity: Capacity) -> Self {
        Self { capacity, ..self }
    }

    /// Makes room for one token whose chain and capabilities these are.
    pub(super) fn admit<'a>(
        &mut self,
        chain: impl Iterator<Item = &'a str>,
        capabilities: impl Iterator<Item = &'a str>,
    ) -> Result<Symbols, Refused> {
        if self.live >= self.capacity.entries {
            return Err(Refused::Full { capacity: self.capacity.entries });
        }
        let chain = chain.map(|name| self.symbol(name)).collect::<Option<Box<[_]>>>();
        let capabilities = capabilities.map(|name| self.symbol(name)).collect::<Option<Box<[_]>>>();
        let (Some(chain), Some(capabilities)) = (chain, capabilities) else {
            return Err(Refused::Full { capacity: self.capacity.entries });
        };
        let share = self.capacity.per_agent;
        if let Some(live) = chain.first().and_then(|issuer| self.live_of(*issuer)) {
            if *live >= share {
                return Err(Refused::ShareFull { share });
            }
            *live = live.saturating_add(1);
        }
        self.live = self.live.saturating_add(1);
        Ok(Symbols { chain, capabilities })
    }

    /// Makes room for a token that an earlier process held. It is live, so that it comes in whatever the bounds are.
    pub(super) fn admit_held<'a>(
        &mut self,
        chain: impl Iterator<Item = &'a str>,
        capabilities: impl Iterator<Item = &'a str>,
    ) -> Option<Symbols> {
        let chain = chain.map(|name| self.symbol(name)).collect::<Option<Box<[_]>>>()?;
        let capabilities = capabilities.map(|name| self.symbol(name)).collect::<Option<Box<[_]>>>()?;
        if let Some(live) = chain.first().and_then(|issuer| self.live_of(*issuer)) {
            *live = live.saturating_add(1);
        }
        self.live = self.live.saturating_add(1);
        Some(Symbols { chain, capabilities })
    }

    /// Gives back the room of a token whose chain this agent began.
    pub(super) fn release(&mut self, issuer: Symbol) {
        self.live = self.live.saturating_sub(1);
        if let Some(live) = self.live_of(issuer) {
            *live = live.saturating_sub(1);
        }
    }

    pub(super) fn name(&self, symbol: Symbol) -> Option<&Arc<str>> {
        self.names.get(usize::try_from(symbol).ok()?)
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub(super) fn unknown_revocations(&mut self) -> &mut usize {
        &mut self.unknown_revocations
    }

    fn live_of(&mut self, issuer: Symbol) -> Option<&mut usize> {
        self.live_by_issuer.get_mut(usize::try_from(issuer).ok()?)
    }

    fn symbol(&mut self, name: &str) -> Option<Symbol> {
        if let Some(symbol) = self.symbols.get(name) {
            return Some(*symbol);
        }
        let symbol = Symbol::try_from(self.names.len()).ok()?;
        let name = Arc::<str>::from(name);
        self.names.push(Arc::clone(&name));
        self.live_by_issuer.push(0);
        self.symbols.insert(name, symbol);
        Some(symbol)
    }
}
