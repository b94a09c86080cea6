//! `WatchDecisions`: a subscription as a stream of messages. It ends when the right to it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::authenticate::enter;
use super::{status, wire};
use crate::api as pb;
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::door::Door;
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
    let visit = enter(door, request)?;
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
    async fn run(self) {
        let Self { door, peer, headers, mut subscription, sender } = self;
        let stream_id = Arc::clone(door.engine().events().stream_id());
        let mut right = Right { look: tokio::time::interval(LOOK_AT_RIGHT), peer: peer.clone() };
        let still_may = || still_may(&door, peer.as_ref(), &headers);
        loop {
            let message = tokio::select! {
                ended = right.ended(still_may) => Err(ended),
                () = sender.closed() => return,
                item = subscription.next() => match item {
                    Some(Item::Event(event)) => Ok(wire::decision_event(&event, &stream_id)),
                    Some(Item::Gap { from, to }) => Ok(wire::gap(from, to, &stream_id)),
                    Some(Item::Heartbeat { sequence }) => Ok(wire::heartbeat(sequence, &stream_id)),
                    None => return,
                },
            };
            if let Err(Some(ended)) = message {
                // A subscriber that doesn't read is not told, either.
                let _ = sender.try_send(Err(ended));
                return;
            }
            let Ok(message) = message else { return };
            // A slow subscriber is waited for, but not longer than its right lasts.
            tokio::select! {
                biased;
                sent = sender.send(Ok(message)) => if sent.is_err() { return },
                ended = right.ended(still_may) => {
                    if let Some(ended) = ended {
                        let _ = sender.try_send(Err(ended));
                    }
                    return;
                }
            }
        }
    }
}

fn still_may(door: &Door, peer: Option<&Arc<Peer>>, headers: &http::HeaderMap) -> Result<(), Status> {
    let engine = door.engine();
    let policy = engine.policy();
    let caller = door.identify(peer, headers, &policy, engine.clock().now());
    let caller = caller.map_err(|nobody| status::unidentified(&nobody))?;
    may_watch(engine, &policy.policy, &caller)
}

/// The right to watch, looked at from time to time.
struct Right {
    look: tokio::time::Interval,
    peer: Option<Arc<Peer>>,
}

impl Right {
    /// Waits until the right ends: with a status, or with the connection.
    async fn ended(&mut self, still_may: impl Fn() -> Result<(), Status>) -> Option<Status> {
        let peer = self.peer.clone();
        let closing = async move {
            match peer {
                Some(peer) => peer.closing().await,
                None => std::future::pending().await,
            }
        };
        let looking = async {
            loop {
                self.look.tick().await;
                if let Err(ended) = still_may() {
                    return ended;
                }
            }
        };
        tokio::select! {
            () = closing => None,
            ended = looking => Some(ended),
        }
    }
}

fn may_watch(engine: &Engine, policy: &Policy, caller: &Caller) -> Result<(), Status> {
    engine.may_audit(policy, caller).map_err(|denial| status::refusal(&denial))
}
