//! Introspect: what is in this token, and is it still good? Spends nothing.

use super::Engine;
use super::presented::token_record;
use super::rights::is_administrator;
use crate::domain::caller::Caller;
use crate::domain::chain::{Asked, stands};
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenId;
use crate::keyring::VerifiedToken;
use crate::state::{Known, Refused};

/// Which token.
#[derive(Clone, Copy)]
pub enum TokenTarget<'a> {
    /// By its text.
    Token(&'a str),
    /// By its id.
    Id(TokenId),
}

/// What is known of a token.
#[derive(Clone, Debug)]
pub struct Introspection {
    /// Good, or why not.
    pub active: Result<(), Denial>,
    /// What it says; none where it doesn't open or nobody knows its id.
    pub token: Option<Introspected>,
}

/// What a token says and what the ledger counts.
#[derive(Clone, Debug, Default)]
pub struct Introspected {
    /// Its id.
    pub id: Option<TokenId>,
    /// From the root to the holder.
    pub chain: Vec<String>,
    /// Empty where only the id was given.
    pub capabilities: Vec<String>,
    /// Empty where only the id was given.
    pub resources: Vec<String>,
    /// 0 where only the id was given.
    pub max_uses: u32,
    /// Uses left.
    pub left: u32,
    /// In seconds since the epoch; 0 where only the id was given.
    pub issued_at: u64,
    /// In seconds since the epoch.
    pub expires_at: u64,
    /// May its holder delegate from it?
    pub delegatable: bool,
    /// The greatest depth of any descendant.
    pub max_depth: Option<u8>,
    /// The ids of all ancestors, the root first.
    pub ancestors: Vec<TokenId>,
    /// Where it may be used; empty for anywhere.
    pub audience: Vec<String>,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
    /// The caller's correlation id.
    pub task: Option<String>,
    /// What the root of its chain was given.
    pub root_capabilities: Vec<String>,
    /// Made by another issuer.
    pub is_foreign: bool,
}

impl Engine {
    /// Looks at a token.
    ///
    /// # Errors
    /// `CALLER_NOT_AUTHORIZED`: the caller may not see it, which is also said of an id that nobody knows, unless to auditors and
    /// administrators; or the caller is unknown or under quarantine; or the store can't be asked. A token that is over is no error: the answer says why.
    pub async fn introspect(&self, caller: &Caller, target: TokenTarget<'_>) -> Result<Introspection, Denial> {
        let in_force = self.policy();
        let policy = &in_force.policy;
        let now = self.clock.now();
        self.is_known_and_free(policy, caller.agent().as_str())?;
        match target {
            TokenTarget::Token(text) => {
                let mut buffer = Vec::new();
                match self.keyring.load().open(text, &mut buffer) {
                    Ok(token) => self.look_at(policy, caller, &token, now).await,
                    Err(denial) => Ok(Introspection { active: Err(denial), token: None }),
                }
            }
            TokenTarget::Id(id) => self.look_up(policy, caller, id, now).await,
        }
    }

    async fn look_at(
        &self,
        policy: &Policy,
        caller: &Caller,
        token: &VerifiedToken<'_>,
        now: Timestamp,
    ) -> Result<Introspection, Denial> {
        let claims = token.claims();
        if !may_see(policy, caller, claims.chain.iter().map(AsRef::as_ref), Some(&claims.audience)) {
            return Err(not_yours());
        }
        let checked = self.state.check(&token_record(token)).await;
        let active = claims
            .check_times(now, policy.token.max_ttl_seconds)
            .and_then(|()| {
                let nothing = Asked { capabilities: &[], resources: &[] };
                stands(policy, |name| self.is_quarantined(policy, name), claims, nothing)
            })
            .and_then(|()| usable(checked.clone()));
        let owned = |text: &std::borrow::Cow<'_, str>| text.to_string();
        let token = Introspected {
            id: Some(token.id()),
            chain: claims.chain.iter().map(owned).collect(),
            capabilities: claims.capabilities.iter().map(owned).collect(),
            resources: claims.resources.iter().map(ToString::to_string).collect(),
            max_uses: claims.max_uses,
            left: checked.unwrap_or(0),
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
            delegatable: claims.delegatable,
            max_depth: claims.max_depth,
            ancestors: claims.ancestors.clone(),
            audience: claims.audience.iter().map(owned).collect(),
            on_behalf_of: claims.on_behalf_of.as_ref().map(owned),
            task: claims.task.as_ref().map(owned),
            root_capabilities: self.root_capabilities(token).await?,
            is_foreign: claims.is_foreign(),
        };
        Ok(Introspection { active, token: Some(token) })
    }

