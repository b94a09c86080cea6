//! The accept loop: lets connections in, and sees them all out at shutdown.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;
use tower::util::{Oneshot, ServiceExt};

use super::Protocol;
use super::connection::Visit;
use super::limits::{Gate, Place};
use super::tls::TlsStore;

/// After an error that the next accept would meet again, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a listener's connections are protected, and with it what they speak.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: see [`super::listen::require_loopback`].
    Plain(Protocol),
    /// By TLS; what is spoken was said when the store was loaded.
    Tls(Arc<TlsStore>),
}

impl Security {
    /// What the listener speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Plain(protocol) => *protocol,
            Self::Tls(store) => store.protocol(),
        }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

/// Whoever answers requests: `tonic::service::Routes`, `axum::Router`, or any other
/// `tower::Service<Request<Incoming>>`. Never implemented by hand.
pub trait Application: Clone + Send + 'static {
    /// The body of answers.
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
    /// Why there is no answer; ends the stream.
    type Error: Into<BoxError> + 'static;
    /// An answer on its way.
    type Answer: Future<Output = Result<Response<Self::Body>, Self::Error>> + Send + 'static;

    /// Begins to answer.
    fn answer(&self, request: Request<Incoming>) -> Self::Answer;
}

impl<S, B> Application for S
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
    type Error = S::Error;
    type Answer = Oneshot<S, Request<Incoming>>;

    fn answer(&self, request: Request<Incoming>) -> Self::Answer {
        self.clone().oneshot(request)
    }
}

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
        let visit = Visit {
            remote,
            place,
            security: security.clone(),
            shutdown: shutdown.clone(),
        };
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
