//! `remit.v1.AdminService`: for administrators, on a listener of its own.

use std::pin::Pin;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::authenticate::enter;
use super::{status, wire};
use crate::api as pb;
use crate::domain::policy::{AgentPolicy, Policy};
use crate::domain::time::Timestamp;
use crate::door::{Door, Visit};
use crate::readiness::{Condition, Examine};
use crate::state::StoreReport;

/// A reload on its way: whether the policy changed, or why nothing did, for the operator to read.
pub type Reloading = Pin<Box<dyn Future<Output = Result<bool, String>> + Send>>;
/// Reads the policy file now.
pub type ReloadPolicy = Arc<dyn Fn() -> Reloading + Send + Sync>;

/// Answers operators.
pub struct AdminService {
    door: Door,
    reload: ReloadPolicy,
    examine: Examine,
}

impl AdminService {
    /// A service behind this door.
    #[must_use]
    pub fn new(door: Door, reload: ReloadPolicy, examine: Examine) -> Self {
        Self { door, reload, examine }
    }

    /// By which its callers come in.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    fn enter<T>(&self, request: &Request<T>) -> Result<Arc<Visit>, Status> {
        let visit = enter(&self.door, request)?;
        let may = self.door.engine().may_administer(visit.policy(), &visit.caller);
        may.map_err(|denial| status::refusal(&denial))?;
        Ok(visit)
    }
}

#[tonic::async_trait]
impl pb::admin_service_server::AdminService for AdminService {
    async fn get_policy(
        &self,
        request: Request<pb::GetPolicyRequest>,
    ) -> Result<Response<pb::GetPolicyResponse>, Status> {
        let visit = self.enter(&request)?;
        let policy = &visit.beginning.in_force;
        Ok(Response::new(pb::GetPolicyResponse {
            policy_revision: policy.policy.id.revision,
            policy_digest: policy.policy.id.digest.to_string(),
            loaded_at: Some(wire::timestamp(policy.loaded_at)),
            document: String::from_utf8_lossy(&policy.source).into_owned(),
            warnings: policy.warnings.clone(),
        }))
    }

    async fn reload_policy(
        &self,
        request: Request<pb::ReloadPolicyRequest>,
    ) -> Result<Response<pb::ReloadPolicyResponse>, Status> {
        self.enter(&request)?;
        let changed = (self.reload)().await.map_err(Status::failed_precondition)?;
        let id = self.door.engine().policy().policy.id.clone();
        Ok(Response::new(pb::ReloadPolicyResponse {
            policy_revision: id.revision,
            policy_digest: id.digest.to_string(),
            changed,
        }))
    }

    async fn list_revocations(
        &self,
        request: Request<pb::ListRevocationsRequest>,
    ) -> Result<Response<pb::ListRevocationsResponse>, Status> {
        let visit = self.enter(&request)?;
        Ok(Response::new(revocations(&self.door, visit.policy())))
    }

    async fn list_agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let visit = self.enter(&request)?;
        let policy = visit.policy();
        let engine = self.door.engine();
        let mut agents = policy
            .agents
            .iter()
            .map(|(name, entry)| agent(name.as_str(), entry, engine.is_quarantined(policy, name.as_str())))
            .collect::<Vec<_>>();
        agents.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(pb::ListAgentsResponse { agents }))
    }

    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let visit = self.enter(&request)?;
        Ok(Response::new(service_status(&self.door, visit.policy(), (self.examine)())))
    }
}

