//! The PEM files of a TLS listener: read within bounds and parsed, or refused by name.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use super::tls_error::TlsError;
use crate::domain::time::Timestamp;

/// Read from one file, at most. A bundle of 200 certificates fits.
const FILE_BYTES: u64 = 1024 * 1024;
/// Permission bits that let everyone on the machine in.
const WORLD: u32 = 0o007;

/// Must a client show a certificate?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// A client without one is let in and is anonymous here; one with a bad certificate is refused.
    Optional,
}

/// Which files a TLS listener is made from. All are PEM; symbolic links are followed at each reading, so
/// that a Kubernetes volume is seen whole when its `..data` link moves.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// The private key of the first certificate. Not readable for everyone.
    pub key: PathBuf,
    /// Who issues to clients: one or more CA certificates. `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Certificates that were taken back: a list from each CA that issues, in force (RFC 5280 §5). A
    /// certificate that no list covers is refused, and so is everyone once a list has run out.
    pub crl: Option<PathBuf>,
    /// Must a client show a certificate?
    pub client_auth: ClientAuth,
}

/// The bytes of all files at one moment.
pub(super) struct Contents {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) client_ca: Option<Vec<u8>>,
    pub(super) crl: Option<Vec<u8>>,
}

/// CAs of clients that are valid now.
pub(super) struct ClientRoots {
    pub(super) store: RootCertStore,
    /// The moment after which the first of them is no longer valid.
    pub(super) not_after: Timestamp,
}

impl TlsFiles {
    /// All files' bytes, after the checks that need no parser.
    pub(super) fn read(&self) -> Result<Contents, TlsError> {
        let asks_for_clients = self.client_auth == ClientAuth::Required || self.crl.is_some();
        if asks_for_clients && self.client_ca.is_none() {
            return Err(TlsError::NoClientCa);
        }
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read_secret(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
            crl: self.crl.as_deref().map(read).transpose()?,
        })
    }
}

/// The certificates of a file, at least one.
pub(super) fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    blocks(file, bytes, "CERTIFICATE")
}

/// The private key of a file. Errors say nothing of its content.
pub(super) fn private_key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            return TlsError::Missing { file: file.to_owned(), label: "PRIVATE KEY" };
        }
        unusable(file, &"not a PEM private key")
    })
}

/// The CAs of a file that are valid `now`. One that has run out is left out, so that an old and a new
/// one can stand side by side; when all have run out the file is refused.
pub(super) fn client_roots(file: &Path, bytes: &[u8], now: Timestamp) -> Result<ClientRoots, TlsError> {
    let mut store = RootCertStore::empty();
    let mut first_end: Option<Timestamp> = None;
    let mut run_out = String::new();
    for certificate in certificates(file, bytes)? {
        let parsed = parse(file, &certificate)?;
        if !parsed.is_ca() {
            return Err(TlsError::NotACa { file: file.to_owned(), subject: parsed.subject().to_string() });
        }
        let end = timestamp(parsed.validity().not_after);
        if now > end {
            run_out = parsed.validity().not_after.to_string();
            continue;
        }
        first_end = Some(first_end.map_or(end, |first| first.min(end)));
        store.add(certificate.clone()).map_err(|error| unusable(file, &error))?;
    }
    let Some(not_after) = first_end else {
        return Err(TlsError::Expired { file: file.to_owned(), not_after: run_out });
    };
    Ok(ClientRoots { store, not_after })
}

/// The revocation lists of a file, each in force `now`.
pub(super) fn revocation_lists(
    file: &Path,
    bytes: &[u8],
    now: Timestamp,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists: Vec<CertificateRevocationListDer<'static>> = blocks(file, bytes, "X509 CRL")?;
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list).map_err(|error| unusable(file, &error))?;
        let Some(next_update) = parsed.next_update() else {
            return Err(TlsError::Unusable {
                file: file.to_owned(),
                detail: "a revocation list without nextUpdate".to_owned(),
            });
        };
        if now > timestamp(next_update) {
            return Err(TlsError::Expired { file: file.to_owned(), not_after: next_update.to_string() });
        }
    }
    Ok(lists)
}

/// The last moment at which the server's own certificate is valid; an error if that was before `now`.
pub(super) fn server_not_after(
    file: &Path,
    certificate: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Timestamp, TlsError> {
    let parsed = parse(file, certificate)?;
    let end = timestamp(parsed.validity().not_after);
    if now > end {
        return Err(TlsError::Expired { file: file.to_owned(), not_after: parsed.validity().not_after.to_string() });
    }
    Ok(end)
}

/// The last moment at which a certificate is valid; `None` if it can't be read.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(timestamp(parsed.validity().not_after))
}

fn parse<'a>(file: &Path, certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unusable(file, &error))?;
    Ok(parsed)
}

/// A second of notAfter still counts (RFC 5280 §4.1.2.5); before 1970 is 1970.
fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_seconds(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn blocks<T: PemObject>(file: &Path, bytes: &[u8], label: &'static str) -> Result<Vec<T>, TlsError> {
    let found =
        T::pem_slice_iter(bytes).collect::<Result<Vec<T>, pem::Error>>().map_err(|error| unusable(file, &error))?;
    if found.is_empty() {
        return Err(TlsError::Missing { file: file.to_owned(), label });
    }
    Ok(found)
}

pub(super) fn unusable(file: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unusable { file: file.to_owned(), detail: error.to_string() }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    fill(&open(path)?, path, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & WORLD != 0 {
        return Err(TlsError::WorldReadable { file: path.to_owned(), mode });
    }
    // Reserved at once: a vector that grows leaves copies of the key behind that nobody wipes.
    let size = usize::try_from(metadata.len().min(FILE_BYTES)).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(64)));
    fill(&file, path, &mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file. A pipe is refused before it is opened: opening one waits for a writer.
fn open(path: &Path) -> Result<File, TlsError> {
    let metadata = std::fs::metadata(path).map_err(|source| unreadable(path, source))?;
    if !metadata.is_file() {
        return Err(TlsError::NotAFile { file: path.to_owned() });
    }
    File::open(path).map_err(|source| unreadable(path, source))
}

fn fill(file: &File, path: &Path, bytes: &mut Vec<u8>) -> Result<(), TlsError> {
    let read = file.take(FILE_BYTES.saturating_add(1)).read_to_end(bytes).map_err(|source| unreadable(path, source))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES {
        return Err(TlsError::TooLarge { file: path.to_owned(), limit: FILE_BYTES });
    }
    Ok(())
}

fn unreadable(path: &Path, source: std::io::Error) -> TlsError {
    TlsError::Unreadable { file: path.to_owned(), source }
}
