//! Assertions that clients sign themselves, `private_key_jwt` (RFC 7523 §2.2, §3; `OpenID` Connect Core §9).
//!
//! An assertion is good once. What was used is remembered until it expires, in this process; what was made before the
//! process started is refused, so that a restart forgets nothing that matters.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::compact::{self, Kind};
use super::config::Algorithm;
use super::keys::KeySet;
use super::read_claims;
use crate::domain::agent::AgentName;
use crate::domain::limits::{CLOCK_SKEW_SECONDS, JSON_INTEGER};
use crate::domain::time::Timestamp;

/// The longest time that an assertion is good for from now on: it is made for one request.
const LIFE_SECONDS: u64 = 300;
/// A `jti`, in bytes.
const JTI_BYTES: usize = 256;
/// Assertions of one client that are remembered: 33 a second. Full refuses; nothing is forgotten before its end.
const USED: usize = 10_000;
/// A key set's file, in bytes.
const FILE_BYTES: u64 = 256 * 1024;
/// Permission bit that lets everyone on the machine write: whoever writes keys is every client.
const OTHERS_WRITE: u32 = 0o002;

/// `[[identity.client]]`: an agent that authenticates to the OAuth endpoints with assertions of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The agent's name in policy; also `iss` and `sub` of its assertions.
    pub agent: String,
    /// A JWK set (RFC 7517 §5) with its public keys. Read again when it changes.
    pub jwks_file: PathBuf,
}

/// Why clients' keys can't be used. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKeysError(String);

impl std::fmt::Display for ClientKeysError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClientKeysError {}

/// The agents whose assertions are evidence. Without one, none is.
#[derive(Default)]
pub struct Clients {
    files: Vec<(AgentName, PathBuf)>,
    keys: ArcSwap<Vec<ClientKeys>>,
    /// By client: each `jti` and its end, in seconds.
    used: Mutex<BTreeMap<AgentName, HashMap<Box<str>, u64>>>,
    /// What was made up to here may have been used in an earlier process.
    fence: u64,
}

struct ClientKeys {
    text: Vec<u8>,
    set: KeySet,
}

impl Clients {
    /// Whether each agent is one, and has one entry.
    ///
    /// # Errors
    /// The first that doesn't, and what to write.
    pub fn check(configs: &[ClientConfig]) -> Result<(), ClientKeysError> {
        agents(configs).map(|_| ())
    }

    /// These clients, with the keys in their files.
    ///
    /// # Errors
    /// A file that can't be used.
    pub fn read(configs: &[ClientConfig], now: Timestamp) -> Result<Self, ClientKeysError> {
        let files = agents(configs)?;
        let keys = files.iter().map(|(agent, path)| ClientKeys::read(agent, path)).collect::<Result<_, _>>()?;
        let fence = now.seconds().saturating_add(CLOCK_SKEW_SECONDS);
        Ok(Self { files, keys: ArcSwap::from_pointee(keys), used: Mutex::default(), fence })
    }

    /// Reads the files again; whether one says something else. A file that can't be used changes nothing.
    ///
    /// # Errors
    /// A file that can't be used.
    pub fn reload(&self) -> Result<bool, ClientKeysError> {
        let read =
            self.files.iter().map(|(agent, path)| ClientKeys::read(agent, path)).collect::<Result<Vec<_>, _>>()?;
        let same = self.keys.load().iter().zip(&read).all(|(before, read)| before.text == read.text);
        if !same {
            self.keys.store(std::sync::Arc::new(read));
        }
        Ok(!same)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names of the algorithms that assertions may be signed with.
    #[must_use]
    pub fn algorithms(&self) -> Vec<&'static str> {
        Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect()
    }

