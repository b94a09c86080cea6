//! `WatchDecisions`: a subscription as a stream of messages. It ends when the right to it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::authenticate::Door;
use super::{status, wire};
use crate::api as pb;
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::engine::Engine;
use crate::events::{Item, Since, Subscription};
use crate::transport::Peer;

/// Messages that wait for a slow subscriber; further ones wait in the ring.
const WAITING: usize = 64;
/// How often the right to watch is looked at.
const LOOK_AT_RIGHT: Duration = Duration::from_secs(1);

type Message = Result<pb::WatchDecisionsResponse, Status>;

pub(super) fn begin(
    door: &Door,
    request: &Request<pb::WatchDecisionsRequest>,
    shutdown: CancellationToken,
) -> Result<ReceiverStream<Message>, Status> {
    let visit = door.enter(request)?;
    may_watch(door.engine(), visit.policy(), &visit.caller)?;
    let message = request.get_ref();
    let filter = wire::filter(message).map_err(|malformed| status::malformed(&malformed))?;
    let since = match message.after_sequence {
        None => Since::Now,
        Some(sequence) => Since::After { stream_id: &message.stream_id, sequence },
    };
    let subscription = door.engine().events().subscribe(since, filter);
    let subscription = subscription.map_err(|full| Status::resource_exhausted(full.to_string()))?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let watcher = Watcher {
        door: door.clone(),
        peer: request.extensions().get::<Arc<Peer>>().cloned(),
        headers: request.metadata().clone().into_headers(),
        subscription,
        sender,
    };
    tokio::spawn(async move {
        let _ = shutdown.run_until_cancelled(watcher.run()).await;
    });
    Ok(ReceiverStream::new(receiver))
}

struct Watcher {
    door: Door,
    peer: Option<Arc<Peer>>,
    headers: http::HeaderMap,
    subscription: Subscription,
    sender: mpsc::Sender<Message>,
}

impl Watcher {
    async fn run(mut self) {
        let stream_id = Arc::clone(self.door.engine().events().stream_id());
        let mut look = tokio::time::interval(LOOK_AT_RIGHT);
        let peer = self.peer.clone();
        let closing = async move {
            match peer {
                Some(peer) => peer.closing().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(closing);
        loop {
            let message = tokio::select! {
                () = &mut closing => return,
                () = self.sender.closed() => return,
                _ = look.tick() => match self.still_may() {
                    Ok(()) => continue,
                    Err(ended) => Err(ended),
                },
                item = self.subscription.next() => match item {
                    Some(Item::Event(event)) => Ok(wire::decision_event(&event, &stream_id)),
                    Some(Item::Gap { from, to }) => Ok(wire::gap(from, to, &stream_id)),
                    Some(Item::Heartbeat { sequence }) => Ok(wire::heartbeat(sequence, &stream_id)),
                    None => return,
                },
            };
            let is_end = message.is_err();
            if !self.deliver(message, &mut closing).await || is_end {
                return;
            }
        }
    }

    /// Waits for the subscriber, but not for one whose connection or right ends meanwhile.
    async fn deliver(&self, message: Message, closing: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        let mut look = tokio::time::interval(LOOK_AT_RIGHT);
        let sending = self.sender.send(message);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => return sent.is_ok(),
                () = &mut *closing => return false,
                _ = look.tick() => if self.still_may().is_err() { return false },
            }
        }
    }

    fn still_may(&self) -> Result<(), Status> {
        let engine = self.door.engine();
        let policy = engine.policy();
        let caller = self.door.identify(self.peer.as_ref(), &self.headers, &policy, engine.clock().now())?;
        may_watch(engine, &policy.policy, &caller)
    }
}

fn may_watch(engine: &Engine, policy: &Policy, caller: &Caller) -> Result<(), Status> {
    engine.may_audit(policy, caller).map_err(|denial| status::refusal(&denial))
}
