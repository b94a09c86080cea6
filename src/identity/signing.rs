//! JWTs that Remit signs, and the keys under which it publishes that it did.
//!
//! When the signing key's file has a new key, the key is published at once and signs only when everybody who may keep
//! the old list of keys has had to fetch the new one. The old key stays published until nothing that it signed is good
//! any more.

mod compact;
mod kept;
mod key;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value, json};

pub use kept::{InvalidKeys, KeptKeys};
pub use key::{SigningKeyError, ed25519_pem};

use super::jwt_type::JwtType;
use crate::domain::limits;
use crate::domain::time::Timestamp;
use compact::{Compact, JWT_BYTES};
use key::{PublicKey, SigningKey};

/// Whatever is signed is good for this long at most.
pub const LONGEST_LIFE: Duration = Duration::from_mins(1);
/// Clocks of those who verify, and the way of a list of keys to them.
const SKEW: Duration = Duration::from_secs(limits::CLOCK_SKEW_SECONDS);
/// Further keys that are published, at most: each is tried by nobody, but all are sent to everybody.
pub const ALSO_PUBLISHED: usize = 8;

/// Which files keys are read from, and how long their list may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningFiles {
    /// PEM with a private key, Ed25519 or P-256, in PKCS#8.
    pub signing_key: PathBuf,
    /// PEM with further keys to publish, public or private.
    pub also_published: Vec<PathBuf>,
    /// How long others may keep the list of keys.
    pub cache: Duration,
}

/// Signs JWTs and verifies its own.
pub struct Signer {
    files: SigningFiles,
    keys: ArcSwap<Keys>,
}

/// Why something is not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// No signing key is configured.
    NoKey,
    /// What nobody verified is never signed.
    SelfAsserted,
    /// The JWT would have more bytes than a header takes.
    TooLong,
    /// The library refuses.
    Failed,
}

impl std::fmt::Display for Unsigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoKey => f.write_str("no signing key is configured: write [identity.forward] signing_key"),
            Self::SelfAsserted => f.write_str("an identity that nobody verified is not signed"),
            Self::TooLong => write!(f, "the JWT would have more than {JWT_BYTES} bytes: carry fewer claims"),
            Self::Failed => f.write_str("the signing key could not sign"),
        }
    }
}

impl std::error::Error for Unsigned {}

/// The published keys, as `/.well-known/jwks.json` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// A JWK set (RFC 7517 §5).
    pub body: String,
    /// Another one for another set of keys; without quotes.
    pub tag: String,
    /// How long it may be kept.
    pub max_age: Duration,
}

impl Signer {
    /// Signs with the key in these files from now on.
    ///
    /// # Errors
    /// A file that can't be used.
    pub fn new(files: SigningFiles, now: Timestamp) -> Result<Self, SigningKeyError> {
        let (signing, also) = files.read()?;
        let keys = Keys { line: vec![Turn { key: Arc::new(signing), from: now }], also };
        Ok(Self { files, keys: ArcSwap::from_pointee(keys) })
    }

    /// Reads the files again; whether a new signing key was announced. A file that can't be used changes nothing.
    ///
    /// # Errors
    /// A file that can't be used.
    pub fn reload(&self, now: Timestamp) -> Result<bool, SigningKeyError> {
        let (signing, also) = self.files.read()?;
        let keys = self.keys.load();
        let from = now.after(self.files.cache).after(SKEW);
        let (line, is_new) = announced(&keys.line, signing, from, now, self.retirement());
        self.keys.store(Arc::new(Keys { line, also }));
        Ok(is_new)
    }

    /// A JWT of this type that says this.
    ///
    /// # Errors
    /// It would be too long, or can't be signed.
    pub fn sign(&self, typ: JwtType, claims: &Map<String, Value>, now: Timestamp) -> Result<String, Unsigned> {
        let keys = self.keys.load();
        let key = keys.signing(now).ok_or(Unsigned::NoKey)?;
        let public = key.public();
        let members = [("alg", public.algorithm()), ("kid", public.id()), ("typ", typ.as_str())];
        let header = members.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        let parts = compact::part(&header).zip(compact::part(claims));
        let (header, payload) = parts.ok_or(Unsigned::Failed)?;
        let message = format!("{header}.{payload}");
        let signature = key.sign(&message).ok_or(Unsigned::Failed)?;
        let jwt = format!("{message}.{signature}");
        if jwt.len() > JWT_BYTES { Err(Unsigned::TooLong) } else { Ok(jwt) }
    }

