//! The metrics page: Prometheus' text format 0.0.4, or `OpenMetrics` for who asks for it.

mod openmetrics;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus::{Encoder as _, TextEncoder};

use super::Pages;
use crate::domain::time::Timestamp;
use crate::engine::InForce;
use crate::events::Numbers;
use crate::readiness::Condition;
use crate::state::StoreReport;

pub(super) async fn page(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    pages.door.engine().tally().refresh(pages.door.engine().clock().now());
    let mut bytes = Vec::new();
    if TextEncoder::new().encode(&pages.registry.gather(), &mut bytes).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response();
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    sampled(&mut Samples(&mut text), &pages);
    let (kind, text) = if openmetrics::is_asked_for(&headers) {
        (openmetrics::CONTENT_TYPE, openmetrics::from_text(&text))
    } else {
        (prometheus::TEXT_FORMAT, text)
    };
    ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], text).into_response()
}

/// Numbers that other rooms keep anyway, read when somebody asks for them.
fn sampled(samples: &mut Samples<'_>, pages: &Pages) {
    let engine = &pages.door.engine();
    let condition = (pages.examine)();
    let in_force = engine.policy();
    let policy = &in_force.policy;
    file(samples, &in_force, &condition);
    samples.gauge("remit_ready", "1 while requests can be answered, as /readyz says.", u8::from(condition.is_ready()));

    let keys = number(engine.keyring().len());
    samples.gauge("remit_keyring_keys", "HMAC keys in the keyring.", keys);
    samples.head("remit_certificate_expiry_timestamp_seconds", "End of the service's own certificates.", "gauge");
    for (role, until) in &condition.certificate_expiries {
        samples.line(&format!("remit_certificate_expiry_timestamp_seconds{{role=\"{role}\"}}"), until.seconds());
    }

    samples.head(
        "remit_jwks_last_refresh_timestamp_seconds",
        "When an issuer's keys were last fetched; 0: never.",
        "gauge",
    );
    for issuer in pages.door.identity().sources().issuers.status(engine.clock().now()) {
        // An issuer is what the settings say, whatever characters that has.
        let name = issuer.issuer.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let series = format!("remit_jwks_last_refresh_timestamp_seconds{{issuer=\"{name}\"}}");
        samples.line(&series, issuer.refreshed_at.map_or(0, Timestamp::seconds));
    }

    state(samples, engine.state());
    if let Some((entries, capacity)) = engine.state().size() {
        samples.gauge("remit_ledger_entries", "Live tokens in the ledger.", number(entries));
        samples.gauge("remit_ledger_capacity", "Live tokens that the ledger has room for.", number(capacity.entries));
    }
    let unknown = engine.state().unknown_revocation_count();
    let by_name = engine.state().standing(crate::state::standing::Standing::len);
    samples.gauge(
        "remit_revocations",
        "Revocations by agent, of all, and of unknown ids in force.",
        number(unknown.saturating_add(by_name)),
    );
    quarantines(samples, &engine.quarantines(policy));
    samples.moment(
        "remit_fence_timestamp_seconds",
        "Tokens of other issuers made up to this moment are refused.",
        engine.state().fence(),
    );

    evidence(samples, engine.events().numbers());

    samples.gauge("remit_connections", "Open gRPC connections.", condition.connections.open);
    samples.counter("remit_connections_accepted_total", "gRPC connections accepted.", condition.connections.accepted);
    let failures = condition.connections.handshake_failures;
    samples.counter("remit_handshake_failures_total", "gRPC connections that failed in the handshake.", failures);
    let ahead = engine.clock().ahead_of_wall().as_secs_f64();
    samples.gauge(
        "remit_clock_ahead_seconds",
        "How far the time, which never goes back, is ahead of the wall clock.",
        ahead,
    );
}

/// The policy in force, and how the file that it is of does.
fn file(samples: &mut Samples<'_>, in_force: &InForce, condition: &Condition) {
    samples.gauge("remit_policy_revision", "Policies put in force since the start.", in_force.policy.id.revision);
    samples.moment("remit_policy_loaded_timestamp_seconds", "When the policy in force was loaded.", in_force.loaded_at);
    let failures = condition.policy_reload_failures;
    samples.counter("remit_policy_reload_failures_total", "Times the policy file was found broken.", failures);
    // Named as Prometheus and Alertmanager name theirs.
    samples.gauge(
        "remit_policy_last_reload_successful",
        "1 while the policy file, as it was last read, is what is in force.",
        u8::from(condition.is_policy_current),
    );
    samples.moment(
        "remit_policy_checked_timestamp_seconds",
        "When the policy file was last read and found valid, changed or not.",
        condition.policy_checked_at,
    );
}

