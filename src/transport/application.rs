//! What a listener serves, and how its connections are protected.

use std::error::Error;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tower::Service;
use tower::util::{Oneshot, ServiceExt};

use super::Protocol;
use super::tls::TlsStore;

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
