//! What a TLS handshake needs, taken anew from its files while we run.
//!
//! TLS 1.3 alone (RFC 8446), without 0-RTT and without resumption: a resumed session would skip the
//! client's certificate, and then the removal of a CA would not count.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{InconsistentKeys, ServerConfig};
use tokio::sync::watch;

use super::Protocol;
use super::files::{self, ClientAuth, Contents, TlsFiles};
use super::tls_error::TlsError;
use crate::domain::time::Timestamp;

/// Reads the wall clock. Handed in, for validity periods of certificates.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRole {
    /// The listener's own.
    Server,
    /// The CA that issues to clients: of several the one that runs out first.
    ClientCa,
}

/// The certificate, key, client CAs and revocation lists of a listener. A complete new set replaces the
/// old one at once, or an error leaves the old one in force.
pub struct TlsStore {
    files: TlsFiles,
    protocol: Protocol,
    clock: Clock,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Snapshot>,
    /// [`Snapshot::trust_revision`] of `current`, beside it so that a request reads one integer.
    trust_revision: AtomicU64,
    trust_changes: watch::Sender<u64>,
    /// Held while a set is built, so that of two reloads the later one wins.
    reloading: Mutex<()>,
}

/// One set of files, ready for handshakes.
pub(super) struct Snapshot {
    pub(super) config: Arc<ServerConfig>,
    pub(super) trust_revision: u64,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    server_not_after: Timestamp,
    client_ca_not_after: Option<Timestamp>,
    digests: Digests,
}

/// What the files held, to tell whether they changed. Digests, so that no second copy of the key stays.
#[derive(Clone, PartialEq, Eq)]
struct Digests {
    certificate: Digest,
    key: Digest,
    client_ca: Option<Digest>,
    crl: Option<Digest>,
}

type Digest = Vec<u8>;

/// Who judges clients, and until when the first of its CAs is valid.
type Trust = (Arc<dyn ClientCertVerifier>, Timestamp);

impl TlsStore {
    /// Reads the files. Blocks on the disk.
    ///
    /// # Errors
    /// A file is missing, malformed, has run out, doesn't fit the others, or a key is open to everyone.
    pub fn load(files: TlsFiles, protocol: Protocol, clock: Clock) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let contents = files.read()?;
        let digests = Digests::of(&contents, &provider);
        let builder = Builder { files: &files, protocol, clock: &clock, provider: &provider };
        let first = builder.build(&contents, digests, 1)?;
        Ok(Self {
            trust_revision: AtomicU64::new(first.trust_revision),
            trust_changes: watch::Sender::new(first.trust_revision),
            current: ArcSwap::from_pointee(first),
            reloading: Mutex::new(()),
            files,
            protocol,
            clock,
            provider,
        })
    }

    /// Reads the files again and, if their content changed or a client CA has run out since, puts a new
    /// set in force for handshakes from now on. Says whether it did. Blocks on the disk.
    ///
    /// # Errors
    /// As [`TlsStore::load`]; then the set from before stays in force.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let _one_at_a_time = self.reloading.lock();
        let contents = self.files.read()?;
        let digests = Digests::of(&contents, &self.provider);
        let old = self.current.load_full();
        let now = (self.clock)();
        let ca_ran_out = old.client_ca_not_after.is_some_and(|end| now > end);
        if digests == old.digests && !ca_ran_out {
            return Ok(false);
        }
        let trust_changed = ca_ran_out || !digests.trusts_like(&old.digests);
        let revision = old.trust_revision.saturating_add(u64::from(trust_changed));
        let builder =
            Builder { files: &self.files, protocol: self.protocol, clock: &self.clock, provider: &self.provider };
        self.current.store(Arc::new(builder.build(&contents, digests, revision)?));
        if trust_changed {
            // After the set itself: who sees the new number finds the new verifier.
            self.trust_revision.store(revision, Ordering::Release);
            self.trust_changes.send_replace(revision);
        }
        Ok(true)
    }

    /// Grows when the client CAs or the revocation lists change; starts at 1.
    #[must_use]
    pub fn trust_revision(&self) -> u64 {
        self.trust_revision.load(Ordering::Acquire)
    }

    /// The last moment at which a certificate in force is valid; `None` without a client CA.
    #[must_use]
    pub fn certificate_expiry(&self, role: CertificateRole) -> Option<Timestamp> {
        let current = self.current.load();
        match role {
            CertificateRole::Server => Some(current.server_not_after),
            CertificateRole::ClientCa => current.client_ca_not_after,
        }
    }

    /// What a listener with these files speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The set in force.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Wakes when the trust revision grows.
    pub(super) fn watch_trust(&self) -> watch::Receiver<u64> {
        self.trust_changes.subscribe()
    }

    /// Would a client with this chain be let in now? If so, under which trust revision.
    pub(super) fn verify(&self, chain: &[CertificateDer<'_>]) -> Option<u64> {
        let current = self.current.load();
        let (leaf, intermediates) = chain.split_first()?;
        let now = unix_time((self.clock)());
        current.verifier.as_ref()?.verify_client_cert(leaf, intermediates, now).ok()?;
        Some(current.trust_revision)
    }
}

