//! A CA for trying things out, and the certificates it issues: the server's, and one for each agent.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use super::private_file;
use super::{DevFolderError, file_error};
use crate::domain::agent::AgentName;
use crate::domain::time::Timestamp;
use crate::identity;
use crate::identity::signing::ed25519_pem;
use crate::identity::spiffe::Template;

/// The CA's name, by which a CA made here is known again.
const CA_NAME: &str = "Remit development CA";
const DAY: Duration = Duration::from_hours(24);
/// A CA of an experiment outlives the experiment.
const CA_DAYS: u32 = 3650;
/// As long as public CAs let a certificate live.
const DAYS: u32 = 90;
/// Clocks of containers and virtual machines differ a little.
const EARLIER: Duration = Duration::from_hours(1);
/// With less than this left a certificate is made anew.
const TOO_LITTLE: Duration = DAY;

/// Issues certificates into a folder.
pub struct Certificates {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// The CA's key, as a certificate names the key that signed it (RFC 5280 §4.2.1.1).
    authority: Vec<u8>,
    now: Timestamp,
}

impl Certificates {
    /// With the CA in the folder (`ca.pem`, `ca.key`), which is made if it isn't there. A CA about to expire gets a
    /// new certificate for its old key, so that what it issued stays good.
    ///
    /// # Errors
    /// A file can't be read or written, or the CA in the folder is somebody else's.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, DevFolderError> {
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        if certificate.exists() {
            is_ours(&certificate, &key)?;
        }
        let pair = if key.exists() {
            let text = Zeroizing::new(std::fs::read_to_string(&key).map_err(|error| file_error(&key, error))?);
            KeyPair::from_pem(&text).map_err(|error| file_error(&key, error))?
        } else {
            let pair = KeyPair::generate()?;
            private_file::replace(&key, &pair.serialize_pem()).map_err(|error| file_error(&key, error))?;
            pair
        };
        let params = ca_params(now)?;
        if !is_current(&certificate, now)? {
            let pem = params.self_signed(&pair)?.pem();
            private_file::replace_public(&certificate, &pem).map_err(|error| file_error(&certificate, error))?;
        }
        let authority = params.key_identifier(&pair);
        Ok(Self { folder: folder.to_owned(), authority, issuer: Issuer::new(params, pair), now })
    }

    /// `server.pem` and `server.key`, for `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn server(&self) -> Result<(), DevFolderError> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        self.keep_or_issue("server", || {
            let mut params = CertificateParams::new(names.to_vec())?;
            params.distinguished_name.push(DnType::CommonName, "localhost");
            Ok(params)
        })
    }

    /// `agents/<agent>.pem` and `.key`, with the agent's SPIFFE ID of the default template. False if the name can't
    /// stand in a SPIFFE ID: then there is none.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn agent(&self, agent: &AgentName) -> Result<bool, DevFolderError> {
        let Some(id) = spiffe_id(agent) else { return Ok(false) };
        let agents = self.folder.join("agents");
        std::fs::create_dir_all(&agents).map_err(|error| file_error(&agents, error))?;
        self.keep_or_issue(&format!("agents/{agent}"), || {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id)?)];
            Ok(params)
        })?;
        Ok(true)
    }

    fn keep_or_issue(
        &self,
        name: &str,
        params: impl FnOnce() -> Result<CertificateParams, DevFolderError>,
    ) -> Result<(), DevFolderError> {
        let at = |end: &str| self.folder.join(format!("{name}.{end}"));
        let (certificate, key) = (at("pem"), at("key"));
        if key.exists() && is_current(&certificate, self.now)? && self.has_issued(&certificate)? {
            return Ok(());
        }
        let mut params = params()?;
        (params.not_before, params.not_after) = (self.date(0)?.into(), self.date(DAYS)?.into());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate()?;
        let pem = params.signed_by(&pair, &self.issuer)?.pem();
        // First the old certificate goes: a new key beside it would be kept for ever.
        if certificate.exists() {
            std::fs::remove_file(&certificate).map_err(|error| file_error(&certificate, error))?;
        }
        private_file::replace(&key, &pair.serialize_pem()).map_err(|error| file_error(&key, error))?;
        private_file::replace_public(&certificate, &pem).map_err(|error| file_error(&certificate, error))
    }

    /// Not if a CA issued it whose key is gone.
    fn has_issued(&self, certificate: &Path) -> Result<bool, DevFolderError> {
        read(certificate, |found| {
            let mut authorities = found.iter_extensions().filter_map(|extension| {
                let ParsedExtension::AuthorityKeyIdentifier(authority) = extension.parsed_extension() else {
                    return None;
                };
                authority.key_identifier.as_ref()
            });
            authorities.any(|key| key.0 == self.authority)
        })
    }

    fn date(&self, days: u32) -> Result<SystemTime, DevFolderError> {
        date(self.now, days)
    }
}

