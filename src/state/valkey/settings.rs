//! Where the store is and how it is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

/// What the valkey backend needs to know.
#[derive(Clone)]
pub struct StoreSettings {
    /// Where the primary is found.
    pub place: Place,
    /// The user; none: the store's default user.
    pub username: Option<String>,
    /// Reads the password, for each connection anew; none: none is sent.
    pub password: Option<ReadPassword>,
    /// A PEM file with the CAs that the store's certificate may be of; none: the system's.
    pub ca: Option<PathBuf>,
    /// What every key begins with.
    pub prefix: String,
    /// The replicas that the primary is configured with.
    pub replicas: u32,
    /// How long an operation may take.
    pub timeout: Duration,
}

/// Reads the password, or says why it can't.
pub type ReadPassword = Arc<dyn Fn() -> Result<StorePassword, String> + Send + Sync>;

/// A password. It is wiped when dropped, and can't be printed.
pub struct StorePassword(Zeroizing<String>);

impl StorePassword {
    /// From its text.
    #[must_use]
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The one way out: for the store.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Where the primary is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    At(StoreAddress),
    /// Where a Sentinel says.
    AskSentinels {
        /// The Sentinels, asked in their order.
        sentinels: Vec<StoreAddress>,
        /// The name under which they know the primary.
        service: String,
    },
}

/// The address of a store or a Sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// The database's number.
    pub database: u32,
}

impl std::fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}:{}/{}", self.host, self.port, self.database)
    }
}

impl StoreSettings {
    /// The first address that is not on this machine and not spoken to over TLS.
    pub(super) fn exposed(&self) -> Option<&StoreAddress> {
        let here = |host: &str| {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        let all = match &self.place {
            Place::At(address) => std::slice::from_ref(address),
            Place::AskSentinels { sentinels, .. } => sentinels,
        };
        all.iter().find(|address| !address.tls && !here(&address.host))
    }

    /// How many replicas the store has to insist on for most of its servers to have each write.
    pub(super) fn least_replicas(&self) -> u64 {
        u64::from(self.replicas).saturating_add(1) / 2
    }
}
