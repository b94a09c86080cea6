//! Events to a collector, as log records and spans. Each is a log record, and each decision whose trace is sampled a span, sent
//! as OTLP over gRPC.
//!
//! It watches the stream of written events as any subscriber does, on a thread of its own: no decision waits for it, and
//! no decision knows of it. What the collector does not take in time is dropped and counted.

mod deliver;
mod endpoint;
mod headers;
mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::events::{Event, Events, Filter, Item, Published, Since, Subscription, TooManySubscribers};
use deliver::{Delivery, Random};
pub use endpoint::{Collector, InvalidEndpoint};
pub use headers::{Headers, InvalidHeaders};
use record::Origin;

/// Events that wait for the collector. They share their memory with the ring of the stream, where that still has them.
const QUEUE: usize = 16_384;
/// Events between two chances for others of the thread.
const TURN: u32 = 256;

/// To whom events are sent.
#[derive(Clone)]
pub struct Settings {
    /// Where the collector is.
    pub collector: Collector,
    /// A PEM file with the CAs that the collector's certificate comes from; none: the system's.
    pub ca: Option<PathBuf>,
    /// A file with headers for each request, such as a credential; closed to others.
    pub headers: Option<PathBuf>,
}

/// Why nothing can be sent.
#[derive(Debug)]
pub enum ExportError {
    /// The CAs can't be read, or TLS can't be set up with them.
    Tls(String),
    /// The headers can't be read.
    Headers(InvalidHeaders),
    /// As many watch the events as may.
    Subscribers(TooManySubscribers),
    /// The thread can't be started.
    Thread(std::io::Error),
}

impl std::fmt::Display for ExportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(why) => write!(f, "otlp_ca: {why}"),
            Self::Headers(error) => write!(f, "otlp_headers_file: {error}"),
            Self::Subscribers(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "the exporter's thread can't be started: {error}"),
        }
    }
}

impl std::error::Error for ExportError {}

/// What became of log records and of spans, each by itself.
#[derive(Clone)]
pub struct Counters {
    logs: Signal,
    traces: Signal,
}

/// The counters of one kind of record.
#[derive(Clone)]
struct Signal {
    name: &'static str,
    exported: IntCounter,
    dropped: IntCounter,
    failures: IntCounter,
}

impl Counters {
    /// Counters in this registry, at 0.
    ///
    /// # Errors
    /// A name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &["signal"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let exported = counters("remit_otlp_exported_total", "Log records and spans that the collector took.")?;
        let dropped = counters(
            "remit_otlp_dropped_total",
            "Log records and spans that were given up, or that it refused. An event that was missed counts as both.",
        )?;
        let failures = counters("remit_otlp_failures_total", "Requests to the collector that failed.")?;
        let signal = |name: &'static str| Signal {
            name,
            exported: exported.with_label_values(&[name]),
            dropped: dropped.with_label_values(&[name]),
            failures: failures.with_label_values(&[name]),
        };
        Ok(Self { logs: signal("logs"), traces: signal("traces") })
    }

    fn drop_event(&self, event: &Event) {
        self.logs.dropped.inc();
        if record::is_span(event) {
            self.traces.dropped.inc();
        }
    }

    /// Events that were gone before they were read. Whether their traces were sampled nobody knows any more: each may
    /// have been a span, and one too many is seen where one too few is not.
    fn drop_unseen(&self, events: u64) {
        self.logs.dropped.inc_by(events);
        self.traces.dropped.inc_by(events);
    }
}

/// The exporter at work. When it is dropped, it gives up.
pub struct Exporter {
    finished: watch::Receiver<bool>,
    give_up: CancellationToken,
}

