//! What a capability token says: its id, its claims, and whether its time is now. `payload` is the one strict way to read
//! one.
//!
//! The payload is a flat JSON object. Its required claims are those of the source document; ours come
//! on top. A token without `jti` is *foreign*: another issuer that holds a key made it.

mod id;
mod payload;

use std::borrow::Cow;

pub use id::{SealTag, TokenId};
pub use payload::{InvalidClaims, is_free_text};

use super::limits;
use super::reason::{Denial, Reason};
use super::resource::Pattern;
use super::time::Timestamp;

/// What a token says. Every name, pattern and number is of its form, and they agree with each other;
/// whether any of it is *true* only [`crate::keyring::Keyring::open`] can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    /// `iss`: the agent that delegated.
    pub issuer: Cow<'a, str>,
    /// `sub`: the agent that may use it.
    pub holder: Cow<'a, str>,
    /// `cap`: at least one.
    pub capabilities: Vec<Cow<'a, str>>,
    /// `res`: at least one.
    pub resources: Vec<Pattern<'a>>,
    /// `max_uses`: at least 1.
    pub max_uses: u32,
    /// `iat`, seconds since the epoch.
    pub issued_at: u64,
    /// `exp`, seconds since the epoch; later than `issued_at`.
    pub expires_at: u64,
    /// `delegatable`.
    pub delegatable: bool,
    /// `jti`; none in a foreign token.
    pub id: Option<TokenId>,
    /// `kid`: which key, for people to read.
    pub key_id: Option<Cow<'a, str>>,
    /// `chain`: agents from the root to the holder; at least two.
    pub chain: Vec<Cow<'a, str>>,
    /// `par`: ids of all ancestors, the root first.
    pub ancestors: Vec<TokenId>,
    /// `max_depth`: the greatest depth of any descendant, in hops from the root.
    pub max_depth: Option<u8>,
    /// `aud`: where it may be used; empty means anywhere.
    pub audience: Vec<Cow<'a, str>>,
    /// `obo`: on whose behalf, `type:id`.
    pub on_behalf_of: Option<Cow<'a, str>>,
    /// `task`: the caller's correlation id.
    pub task: Option<Cow<'a, str>>,
}

impl Claims<'_> {
    /// Hops: the number of agents in the chain less one.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.chain.len().saturating_sub(1)
    }

    /// Whether another issuer made it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.id.is_none()
    }

    /// Whether the holder may use it now, under the longest lifetime that policy allows. It is good from the second `iat` up
    /// to, and not in, the second `exp`; `iat` of a token of ours may be [`limits::CLOCK_SKEW_SECONDS`] ahead.
    ///
    /// # Errors
    /// `TOKEN_EXPIRED`, `TOKEN_NOT_YET_VALID` or `TOKEN_LIFETIME_TOO_LONG`, looked at in this order.
    pub fn check_times(&self, now: Timestamp, max_ttl_seconds: u64) -> Result<(), Denial> {
        let now = now.seconds();
        if self.expires_at <= now {
            let ago = now.saturating_sub(self.expires_at);
            return Err(Denial::new(
                Reason::TokenExpired,
                format!("the token expired {ago} s ago; ask {} for a new one", self.issuer),
            ));
        }
        let skew = if self.is_foreign() { 0 } else { limits::CLOCK_SKEW_SECONDS };
        if self.issued_at > now.saturating_add(skew) {
            let ahead = self.issued_at.saturating_sub(now);
            return Err(Denial::new(
                Reason::TokenNotYetValid,
                format!("the token was made {ahead} s in the future; compare the issuer's clock with this one"),
            ));
        }
        let lifetime = self.expires_at.saturating_sub(self.issued_at);
        if lifetime > max_ttl_seconds {
            return Err(Denial::new(
                Reason::TokenLifetimeTooLong,
                format!("the token lives {lifetime} s and policy allows {max_ttl_seconds} s (token.max_ttl_seconds)"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = r#"{"cap": ["read_file"], "delegatable": false, "exp": 1300, "iat": 1000, "iss": "agent-coordinator", "max_uses": 1, "res": ["/data/reports/*"], "sub": "agent-analyst"}"#;

    #[test]
    fn times_are_checked_to_the_second() {
        let claims = Claims::parse(SEED).unwrap();
        let at = |seconds| claims.check_times(Timestamp::from_seconds(seconds), 300).map_err(|denial| denial.reason());
        assert_eq!(at(999), Err(Reason::TokenNotYetValid));
        assert_eq!(at(1000), Ok(()));
        assert_eq!(at(1299), Ok(()));
        assert_eq!(at(1300), Err(Reason::TokenExpired));
        let short = claims.check_times(Timestamp::from_seconds(1000), 299);
        assert_eq!(short.unwrap_err().reason(), Reason::TokenLifetimeTooLong);
    }
}
