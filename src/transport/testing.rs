//! What this room's tests share: certificates made on the spot, a server, clients that speak raw bytes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    Application, ClientAuth, Clock, Gate, Limits, Peer, Protocol, Security, TlsFiles, TlsStore, listen, serve,
};
use crate::domain::time::Timestamp;

/// 2026-05-28T20:26:40Z.
pub(super) const NOW: Timestamp = Timestamp::from_seconds(1_780_000_000);

pub(super) fn clock() -> Clock {
    Arc::new(|| NOW)
}

/// PEM of a certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Somebody who issues.
pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        Self::with_last_year(name, 2100)
    }

    /// Valid from 2020 to the first day of this year.
    pub(super) fn with_last_year(name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn server(&self) -> Pair {
        self.issue(1, 2100, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate with this serial number, valid to the first day of this year.
    pub(super) fn client(&self, serial: u64, year: i32) -> Pair {
        self.issue(serial, year, ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(super) fn issue(&self, serial: u64, year: i32, usage: ExtendedKeyUsagePurpose) -> Pair {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A list that takes these serial numbers back, in force until the first day of this year.
    pub(super) fn revocation_list(&self, serials: &[u64], year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

/// A folder with the files of a listener.
pub(super) struct Folder(TempDir);

impl Folder {
    /// With a server's certificate and the client CA of `ca`.
    pub(super) fn of(ca: &Ca) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write_server(&ca.server());
        folder.write("ca.pem", &ca.pem());
        folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn write_server(&self, pair: &Pair) {
        self.write("server.pem", &pair.certificate);
        self.write("server.key", &pair.key);
        self.set_mode("server.key", 0o640);
    }

    pub(super) fn set_mode(&self, name: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), permissions).unwrap();
    }

    pub(super) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: Some(self.path("ca.pem")),
            crl: None,
            client_auth: ClientAuth::Required,
        }
    }

    pub(super) fn store(&self) -> Arc<TlsStore> {
        Arc::new(TlsStore::load(self.files(), Protocol::Auto, clock()).unwrap())
    }
}

/// Limits for tests that wait for something to run out.
pub(super) fn brief() -> Limits {
    Limits { handshake: Duration::from_millis(200), drain: Duration::from_millis(400), ..Limits::default() }
}

/// A service on a free port of this machine, on the test's own runtime.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) gate: Arc<Gate>,
    shutdown: CancellationToken,
    served: JoinHandle<usize>,
}

impl Server {
    pub(super) fn start(
        security: Security,
        limits: Limits,
        application: impl Application<Answer: Send> + Sync,
    ) -> Self {
        let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let gate = Gate::new(limits);
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, security, application, Arc::clone(&gate), shutdown.clone()));
        Self { address, gate, shutdown, served }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Shuts down; how many connections were cut.
    pub(super) async fn stop(self) -> usize {
        self.shutdown.cancel();
        self.served.await.unwrap()
    }
}

/// Answers `hello` and keeps who asked.
#[derive(Clone, Default)]
pub(super) struct Guests(Arc<Mutex<Vec<Arc<Peer>>>>);

impl Guests {
    pub(super) fn application(&self) -> impl Application + Sync {
        let guests = self.clone();
        tower::service_fn(move |request: Request<Incoming>| {
            let peer = request.extensions().get::<Arc<Peer>>().unwrap();
            guests.0.lock().push(Arc::clone(peer));
            async { Ok::<_, std::convert::Infallible>(Response::new("hello".to_owned())) }
        })
    }

    pub(super) fn last(&self) -> Arc<Peer> {
        self.0.lock().last().cloned().unwrap()
    }
}

/// How a TLS client behaves.
pub(super) struct Client<'a> {
    pub(super) ca: &'a Ca,
    pub(super) pair: Option<&'a Pair>,
    pub(super) version: &'static rustls::SupportedProtocolVersion,
}

impl<'a> Client<'a> {
    pub(super) fn new(ca: &'a Ca, pair: Option<&'a Pair>) -> Self {
        Self { ca, pair, version: &rustls::version::TLS13 }
    }

    /// A connection that has seen the server's answer to its certificate, and one answer `hello`.
    pub(super) async fn greet(&self, server: &Server) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.config()));
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = connector.connect(name, server.connect().await).await?;
        ask(&mut tls).await?;
        Ok(tls)
    }

    fn config(&self) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.0.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let Some(pair) = self.pair else {
            return builder.with_no_client_auth();
        };
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    }
}

/// One HTTP/1.1 request and its answer, which must be `hello`.
pub(super) async fn ask(io: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> std::io::Result<()> {
    io.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        if io.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// A chain as a handshake hands it over.
pub(super) fn chain_of(pair: &Pair) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()]
}
