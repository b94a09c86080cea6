//! What a verified client certificate says of its owner. The connection has checked its chain.

use std::sync::Arc;

use x509_parser::extensions::{GeneralName, KeyUsage};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate};

use super::spiffe::is_workload_id;
use crate::domain::time::Timestamp;

/// The names and times of a client certificate, read once a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    uris: Vec<Arc<str>>,
    dns_names: Vec<Arc<str>>,
    common_name: Option<Arc<str>>,
    subject: Box<str>,
    issuer: Arc<str>,
    /// Seconds since the epoch.
    not_before: u64,
    /// Seconds since the epoch; the last moment at which it is good.
    not_after: u64,
}

/// Why a certificate can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCertificate(&'static str);

impl std::fmt::Display for InvalidCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the client certificate {}", self.0)
    }
}

impl std::error::Error for InvalidCertificate {}

/// The URI of a certificate is not exactly one SPIFFE ID of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOneSpiffeId;

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// It is none, is an authority's, or has a name with a NUL or another control character.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidCertificate("can't be read"))?;
        if !rest.is_empty() {
            return Err(InvalidCertificate("has bytes after its end"));
        }
        if certificate.is_ca() {
            return Err(InvalidCertificate("is an authority's and not a workload's"));
        }
        let usage = certificate.key_usage().map_err(|_| InvalidCertificate("has unreadable extensions"))?;
        // X.509-SVID §4.3: a leaf signs for itself and for no certificate or list.
        let is_leafs = |usage: &KeyUsage| usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign();
        if usage.is_some_and(|usage| !is_leafs(usage.value)) {
            return Err(InvalidCertificate("has a key that is not for a workload's own signatures"));
        }
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        let names = certificate.subject_alternative_name().map_err(|_| InvalidCertificate("has unreadable names"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push(plain(uri)?),
                // DNS names have no case.
                GeneralName::DNSName(name) => dns_names.push(plain(&name.to_ascii_lowercase())?),
                GeneralName::Invalid(..) => return Err(InvalidCertificate("has unreadable names")),
                GeneralName::OtherName(..)
                | GeneralName::RFC822Name(_)
                | GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::IPAddress(_)
                | GeneralName::RegisteredID(_) => {}
            }
        }
        let common_names =
            certificate.subject().iter_common_name().map(AttributeTypeAndValue::as_str).collect::<Vec<_>>();
        let common_name = match common_names.as_slice() {
            [Ok(name)] => Some(plain(name)?),
            _ => None,
        };
        let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
        Ok(Self {
            uris,
            dns_names,
            common_name,
            subject: certificate.subject().to_string().into(),
            issuer: certificate.issuer().to_string().into(),
            not_before: seconds(certificate.validity().not_before.timestamp()),
            not_after: seconds(certificate.validity().not_after.timestamp()),
        })
    }

    /// Its SPIFFE ID; none if it has no URI at all.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<Result<&Arc<str>, NotOneSpiffeId>> {
        match self.uris.as_slice() {
            [] => None,
            [id] if is_workload_id(id) => Some(Ok(id)),
            _ => Some(Err(NotOneSpiffeId)),
        }
    }

    /// Its DNS names.
    #[must_use]
    pub fn dns_names(&self) -> &[Arc<str>] {
        &self.dns_names
    }

    /// Its common name, if it has exactly one.
    #[must_use]
    pub fn common_name(&self) -> Option<&Arc<str>> {
        self.common_name.as_ref()
    }

    /// Who signed it.
    #[must_use]
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// The last moment at which it is good.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_seconds(self.not_after)
    }

    /// Whether it is good at this moment.
    #[must_use]
    pub fn is_current(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now.seconds())
    }

    /// A name for people: the one that is most of a name.
    #[must_use]
    pub fn describe(&self) -> &str {
        let names = self.uris.first().or(self.dns_names.first()).or(self.common_name.as_ref());
        names.map_or(&self.subject, |name| name)
    }
}

fn plain(name: &str) -> Result<Arc<str>, InvalidCertificate> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(InvalidCertificate("has a name with characters that no name has"));
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, KeyUsagePurpose as Purpose, SanType};

    use super::*;

    #[test]
    fn a_leaf_signs_for_itself_and_for_no_certificate_or_list() {
        let read = |usages: &[Purpose]| {
            let mut params = CertificateParams::new(vec!["agent.example".to_owned()]).unwrap();
            params.key_usages = usages.to_vec();
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            Certificate::from_der(certificate.der()).is_ok()
        };
        assert!(read(&[]) && read(&[Purpose::DigitalSignature, Purpose::KeyEncipherment]));
        assert!(!read(&[Purpose::KeyEncipherment]));
        assert!(!read(&[Purpose::DigitalSignature, Purpose::KeyCertSign]));
        assert!(!read(&[Purpose::DigitalSignature, Purpose::CrlSign]));
    }

    #[test]
    fn a_name_with_a_nul_is_no_name() {
        let read = |name: SanType, common_name: &str| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![name];
            params.distinguished_name.push(DnType::CommonName, common_name);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            Certificate::from_der(certificate.der()).is_ok()
        };
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
        assert!(read(uri("spiffe://a/agent"), "agent") && read(dns("agent.example"), "agent"));
        // Envoy CVE-2026-47778: what comes after the NUL is read by one and not by the other.
        assert!(!read(uri("spiffe://a/agent\0.evil"), "agent"));
        assert!(!read(dns("agent.example\0.evil"), "agent"));
        assert!(!read(dns("agent.example"), "agent\0.evil"));
    }
}
