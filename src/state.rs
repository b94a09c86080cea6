//! Counts uses, and knows what is revoked.
//!
//! [`State`] is a handle: sharing is inside. [`ledger::Ledger`] is its counting core, which decides in memory; a state
//! directory keeps what has to outlive the process. The functions here put words to what is refused.
//!
//! | file | |
//! |---|---|
//! | `asked` | What the engine asks, whichever backend answers. |
//! | [`ledger`], `book`, `register`, [`standing`] | The counting core: its shards, the tokens of one, names as small numbers, who is revoked or under quarantine. |
//! | `disk`, `change`, `recovered` | The state directory, what is written to it, and what it tells the next process. |
//! | `valkey` | The store that many processes share. |
//! | [`rate`], [`recent`], [`attempts`], [`answered`] | What is counted beside uses: requests, retries, attempts, and uses that were answered for. |

pub mod answered;
mod asked;
pub mod attempts;
mod book;
mod change;
mod disk;
pub mod ledger;
pub mod locks;
pub mod rate;
pub mod recent;
mod recovered;
mod register;
pub mod standing;
mod valkey;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use disk::{Directory, StateError};
use disk::{Kept, Uses};
use ledger::Ledger;
pub use register::Capacity;
use valkey::Store;
pub use valkey::{
    Login, Place, ReadPassword, ReadTls, StoreAddress, StorePassword, StoreReport, StoreSettings, StoreTls,
};

use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::{SealTag, TokenId};

/// A million live tokens stand about a thousand in a shard.
const SHARDS: usize = 1024;

/// A token as the ledger is asked about it: what was sealed, and nothing that a caller says.
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

/// Why the ledger refuses. [`Refused::denial`] puts it in words, under the reason that each names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `TOKEN_FENCED`: it does not hold the token, or holds another of this id, or the token is older than the fence.
    Fenced,
    /// `TOKEN_REVOKED`: the token or one above it was revoked (`by` is empty), or this agent's tokens were.
    Revoked {
        /// The agent.
        by: Box<str>,
    },
    /// `TOKEN_USES_EXHAUSTED`: no use is left.
    Exhausted,
    /// `USES_NOT_ALLOWED`: fewer uses are left than are to be moved.
    TooManyUses {
        /// How many.
        left: u32,
    },
    /// `CAPACITY_EXHAUSTED`, as the three below: there is no room.
    Full {
        /// For how many there is.
        capacity: usize,
    },
    /// The agent that began the chain has no room left.
    ShareFull {
        /// For how many it has.
        share: usize,
    },
    /// The shared store's memory is full.
    StoreFull,
    /// No more revocations can be remembered in the shared store.
    RevocationsFull {
        /// How many.
        capacity: usize,
    },
    /// `STATE_UNAVAILABLE`: the state can't say, or can't keep what it would say.
    Unavailable {
        /// What is wrong and what to do.
        why: &'static str,
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
            Self::StoreFull => Denial::new(
                Reason::CapacityExhausted,
                "the store's memory is full: wait for tokens to expire, or raise its maxmemory",
            ),
            Self::RevocationsFull { capacity } => Denial::new(
                Reason::CapacityExhausted,
                format!(
                    "the store remembers {capacity} revocations and no more: wait an hour until they end, or revoke everything, which takes their place"
                ),
            ),
            Self::Unavailable { why } => Denial::new(Reason::StateUnavailable, *why),
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

const NO_FOREIGN: &str = "tokens of other issuers can't be taken while the state directory can't be written to: see the service's log about [state]";
const NO_USES: &str =
    "uses can't be written to the state directory, so nothing is allowed: see the service's log about [state]";
const USE_LOST: &str = "the use could not be made durable in time, so nothing is allowed and it counts as spent";
const MAY_NOT_LAST: &str = "it is in force now, and could not be made durable: it may not outlive this process; see the service's log about [state], and ask again";

/// Where uses are counted and revocations are kept.
#[derive(Clone)]
pub enum State {
    /// Uses are counted in this process.
    Memory {
        /// The counting core.
        ledger: Arc<Ledger>,
        /// What outlives the process; none: nothing does.
        kept: Option<KeptState>,
    },
    /// Uses are written down as they are spent.
    Journal {
        /// The counting core.
        ledger: Arc<Ledger>,
        /// What outlives the process.
        kept: KeptState,
    },
    /// Uses are counted in a store that many processes share.
    Valkey {
        /// The store.
        store: Arc<Store>,
        /// What outlives the process: its copy of quarantines.
        kept: KeptState,
    },
}

/// A state directory in use.
#[derive(Clone)]
pub struct KeptState(Arc<Kept>);

/// When uses are written to the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// At an orderly stop: a crash ends every token, and no use waits for the disk.
    Memory,
    /// Before the answer: tokens live through a crash.
    Journal,
}

