//! Tokens and their uses: each question one script, asked once.

use std::borrow::Cow;

use super::Store;
use super::copy::{Copy, Epoch};
use super::reply::{Held, Reply};
use super::script::{Call, Script};
use super::trouble::Trouble;
use crate::domain::token::TokenId;
use crate::state::{Known, Refused, TokenRecord};

impl Store {
    /// The uses that are left.
    pub(in crate::state) async fn check(&self, token: &TokenRecord<'_>) -> Result<u32, Refused> {
        let scripts = &self.copy.scripts;
        self.about(&scripts.check, token, 0, |_, call| call.with("")).await
    }

    /// Spends one use. What is not answered in time counts as spent.
    pub(in crate::state) async fn spend(
        &self,
        token: &TokenRecord<'_>,
        capabilities: &[Cow<'_, str>],
        born: u64,
    ) -> Result<u32, Refused> {
        let scripts = &self.copy.scripts;
        let script = if token.foreign.is_some() { &scripts.spend_foreign } else { &scripts.spend };
        self.about(script, token, born, |_, call| call.with(lines(capabilities))).await
    }

    /// Enters a root token.
    pub(in crate::state) async fn mint(
        &self,
        token: &TokenRecord<'_>,
        capabilities: &[Cow<'_, str>],
        born: u64,
    ) -> Result<(), Refused> {
        let scripts = &self.copy.scripts;
        self.about(&scripts.mint, token, born, |_, call| call.with(lines(capabilities))).await.map(|_| ())
    }

    /// Moves uses from a parent to a child.
    pub(in crate::state) async fn mint_child(
        &self,
        parent: &TokenRecord<'_>,
        child: &TokenRecord<'_>,
        parent_capabilities: &[Cow<'_, str>],
        born: u64,
    ) -> Result<u32, Refused> {
        let scripts = &self.copy.scripts;
        let holder = child.chain.last().map(AsRef::as_ref).unwrap_or_default();
        self.about(&scripts.move_uses, parent, born, |epoch, call| {
            let mut call = call.with(lines(parent_capabilities));
            call.key(epoch.token(child.id));
            call.with(child.tag.bytes())
                .number(u64::from(child.max_uses))
                .number(child.expires_at)
                .with(holder)
                .with(ids(child.ancestors))
        })
        .await
    }

    /// What is known of an id.
    pub(in crate::state) async fn look_up(&self, id: TokenId) -> Result<Option<Known>, Refused> {
        let held = self.held(id).await.map_err(|trouble| trouble.refused())?;
        Ok(held.map(|held| {
            let (ancestors, _) = held.ancestors.as_chunks();
            Known {
                id,
                left: held.left,
                expires_at: held.expires_at,
                ancestors: ancestors.iter().map(|id| TokenId::from_bytes(*id)).collect(),
                is_revoked: held.is_revoked,
                chain: held.chain,
            }
        }))
    }

    /// What the root of a token's chain was given.
    pub(in crate::state) async fn root_capabilities(&self, root: TokenId) -> Result<Vec<String>, Refused> {
        let held = self.held(root).await.map_err(|trouble| trouble.refused())?;
        Ok(held.map(|held| held.capabilities).unwrap_or_default())
    }

    async fn held(&self, id: TokenId) -> Result<Option<Held>, Trouble> {
        let copy = &self.copy;
        let (link, epoch) = copy.serving()?;
        let token = epoch.token(id);
        let call = copy.call(&copy.scripts.look_up, &epoch.id, [&epoch.record, &epoch.cutoffs, &token]);
        let reply = copy.ask(&link, &call.with(&epoch.token)).await?;
        if reply == Reply::Unknown {
            return Ok(None);
        }
        let Reply::Known(held) = reply else { return Err(reply.unexpected()) };
        Ok(Some(held))
    }

    /// Runs a script about a token; `add` appends what only this one needs.
    async fn about<'s>(
        &'s self,
        script: &'s Script,
        token: &TokenRecord<'_>,
        born: u64,
        add: impl FnOnce(&Epoch, Call<'s>) -> Call<'s>,
    ) -> Result<u32, Refused> {
        let refused = |trouble: Trouble| trouble.refused();
        let (link, epoch) = self.copy.serving().map_err(refused)?;
        let call = add(&epoch, of_token(&self.copy, &epoch, script, token, born));
        self.copy.ask(&link, &call).await.map_err(refused)?.left()
    }
}

/// What every script about a token is told.
fn of_token<'s>(copy: &Copy, epoch: &Epoch, script: &'s Script, token: &TokenRecord<'_>, born: u64) -> Call<'s> {
    let own = epoch.token(token.id);
    let mut call = copy.call(script, &epoch.id, [&epoch.record, &epoch.cutoffs, &epoch.unknown, &own]);
    for ancestor in token.ancestors {
        call.key(epoch.token(*ancestor));
    }
    let issued = token.foreign.map(|foreign| foreign.issued_at.to_string()).unwrap_or_default();
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let call = call
        .with(token.tag.bytes())
        .number(u64::from(token.max_uses))
        .number(token.expires_at)
        .with(issued)
        .number(born)
        .with(token.id.to_string())
        .number(count(token.ancestors.len()))
        .number(count(token.chain.len()));
    token.chain.iter().fold(call, |call, agent| call.with(agent.as_bytes()))
}

/// Names, one a line: none has a line end.
fn lines(names: &[Cow<'_, str>]) -> String {
    names.join("\n")
}

fn ids(ids: &[TokenId]) -> Vec<u8> {
    ids.iter().flat_map(|id| *id.bytes()).collect()
}
