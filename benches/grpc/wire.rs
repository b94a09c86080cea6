//! Servers and clients, with certificates, on 127.0.0.1.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use remit::api::policy_decision_service_client::PolicyDecisionServiceClient;
use remit::api::policy_decision_service_server::PolicyDecisionServiceServer;
use remit::engine::Engine;
use remit::transport::{Application, ClientAuth, Gate, Limits, Protocol, Security, TlsFiles, TlsStore, listen, serve};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity as ClientIdentity, Server, ServerTlsConfig};

use super::CONNECTIONS;
use super::no_op::NoOp;
use crate::fixture;

pub(crate) type Client = PolicyDecisionServiceClient<Channel>;

/// A certificate authority, a server and a client of it, in a folder.
pub(crate) struct Certificates {
    dir: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = authority.self_signed(&key).unwrap();
        let certificates = Self { dir, issuer: rcgen::Issuer::new(authority, key) };
        certificates.write("ca.pem", &certificate.pem());
        certificates.renew_server();
        let uri = "spiffe://cluster.local/ns/ai-agents/sa/agent-deployer-sa".try_into().unwrap();
        certificates.issue("client", rcgen::SanType::URI(uri));
        certificates
    }

    /// A new key and certificate of the server's.
    pub(crate) fn renew_server(&self) {
        self.issue("server", rcgen::SanType::DnsName("localhost".try_into().unwrap()));
    }

    fn issue(&self, name: &str, alternative: rcgen::SanType) {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.subject_alt_names = vec![alternative];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        self.write(&format!("{name}.pem"), &params.signed_by(&key, &self.issuer).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self, engine: &Engine) -> Arc<TlsStore> {
        let files = TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: Some(self.path("ca.pem")),
            crl: None,
            client_auth: ClientAuth::Required,
        };
        let clock = engine.clock().clone();
        Arc::new(TlsStore::load(files, Protocol::Http2Only, Arc::new(move || clock.now())).unwrap())
    }

    pub(crate) fn client(&self) -> ClientTlsConfig {
        let read = |name: &str| std::fs::read(self.path(name)).unwrap();
        ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(ClientIdentity::from_pem(read("client.pem"), read("client.key")))
    }
}

/// A server on a thread of its own.
pub(crate) struct Served {
    pub(crate) clients: Vec<Client>,
    /// The thread, as `/proc` has it.
    thread: PathBuf,
}

impl Served {
    /// How long its thread has run, which is not how long it took where others run too.
    pub(crate) fn has_run(&self) -> Duration {
        let text = std::fs::read_to_string(Path::new("/proc").join(&self.thread).join("schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    async fn connected(port: u16, thread: &Receiver<PathBuf>, certificates: &Certificates) -> Self {
        Self { clients: connect(certificates, port).await, thread: thread.recv().unwrap() }
    }
}

fn this_thread() -> PathBuf {
    std::fs::read_link("/proc/thread-self").unwrap()
}

/// On the service's own transport.
pub(crate) async fn serve_on_a_thread(
    routes: impl Application,
    store: Arc<TlsStore>,
    certificates: &Certificates,
) -> Served {
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, thread) = channel();
    std::thread::spawn(move || {
        tell.send(this_thread()).unwrap();
        fixture::runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let gate = Gate::new(Limits::default());
            serve(listener, Security::Tls(store), routes, gate, CancellationToken::new()).await
        });
    });
    Served::connected(port, &thread, certificates).await
}

/// With the server that comes with tonic.
pub(crate) async fn serve_by_tonic(service: PolicyDecisionServiceServer<NoOp>, certificates: &Certificates) -> Served {
    let listener = listen::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let read = |name: &str| std::fs::read(certificates.path(name)).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(ClientIdentity::from_pem(read("server.pem"), read("server.key")))
        .client_ca_root(Certificate::from_pem(read("ca.pem")));
    let (tell, thread) = channel();
    std::thread::spawn(move || {
        tell.send(this_thread()).unwrap();
        fixture::runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = Server::builder().tls_config(tls).unwrap().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    Served::connected(port, &thread, certificates).await
}

async fn connect(certificates: &Certificates, port: u16) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
        let channel = endpoint.tls_config(certificates.client()).unwrap().connect().await.unwrap();
        clients.push(PolicyDecisionServiceClient::new(channel));
    }
    clients
}
