//! The decisions as they are made, for who may watch them: a subscription to the events, and the right to it. Every wire is
//! given the same items by it, and only writes them out.
//!
//! A watcher is waited for, but by nobody that decides: what it has not read waits in the ring and in the log's files.
//! It holds at most what its subscription took at once, and [`WAITING`] messages.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::agent::AgentName;
use crate::domain::caller::Caller;
use crate::domain::limits;
use crate::domain::policy::Policy;
use crate::domain::reason::{Denial, Reason};
use crate::door::{Door, Visit};
use crate::engine::Engine;
use crate::events::{Filter, Item, MessageType, Outcome, Since, Subscription, TooManySubscribers};
use crate::identity::Unidentified;
use crate::transport::Peer;

/// Messages that wait for a slow watcher; further ones wait in the ring.
pub const WAITING: usize = 64;
/// How often the right to watch is looked at.
const LOOK_AT_RIGHT: Duration = Duration::from_secs(1);

/// Why somebody may not watch, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is nobody.
    Nobody(Unidentified),
    /// It has no right to it.
    Denied(Denial),
    /// As many watch as may.
    Full(TooManySubscribers),
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The right to it ended.
    Refused(Refused),
    /// The connection is to end, or the service: who comes back goes on where it was.
    Leave,
    /// There will be no more events.
    Over,
}

/// What a filter asks for that no event has. Safe to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEntry(&'static str);

impl std::fmt::Display for InvalidEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidEntry {}

/// Takes one more agent into the filter.
///
/// # Errors
/// It is no agent's name, or there are too many.
pub fn want_agent(filter: &mut Filter, name: &str) -> Result<(), InvalidEntry> {
    AgentName::check(name).map_err(|_| InvalidEntry("an agent's name is expected"))?;
    push(&mut filter.agents, name.into())
}

/// Takes one more result into the filter.
///
/// # Errors
/// There is no such result, or there are too many.
pub fn want_result(filter: &mut Filter, name: &str) -> Result<(), InvalidEntry> {
    let result = Outcome::from_name(name).ok_or(InvalidEntry("one of accepted, denied, error"))?;
    push(&mut filter.results, result)
}

/// Takes one more reason into the filter.
///
/// # Errors
/// There is no such reason, or there are too many.
pub fn want_reason(filter: &mut Filter, name: &str) -> Result<(), InvalidEntry> {
    let reason = Reason::from_name(name).ok_or(InvalidEntry("no such reason"))?;
    push(&mut filter.reasons, reason)
}

/// Takes one more kind of event into the filter.
///
/// # Errors
/// There is no such kind, or there are too many.
pub fn want_message_type(filter: &mut Filter, name: &str) -> Result<(), InvalidEntry> {
    let kind = MessageType::from_name(name).ok_or(InvalidEntry("no event has this message_type"))?;
    push(&mut filter.message_types, kind)
}

fn push<T>(list: &mut Vec<T>, entry: T) -> Result<(), InvalidEntry> {
    if list.len() >= limits::FILTER_ENTRIES {
        return Err(InvalidEntry("at most 64 entries"));
    }
    list.push(entry);
    Ok(())
}

