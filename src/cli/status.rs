//! `remit status`: how is the service doing?

use clap::Args;
use serde_json::{Value, json};

use super::client::ClientArgs;
use super::output::{self, Answer, Output};
use super::refusal::Refusal;
use super::{CliError, Outcome};
use crate::api::{GetStatusRequest, GetStatusResponse, StoreStatus};

/// Ask how the service is doing, on its admin listener. Administrators only.
#[derive(Args)]
#[command(after_help = "Example:\n  remit status --as ops-admin\n\nThe exit status is 1 if the service is not ready.")]
pub(super) struct Status {
    #[command(flatten)]
    client: ClientArgs,
}

impl Status {
    pub(super) async fn run(self, output: Output) -> Result<Outcome, CliError> {
        let response = match self.client.admin().await?.get_status(GetStatusRequest {}).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Refusal::from_status(&status)?.print(output),
        };
        let title = if response.ready { "ready" } else { "not ready" }.to_owned();
        Answer { title: Some(title), rows: rows(&response), json: as_json(&response) }.print(output)?;
        Ok(if response.ready { Outcome::Done } else { Outcome::Denied })
    }
}

fn rows(response: &GetStatusResponse) -> Vec<(&'static str, String)> {
    let positive = |count: u64| if count == 0 { String::new() } else { count.to_string() };
    let policy = format!(
        "{}, loaded {}",
        output::policy(response.policy_revision, &response.policy_digest),
        output::moment(response.policy_loaded_at.as_ref())
    );
    vec![
        ("attention", response.details.join("; ")),
        ("version", response.version.clone()),
        ("started", output::moment(response.started_at.as_ref())),
        ("policy", policy),
        ("policy file", response.policy_file.clone()),
        ("policy reload failures", positive(response.policy_reload_failures)),
        ("keys", response.keyring_keys.to_string()),
        ("state", response.state_backend.clone()),
        ("state directory", response.state_directory.clone()),
        ("waiting for the disk", positive(response.state_waiting)),
        ("failed writes", positive(response.state_failures)),
        ("live tokens", live_tokens(response)),
        ("store", response.store.as_ref().map(store).unwrap_or_default()),
        ("quarantined agents", positive(response.quarantined_agents)),
        ("state revision", response.state_revision.to_string()),
        ("events", response.event_sequence.to_string()),
        ("subscribers", response.subscribers.to_string()),
        ("audit file", response.audit_file.clone()),
    ]
}

fn live_tokens(response: &GetStatusResponse) -> String {
    match response.store {
        None => format!("{} of {}", response.ledger_entries, response.ledger_capacity),
        Some(_) => String::new(),
    }
}

fn store(store: &StoreStatus) -> String {
    let StoreStatus { up, address, epoch, keys, .. } = store;
    let state = if *up { "up" } else { "not answering" };
    format!("{state}, {address}, epoch {epoch}, {keys} keys")
}

fn store_json(store: &StoreStatus) -> Value {
    let seconds = |age: prost_types::Duration| std::time::Duration::try_from(age).ok().map(|age| age.as_secs_f64());
    json!({
        "up": store.up,
        "address": store.address,
        "epoch": store.epoch,
        "epoch_changes": store.epoch_changes,
        "reconnects": store.reconnects,
        "last_contact_seconds": store.last_contact.and_then(seconds),
        "copy_age_seconds": store.copy_age.and_then(seconds),
        "settings": store.settings,
        "keys": store.keys,
    })
}

fn as_json(response: &GetStatusResponse) -> Value {
    json!({
        "version": response.version,
        "started_at": output::json_moment(response.started_at.as_ref()),
        "now": output::json_moment(response.now.as_ref()),
        "ready": response.ready,
        "details": response.details,
        "policy_revision": response.policy_revision,
        "policy_digest": response.policy_digest,
        "policy_loaded_at": output::json_moment(response.policy_loaded_at.as_ref()),
        "policy_reload_failures": response.policy_reload_failures,
        "state_backend": response.state_backend,
        "state_directory": response.state_directory,
        "state_waiting": response.state_waiting,
        "state_failures": response.state_failures,
        "ledger_entries": response.ledger_entries,
        "ledger_capacity": response.ledger_capacity,
        "fence": output::json_moment(response.fence.as_ref()),
        "state_revision": response.state_revision,
        "quarantined_agents": response.quarantined_agents,
        "stream_id": response.stream_id,
        "event_sequence": response.event_sequence,
        "subscribers": response.subscribers,
        "keyring_keys": response.keyring_keys,
        "policy_file": response.policy_file,
        "audit_file": response.audit_file,
        "store": response.store.as_ref().map(store_json),
    })
}
