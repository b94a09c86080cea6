//! Batches to the collector, and again until it takes them, refuses them, or the process ends.

use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::headers::Headers;
use super::record::{self, Origin};
use super::{Counters, Signal};
use crate::api::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::api::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use crate::api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use crate::api::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use crate::api::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use crate::api::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use crate::events::Published;

/// Events sent together.
const BATCH: usize = 512;
/// How long the first of them waits for company.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes sent together, about: collectors take messages of 4 MiB.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// The first wait after a failure; each is twice the one before, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Chance, for jitter.
pub(super) struct Random(Box<dyn Fn() -> u32 + Send>);

impl Random {
    pub(super) fn new(random: impl Fn() -> u32 + Send + 'static) -> Self {
        Self(Box::new(random))
    }

    /// Between a half and the whole of it, so that many who were refused together don't come back together.
    fn part_of(&self, wait: Duration) -> Duration {
        let half = wait.mul_f64(0.5);
        half.saturating_add(half.mul_f64(f64::from((self.0)()) / f64::from(u32::MAX)))
    }
}

/// What takes batches to the collector.
pub(super) struct Delivery {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Option<Headers>,
    pub(super) origin: Origin,
    pub(super) counters: Counters,
    pub(super) give_up: CancellationToken,
    pub(super) random: Random,
}

/// Records that fit into one message each.
#[derive(Default)]
struct Batch {
    logs: Vec<LogRecord>,
    spans: Vec<Span>,
    bytes: usize,
}

/// What both signals need to be sent.
struct Sending {
    headers: Mutex<Option<Headers>>,
    give_up: CancellationToken,
    random: Mutex<Random>,
}

/// How one request ended.
enum Answer {
    /// The collector took it, but for so many records.
    Taken(u64),
    /// It may take it later; how long it wants to be left alone, if it says.
    Later(Option<Duration>),
    /// It will never take it.
    Never,
}

impl Delivery {
    /// Delivers until the queue is over, or it is told to give up.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Published>) {
        let Self { endpoint, headers, origin, counters, give_up, random } = self;
        let sending = Sending { headers: Mutex::new(headers), give_up, random: Mutex::new(random) };
        // It connects when it is used, and again whenever it has to.
        let channel = endpoint.connect_lazy();
        let mut events = Vec::with_capacity(BATCH);
        loop {
            events.clear();
            if gather(&mut queue, &mut events).await == 0 {
                return;
            }
            for batch in batches(&events) {
                sending.both(&channel, &origin, &counters, batch).await;
            }
            if sending.give_up.is_cancelled() {
                queue.close();
                while let Some(event) = queue.recv().await {
                    counters.drop_event(&event);
                }
                return;
            }
        }
    }
}

/// Waits for an event, and a little for others; how many there are, none at the end.
async fn gather(queue: &mut mpsc::Receiver<Published>, events: &mut Vec<Published>) -> usize {
    if queue.recv_many(events, BATCH).await == 0 {
        return 0;
    }
    let until = Instant::now().checked_add(LINGER).unwrap_or_else(Instant::now);
    while events.len() < BATCH {
        match timeout_at(until, queue.recv_many(events, BATCH.saturating_sub(events.len()))).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    events.len()
}

/// The events' records, in as many messages as they need.
fn batches(events: &[Published]) -> Vec<Batch> {
    let mut all = Vec::new();
    let mut batch = Batch::default();
    for event in events {
        let log = Origin::log(event);
        batch.bytes = batch.bytes.saturating_add(log.encoded_len());
        batch.logs.push(log);
        batch.spans.extend(record::span(event));
        if batch.bytes >= BATCH_BYTES {
            all.push(std::mem::take(&mut batch));
        }
    }
    all.push(batch);
    all
}

impl Sending {
    /// Both signals at once: a collector that takes only one of them gets that.
    async fn both(&self, channel: &Channel, origin: &Origin, counters: &Counters, batch: Batch) {
        let Batch { logs, spans, bytes: _ } = batch;
        let (log_count, span_count) = (logs.len(), spans.len());
        let scope_logs = vec![ScopeLogs { scope: Some(Origin::scope()), log_records: logs }];
        let logs = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource: Some(origin.resource()), scope_logs }],
        };
        let scope_spans = vec![ScopeSpans { scope: Some(Origin::scope()), spans }];
        let spans = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource: Some(origin.resource()), scope_spans }],
        };
        let send_logs = async || {
            let request = self.request(logs.clone());
            let answer = LogsServiceClient::new(channel.clone()).export(request).await?.into_inner();
            Ok(answer.partial_success.map(|partial| partial.rejected_log_records).unwrap_or_default())
        };
        let send_spans = async || {
            let request = self.request(spans.clone());
            let answer = TraceServiceClient::new(channel.clone()).export(request).await?.into_inner();
            Ok(answer.partial_success.map(|partial| partial.rejected_spans).unwrap_or_default())
        };
        tokio::join!(
            self.deliver(&counters.logs, log_count, send_logs),
            self.deliver(&counters.traces, span_count, send_spans),
        );
    }

    /// Sends so many records until they are taken, refused or given up.
    async fn deliver(&self, signal: &Signal, count: usize, send: impl AsyncFn() -> Result<i64, Status>) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if count == 0 {
            return;
        }
        let mut wait = FIRST_WAIT;
        let mut failed = false;
        loop {
            let answer = self.give_up.run_until_cancelled(send()).await.map(|answer| read(signal, failed, answer));
            match answer {
                Some(Answer::Taken(refused)) => {
                    let refused = refused.min(count);
                    signal.exported.inc_by(count.saturating_sub(refused));
                    signal.dropped.inc_by(refused);
                    if failed {
                        tracing::info!(target: "export", signal = signal.name, "the collector takes records again");
                    }
                    return;
                }
                Some(Answer::Later(asked)) => {
                    failed = true;
                    self.refresh();
                    let pause = asked.unwrap_or_else(|| self.random.lock().part_of(wait));
                    let _ = self.give_up.run_until_cancelled(sleep(pause.min(LONGEST_WAIT))).await;
                    wait = wait.saturating_mul(2).min(LONGEST_WAIT);
                }
                Some(Answer::Never) => {
                    self.refresh();
                    signal.dropped.inc_by(count);
                    return;
                }
                None => {
                    signal.dropped.inc_by(count);
                    return;
                }
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(headers) = &*self.headers.lock() {
            headers.put(request.metadata_mut());
        }
        request
    }

    /// A credential may have been renewed.
    fn refresh(&self) {
        if let Some(headers) = &mut *self.headers.lock() {
            headers.refresh();
        }
    }
}