impl fmt::Debug for TlsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStore")
            .field("files", &self.files)
            .field("trust_revision", &self.trust_revision())
            .finish_non_exhaustive()
    }
}

/// From bytes to a set.
struct Builder<'a> {
    files: &'a TlsFiles,
    protocol: Protocol,
    clock: &'a Clock,
    provider: &'a Arc<CryptoProvider>,
}

impl Builder<'_> {
    fn build(&self, contents: &Contents, digests: Digests, trust_revision: u64) -> Result<Snapshot, TlsError> {
        let now = (self.clock)();
        let certificate_file = &self.files.certificate;
        let chain = files::certificates(certificate_file, &contents.certificate)?;
        let Some(leaf) = chain.first() else {
            return Err(files::unusable(certificate_file, &"no certificate"));
        };
        let server_not_after = files::server_not_after(certificate_file, leaf, now)?;
        let (verifier, client_ca_not_after) = self.verifier(contents, now)?.unzip();
        let config = self.config(contents, chain, verifier.clone())?;
        Ok(Snapshot {
            config: Arc::new(config),
            trust_revision,
            verifier,
            server_not_after,
            client_ca_not_after,
            digests,
        })
    }

    fn verifier(&self, contents: &Contents, now: Timestamp) -> Result<Option<Trust>, TlsError> {
        let (Some(file), Some(bytes)) = (&self.files.client_ca, &contents.client_ca) else {
            return Ok(None);
        };
        let roots = files::client_roots(file, bytes, now)?;
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.store), Arc::clone(self.provider));
        if let (Some(file), Some(bytes)) = (&self.files.crl, &contents.crl) {
            // An unknown or outdated status refuses: who is in doubt doesn't come in.
            builder = builder.with_crls(files::revocation_lists(file, bytes, now)?).enforce_revocation_expiration();
        }
        if self.files.client_auth == ClientAuth::Optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| {
            let blamed = self.files.crl.as_ref().unwrap_or(file);
            files::unusable(blamed, &error)
        })?;
        Ok(Some((verifier, roots.not_after)))
    }

    fn config(
        &self,
        contents: &Contents,
        chain: Vec<CertificateDer<'static>>,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, TlsError> {
        let key = files::private_key(&self.files.key, &contents.key)?;
        let time = Arc::new(RustlsClock(Arc::clone(self.clock)));
        let builder = ServerConfig::builder_with_details(Arc::clone(self.provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| files::unusable(&self.files.certificate, &error))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| self.refused_pair(&error))?;
        config.alpn_protocols = match self.protocol {
            Protocol::Http2Only => vec![b"h2".to_vec()],
            Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    fn refused_pair(&self, error: &rustls::Error) -> TlsError {
        if *error == rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            return TlsError::Mismatch { certificate: self.files.certificate.clone(), key: self.files.key.clone() };
        }
        files::unusable(&self.files.key, error)
    }
}

impl Digests {
    fn of(contents: &Contents, provider: &CryptoProvider) -> Self {
        let digest = |bytes: &[u8]| digest(provider, bytes);
        Self {
            certificate: digest(&contents.certificate),
            key: digest(&contents.key),
            client_ca: contents.client_ca.as_deref().map(digest),
            crl: contents.crl.as_deref().map(digest),
        }
    }

