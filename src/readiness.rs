//! How the process is doing, for readiness and for people.

use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::time::Timestamp;

/// How the process is doing at one moment.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// Why it is not ready; empty if it is.
    pub not_ready: Vec<String>,
    /// What wants attention though it is ready.
    pub attention: Vec<String>,
    /// When the process started to answer.
    pub started_at: Timestamp,
    /// When the policy was put in force.
    pub policy_loaded_at: Timestamp,
    /// How often the policy file was found broken.
    pub policy_reload_failures: u64,
    /// Whether the file, as it was last read, is what is in force.
    pub is_policy_current: bool,
    /// When the file was last read and found valid, changed or not.
    pub policy_checked_at: Timestamp,
    /// The policy file.
    pub policy_file: PathBuf,
    /// The audit file; none if nothing is written.
    pub audit_file: Option<PathBuf>,
    /// The last moments of certificates, by role: `server`, `client_ca`.
    pub certificate_expiries: Vec<(&'static str, Timestamp)>,
    /// Open connections, and those that failed in the handshake since the start.
    pub connections: Connections,
}

/// Connections of the gRPC listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Accepted since the start.
    pub accepted: u64,
    /// Failed in the handshake since the start.
    pub handshake_failures: u64,
}

impl Condition {
    /// Whether requests can be answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.not_ready.is_empty()
    }
}

/// Where a condition is asked for.
pub type Examine = Arc<dyn Fn() -> Condition + Send + Sync>;
