//! What can be wrong with TLS files. Each message names the file and says what to write.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why TLS files can't be taken. What was in force before stays in force.
#[derive(Debug)]
pub enum TlsError {
    /// The file can't be opened or read.
    Unreadable {
        /// The file as configured.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe or a device.
    NotAFile {
        /// The file as configured.
        file: PathBuf,
    },
    /// More than a certificate file ever needs.
    TooLarge {
        /// The file as configured.
        file: PathBuf,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// Everyone on the machine may read the private key.
    WorldReadable {
        /// The file as configured.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No PEM block of the wanted kind is in the file.
    Missing {
        /// The file as configured.
        file: PathBuf,
        /// The label that belongs into `-----BEGIN …-----`.
        label: &'static str,
    },
    /// A PEM block is there but what it holds can't be used.
    Unusable {
        /// The file as configured.
        file: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// The private key belongs to another certificate.
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate, every client CA or a revocation list has run out.
    Expired {
        /// The file as configured.
        file: PathBuf,
        /// When it ran out, as the file says it.
        not_after: String,
    },
    /// A certificate among the client CAs isn't one of a CA: whoever holds its key could make clients.
    NotACa {
        /// The file as configured.
        file: PathBuf,
        /// The certificate's subject.
        subject: String,
    },
    /// Client certificates are required or revoked, but nobody is named to have issued them.
    NoClientCa,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => write!(
                f,
                "{}: can't be read ({source}): give Remit's user read permission or correct the path",
                file.display()
            ),
            Self::NotAFile { file } => {
                write!(f, "{}: not a regular file: name a PEM file", file.display())
            }
            Self::TooLarge { file, limit } => write!(
                f,
                "{}: more than {limit} bytes: keep only the certificates that are needed",
                file.display()
            ),
            Self::WorldReadable { file, mode } => write!(
                f,
                "{}: everyone may read this private key (mode {mode:03o}): chmod 640 it (in Kubernetes: defaultMode: 0440)",
                file.display()
            ),
            Self::Missing { file, label } => write!(
                f,
                "{}: no {label} in it: write PEM that starts with -----BEGIN {label}-----",
                file.display()
            ),
            Self::Unusable { file, detail } => write!(
                f,
                "{}: can't be used ({detail}): write it anew as PEM",
                file.display()
            ),
            Self::Mismatch { certificate, key } => write!(
                f,
                "{} and {}: the key belongs to another certificate: replace both together",
                certificate.display(),
                key.display()
            ),
            Self::Expired { file, not_after } => write!(
                f,
                "{}: ran out at {not_after}: write a newer one",
                file.display()
            ),
            Self::NotACa { file, subject } => write!(
                f,
                "{}: {subject} isn't a CA certificate: write the certificate of the CA that issues to clients",
                file.display()
            ),
            Self::NoClientCa => f.write_str(
                "client certificates are required or revoked but no CA is named: set client_ca, or set client_auth = \"optional\" and remove crl",
            ),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Unreadable { source, .. } = self {
            return Some(source);
        }
        None
    }
}
