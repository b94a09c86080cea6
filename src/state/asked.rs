//! What the engine asks of the state, whichever backend answers: this process at once, a shared store after a round
//! trip. Nothing is asked twice: in doubt a use is spent.

use std::borrow::Cow;

use super::ledger::Ledger;
use super::register::Capacity;
use super::standing::{QuarantineSource, Standing};
use super::{Known, Refused, State, TokenRecord};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;

impl State {
    /// Whether this process counts, so that asking twice costs nothing. A shared store answers whether a token is held
    /// and not revoked together with the use: denials that need no store come first there.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Memory { .. } | Self::Journal { .. } => true,
            Self::Valkey { .. } => false,
        }
    }

    /// Whether an answer waits for nothing: neither for a disk nor for a store.
    #[must_use]
    pub fn answers_at_once(&self) -> bool {
        match self {
            Self::Memory { .. } => true,
            Self::Journal { .. } | Self::Valkey { .. } => false,
        }
    }

    /// The counting core, where this process counts.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Some(ledger),
            Self::Valkey { .. } => None,
        }
    }

    /// Looks at revocations and quarantines, as this process knows them.
    pub fn standing<R>(&self, look: impl FnOnce(&Standing) -> R) -> R {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.standing(look),
            Self::Valkey { store, .. } => store.standing(look),
        }
    }

    /// The moment up to which tokens of other issuers are refused.
    #[must_use]
    pub fn fence(&self) -> Timestamp {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.fence(),
            Self::Valkey { store, .. } => store.fence(),
        }
    }

    /// Live tokens, and how many there may be; none where this process doesn't count them.
    #[must_use]
    pub fn size(&self) -> Option<(usize, Capacity)> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Some(ledger.size()),
            Self::Valkey { .. } => None,
        }
    }

    /// Ids that were revoked without being known, each with the second up to which it is kept, as this process knows
    /// them.
    #[must_use]
    pub fn unknown_revocations(&self) -> Vec<(TokenId, u64)> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.unknown_revocations(),
            Self::Valkey { store, .. } => store.unknown_revocations(),
        }
    }

    /// How many of them there are.
    #[must_use]
    pub fn unknown_revocation_count(&self) -> usize {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.unknown_revocation_count(),
            Self::Valkey { store, .. } => store.unknown_revocations().len(),
        }
    }

    /// The uses that are left of a token that is held and that nobody revoked. Changes nothing.
    ///
    /// # Errors
    /// It is not held, or was revoked; or nobody can say.
    pub async fn check(&self, token: &TokenRecord<'_>) -> Result<u32, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.check(token),
            Self::Valkey { store, .. } => store.check(token).await,
        }
    }

    /// Spends one use: one step whose result is the answer. Returns what is left. `capabilities` and `born` are as for
    /// [`State::mint`], for a token of another issuer that is entered now.
    ///
    /// # Errors
    /// Why nothing was spent; or it can't be said whether it was.
    pub async fn spend(
        &self,
        token: &TokenRecord<'_>,
        capabilities: &[Cow<'_, str>],
        born: u64,
    ) -> Result<u32, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.spend(token, capabilities, born),
            Self::Valkey { store, .. } => store.spend(token, capabilities, born).await,
        }
    }

    /// Enters a root token before it is handed out. `born` is the number of the last revocation when the request
    /// began, before it looked at the policy: a revocation that came since then ends the token.
    ///
    /// # Errors
    /// There is no room, or the token would be born dead; or it can't be said whether it was entered.
    pub async fn mint(&self, token: &TokenRecord<'_>, capabilities: &[Cow<'_, str>], born: u64) -> Result<(), Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.mint(token, capabilities, born),
            Self::Valkey { store, .. } => store.mint(token, capabilities, born).await,
        }
    }

    /// Moves uses from a parent to a new child, and enters the child. Returns what the parent has left.
    ///
    /// # Errors
    /// The parent is not usable or has fewer uses, the child would be born dead, or there is no room; or it can't be
    /// said whether they were moved.
    pub async fn mint_child(
        &self,
        parent: &TokenRecord<'_>,
        child: &TokenRecord<'_>,
        parent_capabilities: &[Cow<'_, str>],
        born: u64,
    ) -> Result<u32, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => {
                ledger.mint_child(parent, child, parent_capabilities, born)
            }
            Self::Valkey { store, .. } => store.mint_child(parent, child, parent_capabilities, born).await,
        }
    }

    /// Ends this token, if it is held, and its descendants. Whether it is held.
    ///
    /// # Errors
    /// It can't be said whether it was ended.
    pub async fn revoke_held(&self, token: &TokenRecord<'_>) -> Result<bool, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Ok(ledger.revoke_held(token)),
            Self::Valkey { store, .. } => store.revoke_held(token).await,
        }
    }

    /// Ends the token of this id, if it is held, and its descendants. Whether it is held.
    ///
    /// # Errors
    /// It can't be said whether it was ended.
    pub async fn revoke_held_id(&self, id: TokenId) -> Result<bool, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Ok(ledger.revoke_held_id(id)),
            Self::Valkey { store, .. } => store.revoke_held_id(id).await,
        }
    }

    /// Ends a token that is not held: only one of another issuer can still be used. It is remembered up to this second.
    ///
    /// # Errors
    /// No more unknown ids can be remembered, or it can't be said whether this one is.
    pub async fn revoke_unknown(&self, id: TokenId, keep_until: u64) -> Result<(), Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.revoke_unknown(id, keep_until),
            Self::Valkey { store, .. } => store.revoke_unknown(id, keep_until).await,
        }
    }

    /// Ends every token that has this agent in its chain, minted up to now. Returns the revocation's number.
    ///
    /// # Errors
    /// No more agents can be remembered, or it can't be said whether this one is.
    pub async fn revoke_agent(&self, name: &str, now: Timestamp) -> Result<u64, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.revoke_agent(name, now),
            Self::Valkey { store, .. } => store.revoke_agent(name).await,
        }
    }

    /// Ends every token minted up to now. Returns the revocation's number.
    ///
    /// # Errors
    /// It can't be said whether they are ended.
    pub async fn revoke_all(&self, now: Timestamp) -> Result<u64, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Ok(ledger.revoke_all(now)),
            Self::Valkey { store, .. } => store.revoke_all().await,
        }
    }

    /// Ends the agent's tokens and keeps it from everything until it is reinstated.
    ///
    /// # Errors
    /// No more agents can be remembered, or it can't be said whether this one is.
    pub async fn quarantine(&self, name: &str, source: QuarantineSource, now: Timestamp) -> Result<u64, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => ledger.quarantine(name, source, now),
            Self::Valkey { store, .. } => store.quarantine(name, source).await,
        }
    }

    /// Lifts a quarantine; one that isn't there is no error. Returns the last revocation's number.
    ///
    /// # Errors
    /// It can't be said whether it is lifted.
    pub async fn reinstate(&self, name: &str) -> Result<u64, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Ok(ledger.reinstate(name)),
            Self::Valkey { store, .. } => store.reinstate(name).await,
        }
    }

    /// What is known of an id.
    ///
    /// # Errors
    /// Nobody can say.
    pub async fn look_up(&self, id: TokenId) -> Result<Option<Known>, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Ok(ledger.look_up(id)),
            Self::Valkey { store, .. } => store.look_up(id).await,
        }
    }

    /// What the root of a token's chain was given.
    ///
    /// # Errors
    /// Nobody can say.
    pub async fn root_capabilities(&self, root: TokenId) -> Result<Vec<String>, Refused> {
        match self {
            Self::Memory { ledger, .. } | Self::Journal { ledger, .. } => Ok(ledger.root_capabilities(root)),
            Self::Valkey { store, .. } => store.root_capabilities(root).await,
        }
    }
}
