//! The accept loop: lets connections in, and sees them all out at shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::application::{Application, Security};
use super::connection::Visit;
use super::limits::{Gate, Place};

/// After an error that the next accept would meet again, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections and serves `application` on them, each request with an `Arc<`[`super::Peer`]`>` in
/// its extensions, until `shutdown`; then sees them out. Returns how many had to be cut because they
/// were still open when [`super::Limits::drain`] was over: 0 is a clean end. Returns in that time
/// whatever the other ends do. Works on a current-thread runtime as well as on others; every listener of
/// the service may have its own. When the future is dropped all its connections end at once.
pub async fn serve<A: Application>(
    listener: TcpListener,
    security: Security,
    application: A,
    gate: Arc<Gate>,
    shutdown: CancellationToken,
) -> usize {
    let cut = CancellationToken::new();
    let _cut_when_done = cut.clone().drop_guard();
    let visits = TaskTracker::new();
    while let Some((stream, remote, place)) = admit(&listener, &gate, &shutdown).await {
        let visit = Visit { remote, place, security: security.clone(), shutdown: shutdown.clone() };
        let whole_visit = visit.run(stream, application.clone());
        visits.spawn(cut.clone().run_until_cancelled_owned(whole_visit));
    }
    // Closed before the wait: clients that come now go to another server instead of into our backlog.
    drop(listener);
    visits.close();
    // Late is no error: what is left is counted below and cut on return.
    let _ = tokio::time::timeout(gate.limits().drain, visits.wait()).await;
    visits.len()
}

