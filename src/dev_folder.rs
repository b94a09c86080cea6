//! What `serve --dev` needs, made in one folder: a CA, certificates, keys, a policy and the configuration that names them.
//!
//! What is there is kept, what is missing is made. Certificates with less than a day left are made anew.

mod api_keys;
mod certificates;
mod ports;
pub mod private_file;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use certificates::Certificates;
pub use ports::Ports;

use crate::config::{Config, DevDefaults};
use crate::digest::sha256_hex;
use crate::domain::agent::AgentName;
use crate::domain::time::Timestamp;
use crate::policy_file::PolicyFile;

/// Where the folder is unless `--dev-dir` says otherwise.
pub const DEFAULT: &str = ".remit-dev";
/// What `--dev` amounts to.
const SETTINGS: &str = include_str!("dev_folder/remit.toml");
const POLICY: &str = include_str!("../examples/policy.json");

/// Why the folder could not be laid out: what and where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevFolderError(String);

impl std::fmt::Display for DevFolderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DevFolderError {}

fn file_error(path: &Path, error: impl std::fmt::Display) -> DevFolderError {
    DevFolderError(format!("{} can't be used: {error}", path.display()))
}

/// A folder that has all that `--dev` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevFolder {
    path: PathBuf,
}

impl DevFolder {
    /// Lays out what does not depend on the policy: the CA, the server's certificate, the keys (each from 64 random
    /// digits of `secret`, if there is none yet), the policy, the configuration.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn lay_out(
        path: &Path,
        secret: impl Fn() -> Zeroizing<String>,
        now: Timestamp,
    ) -> Result<Self, DevFolderError> {
        std::fs::create_dir_all(path).map_err(|error| file_error(path, error))?;
        Certificates::open(path, now)?.server()?;
        let folder = Self { path: path.to_owned() };
        folder.keep_or_write("hmac.key", |path| private_file::create(path, &secret()))?;
        let signing = certificates::signing_key()?;
        folder.keep_or_write("forward.key", |path| private_file::create(path, &signing))?;
        api_keys::lay_out(&folder, secret)?;
        folder.keep_or_write("policy.json", |path| private_file::replace_public(path, POLICY))?;
        folder.keep_or_write("remit.toml", |path| private_file::replace_public(path, SETTINGS))?;
        Ok(folder)
    }

    /// Makes certificates for every agent that the configured policy names. The strings are warnings: agents that
    /// can't have one. A policy that is not valid names nobody but those with roles in the configuration.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn certify_agents(&self, config: &Config, now: Timestamp) -> Result<Vec<String>, DevFolderError> {
        let certificates = Certificates::open(&self.path, now)?;
        let mut warnings = Vec::new();
        for agent in agents(config) {
            if !certificates.agent(&agent)? {
                warnings.push(format!(
                    "{agent} gets no certificate: its name can't be part of a SPIFFE ID (letters, digits, `.`, `-` and `_` can)"
                ));
            }
        }
        Ok(warnings)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `--dev` puts under all other settings, its paths in this folder.
    #[must_use]
    pub fn defaults_in(path: &Path) -> DevDefaults {
        DevDefaults { text: SETTINGS.to_owned(), folder: path.to_owned() }
    }

    /// Whether the policy is the example that Remit comes with.
    #[must_use]
    pub fn has_example_policy(&self) -> bool {
        std::fs::read(self.file("policy.json"))
            .is_ok_and(|bytes| bytes.trim_ascii_end() == POLICY.trim_ascii_end().as_bytes())
    }

    /// The folder that a configuration file is in, if it is such a folder.
    #[must_use]
    pub fn around(file: &Path) -> Option<Self> {
        let path = match file.parent()? {
            here if here.as_os_str().is_empty() => Path::new("."),
            folder => folder,
        };
        let is_one = ["ca.pem", "ca.key", "agents"].iter().all(|name| path.join(name).exists());
        is_one.then(|| Self { path: path.to_owned() })
    }

    /// A certificate or key, or another file of the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn keep_or_write(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<(), DevFolderError> {
        let path = self.path.join(name);
        if path.exists() {
            return Ok(());
        }
        write(&path).map_err(|error| file_error(&path, error))
    }
}

/// Everybody whom policy and configuration name, in order.
fn agents(config: &Config) -> Vec<AgentName> {
    let policy = &config.policy;
    let file = PolicyFile::new(policy.file.clone(), policy.roles(), sha256_hex);
    let mut agents: Vec<AgentName> = match file.load(1) {
        Ok(compiled) => compiled.policy.agents.into_keys().collect(),
        Err(_) => {
            policy.administrators.iter().chain(&policy.auditors).chain(&policy.enforcement_points).cloned().collect()
        }
    };
    agents.sort_unstable();
    agents.dedup();
    agents
}

#[cfg(test)]
mod tests;
