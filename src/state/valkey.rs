//! Many processes on one Redis or Valkey: uses are counted there, each step one script, and every process keeps a copy
//! of who is revoked or under quarantine that is never older than a second.
//!
//! What a primary allowed and its successor forgot must not be allowed again. So tokens belong to an epoch, which ends
//! with the primary: each script asks first which one this is (`lua/prelude.lua`). A thread of its own keeps the
//! connection, follows the changes, and says whether this process may answer; a request never connects.
//!
//! | file | |
//! |---|---|
//! | `script`, `lua/` | The steps. |
//! | `link` | A connection to the primary. |
//! | `follow` | The thread: connects, polls, reads anew. |
//! | `copy` | What this process knows of the store. |
//! | `count`, `end` | Tokens and their uses; revocations and quarantines. |
//! | `source` | By whom a quarantine was entered, for those who look. |
//! | `demands` | What the store has to be set to. |

mod copy;
mod count;
mod demands;
mod end;
mod follow;
mod link;
mod reply;
mod script;
mod settings;
mod source;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use copy::Copy;
pub use copy::StoreReport;
pub use settings::{Login, Place, ReadPassword, ReadTls, StoreAddress, StorePassword, StoreSettings, StoreTls};

use super::disk::{Clock, Kept};
use super::ledger::Ledger;
use super::standing::Standing;
use super::{Refused, StateError};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;

/// The copy of revocations may be this old, measured from when it was asked for.
const FRESH: Duration = Duration::from_secs(1);

const NO_FOREIGN: &str = "tokens of other issuers can't be counted safely: the store's settings are not those that it needs, or can't be read; see the service's log about [state]";

/// Makes random bytes.
pub(super) type Chance = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// A shared store in use.
pub struct Store {
    copy: Arc<Copy>,
    /// The thread ends when this is dropped.
    _running: watch::Sender<()>,
}

impl Store {
    /// Begins to follow the store. `ledger` holds the copy of revocations; `kept` makes its quarantines durable.
    pub(super) fn start(
        settings: StoreSettings,
        ledger: Arc<Ledger>,
        kept: Arc<Kept>,
        clock: Clock,
        chance: Chance,
    ) -> Result<Self, StateError> {
        if let Some(address) = settings.exposed() {
            tracing::warn!(
                target: "state",
                store = %address,
                "the store is spoken to without TLS: whoever is on the way can give uses back and lift quarantines; write rediss:// unless something else encrypts it"
            );
        }
        let folder = kept.folder().to_owned();
        let copy = Arc::new(Copy::new(settings, ledger, kept, clock, chance));
        let (running, stopped) = watch::channel(());
        follow::start(Arc::clone(&copy), stopped).map_err(|error| StateError::Io(folder, error))?;
        Ok(Self { copy, _running: running })
    }

    /// Whether an answer may be given now: the copy is fresh, and its epoch is served.
    pub(super) fn accepts(&self) -> Result<(), Refused> {
        self.copy.accepts().map_err(|trouble| trouble.refused())
    }

    /// Whether tokens of other issuers can be counted.
    pub(super) fn accepts_foreign(&self) -> Result<(), Refused> {
        if self.copy.counts_foreign() { Ok(()) } else { Err(Refused::Unavailable { why: NO_FOREIGN }) }
    }

    /// Looks at the copy of revocations and quarantines.
    pub(super) fn standing<R>(&self, look: impl FnOnce(&Standing) -> R) -> R {
        self.copy.ledger.standing(look)
    }

    /// The fence of the epoch that was heard of last.
    pub(super) fn fence(&self) -> Timestamp {
        self.copy.fence()
    }

    /// The copy of the ids that were revoked without being known.
    pub(super) fn unknown_revocations(&self) -> Vec<(TokenId, u64)> {
        self.copy.unknown_revocations()
    }

    /// How the store is.
    pub(super) fn report(&self) -> StoreReport {
        self.copy.report()
    }
}
