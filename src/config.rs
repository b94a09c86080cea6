//! The sum of the rooms' own configurations; the only reader of settings and environment.
//!
//! Settings come in layers, the later over the earlier: defaults (`--dev` has its own), the file `remit.toml`,
//! environment variables `REMIT_<SECTION>_<KEY>`, flags `--set SECTION.KEY=VALUE`. Lists in variables and flags are
//! comma-separated. Paths in a file are relative to the file, all others to the working directory. A key that this
//! version does not act on is an error: nothing in a file is accepted and then ignored.

mod check;
mod keys;
mod layer;
pub mod process;
mod public_url;
mod sections;
mod store;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use public_url::{InvalidPublicUrl, PublicUrl};
pub use sections::{
    AdminConfig, Asked, Backend, GrpcConfig, HttpConfig, KeyConfig, PolicyConfig, StateConfig, TlsConfig,
};

use crate::baseline;
use crate::events::{AuditConfig, EventsConfig};
use crate::identity;
use crate::keyring::KeyFiles;
use crate::proxied;
use crate::telemetry;
use crate::transport::ClientAuth;

/// `remit.toml`, a section a field. Made by [`Config::read`], which leaves nothing required empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listener for services and agents.
    pub grpc: GrpcConfig,
    /// What the gRPC and admin listeners show, and whom they let in.
    pub tls: TlsConfig,
    /// The listener for JSON, metrics and health.
    pub http: HttpConfig,
    /// The listener for administrators.
    pub admin: AdminConfig,
    /// The policy file, and roles that hold whatever the file says.
    pub policy: PolicyConfig,
    /// Files with HMAC keys, one to four; the first seals.
    #[serde(rename = "key")]
    pub keys: Vec<KeyConfig>,
    /// Where uses are counted and revocations kept.
    pub state: StateConfig,
    /// Where decisions are recorded.
    pub audit: AuditConfig,
    /// What is kept for those who watch.
    pub events: EventsConfig,
    /// What is noticed and denies nothing.
    pub detection: baseline::Config,
    /// How evidence names an agent.
    pub identity: identity::Config,
    /// What requests mean that proxies ask about.
    pub ext_authz: proxied::Config,
    /// The service's own log.
    pub telemetry: telemetry::Config,
}

/// Where settings come from, the lowest layer first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--dev`: defaults in the form of a `remit.toml` in this folder.
    pub dev: Option<DevDefaults>,
    /// `remit.toml`.
    pub file: Option<PathBuf>,
    /// Names and values of environment variables; those that don't begin with `REMIT_` are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Each `SECTION.KEY=VALUE`.
    pub flags: Vec<String>,
}

/// What `--dev` puts under all other settings.
#[derive(Clone, Debug)]
pub struct DevDefaults {
    /// The text of a `remit.toml`.
    pub text: String,
    /// The folder that its paths are relative to.
    pub folder: PathBuf,
}

impl Sources {
    /// This process's environment, and nothing else yet.
    #[must_use]
    pub fn of_process() -> Self {
        Self { environment: std::env::vars_os().collect(), ..Self::default() }
    }
}

/// Why there is no configuration. The text says what to write where.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can't be read.
    Unreadable(PathBuf, std::io::Error),
    /// The file is not of its form, or has a key that is unknown.
    Malformed {
        /// The file.
        file: PathBuf,
        /// The place and what is wrong with it, several lines.
        detail: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// An environment variable or a flag has a bad value.
    Setting {
        /// Its name.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// Settings that are required and have no default: each with what to write.
    Missing(Vec<(&'static str, &'static str)>),
    /// A value that can't be acted on.
    Invalid(String),
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "can't read the configuration {}: {error}", path.display()),
            Self::Malformed { file, detail, help } => {
                write!(f, "the configuration {} is not usable\n{detail}", file.display())?;
                help.iter().try_for_each(|help| write!(f, "\nhelp: {help}"))
            }
            Self::Setting { place, why } => write!(f, "{place}: {why}"),
            Self::Missing(missing) => {
                let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
                writeln!(f, "the configuration lacks {}; write in remit.toml:", names.join(", "))?;
                write_missing(f, missing)?;
                f.write_str("\nor run `remit serve --dev`, which makes all of it for trying out")
            }
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The lines to write, each section's head once.
fn write_missing(f: &mut std::fmt::Formatter<'_>, missing: &[(&str, &str)]) -> std::fmt::Result {
    let mut section = "";
    for (head, line) in missing.iter().filter_map(|(_, lines)| lines.split_once('\n')) {
        if head != section {
            write!(f, "\n{head}")?;
            section = head;
        }
        write!(f, "\n{line}")?;
    }
    writeln!(f)
}

impl Config {
    /// Reads all layers and checks what they make together. The strings are warnings: variables that look like
    /// settings and are none.
    ///
    /// # Errors
    /// The first layer that is not usable, all that is missing, or the first value that can't be acted on.
    pub fn read(sources: &Sources) -> Result<(Self, Vec<String>), ConfigError> {
        let mut table = toml::Table::new();
        if let Some(DevDefaults { text, folder }) = &sources.dev {
            layer::lay(&mut table, layer::file(&folder.join("remit.toml"), text, folder)?);
        }
        if let Some(path) = &sources.file {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable(path.clone(), error))?;
            let folder = path.parent().unwrap_or(Path::new(""));
            layer::lay(&mut table, layer::file(path, &text, folder)?);
        }
        let (environment, warnings) = layer::environment(sources.environment.iter().cloned())?;
        layer::lay(&mut table, environment);
        layer::lay(&mut table, layer::flags(&sources.flags)?);
        let config: Self = table.try_into().map_err(|error| ConfigError::Invalid(error.to_string()))?;
        check::check(&config)?;
        if sources.dev.is_some() {
            check::check_dev(&config)?;
        }
        Ok((config, warnings))
    }

    /// The configuration in force in the form of a `remit.toml`. It has files' names and never what is in them.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Invalid(error.to_string()))
    }

    /// Whether nobody gets in without a client certificate.
    #[must_use]
    pub fn requires_client_certificate(&self) -> bool {
        self.tls.files(self.identity.takes_other_evidence()).client_auth == ClientAuth::Required
    }

    /// The files of the keyring; the first one's key seals.
    #[must_use]
    pub fn key_files(&self) -> KeyFiles {
        sections::key_files(&self.keys)
    }
}

#[cfg(test)]
mod tests;