/// The events, and how recording them goes.
fn evidence(samples: &mut Samples<'_>, events: Numbers) {
    samples.gauge("remit_event_sequence", "Number of the last event.", events.sequence);
    samples.gauge("remit_subscribers", "Subscribers of the event stream.", number(events.subscribers));
    samples.counter("remit_event_gaps_total", "Gaps that were reported to slow subscribers.", events.gaps);
    samples.counter(
        "remit_audit_failures_total",
        "Failed writes of the audit log and answers that could not be recorded.",
        events.audit_failures,
    );
    samples.counter(
        "remit_audit_denials_unrecorded_total",
        "Denials beyond their share of the audit queue.",
        events.denials_unrecorded,
    );

    samples.gauge(
        "remit_audit_well",
        "1 while what is decided can be recorded in the audit log.",
        u8::from(events.is_well),
    );
    samples.gauge("remit_audit_waiting", "Events that wait to be written.", number(events.waiting));
}

/// Who is under the kill switch, and how many of them who put there: an agent may stand under several.
fn quarantines(samples: &mut Samples<'_>, sources: &BTreeMap<String, Vec<&'static str>>) {
    samples.gauge("remit_quarantined_agents", "Agents under the kill switch.", number(sources.len()));
    samples.head(
        "remit_quarantines",
        "Agents under the kill switch by what put them there: api, automatic, or the policy file.",
        "gauge",
    );
    for source in ["api", "automatic", "file"] {
        let agents = sources.values().filter(|of_agent| of_agent.contains(&source)).count();
        samples.line(&format!("remit_quarantines{{source=\"{source}\"}}"), number(agents));
    }
}

/// How writing to the state directory goes.
fn state(samples: &mut Samples<'_>, state: &crate::state::State) {
    let report = state.report();
    let backend = state.backend();
    samples.head("remit_state_info", "The backend in use, always 1.", "gauge");
    samples.line(&format!("remit_state_info{{backend=\"{backend}\"}}"), 1);
    let is_well = u8::from(report.trouble.is_empty() && report.halted.is_none());
    samples.gauge("remit_state_well", "1 while the state directory can be written to, and the store answers.", is_well);
    samples.gauge("remit_state_waiting", "Changes that wait to be on the disk.", report.waiting);
    samples.counter("remit_state_failures_total", "Writes to the state directory that failed.", report.failures);
    if let Some(report) = &report.store {
        store(samples, report);
    }
}

/// How the shared store is. What has never been is infinitely long ago.
fn store(samples: &mut Samples<'_>, report: &StoreReport) {
    let age =
        |age: Option<std::time::Duration>| age.map_or_else(|| "+Inf".to_owned(), |age| age.as_secs_f64().to_string());
    samples.gauge("remit_store_up", "1 while the store answers, so that requests are decided.", u8::from(report.is_up));
    samples.gauge("remit_store_last_contact_seconds", "Since the store last answered.", age(report.last_contact));
    samples.gauge(
        "remit_store_copy_age_seconds",
        "Age of the copy of revocations and quarantines.",
        age(report.copy_age),
    );
    samples.counter(
        "remit_store_epoch_changes_total",
        "Epochs that ended, and with each every token: the primary changed, or the store was emptied.",
        report.epoch_changes,
    );
    samples.counter("remit_store_reconnects_total", "Connections to the store after the first.", report.reconnects);
    samples.gauge("remit_store_keys", "Keys in the store's database when it was last looked at.", report.keys);
    let wrong = number(report.wrong_settings.len());
    samples.gauge("remit_store_wrong_settings", "Settings of the store that are not what they have to be.", wrong);
}

struct Samples<'t>(&'t mut String);

impl Samples<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.line(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, value);
    }

    fn moment(&mut self, name: &str, help: &str, at: Timestamp) {
        let millis = at.subsecond_nanos() / 1_000_000;
        self.gauge(name, help, format_args!("{}.{millis:03}", at.seconds()));
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, series: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{series} {value}");
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
