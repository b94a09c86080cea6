//! `[state]` for `backend = "valkey"`: where the store is and how it is asked.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{Backend, StateConfig};
use crate::state::{Login, Place, ReadPassword, ReadTls, StoreAddress, StoreSettings};
use crate::transport::ClientFiles;

const DEFAULT_PREFIX: &str = "remit";
const DEFAULT_TIMEOUT_MS: u64 = 200;
/// A primary with more replicas than this would be busy with them alone.
const MOST_REPLICAS: u32 = 100;
const LONGEST_PREFIX: usize = 64;

impl StateConfig {
    /// How the store is asked; none with another backend. `read_password` reads the file that this key names, and
    /// `read_tls` what TLS needs.
    ///
    /// # Errors
    /// What is missing or wrong, and what to write.
    pub fn store(
        &self,
        read_password: impl Fn(&'static str, PathBuf) -> ReadPassword,
        read_tls: impl FnOnce(ClientFiles) -> ReadTls,
    ) -> Result<Option<StoreSettings>, String> {
        if self.backend != Backend::Valkey {
            return match self.store_key() {
                Some(key) => Err(format!("[state] {key} is for backend = \"valkey\": write that, or leave it out")),
                None => Ok(None),
            };
        }
        let unset = Self::default();
        if self.capacity != unset.capacity || self.per_agent_share.to_bits() != unset.per_agent_share.to_bits() {
            let why = "[state] capacity and per_agent_share don't hold with backend = \"valkey\": leave them out; the store's maxmemory is the bound";
            return Err(why.to_owned());
        }
        let missing = "[state] replicas is missing: write how many replicas the store's primary is configured with, 0 if none; a quarantine is answered when all of them have it";
        let replicas = self.replicas.ok_or(missing)?;
        if replicas > MOST_REPLICAS {
            return Err(format!("[state] replicas is {replicas} and has to be at most {MOST_REPLICAS}"));
        }
        let timeout = self.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if !(10..=1000).contains(&timeout) {
            return Err(format!("[state] timeout_ms is {timeout} and has to be 10 to 1000"));
        }
        let place = self.place()?;
        self.check_logins(&place)?;
        let files = self.tls_files(place.uses_tls())?;
        let login = |username: &Option<String>, key, file: &Option<PathBuf>| Login {
            username: username.clone(),
            password: file.clone().map(|file| read_password(key, file)),
        };
        Ok(Some(StoreSettings {
            login: login(&self.username, "password_file", &self.password_file),
            sentinel_login: login(&self.sentinel_username, "sentinel_password_file", &self.sentinel_password_file),
            tls: files.map(read_tls),
            place,
            prefix: self.checked_prefix()?,
            replicas,
            timeout: Duration::from_millis(timeout),
        }))
    }
}

impl StateConfig {
    fn store_key(&self) -> Option<&'static str> {
        let Self {
            url,
            sentinels,
            sentinel_service,
            username,
            password_file,
            sentinel_username,
            sentinel_password_file,
            ca,
            certificate,
            key,
            prefix,
            replicas,
            timeout_ms,
            backend: _,
            dir: _,
            capacity: _,
            per_agent_share: _,
        } = self;
        let given = [
            (url.is_some(), "url"),
            (sentinels.is_some(), "sentinels"),
            (sentinel_service.is_some(), "sentinel_service"),
            (username.is_some(), "username"),
            (password_file.is_some(), "password_file"),
            (sentinel_username.is_some(), "sentinel_username"),
            (sentinel_password_file.is_some(), "sentinel_password_file"),
            (ca.is_some(), "ca"),
            (certificate.is_some(), "certificate"),
            (key.is_some(), "key"),
            (prefix.is_some(), "prefix"),
            (replicas.is_some(), "replicas"),
            (timeout_ms.is_some(), "timeout_ms"),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, key)| key)
    }

    fn place(&self) -> Result<Place, String> {
        let place = match (&self.url, self.sentinels.as_deref()) {
            (Some(_), Some(_)) => {
                return Err(
                    "[state] url and sentinels are both there: write where the store is, or who knows it".to_owned()
                );
            }
            (None, None | Some([])) => {
                let why = "[state] url is missing: write where the store is, such as url = \"redis://127.0.0.1:6379/0\"; or sentinels and sentinel_service";
                return Err(why.to_owned());
            }
            (Some(url), None) => {
                if self.sentinel_service.is_some() {
                    return Err("[state] sentinel_service needs sentinels, and no url, beside it".to_owned());
                }
                Place::At(address("url", url, 6379)?)
            }
            (None, Some(sentinels)) => {
                let missing =
                    "[state] sentinel_service is missing: write the name under which the Sentinels know the primary";
                let service = self.sentinel_service.clone().ok_or(missing)?;
                if self.replicas == Some(0) {
                    let why = "[state] replicas is 0 beside sentinels, which promote replicas: write how many the primary has";
                    return Err(why.to_owned());
                }
                let sentinels = sentinels.iter().map(|url| address("sentinels", url, 26379));
                Place::AskSentinels { sentinels: sentinels.collect::<Result<_, _>>()?, service }
            }
        };
        let all: Vec<&StoreAddress> = match &place {
            Place::At(address) => vec![address],
            Place::AskSentinels { sentinels, .. } => sentinels.iter().collect(),
        };
        if all.iter().any(|address| address.tls != all.first().is_some_and(|first| first.tls)) {
            return Err("[state] sentinels are rediss:// all of them, or none".to_owned());
        }
        Ok(place)
    }

    /// A name is sent with its password or not at all, and only to Sentinels that there are.
    fn check_logins(&self, place: &Place) -> Result<(), String> {
        let logins = [
            ("username", &self.username, "password_file", &self.password_file),
            ("sentinel_username", &self.sentinel_username, "sentinel_password_file", &self.sentinel_password_file),
        ];
        for (name, username, file, password) in logins {
            if username.is_some() && password.is_none() {
                return Err(format!("[state] {name} needs {file} beside it: the name of a file with its password"));
            }
        }
        if self.sentinel_password_file.is_some() && !matches!(place, Place::AskSentinels { .. }) {
            return Err("[state] sentinel_password_file needs sentinels, and no url, beside it".to_owned());
        }
        Ok(())
    }

    /// What connections over TLS are made with; none where nothing is said of it.
    fn tls_files(&self, uses_tls: bool) -> Result<Option<ClientFiles>, String> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                return Err("[state] key is missing beside certificate: name the file of its private key".to_owned());
            }
            (None, Some(_)) => {
                return Err(
                    "[state] certificate is missing beside key: name the file of the certificate that is shown"
                        .to_owned(),
                );
            }
        };
        let files = ClientFiles { ca: self.ca.clone(), identity };
        if files == ClientFiles::default() {
            return Ok(None);
        }
        if !uses_tls {
            let key = if files.ca.is_some() { "ca" } else { "certificate" };
            return Err(format!("[state] {key} is for TLS: write rediss:// in place of redis://"));
        }
        Ok(Some(files))
    }

    /// A key's names are split at colons and braces, so that none may be in it.
    fn checked_prefix(&self) -> Result<String, String> {
        let prefix = self.prefix.as_deref().unwrap_or(DEFAULT_PREFIX);
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=LONGEST_PREFIX).contains(&prefix.len()) && prefix.bytes().all(is_good) {
            return Ok(prefix.to_owned());
        }
        Err(format!(
            "[state] prefix {prefix:?} has to be 1 to {LONGEST_PREFIX} letters, digits, `-`, `_` and `.`, such as remit-prod"
        ))
    }
}

/// What is wrong with a URL is said without the URL: a password may be in it.
fn address(key: &str, text: &str, port: u16) -> Result<StoreAddress, String> {
    let bad = |why: &str| format!("[state] {key}: {why}");
    let form = "write redis://HOST:PORT, or rediss:// for TLS";
    let url = Url::parse(text).map_err(|_| bad(&format!("it is no URL: {form}")))?;
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(bad(&format!("its scheme is not one of a store: {form}"))),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "a user or password may not stand in it, where logs and process lists could show them: write username = \"…\" and password_file = \"…\" beside it",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad(&format!("nothing may follow the path: {form}")));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad(&format!("it has no host: {form}")))?;
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| bad("its path has to be the database's number, such as /0"))?,
    };
    if database != 0 && key == "sentinels" {
        return Err(bad("a Sentinel has no databases: leave the path out"));
    }
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(StoreAddress { host, port: url.port().unwrap_or(port), tls, database })
}
