//! One connection, from the handshake to its end.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::application::{Application, Security};
use super::limits::{Limits, Place};
use super::opening::{self, Opened};
use super::peer::Peer;
use super::tls::TlsStore;
use super::{Protocol, listen};

/// The largest HTTP/2 frame we take, in bytes: the least that a peer may assume (RFC 9113 §4.2).
const FRAME_BYTES: u32 = 16 * 1024;
/// HPACK's dynamic table, in bytes: its default (RFC 9113 §6.5.2).
const HEADER_TABLE_BYTES: u32 = 4096;
/// Header lines of an HTTP/1.1 request.
const HTTP1_HEADERS: usize = 100;

/// A connection that was let in.
pub(super) struct Visit {
    pub(super) remote: SocketAddr,
    pub(super) place: Place,
    pub(super) security: Security,
    pub(super) shutdown: CancellationToken,
}

/// What a connection turned out to be.
enum Met {
    Plain(Opened<TcpStream>, Peer),
    Tls(Box<Opened<TlsStream<TcpStream>>>, Peer, Arc<TlsStore>),
}

impl Visit {
    /// The whole visit. A connection that hasn't finished its handshake at shutdown is dropped.
    pub(super) async fn run<A: Application>(self, stream: TcpStream, application: A) {
        let met = self.shutdown.run_until_cancelled(self.meet(stream)).await;
        match met.flatten() {
            Some(Met::Plain(io, peer)) => self.converse(io, peer, None, application).await,
            Some(Met::Tls(io, peer, store)) => {
                let trust = store.watch_trust();
                self.converse(*io, peer, Some(trust), application).await;
            }
            None => {}
        }
    }

    /// TLS and the first bytes, within the deadline.
    async fn meet(&self, stream: TcpStream) -> Option<Met> {
        let gate = self.place.gate();
        let greeting = async {
            let _turn = gate.turn().await;
            listen::prepare(&stream)?;
            match &self.security {
                Security::Plain(_) => self.greet_plain(stream).await,
                Security::Tls(store) => self.greet_tls(stream, store).await,
            }
        };
        let greeted = timeout(gate.limits().handshake, Box::pin(greeting)).await;
        let Ok(Ok(met)) = greeted else {
            gate.handshake_failed();
            return None;
        };
        met
    }

    async fn greet_plain(&self, stream: TcpStream) -> io::Result<Option<Met>> {
        let opened = opening::open(stream).await?;
        Ok(opened.map(|io| Met::Plain(io, Peer::anonymous(self.remote))))
    }

    async fn greet_tls(&self, stream: TcpStream, store: &Arc<TlsStore>) -> io::Result<Option<Met>> {
        let snapshot = store.snapshot();
        let tls = TlsAcceptor::from(Arc::clone(&snapshot.config)).accept(stream).await?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Peer::authenticated(self.remote, chain.to_vec(), Arc::clone(store), snapshot.trust_revision);
        let opened = opening::open(tls).await?;
        Ok(opened.map(|io| Met::Tls(Box::new(io), peer, Arc::clone(store))))
    }

    /// HTTP, until either side has had enough.
    async fn converse<IO, A>(self, io: Opened<IO>, peer: Peer, trust: Option<watch::Receiver<u64>>, application: A)
    where
        A: Application,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Arc::new(peer);
        let introduced = Introduced { application, peer: Arc::clone(&peer) };
        let limits = self.place.gate().limits();
        let is_http2 = io.is_http2() || self.security.protocol() == Protocol::Http2Only;
        if is_http2 {
            let connection = http2(limits).serve_connection(TokioIo::new(io), introduced);
            let wind_down = http2::Connection::graceful_shutdown;
            self.see_through(pin!(connection), wind_down, &peer, trust).await;
        } else {
            let connection = http1(limits).serve_connection(TokioIo::new(io), introduced);
            let wind_down = http1::Connection::graceful_shutdown;
            self.see_through(pin!(connection), wind_down, &peer, trust).await;
        }
    }

    /// Drives a connection; when it is to end, lets requests in flight finish for a while, then drops it.
    async fn see_through<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        wind_down: fn(Pin<&mut C>),
        peer: &Peer,
        trust: Option<watch::Receiver<u64>>,
    ) {
        let limits = self.place.gate().limits();
        let end = async {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = peer.closing() => {}
                () = lose_trust(peer, trust) => {}
                () = sleep(limits.age_of(self.place.number)) => {}
            }
        };
        tokio::select! {
            // Whether it ended well concerns the two ends of it alone; there is nobody to tell.
            _ = connection.as_mut() => return,
            () = end => {}
        }
        wind_down(connection.as_mut());
        // So that upper rooms end their streams, whatever the reason for the end was.
        peer.close();
        let _ = timeout(limits.connection_grace, connection).await;
    }
}

