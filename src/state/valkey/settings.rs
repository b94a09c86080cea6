//! Where the store is and how it is asked.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

/// What the valkey backend needs to know.
#[derive(Clone)]
pub struct StoreSettings {
    /// Where the primary is found.
    pub place: Place,
    /// As whom the store is asked.
    pub login: Login,
    /// As whom Sentinels are.
    pub sentinel_login: Login,
    /// Reads what connections over TLS need, for each anew; none: the system's CAs, and nothing is shown.
    pub tls: Option<ReadTls>,
    /// What every key begins with.
    pub prefix: String,
    /// The replicas that the primary is configured with.
    pub replicas: u32,
    /// How long an operation may take.
    pub timeout: Duration,
}

/// As whom something is asked.
#[derive(Clone, Default)]
pub struct Login {
    /// The user; none: the default user.
    pub username: Option<String>,
    /// Reads the password, for each connection anew; none: none is sent.
    pub password: Option<ReadPassword>,
}

/// Reads what connections over TLS need, or says why it can't.
pub type ReadTls = Arc<dyn Fn() -> Result<StoreTls, String> + Send + Sync>;

/// What connections over TLS need, all of it PEM. It has no `Debug`: a key is in it.
pub struct StoreTls {
    /// The CAs that the certificate may be of; none: the system's.
    pub ca: Option<Vec<u8>>,
    /// The own certificate and its key; none: none is shown.
    pub identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
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

impl Place {
    /// Whether it is spoken to over TLS: all addresses are, or none.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        match self {
            Self::At(address) => address.tls,
            Self::AskSentinels { sentinels, .. } => sentinels.iter().any(|sentinel| sentinel.tls),
        }
    }
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
    /// Reads every file once, so that what is wrong with one is said at the start.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        for Login { password, .. } in [&self.login, &self.sentinel_login] {
            password.as_ref().map(|read| read()).transpose()?;
        }
        self.tls.as_ref().map(|read| read()).transpose()?;
        Ok(())
    }

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