/// A key for signing JWTs, Ed25519, as PEM.
pub(super) fn signing_key() -> Result<Zeroizing<String>, DevFolderError> {
    let der = Zeroizing::new(KeyPair::generate_for(&rcgen::PKCS_ED25519)?.serialize_der());
    ed25519_pem(&der).ok_or_else(|| DevFolderError("the signing key that was made is none".to_owned()))
}

/// The agent's SPIFFE ID of the default template.
fn spiffe_id(agent: &AgentName) -> Option<String> {
    let templates = identity::Config::default().spiffe_templates;
    Template::spiffe(templates.first()?).ok()?.name_of(agent)
}

/// A little before now, or so many days after.
fn date(now: Timestamp, days: u32) -> Result<SystemTime, DevFolderError> {
    let since_epoch = Duration::from_nanos(now.nanos());
    let moment = match days {
        0 => since_epoch.saturating_sub(EARLIER),
        days => since_epoch.saturating_add(DAY.saturating_mul(days)),
    };
    let unmade = || DevFolderError("the clock is too far in the future to make certificates".to_owned());
    SystemTime::UNIX_EPOCH.checked_add(moment).ok_or_else(unmade)
}

fn ca_params(now: Timestamp) -> Result<CertificateParams, DevFolderError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date(now, 0)?.into(), date(now, CA_DAYS)?.into());
    Ok(params)
}

/// Whether there is a certificate with more than a day left. What can't be read is an error and not made anew: it
/// may be somebody's.
fn is_current(certificate: &Path, now: Timestamp) -> Result<bool, DevFolderError> {
    if !certificate.exists() {
        return Ok(false);
    }
    let until = now.after(TOO_LITTLE).seconds();
    read(certificate, |found| found.validity().not_after.timestamp() > i64::try_from(until).unwrap_or(i64::MAX))
}

/// Whether the folder's CA can issue: Remit made it, and its key is there.
fn is_ours(certificate: &Path, key: &Path) -> Result<(), DevFolderError> {
    let name = |found: &X509Certificate<'_>| {
        found.subject().iter_common_name().any(|name| name.as_str().is_ok_and(|name| name == CA_NAME))
    };
    let certificate_name = certificate.display();
    if !read(certificate, name)? {
        return Err(DevFolderError(format!(
            "{certificate_name} is not a CA that Remit made, so it can't issue with it: remove it and ca.key, or use another folder"
        )));
    }
    if !key.exists() {
        return Err(DevFolderError(format!(
            "{certificate_name} is there without its key ca.key: put the key beside it, or remove it to get a new CA"
        )));
    }
    Ok(())
}

fn read<T>(path: &Path, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, DevFolderError> {
    let bytes = std::fs::read(path).map_err(|error| file_error(path, error))?;
    let (_, pem) = parse_x509_pem(&bytes).map_err(|error| file_error(path, error))?;
    let found = pem.parse_x509().map_err(|error| file_error(path, error))?;
    Ok(look(&found))
}

impl From<rcgen::Error> for DevFolderError {
    fn from(error: rcgen::Error) -> Self {
        Self(format!("a certificate or key can't be made: {error}"))
    }
}
