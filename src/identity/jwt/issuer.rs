//! One issuer: its terms, and the keys that are at hand.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::IssuerStatus;
use super::compact::Compact;
use super::keys::{InvalidKeySet, KeySet, Unverified};
use super::terms::Terms;
use crate::domain::time::Timestamp;

/// An issuer, and what is known of its keys.
pub(super) struct Issuer {
    pub(super) terms: Terms,
    /// None until they were fetched once.
    keys: ArcSwapOption<Fetched>,
    /// Somebody showed a token that wants newer keys.
    wanted: Notify,
    /// Why they could not be fetched the last time.
    trouble: Mutex<Option<String>>,
}

struct Fetched {
    set: Arc<KeySet>,
    text: Arc<[u8]>,
    at: Timestamp,
}

impl Issuer {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, keys: ArcSwapOption::empty(), wanted: Notify::new(), trouble: Mutex::new(None) }
    }

    /// `iss`.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.terms.issuer
    }

    /// Verifies the signature with the keys at hand; the answer is until when these may be used. A key that is not
    /// among them is asked for.
    pub(super) fn verify(&self, token: &Compact<'_>, now: Timestamp) -> Result<Timestamp, &'static str> {
        if !self.terms.algorithms.contains(&token.header.algorithm) {
            return Err("the JWT's algorithm is not taken from its issuer");
        }
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or("the keys of the JWT's issuer are not known yet")?;
        let until = keys.at.after(self.terms.max_stale);
        if now >= until {
            return Err("the keys of the JWT's issuer are too old");
        }
        match keys.set.verify(token) {
            Ok(()) => Ok(until),
            Err(Unverified::NoSuchKey) => {
                self.wanted.notify_one();
                Err("the issuer has no such key, or has it no more")
            }
            Err(Unverified::Forged(why)) => Err(why),
        }
    }

    /// Waits until a token wanted newer keys.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Puts keys in force; whether they are others than before. Those of before stay if these are none.
    pub(super) fn install(&self, text: &[u8], now: Timestamp) -> Result<bool, InvalidKeySet> {
        let before = self.keys.load_full();
        let same = before.as_ref().filter(|before| *before.text == *text);
        let fetched = match same {
            Some(same) => Fetched { set: Arc::clone(&same.set), text: Arc::clone(&same.text), at: now },
            None => Fetched { set: Arc::new(KeySet::parse(text, &self.terms.algorithms)?), text: text.into(), at: now },
        };
        let is_new = same.is_none();
        let is_empty = fetched.set.len() == 0;
        self.keys.store(Some(Arc::new(fetched)));
        self.note(is_empty.then(|| "none of the keys can be used: every token is refused".to_owned()));
        Ok(is_new)
    }

    /// How many of its keys can verify.
    pub(super) fn usable(&self) -> usize {
        self.keys.load().as_ref().map_or(0, |keys| keys.set.len())
    }

    /// Notes why keys could not be fetched, or that they could; whether that is news.
    pub(super) fn note(&self, trouble: Option<String>) -> bool {
        let mut noted = self.trouble.lock();
        let is_news = *noted != trouble;
        *noted = trouble;
        is_news
    }

    pub(super) fn status(&self, now: Timestamp) -> IssuerStatus {
        let refreshed_at = self.keys.load().as_ref().map(|keys| keys.at);
        let issuer = self.name();
        let state = match refreshed_at {
            None => Some("have not been fetched yet, its JWTs are refused"),
            Some(at) if now >= at.after(self.terms.max_stale) => Some("are too old, its JWTs are refused"),
            Some(_) => None,
        };
        let noted = self.trouble.lock().clone();
        let trouble = match (state, noted) {
            (None, None) => None,
            (Some(state), None) => Some(format!("the keys of {issuer} {state}")),
            (None, Some(why)) => Some(format!("the keys of {issuer}: {why}")),
            (Some(state), Some(why)) => Some(format!("the keys of {issuer} {state}: {why}")),
        };
        IssuerStatus { issuer: Arc::clone(issuer), refreshed_at, trouble }
    }
}