impl Exporter {
    /// Sends every event from now on. `random` gives the jitter of retries.
    ///
    /// # Errors
    /// What it needs can't be read, or too many watch.
    pub fn start(
        settings: &Settings,
        events: &Events,
        counters: Counters,
        random: impl Fn() -> u32 + Send + 'static,
    ) -> Result<Self, ExportError> {
        let subscription = events.subscribe(Since::Now, Filter::default()).map_err(ExportError::Subscribers)?;
        let stream_id = Arc::clone(events.stream_id());
        let endpoint = settings.collector.endpoint(settings.ca.as_deref())?;
        let headers = settings.headers.clone().map(Headers::read).transpose().map_err(ExportError::Headers)?;
        let (finish, finished) = watch::channel(false);
        let give_up = CancellationToken::new();
        let delivery = Delivery {
            endpoint,
            headers,
            origin: Origin { stream_id },
            counters: counters.clone(),
            give_up: give_up.clone(),
            random: Random::new(random),
        };
        let (tell, told) = std::sync::mpsc::channel();
        let work = move || {
            // Made here, since it can't be dropped where others run.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(error)),
            };
            drop(tell);
            let (sender, queue) = mpsc::channel(QUEUE);
            let reading = read(subscription, sender, counters);
            runtime.block_on(async { tokio::join!(reading, delivery.run(queue)) });
            finish.send_replace(true);
        };
        std::thread::Builder::new().name("remit-export".to_owned()).spawn(work).map_err(ExportError::Thread)?;
        told.recv().map_or(Ok(()), |error| Err(ExportError::Thread(error)))?;
        Ok(Self { finished, give_up })
    }

    /// Sends what is left, once the stream of events is over; whether everything was taken or refused within this time.
    pub async fn finish(mut self, within: Duration) -> bool {
        let finished = tokio::time::timeout(within, self.finished.wait_for(|finished| *finished)).await.is_ok();
        if !finished {
            self.give_up.cancel();
            // It counts what it drops.
            let _ = tokio::time::timeout(within, self.finished.wait_for(|finished| *finished)).await;
        }
        finished
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.give_up.cancel();
    }
}

/// Takes events from the stream as they come. One for which there is no room is dropped: it must not hold up the others.
async fn read(mut subscription: Subscription, queue: mpsc::Sender<Published>, counters: Counters) {
    let mut count: u32 = 0;
    while let Some(item) = subscription.next().await {
        match item {
            Item::Event(event) => match queue.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => counters.drop_event(&event),
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            },
            Item::Gap { from, to, .. } => counters.drop_unseen(to.saturating_sub(from).saturating_add(1)),
            Item::Heartbeat { .. } => {}
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;
    use crate::domain::time::Timestamp;
    use crate::domain::trace::TraceContext;
    use crate::events::{AuditConfig, EventsConfig, MessageType, Outcome};

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[tokio::test]
    async fn what_it_came_too_late_for_is_missing_among_logs_and_spans() {
        let config = EventsConfig { ring: 64, subscriber_buffer: 16, ..EventsConfig::default() };
        let events = Events::start(&AuditConfig::default(), &config, 1, Timestamp::default).unwrap();
        let subscription = events.subscribe(Since::Now, Filter::default()).unwrap();
        for _ in 0..100 {
            let place = events.reserve().await.unwrap();
            let id = events.decision_id();
            let kind = MessageType::CapabilityRequest;
            let mut event = Event::new(kind, Outcome::Accepted, Reason::Allowed, id, Timestamp::default());
            event.trace = TraceContext::parse(SAMPLED);
            place.commit(event);
        }
        events.shutdown(Duration::from_secs(10)).await.unwrap();
        let counters = Counters::new(&Registry::new()).unwrap();
        let (sender, mut queue) = mpsc::channel(40);
        read(subscription, sender, counters.clone()).await;
        let mut taken = 0;
        while queue.recv().await.is_some() {
            taken += 1;
        }
        assert_eq!(taken, 40, "what there was room for");
        for signal in [counters.logs, counters.traces] {
            assert_eq!(signal.dropped.get(), 100 - 40, "{}", signal.name);
        }
    }
}
