//! Spend a use, move uses, revoke, quarantine, and what is revoked.
//!
//! [`State`] is a handle: sharing is inside. One backend keeps everything in this process's memory;
//! [`ledger::Ledger`] is its counting core, and the functions here put words to what it refuses.

mod book;
pub mod ledger;
pub mod locks;
pub mod rate;
pub mod recent;
mod register;
pub mod standing;

use std::borrow::Cow;
use std::sync::Arc;

use ledger::Ledger;
pub use register::Capacity;
use standing::Standing;

use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::{SealTag, TokenId};

/// A million live tokens stand about a thousand in a shard.
const SHARDS: usize = 1024;

/// A token as the ledger is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct TokenRecord<'a> {
    /// Its id.
    pub id: TokenId,
    /// What its seal is known by.
    pub tag: SealTag,
    /// The ids of all ancestors, the root first.
    pub ancestors: &'a [TokenId],
    /// From the root to the holder.
    pub chain: &'a [Cow<'a, str>],
    /// How often it may be used.
    pub max_uses: u32,
    /// In seconds since the epoch.
    pub expires_at: u64,
    /// Set for a token of another issuer.
    pub foreign: Option<Foreign>,
}

/// What else counts for a token of another issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// `iat`, in seconds since the epoch.
    pub issued_at: u64,
}

impl TokenRecord<'_> {
    fn root(&self) -> TokenId {
        self.ancestors.first().copied().unwrap_or(self.id)
    }
}

/// Why the ledger refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not hold the token, or holds another of this id, or the token is older than the fence.
    Fenced,
    /// The token or one above it was revoked (`by` is empty), or this agent's tokens were.
    Revoked {
        /// The agent.
        by: Box<str>,
    },
    /// No use is left.
    Exhausted,
    /// Fewer uses are left than are to be moved.
    TooManyUses {
        /// How many.
        left: u32,
    },
    /// There is no room.
    Full {
        /// For how many there is.
        capacity: usize,
    },
    /// The agent that began the chain has no room left.
    ShareFull {
        /// For how many it has.
        share: usize,
    },
}

impl Refused {
    /// The refusal in words.
    #[must_use]
    pub fn denial(&self) -> Denial {
        match self {
            Self::Fenced => Denial::new(
                Reason::TokenFenced,
                "the ledger in force does not hold this token: it was minted before a restart or elsewhere; ask for a new one",
            ),
            Self::Revoked { by } if by.is_empty() => {
                Denial::new(Reason::TokenRevoked, "the token, or one above it, was revoked: begin from a new root")
            }
            Self::Revoked { by } => {
                let message = format!("the tokens of {by} were revoked after this chain began: begin from a new root");
                Denial::new(Reason::TokenRevoked, message).at_hop(by)
            }
            Self::Exhausted => {
                Denial::new(Reason::TokenUsesExhausted, "every use of the token is spent: ask for a new one")
            }
            Self::TooManyUses { left } => {
                Denial::new(Reason::UsesNotAllowed, format!("the parent token has {left} uses left, which is less"))
            }
            Self::Full { capacity } => Denial::new(
                Reason::CapacityExhausted,
                format!("the ledger is full ({capacity}): wait for tokens to expire, or raise [state] capacity"),
            ),
            Self::ShareFull { share } => Denial::new(
                Reason::CapacityExhausted,
                format!(
                    "the agent that began this chain has {share} live tokens, its whole share ([state] per_agent_share)"
                ),
            ),
        }
    }
}

/// What the ledger knows of a token by its id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: TokenId,
    /// Uses left.
    pub left: u32,
    /// In seconds since the epoch.
    pub expires_at: u64,
    /// The ids of all ancestors, the root first.
    pub ancestors: Vec<TokenId>,
    /// It, one above it, or an agent of its chain was revoked.
    pub is_revoked: bool,
    /// From the root to the holder.
    pub chain: Vec<String>,
}

/// Where uses are counted and revocations are kept.
#[derive(Clone)]
pub enum State {
    /// In this process: a restart ends every token.
    Memory(Arc<Ledger>),
}

impl State {
    /// A state in memory that begins now: tokens of before are refused.
    #[must_use]
    pub fn in_memory(capacity: Capacity, now: Timestamp) -> Self {
        Self::Memory(Arc::new(Ledger::new(capacity, SHARDS, now)))
    }

    /// The backend's name in configuration, metrics and status.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
        }
    }

    /// The counting core.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        match self {
            Self::Memory(ledger) => ledger,
        }
    }

    /// Looks at revocations and quarantines.
    pub fn standing<R>(&self, look: impl FnOnce(&Standing) -> R) -> R {
        self.ledger().standing(look)
    }
}