/// How the state's writing goes.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The state directory.
    pub directory: Option<PathBuf>,
    /// Changes that wait to be made durable.
    pub waiting: u64,
    /// Commits that failed since the start.
    pub failures: u64,
    /// What is wrong.
    pub trouble: Vec<String>,
    /// Why nothing is allowed because of it.
    pub halted: Option<&'static str>,
    /// The shared store, where there is one.
    pub store: Option<StoreReport>,
}

impl State {
    /// A state in memory that begins now: tokens of before are refused, and nothing outlives the process.
    #[must_use]
    pub fn in_memory(capacity: Capacity, now: Timestamp) -> Self {
        Self::Memory { ledger: Arc::new(Ledger::new(capacity, SHARDS, now)), kept: None }
    }

    /// A state that goes on from what is in the directory. `clock` shows no time before [`Directory::time`]; `salt` is
    /// random, and tells files apart.
    ///
    /// # Errors
    /// The directory can't be written to.
    pub fn in_directory(
        directory: Directory,
        backend: Backend,
        capacity: Capacity,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        salt: u64,
    ) -> Result<Self, StateError> {
        let uses = match backend {
            Backend::Memory => Uses::AtStop,
            Backend::Journal => Uses::Each,
        };
        let (ledger, kept) = directory.begin(uses, capacity, Arc::new(clock), salt)?;
        let kept = KeptState(Arc::new(kept));
        Ok(match backend {
            Backend::Memory => Self::Memory { ledger, kept: Some(kept) },
            Backend::Journal => Self::Journal { ledger, kept },
        })
    }

    /// A state in a store that many processes share. The directory keeps a copy of quarantines; a ledger that another
    /// backend left in it is of no more use, and goes. `chance` makes random bytes.
    ///
    /// # Errors
    /// The directory can't be written to.
    pub fn in_store(
        directory: Directory,
        settings: StoreSettings,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        chance: impl Fn() -> [u8; 16] + Send + Sync + 'static,
    ) -> Result<Self, StateError> {
        let salt = chance().iter().fold(0_u64, |salt, byte| salt.rotate_left(8) ^ u64::from(*byte));
        let clock: disk::Clock = Arc::new(clock);
        let none = Capacity { entries: 0, per_agent: 0 };
        let (ledger, kept) = directory.without_tokens().begin(Uses::AtStop, none, Arc::clone(&clock), salt)?;
        let kept = Arc::new(kept);
        let store = Store::start(settings, ledger, Arc::clone(&kept), clock, Arc::new(chance))?;
        Ok(Self::Valkey { store: Arc::new(store), kept: KeptState(kept) })
    }