fn revocations(door: &Door, policy: &Policy) -> pb::ListRevocationsResponse {
    use pb::list_revocations_response::{Quarantine, Revocation};
    let revocation = |kind: &str, target: String, number: u64, at: Timestamp| Revocation {
        kind: kind.to_owned(),
        target,
        number,
        revoked_at: Some(wire::timestamp(at)),
    };
    let state = door.engine().state();
    let unknown = state.unknown_revocations();
    let owned = |sources: Vec<&str>| sources.into_iter().map(ToOwned::to_owned).collect();
    let quarantines = door.engine().quarantines(policy).into_iter();
    let quarantines =
        quarantines.map(|(agent, sources)| Quarantine { agent, sources: owned(sources) }).collect::<Vec<_>>();
    state.standing(|standing| {
        let all = standing.all().map(|cutoff| revocation("all", String::new(), cutoff.number, cutoff.at));
        let agents =
            standing.agents().map(|(name, cutoff)| revocation("agent", name.to_string(), cutoff.number, cutoff.at));
        let kept = crate::domain::limits::UNKNOWN_REVOCATION_SECONDS;
        let tokens = unknown.iter().map(|(id, until)| {
            revocation("token", id.to_string(), 0, Timestamp::from_seconds(until.saturating_sub(kept)))
        });
        pb::ListRevocationsResponse {
            revocations: all.into_iter().chain(agents).chain(tokens).collect(),
            quarantines: quarantines.clone(),
            state_revision: standing.number(),
        }
    })
}

fn agent(name: &str, entry: &AgentPolicy, quarantined: bool) -> pb::list_agents_response::Agent {
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let rule = entry.rule.as_ref();
    let mut roles = Vec::new();
    let held = [
        (entry.roles.administrator, "administrator"),
        (entry.roles.auditor, "auditor"),
        (entry.roles.enforcement_point.is_some(), "enforcement_point"),
    ];
    roles.extend(held.into_iter().filter(|(has, _)| *has).map(|(_, role)| role.to_owned()));
    pb::list_agents_response::Agent {
        name: name.to_owned(),
        may_start_chain: entry.starts_chains,
        can_delegate_to: rule
            .map(|rule| sorted(rule.can_delegate_to.iter().map(ToString::to_string).collect()))
            .unwrap_or_default(),
        capabilities: rule
            .map(|rule| sorted(rule.capabilities.iter().map(ToString::to_string).collect()))
            .unwrap_or_default(),
        resources: rule.map(|rule| rule.resources.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        roles,
        quarantined,
    }
}

fn service_status(door: &Door, policy: &Policy, condition: Condition) -> pb::GetStatusResponse {
    let engine = door.engine();
    let state = engine.state();
    let (entries, capacity) = state.size().map(|(entries, capacity)| (entries, capacity.entries)).unwrap_or_default();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let numbers = engine.events().numbers();
    let revision = state.standing(crate::state::standing::Standing::number);
    let ready = condition.is_ready();
    let written = state.report();
    pb::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(wire::timestamp(condition.started_at)),
        now: Some(wire::timestamp(engine.clock().now())),
        ready,
        details: condition.not_ready.into_iter().chain(condition.attention).collect(),
        policy_revision: policy.id.revision,
        policy_digest: policy.id.digest.to_string(),
        policy_loaded_at: Some(wire::timestamp(condition.policy_loaded_at)),
        policy_reload_failures: condition.policy_reload_failures,
        state_backend: state.backend().to_owned(),
        ledger_entries: count(entries),
        ledger_capacity: count(capacity),
        fence: Some(wire::timestamp(state.fence())),
        state_revision: revision,
        quarantined_agents: count(engine.quarantines(policy).len()),
        stream_id: engine.events().stream_id().to_string(),
        event_sequence: numbers.sequence,
        subscribers: count(numbers.subscribers),
        keyring_keys: count(engine.keyring().len()),
        policy_file: condition.policy_file.display().to_string(),
        state_directory: written.directory.map(|path| path.display().to_string()).unwrap_or_default(),
        state_waiting: written.waiting,
        state_failures: written.failures,
        audit_file: condition.audit_file.map(|file| file.display().to_string()).unwrap_or_default(),
        store: written.store.map(store_status),
    }
}

fn store_status(store: StoreReport) -> pb::StoreStatus {
    // What doesn't fit is hundreds of years.
    let duration = |age: std::time::Duration| prost_types::Duration::try_from(age).ok();
    pb::StoreStatus {
        up: store.is_up,
        address: store.address,
        epoch: store.epoch,
        epoch_changes: store.epoch_changes,
        reconnects: store.reconnects,
        last_contact: store.last_contact.and_then(duration),
        copy_age: store.copy_age.and_then(duration),
        settings: store.settings.into_iter().collect(),
        keys: store.keys,
    }
}