    /// What a JWT says that is of this type and that one of the published keys signed. Its claims are still to be
    /// checked.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub fn open(&self, typ: JwtType, text: &str, now: Timestamp) -> Result<Map<String, Value>, &'static str> {
        let keys = self.keys.load();
        open(typ, text, keys.published(now, self.retirement()))
    }

    /// The keys under which JWTs are good.
    #[must_use]
    pub fn published(&self, now: Timestamp) -> Published {
        let keys = self.keys.load();
        let (mut documents, mut ids) = (Vec::new(), Vec::<&str>::new());
        for key in keys.published(now, self.retirement()) {
            if !ids.contains(&key.id().as_ref()) {
                ids.push(key.id());
                documents.push(key.document());
            }
        }
        // An id names its key; half of it is enough to tell lists apart.
        let tag = ids.iter().map(|id| id.get(..20).unwrap_or(id)).collect::<Vec<_>>().join(".");
        Published { body: json!({ "keys": documents }).to_string(), tag, max_age: self.files.cache }
    }

    /// For how long after its last signature a key stays published.
    fn retirement(&self) -> Duration {
        LONGEST_LIFE.saturating_add(self.files.cache).saturating_add(SKEW)
    }
}

/// What a JWT says that is of this type and that one of these keys signed.
fn open<'k>(
    typ: JwtType,
    text: &str,
    mut keys: impl Iterator<Item = &'k PublicKey>,
) -> Result<Map<String, Value>, &'static str> {
    let jwt = Compact::parse(text)?;
    let header = jwt.header()?;
    if header.typ != typ.as_str() {
        return Err("the JWT is of another type");
    }
    let key = keys.find(|key| key.id().as_ref() == header.key).ok_or("no published key has the JWT's kid")?;
    if header.algorithm != key.algorithm() {
        return Err("the JWT's alg is not the key's");
    }
    if !key.has_signed(jwt.message, jwt.signature) {
        return Err("the JWT's signature is not of its key");
    }
    jwt.claims()
}

impl SigningFiles {
    fn read(&self) -> Result<(SigningKey, Vec<PublicKey>), SigningKeyError> {
        let signing = SigningKey::read(&self.signing_key)?;
        let also = self.also_published.iter().map(|path| PublicKey::read(path)).collect::<Result<_, _>>()?;
        Ok((signing, also))
    }
}

/// The keys at one moment.
struct Keys {
    /// Who signs from when, in order; the last one is in the file.
    line: Vec<Turn>,
    also: Vec<PublicKey>,
}

/// A key and from when it signs: until the next one does.
#[derive(Clone)]
struct Turn {
    key: Arc<SigningKey>,
    from: Timestamp,
}

impl Keys {
    fn signing(&self, now: Timestamp) -> Option<&SigningKey> {
        let begun = self.line.iter().rev().find(|turn| turn.from <= now);
        begun.or(self.line.first()).map(|turn| turn.key.as_ref())
    }

    /// The keys in line that have not retired, and the further ones.
    fn published(&self, now: Timestamp, retirement: Duration) -> impl Iterator<Item = &PublicKey> {
        let ends = self.line.iter().skip(1).map(move |next| Some(next.from.after(retirement))).chain([None]);
        let in_line = self.line.iter().zip(ends).filter(move |(_, end)| end.is_none_or(|end| now < end));
        in_line.map(|(turn, _)| turn.key.public()).chain(&self.also)
    }
}

/// The line with the file's key at its end, and whether it is a new one. A key that was announced and has not signed
/// yet gives way. The line stays short: a key that has retired leaves it, and one that waits is replaced.
fn announced(
    line: &[Turn],
    signing: SigningKey,
    from: Timestamp,
    now: Timestamp,
    retirement: Duration,
) -> (Vec<Turn>, bool) {
    let ends = line.iter().skip(1).map(|next| Some(next.from.after(retirement))).chain([None]);
    let has_not_retired = |(_, end): &(&Turn, Option<Timestamp>)| end.is_none_or(|end| now < end);
    let mut line = line.iter().zip(ends).filter(has_not_retired).map(|(turn, _)| turn.clone()).collect::<Vec<_>>();
    let is_last = |line: &[Turn]| line.last().is_some_and(|last| last.key.public().id() == signing.public().id());
    if is_last(&line) {
        return (line, false);
    }
    let waiting = |last: &mut Turn| last.from > now;
    while line.len() > 1 && line.pop_if(waiting).is_some() {}
    if is_last(&line) {
        return (line, false);
    }
    line.push(Turn { key: Arc::new(signing), from });
    (line, true)
}

#[cfg(test)]
mod tests;