    /// A root says itself what it was given; for a descendant the ledger knows.
    async fn root_capabilities(&self, token: &VerifiedToken<'_>) -> Result<Vec<String>, Denial> {
        if token.claims().ancestors.is_empty() {
            return Ok(token.claims().capabilities.iter().map(ToString::to_string).collect());
        }
        self.state.root_capabilities(token.root()).await.map_err(|refused| refused.denial())
    }

    async fn look_up(
        &self,
        policy: &Policy,
        caller: &Caller,
        id: TokenId,
        now: Timestamp,
    ) -> Result<Introspection, Denial> {
        let known = self.state.look_up(id).await.map_err(|refused| refused.denial())?;
        let chain = known.iter().flat_map(|known| known.chain.iter().map(String::as_str));
        if !may_see(policy, caller, chain, None) {
            return Err(not_yours());
        }
        let Some(known) = known else {
            return Ok(Introspection { active: Err(Refused::Fenced.denial()), token: None });
        };
        let active = self.is_known_active(policy, &known, now);
        let Known { id, left, expires_at, ancestors, is_revoked: _, chain } = known;
        let root = ancestors.first().copied().unwrap_or(id);
        let root_capabilities = self.state.root_capabilities(root).await.map_err(|refused| refused.denial())?;
        let token = Introspected {
            id: Some(id),
            chain,
            left,
            expires_at,
            ancestors,
            root_capabilities,
            ..Introspected::default()
        };
        Ok(Introspection { active, token: Some(token) })
    }

    fn is_known_active(&self, policy: &Policy, known: &Known, now: Timestamp) -> Result<(), Denial> {
        if known.expires_at <= now.seconds() {
            return Err(Denial::new(Reason::TokenExpired, "the token has expired"));
        }
        self.none_quarantined(policy, known.chain.iter().map(String::as_str))?;
        if known.is_revoked {
            return Err(Refused::Revoked { by: Box::from("") }.denial());
        }
        usable(Ok(known.left))
    }
}

fn usable(checked: Result<u32, Refused>) -> Result<(), Denial> {
    match checked {
        Ok(0) => Err(Refused::Exhausted.denial()),
        Ok(_) => Ok(()),
        Err(refused) => Err(refused.denial()),
    }
}

/// Everyone in the chain, the enforcement points it is meant for, auditors and administrators. By an id alone the
/// audience is not known, so that enforcement points show the token.
fn may_see<'a>(
    policy: &Policy,
    caller: &Caller,
    mut chain: impl Iterator<Item = &'a str>,
    audience: Option<&[std::borrow::Cow<'_, str>]>,
) -> bool {
    let name = caller.agent().as_str();
    let guards = caller.is_privileged() && policy.enforcement_point(name).is_some();
    let meant = audience.is_some_and(|places| places.is_empty() || places.iter().any(|place| place == name));
    let audits = caller.is_privileged() && policy.is_auditor(name);
    chain.any(|agent| agent == name) || (guards && meant) || audits || is_administrator(policy, caller)
}

fn not_yours() -> Denial {
    let message =
        "only the agents of its chain, the enforcement points it is for, auditors and administrators may see a token";
    Denial::new(Reason::CallerNotAuthorized, message)
}