/// The next connection for which there is a place; `None` at shutdown.
async fn admit(
    listener: &TcpListener,
    gate: &Arc<Gate>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let admitted = async {
        let (stream, remote) = accept(listener).await;
        let place = gate.enter().await?;
        Some((stream, remote, place))
    };
    shutdown.run_until_cancelled(admitted).await?
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// The connection was gone before it was taken; the listener is as good as before.
fn concerns_one_connection(error: &io::Error) -> bool {
    [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ]
    .contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep, timeout};
    use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use http::{Request, Response};
    use hyper::body::Incoming;

    use super::*;
    use crate::transport::testing::{Ca, Client, Folder, Guests, Pair, Server, ask, brief, clock};
    use crate::transport::{ClientAuth, Limits, Protocol, Standing, TlsStore};

    fn secure(store: &Arc<TlsStore>, guests: &Guests) -> Server {
        let security = Security::Tls(Arc::clone(store));
        Server::start(security, brief(), guests.application())
    }

    #[tokio::test]
    async fn a_client_is_known_by_its_certificate() {
        let ca = Ca::new("one");
        let (folder, guests) = (Folder::of(&ca), Guests::default());
        let server = secure(&folder.store(), &guests);
        let pair = ca.client(7, 2100);
        Client::new(&ca, Some(&pair)).greet(&server).await.unwrap();
        let peer = guests.last();
        assert_eq!(peer.standing(), Standing::Trusted);
        assert_eq!(peer.chain().len(), 1);
        assert!(peer.remote().ip().is_loopback());
        assert_eq!(server.gate.counters().handshake_failures(), 0);
    }

    #[tokio::test]
    async fn who_has_no_good_certificate_is_refused() {
        let (ca, other) = (Ca::new("one"), Ca::new("other"));
        let folder = Folder::of(&ca);
        let server = secure(&folder.store(), &Guests::default());
        let good = ca.client(1, 2100);
        let expired = ca.client(2, 2021);
        let foreign = other.client(3, 2100);
        let wrong_use = ca.issue(4, 2100, ServerAuth);
        for pair in [None, Some(&expired), Some(&foreign), Some(&wrong_use)] {
            Client::new(&ca, pair).greet(&server).await.unwrap_err();
        }
        let mut old = Client::new(&ca, Some(&good));
        old.version = &rustls::version::TLS12;
        old.greet(&server).await.unwrap_err();
        assert_eq!(server.gate.counters().handshake_failures(), 5);
        Client::new(&ca, Some(&good)).greet(&server).await.unwrap();
    }

    #[tokio::test]
    async fn optional_lets_in_who_shows_nothing_but_not_who_shows_a_bad_one() {
        let ca = Ca::new("one");
        let (folder, guests) = (Folder::of(&ca), Guests::default());
        let mut files = folder.files();
        files.client_auth = ClientAuth::Optional;
        let store = TlsStore::load(files, Protocol::Auto, clock()).unwrap();
        let server = secure(&Arc::new(store), &guests);
        Client::new(&ca, None).greet(&server).await.unwrap();
        assert_eq!(guests.last().standing(), Standing::Anonymous);
        let foreign = Ca::new("other").client(3, 2100);
        Client::new(&ca, Some(&foreign)).greet(&server).await.unwrap_err();
    }

    #[tokio::test]
    async fn no_session_is_resumed() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let server = secure(&folder.store(), &Guests::default());
        let pair = ca.client(7, 2100);
        let client = Client::new(&ca, Some(&pair));
        let tls = client.greet(&server).await.unwrap();
        assert_eq!(tls.get_ref().1.tls13_tickets_received(), 0);
    }

    #[tokio::test]
    async fn removing_a_ca_ends_what_it_let_in() {
        let ca = Ca::new("one");
        let (folder, guests) = (Folder::of(&ca), Guests::default());
        let store = folder.store();
        let server = secure(&store, &guests);
        let pair = ca.client(7, 2100);
        let mut open = Client::new(&ca, Some(&pair)).greet(&server).await.unwrap();
        ask(&mut open).await.unwrap();
        let peer = guests.last();
        folder.write("ca.pem", &Ca::new("two").pem());
        assert!(store.reload().unwrap());
        assert_eq!(peer.standing(), Standing::NoLongerTrusted);
        // The idle connection is closed without having been asked anything.
        let mut rest = Vec::new();
        let closed = timeout(Duration::from_secs(2), open.read_to_end(&mut rest)).await;
        closed.unwrap().unwrap();
        Client::new(&ca, Some(&pair)).greet(&server).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_unfinished_handshake_is_cut_at_its_deadline() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let server = secure(&folder.store(), &Guests::default());
        let mut slow = server.connect().await;
        // A record header of a handshake that never comes.
        slow.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(150));
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(server.gate.counters().handshake_failures(), 1);
        assert_eq!(server.gate.counters().open(), 0);
    }

    #[tokio::test]
    async fn when_full_the_next_waits_for_a_place() {
        let limits = Limits { connections: 1, ..Limits::default() };
        let security = Security::Plain(Protocol::Auto);
        let server = Server::start(security, limits, Guests::default().application());
        let mut first = server.connect().await;
        ask(&mut first).await.unwrap();
        let mut second = server.connect().await;
        let waiting = timeout(Duration::from_millis(50), ask(&mut second)).await;
        waiting.unwrap_err();
        assert_eq!(server.gate.counters().full(), 1);
        drop(first);
        let mut answer = [0; 12];
        second.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn shutdown_waits_for_no_silent_connection() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let limits = Limits::default();
        let security = Security::Tls(folder.store());
        let server = Server::start(security, limits, Guests::default().application());
        let pair = ca.client(7, 2100);
        let kept_alive = Client::new(&ca, Some(&pair)).greet(&server).await.unwrap();
        let idle = server.connect().await;
        let mut halfway = server.connect().await;
        halfway.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(server.gate.counters().open(), 3);
        let gate = Arc::clone(&server.gate);
        let cut = timeout(Duration::from_secs(2), server.stop()).await.unwrap();
        assert_eq!((cut, gate.counters().open()), (0, 0));
        drop((kept_alive, idle, halfway));
    }

    #[tokio::test]
    async fn shutdown_cuts_who_does_not_leave() {
        let answer_never = tower::service_fn(|_: Request<Incoming>| {
            std::future::pending::<Result<Response<String>, std::convert::Infallible>>()
        });
        let security = Security::Plain(Protocol::Auto);
        let server = Server::start(security, brief(), answer_never);
        let mut stuck = server.connect().await;
        stuck.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        sleep(Duration::from_millis(50)).await;
        let gate = Arc::clone(&server.gate);
        let began = Instant::now();
        assert_eq!(server.stop().await, 1);
        assert!(began.elapsed() < Duration::from_secs(2));
        let mut rest = Vec::new();
        let closed = timeout(Duration::from_secs(2), stuck.read_to_end(&mut rest)).await;
        closed.unwrap().unwrap();
        assert_eq!(gate.counters().open(), 0);
    }

    /// A channel that has connected and been answered, over mutual TLS.
    async fn check_health(
        server: &Server,
        ca: &Ca,
        pair: &Pair,
    ) -> Result<HealthClient<Channel>, Box<dyn std::error::Error>> {
        let tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(ca.pem()))
            .identity(Identity::from_pem(&pair.certificate, &pair.key));
        let endpoint = Endpoint::from_shared(format!("https://{}", server.address))?;
        let channel = endpoint.tls_config(tls)?.connect().await?;
        let mut client = HealthClient::new(channel);
        client.check(HealthCheckRequest::default()).await?;
        Ok(client)
    }

    #[tokio::test]
    async fn certificates_change_under_load_without_a_lost_request() {
        let ca = Ca::new("one");
        let folder = Folder::of(&ca);
        let store = folder.store();
        let (_reporter, health) = tonic_health::server::health_reporter();
        let routes = tonic::service::Routes::new(health);
        let security = Security::Tls(Arc::clone(&store));
        let server = Server::start(security, Limits::default(), routes);
        let pair = ca.client(7, 2100);
        let mut lasting = check_health(&server, &ca, &pair).await.unwrap();
        for _ in 0..10 {
            folder.write_server(&ca.server());
            let mut fresh = Vec::new();
            for _ in 0..4 {
                fresh.push(check_health(&server, &ca, &pair));
            }
            let reloading = async { store.reload().unwrap() };
            let [a, b, c, d] = fresh.try_into().ok().unwrap();
            let (changed, a, b, c, d) = tokio::join!(reloading, a, b, c, d);
            assert!(changed);
            for client in [a, b, c, d] {
                client.unwrap();
            }
            lasting.check(HealthCheckRequest::default()).await.unwrap();
        }
        assert_eq!(server.gate.counters().handshake_failures(), 0);
        drop(lasting);
        assert_eq!(server.stop().await, 0);
    }

    #[tokio::test]
    async fn an_axum_router_is_an_application() {
        let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
        let security = Security::Plain(Protocol::Auto);
        let server = Server::start(security, Limits::default(), router);
        ask(&mut server.connect().await).await.unwrap();
        assert_eq!(server.stop().await, 0);
    }
}
