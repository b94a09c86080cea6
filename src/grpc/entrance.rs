//! What stands before the services: who asks and how long is settled by a request's headers, before a byte of its message
//! is read. Nobody's message is never held.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, Uri};
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes, Service, StdError};
use tonic::service::Routes;

use super::authenticate::{refusal, timeout};
use super::ext_authz::TooLate;
use super::status;
use crate::domain::limits;
use crate::door::{Door, TurnedAway, Visit};
use crate::transport::Peer;

/// Asked by whoever probes, without an identity.
const HEALTH: &str = "/grpc.health.v1.";
const REFLECTION: &str = "/grpc.reflection.";
/// Envoy may take an error for leave to let a request pass: it is refused in an answer.
const ENVOY: &str = "/envoy.service.auth.v3.Authorization/";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// An empty message, as gRPC frames it: a flag and four bytes of length.
const EMPTY_MESSAGE: &str = "\0\0\0\0\0";

/// What the services answer with.
type RoutesFuture = <Routes as Service<Request<Body>>>::Future;

/// Services behind a door.
#[derive(Clone)]
pub struct Entrance {
    routes: Routes,
    rules: Arc<Rules>,
}

/// What lets a request in, and for how long.
pub(super) struct Rules {
    /// By which it comes in.
    pub(super) door: Door,
    /// Whether reflection needs no identity.
    pub(super) reflects_to_all: bool,
    /// What is added to a caller's patience: time for an answer that is given at its end.
    pub(super) margin: Duration,
}

impl Entrance {
    pub(super) fn new(routes: Routes, rules: Rules) -> Self {
        Self { routes, rules: Arc::new(rules) }
    }

    /// The same, so that several listeners can share it.
    pub(super) fn prepared(self) -> Self {
        Self { routes: self.routes.prepare(), ..self }
    }
}

impl<B> Service<Request<B>> for Entrance
where
    B: HttpBody<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Answer {
        let asked = timeout(request.headers()).min(limits::REQUEST_DEADLINE);
        let patience = asked.saturating_add(self.rules.margin);
        match self.rules.enter(&request, asked) {
            Entered::Openly => {}
            Entered::As(visit) => {
                request.extensions_mut().insert(Arc::new(visit));
            }
            Entered::Not(turned_away) if is_envoys(&request) => {
                return Answer::within(patience, self.routes.call(unread(request, turned_away)), None);
            }
            Entered::Not(turned_away) => return Answer::refusing(&turned_away),
        }
        let late = is_envoys(&request).then(|| self.routes.clone());
        Answer::within(patience, self.routes.call(request), late)
    }
}

/// How a request came in.
enum Entered {
    /// Without being asked who it is of.
    Openly,
    As(Visit),
    Not(TurnedAway),
}

impl Rules {
    fn enter<B>(&self, request: &Request<B>, patience: Duration) -> Entered {
        let path = request.uri().path();
        if path.starts_with(HEALTH) || (self.reflects_to_all && path.starts_with(REFLECTION)) {
            return Entered::Openly;
        }
        let peer = request.extensions().get::<Arc<Peer>>();
        let enter = || self.door.enter(peer, request.headers(), patience);
        // After a fault its service enters by itself, and refuses in an answer after another.
        let entered = if is_envoys(request) { catch_unwind(AssertUnwindSafe(enter)).ok() } else { Some(enter()) };
        match entered {
            Some(Ok(visit)) => Entered::As(visit),
            Some(Err(turned_away)) => Entered::Not(turned_away),
            None => Entered::Openly,
        }
    }
}

fn is_envoys<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with(ENVOY)
}

/// The request without its message, for a service that refuses it in an answer.
fn unread<B>(request: Request<B>, turned_away: TurnedAway) -> Request<String> {
    let (mut parts, _) = request.into_parts();
    parts.extensions.insert(turned_away);
    Request::from_parts(parts, EMPTY_MESSAGE.to_owned())
}

/// In place of a request that was not answered in time, for a service that says so in an answer.
fn late() -> Request<String> {
    let mut request = Request::new(EMPTY_MESSAGE.to_owned());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(CHECK);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.extensions_mut().insert(TooLate);
    request
}

/// An answer on its way. Its headers are there within the caller's patience, whether or not its message comes; a stream
/// goes on after them.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one: a box would cost each request")]
pub enum Answer {
    /// Refused before the message was read.
    Refused(Ready<Response<Body>>),
    /// The service answers.
    Begun(Begun),
}

/// What a service was begun with.
pub struct Begun {
    answer: RoutesFuture,
    patience: Duration,
    /// Set where the answer is not there at once: most are.
    timer: Option<Pin<Box<Sleep>>>,
    /// Who says that it is too late, where a gRPC error must not.
    late: Option<Routes>,
}

impl Answer {
    fn within(patience: Duration, answer: RoutesFuture, late: Option<Routes>) -> Self {
        Self::Begun(Begun { answer, patience, timer: None, late })
    }

    fn refusing(turned_away: &TurnedAway) -> Self {
        Self::Refused(ready(refusal(turned_away).into_http()))
    }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Refused(refusal) => Pin::new(refusal).poll(context).map(Ok),
            Self::Begun(begun) => begun.poll(context),
        }
    }
}

impl Begun {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<Body>, Infallible>> {
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(context) {
                return Poll::Ready(answer);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.patience)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let Some(mut routes) = self.late.take() else {
                return Poll::Ready(Ok(status::too_late().into_http()));
            };
            // What was begun is dropped: nobody waits for it any more.
            self.answer = routes.call(late());
            self.timer = None;
        }
    }
}