    fn trusts_like(&self, other: &Self) -> bool {
        self.client_ca == other.client_ca && self.crl == other.crl
    }
}

/// SHA-384 or SHA-256, whichever the provider's first TLS 1.3 suite uses.
fn digest(provider: &CryptoProvider, bytes: &[u8]) -> Digest {
    provider.cipher_suites.iter().find_map(rustls::SupportedCipherSuite::tls13).map_or_else(
        // The provider has suites; were there none, bytes compare as well as their digests.
        || bytes.to_vec(),
        |suite| suite.common.hash_provider.hash(bytes).as_ref().to_vec(),
    )
}

fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_nanos(now.nanos()))
}

/// Our clock as rustls wants it.
struct RustlsClock(Clock);

impl TimeProvider for RustlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time((self.0)()))
    }
}

impl fmt::Debug for RustlsClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RustlsClock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::{Ca, Folder, NOW, chain_of, clock};
    use rcgen::ExtendedKeyUsagePurpose::ServerAuth;

    /// What loading says when one thing about a good folder was changed.
    fn refusal(change: impl FnOnce(&Folder, &Ca, &mut TlsFiles)) -> String {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let mut files = folder.files();
        change(&folder, &ca, &mut files);
        TlsStore::load(files, Protocol::Http2Only, clock()).unwrap_err().to_string()
    }

    #[test]
    fn refusals_name_the_file_and_say_what_to_write() {
        let missing = refusal(|_, _, files| files.certificate.push("nowhere"));
        assert!(missing.contains("server.pem/nowhere") && missing.contains("path"));
        let empty = refusal(|folder, _, _| folder.write("server.pem", ""));
        assert!(empty.contains("server.pem: no CERTIFICATE in it"), "{empty}");
        let garbage = refusal(|folder, _, _| {
            folder.write("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        });
        assert!(garbage.contains("ca.pem: can't be used"), "{garbage}");
        let no_key = refusal(|folder, ca, _| folder.write("server.key", &ca.pem()));
        assert!(no_key.contains("server.key: no PRIVATE KEY"), "{no_key}");
        let no_ca = refusal(|_, _, files| files.client_ca = None);
        assert!(no_ca.contains("set client_ca"), "{no_ca}");
        let folder_for_file = refusal(|_, _, files| {
            files.certificate.pop();
        });
        assert!(folder_for_file.contains("not a regular file"));
        let huge = refusal(|folder, _, _| folder.write("ca.pem", &"x".repeat(1_048_577)));
        assert!(huge.contains("ca.pem: more than 1048576 bytes"), "{huge}");
    }

    #[test]
    fn a_key_that_everyone_may_read_is_refused() {
        let open = refusal(|folder, _, _| folder.set_mode("server.key", 0o644));
        assert!(open.contains("server.key") && open.contains("chmod 640"), "{open}");
        assert!(open.contains("mode 644"), "{open}");
    }

    #[test]
    fn what_has_run_out_is_refused() {
        let server = refusal(|folder, ca, _| folder.write_server(&ca.issue(1, 2021, ServerAuth)));
        assert!(server.contains("server.pem: ran out at Jan  1"), "{server}");
        let ca = refusal(|folder, _, _| {
            folder.write("ca.pem", &Ca::with_last_year("old", 2021).pem());
        });
        assert!(ca.contains("ca.pem: ran out"), "{ca}");
        let crl = refusal(|folder, ca, files| {
            folder.write("crl.pem", &ca.revocation_list(&[], 2022));
            files.crl = Some(folder.path("crl.pem"));
        });
        assert!(crl.contains("crl.pem: ran out"), "{crl}");
    }

    #[test]
    fn a_leaf_among_the_client_cas_is_refused() {
        let leaf = refusal(|folder, ca, _| folder.write("ca.pem", &ca.client(1, 2100).certificate));
        assert!(leaf.contains("isn't a CA certificate"), "{leaf}");
    }

    #[test]
    fn an_old_ca_beside_a_new_one_is_left_out() {
        let (new, old) = (Ca::new("new"), Ca::with_last_year("old", 2021));
        let folder = Folder::of(&new);
        folder.write("ca.pem", &format!("{}{}", old.pem(), new.pem()));
        let store = folder.store();
        assert_eq!(store.verify(&chain_of(&new.client(1, 2100))), Some(1));
        assert_eq!(store.verify(&chain_of(&old.client(1, 2100))), None);
        assert!(store.certificate_expiry(CertificateRole::ClientCa) > Some(NOW));
    }

    #[test]
    fn unchanged_files_change_nothing() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let store = folder.store();
        let before = store.snapshot();
        assert!(!store.reload().unwrap());
        assert!(Arc::ptr_eq(&before, &store.snapshot()));
    }

    #[test]
    fn a_new_pair_is_taken_and_trust_stays() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let store = folder.store();
        let before = store.certificate_expiry(CertificateRole::Server);
        folder.write_server(&ca.issue(2, 2099, ServerAuth));
        assert!(store.reload().unwrap());
        assert!(store.certificate_expiry(CertificateRole::Server) < before);
        assert_eq!(store.trust_revision(), 1);
    }

    #[test]
    fn a_mismatched_pair_keeps_the_old_one() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let store = folder.store();
        let before = store.snapshot();
        let (first, second) = (ca.server(), ca.server());
        folder.write("server.pem", &first.certificate);
        folder.write("server.key", &second.key);
        let refused = store.reload().unwrap_err().to_string();
        assert!(refused.contains("server.pem and") && refused.contains("server.key"));
        assert!(refused.contains("replace both"), "{refused}");
        assert!(Arc::ptr_eq(&before, &store.snapshot()));
        folder.write("server.key", &first.key);
        assert!(store.reload().unwrap());
    }

    #[test]
    fn a_moved_link_is_followed() {
        let ca = Ca::new("one");
        let (old, new) = (Folder::of(&ca), Folder::of(&ca));
        let link = old.path("..data");
        std::os::unix::fs::symlink(old.path(""), &link).unwrap();
        let mut files = old.files();
        files.certificate = link.join("server.pem");
        files.key = link.join("server.key");
        let store = TlsStore::load(files, Protocol::Http2Only, clock()).unwrap();
        assert!(!store.reload().unwrap());
        let next = old.path("..data_tmp");
        std::os::unix::fs::symlink(new.path(""), &next).unwrap();
        std::fs::rename(next, link).unwrap();
        assert!(store.reload().unwrap());
    }

    #[test]
    fn a_revoked_certificate_is_known_after_reload() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        folder.write("crl.pem", &ca.revocation_list(&[8], 2100));
        let mut files = folder.files();
        files.crl = Some(folder.path("crl.pem"));
        let store = TlsStore::load(files, Protocol::Http2Only, clock()).unwrap();
        let chain = chain_of(&ca.client(7, 2100));
        assert_eq!(store.verify(&chain), Some(1));
        folder.write("crl.pem", &ca.revocation_list(&[7, 8], 2100));
        assert!(store.reload().unwrap());
        assert_eq!(store.trust_revision(), 2);
        assert_eq!(store.verify(&chain), None);
    }

    #[test]
    fn a_client_ca_that_runs_out_while_we_run_is_dropped() {
        let (short, long) = (Ca::with_last_year("short", 2030), Ca::new("long"));
        let folder = Folder::of(&long);
        folder.write("ca.pem", &format!("{}{}", short.pem(), long.pem()));
        let now = Arc::new(AtomicU64::new(NOW.seconds()));
        let hand = Arc::clone(&now);
        let clock: Clock = Arc::new(move || Timestamp::from_seconds(hand.load(Ordering::SeqCst)));
        let store = TlsStore::load(folder.files(), Protocol::Http2Only, clock).unwrap();
        let chain = chain_of(&short.client(1, 2100));
        assert_eq!(store.verify(&chain), Some(1));
        // 2035-01-01T00:00:00Z
        now.store(2_051_222_400, Ordering::SeqCst);
        assert!(store.reload().unwrap());
        assert_eq!((store.trust_revision(), store.verify(&chain)), (2, None));
        assert!(!store.reload().unwrap());
    }
}