    /// The backend's name in configuration, metrics and status.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Journal { .. } => "journal",
            Self::Valkey { .. } => "valkey",
        }
    }

    /// Whether tokens of an earlier process may be in the ledger.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        matches!(self, Self::Valkey { .. }) || self.kept().is_some_and(Kept::restored)
    }

    /// Whether a use that is spent now can be kept.
    ///
    /// # Errors
    /// It can't, so that nothing may be allowed.
    pub fn accepts(&self) -> Result<(), Refused> {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Journal { kept: KeptState(kept), .. } => {
                let accepts = kept.register().accepts() && kept.tokens().is_some_and(disk::Waiting::accepts);
                if accepts { Ok(()) } else { Err(Refused::Unavailable { why: NO_USES }) }
            }
            Self::Valkey { store, .. } => store.accepts(),
        }
    }

    /// Whether an answer waits until its use is on the disk, or in the store.
    #[must_use]
    pub fn writes_each_use(&self) -> bool {
        matches!(self, Self::Journal { .. } | Self::Valkey { .. })
    }

    /// Whether a token of another issuer may be taken by a request that began at this moment: only up to the durable
    /// mark, so that whatever happens, it can be refused later.
    ///
    /// # Errors
    /// It may not.
    pub fn accepts_foreign(&self, began: Timestamp) -> Result<(), Refused> {
        if let Self::Valkey { store, .. } = self {
            return store.accepts_foreign();
        }
        match self.kept() {
            Some(kept) if began > kept.register().marked_until() => Err(Refused::Unavailable { why: NO_FOREIGN }),
            _ => Ok(()),
        }
    }

    /// Up to which moment what has expired may be forgotten. A journal's next process must not begin before it, or it
    /// would take a token of another issuer for a new one; after a crash without a journal the fence refuses those.
    #[must_use]
    pub fn forgettable(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::Memory { .. } | Self::Valkey { .. } => now,
            Self::Journal { kept: KeptState(kept), .. } => kept.passed().min(now),
        }
    }

    /// Waits until every use and every token up to now is as durable as this backend makes it.
    ///
    /// # Errors
    /// It is not: what was spent stays spent.
    pub async fn uses_settled(&self, within: Duration) -> Result<(), Refused> {
        match self {
            Self::Memory { .. } | Self::Valkey { .. } => Ok(()),
            Self::Journal { kept: KeptState(kept), .. } => {
                kept.uses_settled(within).await.map_err(|_| Refused::Unavailable { why: USE_LOST })
            }
        }
    }

    /// Waits until every revocation and quarantine up to now is durable.
    ///
    /// # Errors
    /// It is not, though it is in force.
    pub async fn revocations_settled(&self, within: Duration) -> Result<(), Refused> {
        match self.kept() {
            Some(kept) => {
                kept.revocations_settled(within).await.map_err(|_| Refused::Unavailable { why: MAY_NOT_LAST })
            }
            None => Ok(()),
        }
    }

    /// Leaves the ledger for the next start, at an orderly stop. Nothing is spent or minted any more. It writes to the
    /// disk, and waits for it.
    ///
    /// # Errors
    /// It could not be left.
    pub fn save(&self) -> Result<(), StateError> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => {
                self.kept().map_or(Ok(()), |kept| kept.save(ledger))
            }
            // Tokens are in the store: a ledger here would be taken for one that knows them.
            Self::Valkey { kept: KeptState(kept), .. } => kept.save_register(),
        }
    }

    /// How writing goes.
    #[must_use]
    pub fn report(&self) -> Report {
        let Some(kept) = self.kept() else { return Report::default() };
        let logs = || std::iter::once(kept.register()).chain(kept.tokens());
        let store = if let Self::Valkey { store, .. } = self { Some(store.report()) } else { None };
        let halted = match &store {
            Some(store) => store.halted,
            None => self.accepts().is_err().then_some("the state directory can't be written to, so nothing is allowed"),
        };
        let of_store = store.iter().filter_map(|store| store.trouble.clone());
        Report {
            directory: Some(kept.folder().to_owned()),
            waiting: logs().map(disk::Waiting::backlog).fold(0, u64::saturating_add),
            failures: logs().map(disk::Waiting::failures).fold(0, u64::saturating_add),
            trouble: logs().filter_map(disk::Waiting::trouble).chain(of_store).collect(),
            halted,
            store,
        }
    }

    fn kept(&self) -> Option<&Kept> {
        match self {
            Self::Memory { kept, .. } => kept.as_ref().map(|KeptState(kept)| &**kept),
            Self::Journal { kept: KeptState(kept), .. } | Self::Valkey { kept: KeptState(kept), .. } => Some(kept),
        }
    }
}