/// Done when a change of client CAs or revocation lists takes the peer's trust away: also a connection
/// without new requests must end then.
async fn lose_trust(peer: &Peer, trust: Option<watch::Receiver<u64>>) {
    if let Some(mut changes) = trust {
        loop {
            // Looked at before the first wait: the change may have come during the handshake.
            if peer.standing() == super::Standing::NoLongerTrusted {
                return;
            }
            if changes.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// The application, told on each request who is asking.
struct Introduced<A> {
    application: A,
    peer: Arc<Peer>,
}

impl<A: Application> Service<Request<Incoming>> for Introduced<A> {
    type Response = http::Response<A::Body>;
    type Error = A::Error;
    type Future = A::Answer;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.peer));
        self.application.answer(request)
    }
}

/// HTTP/2 with every limit set: what isn't is `None` for hyper, which switches protections off.
fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_list_bytes)
        .header_table_size(HEADER_TABLE_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_local_error_reset_streams(limits.local_error_resets)
        .max_pending_accept_reset_streams(limits.pending_accept_resets)
        .max_send_buf_size(size(limits.send_buffer_bytes))
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

fn http1(limits: &Limits) -> http1::Builder {
    let header_bytes = size(limits.header_list_bytes);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.keepalive_interval)
        .max_headers(HTTP1_HEADERS)
        .max_header_size(header_bytes)
        // Hyper takes no buffer below 8 KiB and panics instead.
        .max_buf_size(header_bytes.max(8192))
        .half_close(false);
    builder
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::transport::testing::{Guests, Server, ask, brief};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const WINDOW_UPDATE: u8 = 8;
    const ENHANCE_YOUR_CALM: u32 = 11;

    /// An HTTP/2 frame as it is on the wire (RFC 9113 §4.1).
    struct Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        payload: Vec<u8>,
    }

    impl Frame {
        async fn read(io: &mut TcpStream) -> io::Result<Self> {
            let mut header = [0; 9];
            io.read_exact(&mut header).await?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            io.read_exact(&mut payload).await?;
            Ok(Self { kind: header[3], flags: header[4], stream: number(&header[5..9]), payload })
        }

        /// The next frame of this kind, others skipped.
        async fn next(io: &mut TcpStream, kind: u8) -> Self {
            loop {
                let frame = Self::read(io).await.unwrap();
                if frame.kind == kind {
                    return frame;
                }
            }
        }

        fn settings(&self) -> Vec<(u16, u32)> {
            self.payload
                .chunks(6)
                .map(|entry| (u16::from_be_bytes([entry[0], entry[1]]), number(&entry[2..6])))
                .collect()
        }
    }

    fn number(bytes: &[u8]) -> u32 {
        u32::from_be_bytes(bytes.try_into().unwrap())
    }

    fn plain(protocol: Protocol, limits: Limits) -> Server {
        Server::start(Security::Plain(protocol), limits, Guests::default().application())
    }

    /// A raw client after its preface.
    async fn http2_client(server: &Server) -> TcpStream {
        let mut client = server.connect().await;
        client.write_all(PREFACE).await.unwrap();
        client.write_all(EMPTY_SETTINGS).await.unwrap();
        client
    }

    #[tokio::test]
    async fn settings_on_the_wire_are_the_limits() {
        let server = plain(Protocol::Http2Only, Limits::default());
        let mut client = http2_client(&server).await;
        let first = Frame::read(&mut client).await.unwrap();
        assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
        let mut settings = first.settings();
        settings.sort_unstable();
        let wanted = [
            (1, 4096),      // SETTINGS_HEADER_TABLE_SIZE
            (3, 100),       // SETTINGS_MAX_CONCURRENT_STREAMS
            (4, 64 * 1024), // SETTINGS_INITIAL_WINDOW_SIZE
            (5, 16 * 1024), // SETTINGS_MAX_FRAME_SIZE
            (6, 16 * 1024), // SETTINGS_MAX_HEADER_LIST_SIZE
        ];
        assert_eq!(settings, wanted);
        let window = Frame::next(&mut client, WINDOW_UPDATE).await;
        assert_eq!(window.stream, 0);
        assert_eq!(number(&window.payload), 1024 * 1024 - 65_535);
    }

    #[tokio::test]
    async fn resets_in_a_row_end_the_connection() {
        let server = plain(Protocol::Http2Only, Limits::default());
        let mut client = http2_client(&server).await;
        let mut burst = Vec::new();
        for stream in (1_u32..200).step_by(2) {
            // HEADERS, ended, with :method GET, :scheme http and :path / from HPACK's static table.
            burst.extend_from_slice(&[0, 0, 3, 1, 5]);
            burst.extend_from_slice(&stream.to_be_bytes());
            burst.extend_from_slice(&[0x82, 0x86, 0x84]);
            // RST_STREAM, CANCEL.
            burst.extend_from_slice(&[0, 0, 4, 3, 0]);
            burst.extend_from_slice(&stream.to_be_bytes());
            burst.extend_from_slice(&8_u32.to_be_bytes());
        }
        client.write_all(&burst).await.unwrap();
        let goaway = Frame::next(&mut client, GOAWAY).await;
        assert_eq!(number(&goaway.payload[4..8]), ENHANCE_YOUR_CALM);
    }

    #[tokio::test]
    async fn a_connection_that_is_old_enough_is_asked_to_go() {
        let server = plain(
            Protocol::Http2Only,
            Limits {
                connection_age: Duration::from_millis(100),
                connection_grace: Duration::from_millis(100),
                ..Limits::default()
            },
        );
        let mut client = http2_client(&server).await;
        let goaway = Frame::next(&mut client, GOAWAY).await;
        assert_eq!(number(&goaway.payload[4..8]), 0);
        // It never acknowledges, so that only the grace ends it.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_in_time_is_cut() {
        let server = plain(Protocol::Auto, brief());
        let mut silent = server.connect().await;
        let mut halting = server.connect().await;
        halting.write_all(b"PRI * HT").await.unwrap();
        let mut rest = Vec::new();
        silent.read_to_end(&mut rest).await.unwrap();
        halting.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        assert_eq!(server.gate.counters().handshake_failures(), 2);
        let probe = server.connect().await;
        drop(probe);
        ask(&mut server.connect().await).await.unwrap();
        assert_eq!(server.gate.counters().handshake_failures(), 2);
    }

    #[tokio::test]
    async fn http1_is_spoken_only_where_it_is_wanted() {
        let both = plain(Protocol::Auto, Limits::default());
        let mut client = both.connect().await;
        ask(&mut client).await.unwrap();
        ask(&mut client).await.unwrap();
        let strict = plain(Protocol::Http2Only, Limits::default());
        ask(&mut strict.connect().await).await.unwrap_err();
    }

    #[tokio::test]
    async fn too_large_a_header_list_is_refused() {
        let server = plain(Protocol::Auto, Limits::default());
        let mut client = server.connect().await;
        let large = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "a".repeat(17_000));
        client.write_all(large.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good: the rest of the request was never read.
        let _ = client.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
    }
}