    /// The agent that signed this for one of these audiences, just now and for the first time.
    ///
    /// # Errors
    /// What is wrong with it: for the log alone.
    pub fn verify(&self, assertion: &str, audiences: &[String], now: Timestamp) -> Result<AgentName, &'static str> {
        let compact = compact::parse(assertion)?;
        if compact.header.kind != Kind::Unsaid {
            return Err("the assertion is an access token");
        }
        let claims = read_claims(&compact)?;
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or("the assertion's iss is not a text")?;
        let place = self.files.iter().position(|(agent, _)| agent.as_str() == issuer);
        let (agent, _) = place.and_then(|place| self.files.get(place)).ok_or("the assertion's iss is no client")?;
        let keys = self.keys.load();
        let keys = place.and_then(|place| keys.get(place)).ok_or("the assertion's iss is no client")?;
        keys.set.verify(&compact).map_err(|_| "the assertion is not signed by a key of its client")?;
        if claims.get("sub").and_then(Value::as_str) != Some(issuer) {
            return Err("the assertion's sub is not its iss");
        }
        is_for(&claims, audiences)?;
        let expires_at = self.check_times(&claims, now)?;
        let jti = claims.get("jti").and_then(Value::as_str).filter(|jti| (1..=JTI_BYTES).contains(&jti.len()));
        self.use_once(agent, jti.ok_or("the assertion has no jti of 1 to 256 bytes")?, expires_at, now)?;
        Ok(agent.clone())
    }

    fn check_times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<u64, &'static str> {
        let now = now.seconds();
        let soon = now.saturating_add(CLOCK_SKEW_SECONDS);
        let expires_at = seconds(claims, "exp")?.ok_or("the assertion has no exp")?;
        let issued_at = seconds(claims, "iat")?.ok_or("the assertion has no iat")?;
        if expires_at <= now {
            return Err("the assertion is expired");
        }
        if expires_at > soon.saturating_add(LIFE_SECONDS) {
            return Err("the assertion is good for more than five minutes");
        }
        if issued_at.max(seconds(claims, "nbf")?.unwrap_or(0)) > soon {
            return Err("the assertion is not good yet");
        }
        if issued_at <= self.fence {
            return Err("the assertion was made before this process could know whether it was used");
        }
        Ok(expires_at)
    }

    fn use_once(&self, agent: &AgentName, jti: &str, expires_at: u64, now: Timestamp) -> Result<(), &'static str> {
        let mut used = self.used.lock();
        let used = used.entry(agent.clone()).or_default();
        if used.len() >= USED {
            used.retain(|_, end| *end > now.seconds());
        }
        if used.contains_key(jti) {
            return Err("the assertion was used before");
        }
        if used.len() >= USED {
            return Err("the client made more assertions than are remembered");
        }
        used.insert(jti.into(), expires_at);
        Ok(())
    }
}

impl ClientKeys {
    fn read(agent: &AgentName, path: &PathBuf) -> Result<Self, ClientKeysError> {
        let unusable = |why: &dyn std::fmt::Display| {
            ClientKeysError(format!("the keys of {agent}, {}, can't be used: {why}", path.display()))
        };
        let file = File::open(path).map_err(|error| unusable(&error))?;
        let metadata = file.metadata().map_err(|error| unusable(&error))?;
        if !metadata.is_file() || metadata.permissions().mode() & OTHERS_WRITE != 0 {
            return Err(unusable(&"it has to be a file that others can't write"));
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES.saturating_add(1)).read_to_end(&mut text).map_err(|error| unusable(&error))?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES {
            return Err(unusable(&"it has more than 256 KiB"));
        }
        let set = KeySet::parse(&text, &Algorithm::ALL).map_err(|error| unusable(&error))?;
        if set.len() == 0 {
            return Err(unusable(&"it has no public key that can verify signatures"));
        }
        Ok(Self { text, set })
    }
}

fn agents(configs: &[ClientConfig]) -> Result<Vec<(AgentName, PathBuf)>, ClientKeysError> {
    let mut agents = Vec::<(AgentName, PathBuf)>::new();
    for ClientConfig { agent, jwks_file } in configs {
        let name = AgentName::parse(agent)
            .map_err(|why| ClientKeysError(format!("{agent:?} is not an agent's name: {why}")))?;
        if agents.iter().any(|(known, _)| *known == name) {
            return Err(ClientKeysError(format!("{name} is there twice: put all its keys in one jwks_file")));
        }
        agents.push((name, jwks_file.clone()));
    }
    Ok(agents)
}

/// One audience, so that no other server can show the assertion here.
fn is_for(claims: &Map<String, Value>, audiences: &[String]) -> Result<(), &'static str> {
    let audience = match claims.get("aud") {
        Some(Value::String(audience)) => Some(audience),
        Some(Value::Array(several)) => match several.as_slice() {
            [Value::String(audience)] => Some(audience),
            _ => None,
        },
        _ => None,
    };
    if audience.is_some_and(|audience| audiences.contains(audience)) {
        return Ok(());
    }
    Err("the assertion is not for this server, or not for it alone")
}

fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, &'static str> {
    let whole = |value: &Value| value.as_u64().filter(|seconds| *seconds < JSON_INTEGER);
    claims.get(name).map(|value| whole(value).ok_or("a time of the assertion is not in whole seconds")).transpose()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_795_297_903;
    const HERE: &str = "https://remit.example";

    /// A client with a key in a file, and what signs as it.
    struct Trial {
        clients: Clients,
        key: EncodingKey,
        _folder: tempfile::TempDir,
    }

    fn trial() -> Trial {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let point = pair.der_bytes();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": part(1..33), "y": part(33..65)});
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.json");
        std::fs::write(&path, json!({"keys": [jwk]}).to_string()).unwrap();
        let config = ClientConfig { agent: "deployer".to_owned(), jwks_file: path };
        let clients = Clients::read(&[config], Timestamp::from_seconds(NOW - 100)).unwrap();
        Trial { clients, key: EncodingKey::from_ec_der(&pair.serialize_der()), _folder: folder }
    }

    impl Trial {
        fn sign(&self, claims: &Value) -> String {
            let header = Header::new(jsonwebtoken::Algorithm::ES256);
            jsonwebtoken::encode(&header, claims, &self.key).unwrap()
        }

        fn verify(&self, assertion: &str, at: u64) -> Result<AgentName, &'static str> {
            self.clients.verify(
                assertion,
                &[HERE.to_owned(), format!("{HERE}/oauth2/token")],
                Timestamp::from_seconds(at),
            )
        }
    }

    fn good() -> Value {
        json!({"iss": "deployer", "sub": "deployer", "aud": HERE, "jti": "1", "iat": NOW - 1, "exp": NOW + 60})
    }

    #[test]
    fn an_assertion_is_good_once() {
        let trial = trial();
        let assertion = trial.sign(&good());
        assert_eq!(trial.verify(&assertion, NOW).unwrap().as_str(), "deployer");
        assert_eq!(trial.verify(&assertion, NOW), Err("the assertion was used before"));
        assert_eq!(trial.verify(&assertion, NOW + 59), Err("the assertion was used before"));
        assert_eq!(trial.verify(&assertion, NOW + 60), Err("the assertion is expired"));
    }

    #[test]
    fn an_assertion_is_its_clients_own_for_this_server_and_short() {
        let trial = trial();
        for (member, value) in [
            ("iss", json!("coordinator")),
            ("iss", json!(1)),
            ("sub", json!("coordinator")),
            ("aud", json!("https://other.example")),
            ("aud", json!([HERE, "https://other.example"])),
            ("aud", Value::Null),
            ("exp", json!(NOW)),
            ("exp", json!(NOW + 306)),
            ("exp", json!(1_795_297_963.5)),
            ("exp", Value::Null),
            ("iat", json!(NOW + 6)),
            ("iat", Value::Null),
            ("nbf", json!(NOW + 6)),
            ("jti", json!("")),
            ("jti", Value::Null),
        ] {
            let mut claims = good();
            claims[member] = value.clone();
            assert!(trial.verify(&trial.sign(&claims), NOW).is_err(), "{member} {value}");
        }
        let mut claims = good();
        claims["aud"] = json!([format!("{HERE}/oauth2/token")]);
        assert!(trial.verify(&trial.sign(&claims), NOW).is_ok());
    }

    #[test]
    fn what_may_have_been_used_before_the_start_is_refused() {
        let trial = trial();
        let mut claims = good();
        claims["iat"] = json!(NOW - 100);
        assert!(trial.verify(&trial.sign(&claims), NOW).is_err());
        claims["iat"] = json!(NOW - 94);
        assert!(trial.verify(&trial.sign(&claims), NOW).is_ok());
    }

    #[test]
    fn another_key_signs_nothing() {
        let (trial, other) = (trial(), self::trial());
        assert!(trial.verify(&other.sign(&good()), NOW).is_err());
    }

    #[test]
    fn a_full_memory_refuses_and_what_has_ended_makes_room() {
        let trial = trial();
        let agent = AgentName::parse("deployer").unwrap();
        for number in 0..USED {
            trial.clients.use_once(&agent, &number.to_string(), NOW + 10, Timestamp::from_seconds(NOW)).unwrap();
        }
        let last = |at| trial.clients.use_once(&agent, "last", NOW + 60, Timestamp::from_seconds(at));
        assert!(last(NOW + 9).is_err());
        assert!(last(NOW + 10).is_ok());
    }

    #[test]
    fn a_file_that_is_no_good_changes_nothing() {
        let trial = trial();
        assert_eq!(trial.clients.reload(), Ok(false));
        let (_, path) = &trial.clients.files[0];
        std::fs::write(path, "{}").unwrap();
        assert!(trial.clients.reload().is_err());
        assert!(trial.verify(&trial.sign(&good()), NOW).is_ok());
    }
}
