//! Who is on the other end of a connection, as far as the connection itself knows.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::files;
use super::tls::TlsStore;
use crate::domain::time::Timestamp;

/// In place of a trust revision: trust was lost, for good.
const LOST: u64 = u64::MAX;

/// The other end of one connection. Each request on it carries the same `Arc<Peer>` in its extensions.
pub struct Peer {
    remote: SocketAddr,
    credentials: Option<Credentials>,
    memo: ArcSwapOption<Memo>,
    closing: CancellationToken,
}

/// Is what the client showed at the handshake still good?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The certificate chain was verified under the client CAs and revocation lists in force now.
    Trusted,
    /// It was, but would not be let in today. Answer as unauthenticated; the connection is closing.
    NoLongerTrusted,
    /// There is no certificate.
    Anonymous,
}

/// A certificate chain and who judges it.
struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    not_after: Option<Timestamp>,
    trust: Arc<TlsStore>,
    /// The trust revision that last accepted the chain, or [`LOST`].
    verified_under: AtomicU64,
}

/// A sized box around something unsized, because a swap holds thin pointers only.
struct Memo(Arc<dyn Any + Send + Sync>);

impl Peer {
    /// Someone without a certificate.
    #[must_use]
    pub fn anonymous(remote: SocketAddr) -> Self {
        Self { remote, credentials: None, memo: ArcSwapOption::empty(), closing: CancellationToken::new() }
    }

    /// Someone whose chain a handshake accepted under a trust revision of `trust`. An empty chain is
    /// no certificate.
    pub(super) fn authenticated(
        remote: SocketAddr,
        chain: Vec<CertificateDer<'static>>,
        trust: Arc<TlsStore>,
        verified_under: u64,
    ) -> Self {
        let credentials = chain.first().map(files::not_after).map(|not_after| Credentials {
            chain,
            not_after,
            trust,
            verified_under: AtomicU64::new(verified_under),
        });
        Self { credentials, ..Self::anonymous(remote) }
    }

    /// Where it connects from.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The certificate chain, DER, the client's own first; empty for an anonymous client. Whether it is
    /// still good says [`Peer::standing`].
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.credentials.as_ref().map_or(&[], |credentials| &credentials.chain)
    }

    /// The last moment at which the client's own certificate is valid; `None` for an anonymous client.
    /// Compare it at each request: a handshake looks once and a connection lasts.
    #[must_use]
    pub fn not_after(&self) -> Option<Timestamp> {
        self.credentials.as_ref()?.not_after
    }

    /// The trust revision under which the chain was last accepted; `None` without a chain or when trust
    /// was lost. Together with the chain a key for what upper rooms remember.
    #[must_use]
    pub fn verified_under(&self) -> Option<u64> {
        let revision = self.credentials.as_ref()?.verified_under.load(Ordering::Acquire);
        (revision != LOST).then_some(revision)
    }

    /// Is the certificate still good? Two atomic reads, unless the client CAs or revocation lists changed
    /// since the last call: then the chain is verified anew. Trust that is lost doesn't come back, and the
    /// connection starts to close.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Some(credentials) = &self.credentials else {
            return Standing::Anonymous;
        };
        let verified_under = credentials.verified_under.load(Ordering::Acquire);
        if verified_under == LOST {
            return Standing::NoLongerTrusted;
        }
        if verified_under >= credentials.trust.trust_revision() {
            return Standing::Trusted;
        }
        self.verify_anew(credentials)
    }

    /// Lets requests in flight end and then closes the connection. Returns at once.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Done when the connection is asked to close, for streams that must end with it.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Keeps one value for later requests on this connection, in place of the one before.
    pub fn remember<T: Any + Send + Sync>(&self, value: Arc<T>) {
        self.memo.store(Some(Arc::new(Memo(value))));
    }

    /// What [`Peer::remember`] kept, if it was a `T`.
    #[must_use]
    pub fn recall<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let memo = self.memo.load();
        Arc::clone(&memo.as_ref()?.0).downcast().ok()
    }

    fn verify_anew(&self, credentials: &Credentials) -> Standing {
        if let Some(revision) = credentials.trust.verify(&credentials.chain) {
            // The larger wins, so that a loss seen by another request at the same time stays.
            let before = credentials.verified_under.fetch_max(revision, Ordering::AcqRel);
            if before != LOST {
                return Standing::Trusted;
            }
        }
        credentials.verified_under.store(LOST, Ordering::Release);
        self.close();
        Standing::NoLongerTrusted
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("remote", &self.remote)
            .field("certificates", &self.chain().len())
            .field("verified_under", &self.verified_under())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::{Ca, Folder, chain_of};

    fn remote() -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    #[test]
    fn a_stranger_is_anonymous() {
        let peer = Peer::anonymous(remote());
        assert_eq!(peer.standing(), Standing::Anonymous);
        assert!(peer.chain().is_empty());
        assert_eq!((peer.not_after(), peer.verified_under()), (None, None));
    }

    #[test]
    fn remembers_one_value_by_its_type() {
        let peer = Peer::anonymous(remote());
        assert_eq!(peer.recall::<String>(), None);
        peer.remember(Arc::new("agent".to_owned()));
        assert_eq!(peer.recall::<String>().unwrap().as_str(), "agent");
        assert_eq!(peer.recall::<u64>(), None);
        peer.remember(Arc::new(7_u64));
        assert_eq!(peer.recall::<String>(), None);
        assert_eq!(*peer.recall::<u64>().unwrap(), 7);
    }

    #[test]
    fn standing_follows_the_client_cas_and_a_loss_is_for_good() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let store = folder.store();
        let client = ca.client(7, 2050);
        let peer = Peer::authenticated(remote(), chain_of(&client), Arc::clone(&store), 1);
        assert_eq!(peer.standing(), Standing::Trusted);
        // 2050-01-01T00:00:00Z
        assert_eq!(peer.not_after(), Some(Timestamp::from_seconds(2_524_608_000)));

        let both = format!("{}{}", Ca::new("two").pem(), ca.pem());
        folder.write("ca.pem", &both);
        assert!(store.reload().unwrap());
        assert_eq!(peer.standing(), Standing::Trusted);
        assert_eq!(peer.verified_under(), Some(2));

        folder.write("ca.pem", &Ca::new("two").pem());
        assert!(store.reload().unwrap());
        assert_eq!(peer.standing(), Standing::NoLongerTrusted);
        assert!(peer.closing.is_cancelled());
        assert_eq!(peer.verified_under(), None);

        folder.write("ca.pem", &ca.pem());
        assert!(store.reload().unwrap());
        assert_eq!(peer.standing(), Standing::NoLongerTrusted);
    }
}
