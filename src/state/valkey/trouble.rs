//! Why the store gives no answer.

use redis::{ErrorKind, RedisError};

use crate::state::Refused;

/// Why the store gave no answer, or none that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no connection, or it broke. What was sent may have been done.
    Broken(String),
    /// No answer in time. What was sent may be done yet.
    Slow,
    /// It is a replica.
    Replica,
    /// Its epoch is another than the node knows: the id.
    Epoch(String),
    /// An epoch began a moment ago.
    Waiting,
    /// Revocations have not all been read yet.
    Reading,
    /// Nothing was heard of revocations for too long.
    Stale,
    /// The request began in an earlier epoch.
    Strange,
    /// The clocks of store and node differ.
    Clocks,
    /// Another word on a quarantine came meanwhile.
    Changed,
    /// Too few replicas are in reach.
    Replicas,
    /// It reads its data.
    Loading,
    /// It can't write to its disk.
    Disk,
    /// Its memory is full.
    Memory,
    /// A password or certificate can't be read; what is wrong.
    Files(String),
    /// The user may not do this; what the store says.
    Forbidden(String),
    /// It doesn't know the script: nothing was done.
    NoScript,
    /// Something else; what the store says.
    Odd(String),
}

impl Trouble {
    /// What an error of the client or the store means.
    pub(super) fn of(error: &RedisError) -> Self {
        let said = || shortened(&error.to_string());
        if error.is_timeout() {
            return Self::Slow;
        }
        if error.kind() == ErrorKind::AuthenticationFailed {
            return Self::Forbidden(said());
        }
        match error.code() {
            Some("NOSCRIPT") => Self::NoScript,
            Some("READONLY") => Self::Replica,
            Some("LOADING" | "MASTERDOWN" | "BUSY") => Self::Loading,
            Some("OOM") => Self::Memory,
            Some("NOREPLICAS") => Self::Replicas,
            Some("MISCONF") => Self::Disk,
            Some("NOPERM" | "NOAUTH" | "WRONGPASS") => Self::Forbidden(said()),
            // A command that a script may not use is an error of the script: in Valkey's words, and in Redis'.
            _ if ["ACL failure", "executing the script can't"].iter().any(|words| said().contains(words)) => {
                Self::Forbidden(said())
            }
            _ if error.is_unrecoverable_error() || error.is_io_error() => Self::Broken(said()),
            _ => Self::Odd(said()),
        }
    }

    /// Whether the connection is of no more use.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Replica)
    }

    /// For whoever asked.
    pub(super) fn why(&self) -> &'static str {
        match self {
            Self::Broken(_) => "the store can't be reached, so nothing is allowed: see the service's log about [state]",
            Self::Slow => {
                "the store did not answer in time, so nothing is allowed; a use that was asked for counts as spent"
            }
            Self::Replica => "the store is a replica, so nothing is allowed until its primary is found",
            Self::Epoch(_) | Self::Waiting => {
                "the store has a new primary or was emptied: every token of before has ended, and nothing is answered for some seconds"
            }
            Self::Reading => {
                "the store's revocations are being read, and nothing is allowed before: ask again in a moment"
            }
            Self::Stale => "nothing was heard from the store for more than a second, so nothing is allowed",
            Self::Strange => "the store changed its primary while this was decided: ask again",
            Self::Clocks => {
                "the clocks of store and node differ, so the token might outlive its revocation: set both by NTP"
            }
            Self::Changed => "the quarantine changed meanwhile, or this node has not heard all: ask again",
            Self::Replicas => "the store has too few replicas in reach (min-replicas-to-write), so nothing is allowed",
            Self::Loading => "the store is busy or reads its data, so nothing is allowed yet",
            Self::Disk => "the store can't write to its disk, so nothing is allowed: see the store's log",
            Self::Memory => "the store's memory is full",
            Self::Files(_) => {
                "the store can't be asked, as a file that this takes can't be used: see the service's log about [state]"
            }
            Self::Forbidden(_) => "the store refuses this service's user: see the service's log about [state]",
            Self::NoScript | Self::Odd(_) => {
                "the store's answer could not be used: see the service's log about [state]"
            }
        }
    }

    /// For the operator.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Broken(said) => format!("the store can't be reached: {said}"),
            Self::Files(said) => format!("the store can't be asked: {said}"),
            Self::Forbidden(said) => format!(
                "the store refuses the user of [state] ({said}): give it the rules in docs/operations.md, `+info` included, and see username and password_file"
            ),
            Self::Odd(said) => format!("the store's answer could not be used: {said}"),
            Self::Memory => "the store's memory is full (maxmemory): nothing is minted".to_owned(),
            Self::Slow
            | Self::Replica
            | Self::Epoch(_)
            | Self::Waiting
            | Self::Reading
            | Self::Stale
            | Self::Strange
            | Self::Clocks
            | Self::Changed
            | Self::Replicas
            | Self::Loading
            | Self::Disk
            | Self::NoScript => self.why().to_owned(),
        }
    }

    /// The same of a Sentinel.
    pub(super) fn of_sentinel(&self) -> String {
        if let Self::Broken(said) | Self::Odd(said) | Self::Files(said) = self {
            return said.clone();
        }
        if let Self::Forbidden(said) = self {
            return format!(
                "it refuses the user ({said}): see sentinel_username and sentinel_password_file in [state], and give that user `+sentinel|get-master-addr-by-name`"
            );
        }
        self.detail()
    }

    pub(super) fn refused(&self) -> Refused {
        if *self == Self::Memory { Refused::StoreFull } else { Refused::Unavailable { why: self.why() } }
    }
}

/// What to do about TLS, from what was said when a connection was made.
pub(super) fn tls_advice(said: &str) -> Option<&'static str> {
    /// A word of it, and what to do.
    const ADVICE: [(&[&str], &str); 6] = [
        (&["UnknownIssuer", "BadSignature"], "name the CA that issued its certificate in [state] ca"),
        (
            &["NotValidForName", "not valid for name"],
            "write the name that its certificate has where [state] says how it is reached",
        ),
        (&["certificate expired", "peer certificate: Expired"], "its certificate has run out"),
        (
            &["alert: CertificateRequired", "alert: HandshakeFailure"],
            "it wants a certificate to be shown: write [state] certificate and key",
        ),
        (
            &["alert: "],
            "it does not take the certificate of [state] certificate: show one of a CA in its tls-ca-cert-file",
        ),
        (&["InvalidContentType"], "it does not speak TLS there: write its tls-port, or redis://"),
    ];
    ADVICE.iter().find(|(words, _)| words.iter().any(|word| said.contains(word))).map(|(_, advice)| *advice)
}

/// One line of bounded length.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