/// Whether the text can be a stream's name. What is no name is shown to nobody.
#[must_use]
pub fn is_stream_id(text: &str) -> bool {
    text.len() <= limits::STREAM_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The decisions as one watcher is given them.
pub struct Feed {
    subscription: Subscription,
    right: Right,
    /// Said before anything else.
    first: Option<Item>,
}

/// The right to watch, looked at from time to time.
struct Right {
    door: Door,
    peer: Option<Arc<Peer>>,
    headers: HeaderMap,
    drain: CancellationToken,
    look: tokio::time::Interval,
}

/// Whether the caller may watch.
///
/// # Errors
/// Why not.
pub fn may_watch(engine: &Engine, policy: &Policy, caller: &Caller) -> Result<(), Refused> {
    engine.may_audit(policy, caller).map_err(Refused::Denied)
}

impl Feed {
    /// Begins the feed of a visit's caller, who is known by these headers and this connection. It lasts until
    /// `drain` at the longest.
    ///
    /// # Errors
    /// It has no right to it, or as many watch as may.
    pub fn begin(
        door: &Door,
        visit: &Visit,
        (peer, headers): (Option<Arc<Peer>>, HeaderMap),
        since: Since<'_>,
        filter: Filter,
        drain: CancellationToken,
    ) -> Result<Self, Refused> {
        may_watch(door.engine(), visit.policy(), &visit.caller)?;
        let subscription = door.engine().events().subscribe(since, filter).map_err(Refused::Full)?;
        // Who begins now learns where that is, so that it can come back without a loss.
        let first = matches!(since, Since::Now).then(|| {
            let (stream_id, sequence) = subscription.position();
            Item::Heartbeat { stream_id, sequence }
        });
        let look = tokio::time::interval(LOOK_AT_RIGHT);
        let right = Right { door: door.clone(), peer, headers, drain, look };
        Ok(Self { subscription, right, first })
    }

    /// Gives each item to `sender`, as `write` makes it, and at the end what `end` makes, if the watcher still takes it.
    pub async fn deliver<T>(
        self,
        sender: mpsc::Sender<T>,
        write: impl Fn(&Item) -> T,
        end: impl Fn(&End) -> Option<T>,
    ) {
        let Self { mut subscription, mut right, mut first } = self;
        let ended = loop {
            let item = tokio::select! {
                ended = right.ended() => break ended,
                () = sender.closed() => return,
                item = next(&mut first, &mut subscription) => item,
            };
            let Some(item) = item else { break End::Over };
            // A slow watcher is waited for, but not longer than its right lasts.
            tokio::select! {
                biased;
                sent = sender.send(write(&item)) => if sent.is_err() { return },
                ended = right.ended() => break ended,
            }
        };
        if let Some(last) = end(&ended) {
            // A watcher that doesn't read is not told, either.
            let _ = sender.try_send(last);
        }
    }
}

async fn next(first: &mut Option<Item>, subscription: &mut Subscription) -> Option<Item> {
    match first.take() {
        Some(item) => Some(item),
        None => subscription.next().await,
    }
}

impl Right {
    /// Waits until the right ends, or the connection, or the service.
    async fn ended(&mut self) -> End {
        let Self { door, peer, headers, drain, look } = self;
        let peer = peer.as_ref();
        let closing = async {
            match peer {
                Some(peer) => peer.closing().await,
                None => std::future::pending().await,
            }
        };
        let looking = async {
            loop {
                look.tick().await;
                if let Err(refused) = still_may(door, peer, headers) {
                    return refused;
                }
            }
        };
        tokio::select! {
            () = drain.cancelled() => End::Leave,
            () = closing => End::Leave,
            refused = looking => End::Refused(refused),
        }
    }
}

fn still_may(door: &Door, peer: Option<&Arc<Peer>>, headers: &HeaderMap) -> Result<(), Refused> {
    let engine = door.engine();
    let policy = engine.policy();
    let caller = door.identify(peer, headers, &policy, engine.clock().now()).map_err(Refused::Nobody)?;
    may_watch(engine, &policy.policy, &caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_event_has_can_not_be_asked_for() {
        let mut filter = Filter::default();
        assert!(want_agent(&mut filter, "a b").is_err() && want_result(&mut filter, "refused").is_err());
        assert!(
            want_reason(&mut filter, "token_expired").is_err() && want_message_type(&mut filter, "gossip").is_err()
        );
        assert_eq!(filter, Filter::default());
        for _ in 0..limits::FILTER_ENTRIES {
            assert_eq!(want_reason(&mut filter, "TOKEN_EXPIRED"), Ok(()));
        }
        assert!(want_reason(&mut filter, "TOKEN_EXPIRED").is_err());
    }

    #[test]
    fn a_streams_name_breaks_no_line() {
        assert!(is_stream_id("") && is_stream_id("00000000000000ff"));
        for bad in ["a\nid: 1", "a:b", "a b", "ä", &"a".repeat(65)] {
            assert!(!is_stream_id(bad), "{bad:?}");
        }
    }
}
