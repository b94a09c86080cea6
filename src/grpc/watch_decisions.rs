//! `WatchDecisions`: the decision feed, as messages.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::authenticate::enter;
use super::{status, wire};
use crate::api as pb;
use crate::decision_feed::{End, Feed, Refused, WAITING, may_watch};
use crate::domain::reason::{Denial, Reason};
use crate::door::Door;
use crate::transport::Peer;

type Message = Result<pb::WatchDecisionsResponse, Status>;

pub(super) fn begin(
    door: &Door,
    request: &Request<pb::WatchDecisionsRequest>,
    drain: CancellationToken,
) -> Result<ReceiverStream<Message>, Status> {
    let visit = enter(door, request)?;
    // Who may not watch learns nothing of its request.
    may_watch(door.engine(), visit.policy(), &visit.caller).map_err(|refused| refusal(&refused))?;
    let message = request.get_ref();
    let (filter, since) = wire::watch(message).map_err(|malformed| status::malformed(&malformed))?;
    let peer = request.extensions().get::<Arc<Peer>>().cloned();
    let evidence = (peer, request.metadata().clone().into_headers());
    let feed = Feed::begin(door, &visit, evidence, since, filter, drain);
    let feed = feed.map_err(|refused| refusal(&refused))?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(feed.deliver(sender, |item| Ok(wire::watched(item)), |end| ended(end).map(Err)));
    Ok(ReceiverStream::new(receiver))
}

/// A stream that ends without a status ended well.
fn ended(end: &End) -> Option<Status> {
    match end {
        End::Refused(refused) => Some(refusal(refused)),
        End::Leave | End::Over => None,
    }
}

fn refusal(refused: &Refused) -> Status {
    match refused {
        Refused::Nobody(nobody) => status::unidentified(nobody),
        Refused::Denied(denial) => status::refusal(denial),
        Refused::Full(full) => status::refusal(&Denial::new(Reason::CapacityExhausted, full.to_string())),
    }
}
