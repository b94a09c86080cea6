//! An offline JWT (RFC 9068): for a place that can't ask Remit. One use is spent when it is made; counting and
//! revocation end there, and Remit takes none back.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::OAuth;
use super::actors::{Acting, acting};
use super::exchange::Party;
use super::refusal::{Error, Refusal};
use crate::domain::chain::Wish;
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;
use crate::engine::Delegated;
use crate::identity::jwt_type::JwtType;

/// Nobody can revoke it, so that it ends soon by itself.
pub(super) const LIFE: Duration = Duration::from_mins(1);

/// An offline JWT is for one place and one use, and nothing is handed on from it.
///
/// # Errors
/// The wish is for more, or there is nothing to sign with.
pub(super) fn restrict(oauth: &OAuth, wish: &mut Wish<'_>) -> Result<(), Refusal> {
    if wish.audience.len() != 1 {
        return Err(Refusal::new(Error::InvalidTarget, "an offline JWT has exactly one audience"));
    }
    if wish.max_uses.is_some_and(|uses| uses != 1) || wish.delegatable {
        return Err(Refusal::new(Error::InvalidRequest, "an offline JWT is one use, and nothing is handed on from it")
            .because(Reason::UsesNotAllowed));
    }
    // Found out before a use is spent.
    if oauth.door.identity().sources().forwarding.signer().is_none() || oauth.issuer().is_none() {
        return Err(Refusal::new(Error::Unavailable, "there is no key to sign with, or no public_url to sign as"));
    }
    wish.max_uses = Some(1);
    Ok(())
}

/// The JWT for what was delegated and spent.
///
/// # Errors
/// It can't be signed; its use stays spent.
pub(super) fn sign(
    oauth: &OAuth,
    delegated: &Delegated,
    earlier: &[Party],
    client: &str,
    audience: &str,
    now: Timestamp,
) -> Result<String, Refusal> {
    let claims = claims(oauth.issuer().unwrap_or_default(), delegated, earlier, client, audience, now);
    let signer = oauth.door.identity().sources().forwarding.signer();
    match signer.map(|signer| signer.sign(JwtType::AccessToken, &claims, now)) {
        Some(Ok(token)) => Ok(token),
        Some(Err(why)) => Err(Refusal::new(Error::InvalidRequest, format!("the JWT is not signed: {why}"))),
        None => Err(Refusal::new(Error::Unavailable, "there is no key to sign with")),
    }
}

fn claims(
    issuer: &str,
    delegated: &Delegated,
    earlier: &[Party],
    client: &str,
    audience: &str,
    now: Timestamp,
) -> Map<String, Value> {
    let chain = delegated.chain.iter().map(AsRef::as_ref);
    let Acting { subject, act } = acting(chain, delegated.on_behalf_of.as_deref(), earlier);
    let issued_at = now.seconds().min(delegated.expires_at.seconds());
    let mut claims = Map::new();
    let mut say = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    say("iss", issuer.into());
    say("sub", subject.into());
    say("aud", audience.into());
    say("client_id", client.into());
    say("scope", delegated.capabilities.join(" ").into());
    say("remit_resource", json!(delegated.resources));
    say("iat", issued_at.into());
    say("exp", delegated.expires_at.seconds().into());
    say("jti", delegated.id.to_string().into());
    if let Some(act) = act {
        say("act", act);
    }
    claims
}