/// Reads an answer, counts a failure, and says the first of a row. The collector's own words stand in no log: it may
/// repeat what it was sent.
fn read(signal: &Signal, failed: bool, answer: Result<i64, Status>) -> Answer {
    let status = match answer {
        Ok(refused) => {
            let refused = u64::try_from(refused).unwrap_or_default();
            if refused > 0 {
                tracing::warn!(target: "export", signal = signal.name, refused, "the collector refused records");
            }
            return Answer::Taken(refused);
        }
        Err(status) => status,
    };
    signal.failures.inc();
    let read = retry(&status);
    let (signal, code) = (signal.name, status.code());
    match (&read, failed) {
        (Answer::Later(_), false) => {
            tracing::warn!(target: "export", signal, ?code, "the collector takes no records; they are sent again");
        }
        (Answer::Never, _) => {
            tracing::warn!(target: "export", signal, ?code, "the collector refused a batch, which is dropped");
        }
        _ => {}
    }
    read
}

/// Which failures may be tried again, by the OTLP specification; and what never reached a collector.
fn retry(status: &Status) -> Answer {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    if std::error::Error::source(status).is_some() {
        return Answer::Later(None);
    }
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Later(asked),
        Code::ResourceExhausted if asked.is_some() => Answer::Later(asked),
        Code::ResourceExhausted
        | Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => Answer::Never,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn only_what_the_protocol_allows_is_tried_again() {
        let codes = (0..=16).map(Code::from);
        let again: Vec<_> =
            codes.filter(|code| matches!(retry(&Status::new(*code, "")), Answer::Later(None))).collect();
        let allowed = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unavailable,
            Code::DataLoss,
        ];
        assert_eq!(again.len(), allowed.len());
        assert!(allowed.iter().all(|code| again.contains(code)), "{again:?}");
    }

    #[test]
    fn a_collector_says_when() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let status = Status::with_error_details(code, "", details.clone());
            assert!(matches!(retry(&status), Answer::Later(Some(asked)) if asked == Duration::from_secs(7)), "{code}");
        }
        assert!(matches!(retry(&Status::with_error_details(Code::Internal, "", details)), Answer::Never));
    }

    #[test]
    fn what_never_reached_a_collector_is_tried_again() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(retry(&Status::from_error(Box::new(broken))), Answer::Later(None)));
    }

    #[test]
    fn waits_are_spread_over_their_second_half() {
        let wait = Duration::from_secs(2);
        for (drawn, least) in [(0, 1.0), (u32::MAX / 2, 1.4), (u32::MAX, 2.0)] {
            let waited = Random::new(move || drawn).part_of(wait);
            assert!(waited.as_secs_f64() >= least && waited <= wait, "{waited:?}");
        }
    }
}
