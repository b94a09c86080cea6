//! The PEM files with which this process is somebody's client: whom it believes, and what it shows.

use std::path::PathBuf;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use super::files;
use super::tls_error::TlsError;
use crate::domain::time::Timestamp;

/// Which files a connection to a server is made with. All are PEM, and read anew for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Who issues the server's certificate. `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// The own certificate with its intermediates, and its private key, not readable for everyone. `None`: none is
    /// shown.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Their bytes at one moment, once they were found good. It has no `Debug`: a key is in it.
pub struct ClientPem {
    /// The CAs.
    pub ca: Option<Vec<u8>>,
    /// The own certificate and its key.
    pub identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl ClientFiles {
    /// Reads and checks them. Blocks on the disk.
    ///
    /// # Errors
    /// A file is missing or malformed, the own certificate has run out, or its key is another's or open to everyone.
    pub fn read(&self, now: Timestamp) -> Result<ClientPem, TlsError> {
        let ca = self.ca.as_ref().map(|file| {
            let bytes = files::read(file)?;
            let mut roots = RootCertStore::empty();
            for certificate in files::certificates(file, &bytes)? {
                roots.add(certificate).map_err(|error| files::unusable(file, &error))?;
            }
            Ok(bytes)
        });
        let identity = self.identity.as_ref().map(|(certificate, key)| {
            let (chain, secret) = (files::read(certificate)?, files::read_secret(key)?);
            let certificates = files::certificates(certificate, &chain)?;
            if let Some(own) = certificates.first() {
                files::server_not_after(certificate, own, now)?;
            }
            let private = files::private_key(key, &secret)?;
            let pair = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider());
            pair.map_err(|error| {
                if error == rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
                    return TlsError::Mismatch { certificate: certificate.clone(), key: key.clone() };
                }
                files::unusable(key, &error)
            })?;
            Ok((chain, secret))
        });
        Ok(ClientPem { ca: ca.transpose()?, identity: identity.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_shown_to_a_server_is_whole_fits_together_and_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let own = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["remit".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let certificate = parameters.self_signed(&own).unwrap();
        let files = ClientFiles { ca: Some(at("ca")), identity: Some((at("certificate"), at("key"))) };
        let refused = |now| files.read(now).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused(NOW).contains("can't be read"));
        write(&at("ca"), &certificate.pem(), 0o644);
        write(&at("certificate"), &certificate.pem(), 0o644);
        write(&at("key"), &own.serialize_pem(), 0o644);
        assert!(refused(NOW).contains("everyone may read this private key"), "{}", refused(NOW));
        write(&at("key"), &own.serialize_pem(), 0o600);
        assert!(files.read(NOW).is_ok(), "{}", refused(NOW));
        let later = Timestamp::from_seconds(2_000_000_000);
        assert!(refused(later).contains("ran out"), "{}", refused(later));
        write(&at("key"), &KeyPair::generate().unwrap().serialize_pem(), 0o600);
        assert!(refused(NOW).contains("belongs to another certificate"), "{}", refused(NOW));
        write(&at("ca"), "nothing", 0o644);
        assert!(refused(NOW).contains("no CERTIFICATE in it"), "{}", refused(NOW));
    }
}
