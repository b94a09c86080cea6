//! Listening sockets, and what is set on the accepted ones.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Connections that the kernel keeps for us until they are accepted. The system may cap it lower.
const BACKLOG: i32 = 1024;
/// TCP asks a silent peer after this long; HTTP/1.1 connections have no other way to notice.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
/// And again after this long.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// One listening socket, ready for tokio (non-blocking). Port 0 takes a free one.
///
/// # Errors
/// The system refuses: the port is taken, low, or the address isn't ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    open(address, false)
}

/// `count` sockets, at least one, on the same port (`SO_REUSEPORT`, the kernel spreads connections over
/// them), one for each runtime. With port 0 the first takes a free one and the others follow.
///
/// # Errors
/// As [`bind`].
pub fn bind_many(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let shared = count > 1;
    let first = open(address, shared)?;
    let mut same_port = address;
    same_port.set_port(first.local_addr()?.port());
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(open(same_port, shared)?);
    }
    Ok(listeners)
}

/// A plain-text listener where strangers could read along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLoopback {
    /// Where it should have listened.
    pub address: SocketAddr,
}

/// Is this address reachable from this machine alone, so that plain text may pass?
///
/// # Errors
/// It isn't.
pub fn require_loopback(address: SocketAddr) -> Result<(), NotLoopback> {
    // ::ffff:127.0.0.1 is 127.0.0.1 on a socket of both families.
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(NotLoopback { address })
}

impl fmt::Display for NotLoopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not a loopback address and has no TLS: set a certificate and key, or listen on 127.0.0.1",
            self.address
        )
    }
}

impl std::error::Error for NotLoopback {}

/// Small answers leave at once, and a peer that vanished is noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn many_listeners_share_one_free_port() {
        let listeners = bind_many(address("127.0.0.1:0"), 3).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn a_port_is_not_shared_with_another_process_unasked() {
        let first = bind(address("127.0.0.1:0")).unwrap();
        let taken = bind(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn plain_text_stays_on_loopback() {
        for inside in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(require_loopback(address(inside)), Ok(()), "{inside}");
        }
        for outside in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let refused = require_loopback(address(outside)).unwrap_err();
            assert!(refused.to_string().contains("127.0.0.1"), "{outside}");
        }
    }

    #[tokio::test]
    async fn accepted_sockets_send_at_once_and_notice_silence() {
        let listener = bind(address("127.0.0.1:0")).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
