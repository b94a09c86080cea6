//! `remit.v1.PolicyDecisionService`.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::authenticate::enter;
use super::{evidence, introduction, status, watch_decisions, wire};
use crate::api as pb;
use crate::domain::caller::VerifiedIdentity;
use crate::domain::limits;
use crate::domain::policy::Policy;
use crate::domain::reason::Denial;
use crate::door::{Door, Visit};
use crate::engine::{BatchItem, Decision, NotReinstated, Verb};
use tokio_util::sync::CancellationToken;

/// Answers agents and the services that guard something.
pub struct DecisionService {
    door: Door,
    shutdown: CancellationToken,
}

impl DecisionService {
    /// A service behind this door; its streams end at shutdown.
    #[must_use]
    pub fn new(door: Door, shutdown: CancellationToken) -> Self {
        Self { door, shutdown }
    }

    /// By which its callers come in.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    async fn decide(&self, visit: &Visit, request: &pb::AuthorizeRequest) -> Result<Decision, wire::Malformed> {
        let malformed = |_: &wire::Malformed| self.door.engine().tally().malformed(Verb::Authorize);
        let mut question = wire::authorize(request, visit.deadline).inspect_err(malformed)?;
        introduction::check(&self.door, request).inspect_err(malformed)?;
        let evidence = evidence::of_agent(&self.door, visit, request).inspect_err(malformed)?;
        question.agent_evidence = evidence.as_ref().map(|found| found.as_ref().map(AsRef::as_ref));
        Ok(self.door.engine().authorize_under(&visit.beginning, &visit.caller, &question).await)
    }

    /// One of a batch: the batch has no answer until the last of them has one, so that what comes after the deadline is
    /// denied in its place.
    async fn authorize_one(&self, visit: &Visit, request: &pb::AuthorizeRequest) -> pb::AuthorizeResponse {
        let decided = match self.door.engine().in_time(visit.deadline) {
            Ok(()) => self.decide(visit, request).await,
            Err(late) => self.too_late(visit, request, late),
        };
        match decided {
            Ok(decided) => introduction::answer(&self.door, visit, request, decided),
            Err(malformed) => {
                let engine = self.door.engine();
                let id = engine.events().decision_id();
                wire::malformed_response(&malformed, id, &visit.policy().id, request.dry_run)
            }
        }
    }

    fn too_late(
        &self,
        visit: &Visit,
        request: &pb::AuthorizeRequest,
        late: Denial,
    ) -> Result<Decision, wire::Malformed> {
        let engine = self.door.engine();
        let question = wire::authorize(request, visit.deadline);
        let question = question.inspect_err(|_| engine.tally().malformed(Verb::Authorize))?;
        Ok(engine.refuse_under(&visit.beginning, &visit.caller, &question, late))
    }

    /// The same for a delegation.
    async fn delegate_one_of_batch(
        &self,
        visit: &Visit,
        request: &pb::DelegateRequest,
    ) -> Result<pb::DelegateResponse, Refusal> {
        let engine = self.door.engine();
        let Err(late) = engine.in_time(visit.deadline) else { return self.delegate_one(visit, request).await };
        let wished = wire::delegate(request, visit.deadline)
            .inspect_err(|_| engine.tally().malformed(Verb::Delegate))
            .map_err(Refusal::Malformed)?;
        let refused = engine.refuse_delegation_under(&visit.beginning, &visit.caller, &wished, late);
        wire::delegate_response(refused).map_err(Refusal::Denied)
    }

    async fn delegate_one(
        &self,
        visit: &Visit,
        request: &pb::DelegateRequest,
    ) -> Result<pb::DelegateResponse, Refusal> {
        let taken_apart = || {
            let mut wished = wire::delegate(request, visit.deadline)?;
            if let Some(user) = evidence::of_user(&self.door, request)? {
                wished.wish.on_behalf_of = Some(user.name.into());
                wished.expires_by = Some(user.expires_at);
            }
            Ok(wished)
        };
        let wished = taken_apart()
            .inspect_err(|_| self.door.engine().tally().malformed(Verb::Delegate))
            .map_err(Refusal::Malformed)?;
        let delegated = self.door.engine().delegate_under(&visit.beginning, &visit.caller, &wished).await;
        wire::delegate_response(delegated).map_err(Refusal::Denied)
    }
}

/// Why there is no token: the request is not of its form, or the answer is no.
enum Refusal {
    Malformed(wire::Malformed),
    Denied(Denial),
}

/// Metadata of the answer to an Authorize that came too often: when to come back, in milliseconds.
const RETRY_AFTER_METADATA: &str = "remit-retry-after-ms";

/// The codec counts before it decodes.
const _: () = assert!(limits::BATCH_ITEMS == crate::api::codec::BATCH_ITEMS, "two bounds on a batch");

/// Does it also where the caller goes away meanwhile: what is in force is recorded, and told to everybody.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(Status::unavailable("the service is stopping: ask again")))
}

/// At most: a pair that is not trusted gets one where it states none.
fn uses_of_parent(policy: &Policy, request: &pb::DelegateRequest) -> u32 {
    request.max_uses.map_or(policy.token.default_max_uses, |uses| u32::try_from(uses).unwrap_or(u32::MAX))
}

fn within_batch(items: usize) -> Result<(), Status> {
    if items <= limits::BATCH_ITEMS {
        return Ok(());
    }
    let why = format!("at most {} in a batch", limits::BATCH_ITEMS);
    Err(status::malformed(&wire::Malformed::new("requests", why)))
}

#[tonic::async_trait]
impl pb::policy_decision_service_server::PolicyDecisionService for DecisionService {
    type WatchDecisionsStream = ReceiverStream<Result<pb::WatchDecisionsResponse, Status>>;

    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let decided =
            self.decide(&visit, request.get_ref()).await.map_err(|malformed| status::malformed(&malformed))?;
        match &decided.outcome {
            // What is malformed in the light of the policy is as malformed as any other request.
            Err(denial) if denial.reason() == crate::domain::reason::Reason::RequestMalformed => {
                Err(status::malformed(&wire::Malformed::new("agent", denial.message().clone())))
            }
            outcome => {
                let wait = outcome.as_ref().err().and_then(Denial::wait_millis);
                let answer = introduction::answer(&self.door, &visit, request.get_ref(), decided);
                let mut response = Response::new(answer);
                // A denial is an answer and no error, so that it has no RetryInfo.
                if let Some(millis) = wait {
                    response.metadata_mut().insert(RETRY_AFTER_METADATA, MetadataValue::from(millis));
                }
                Ok(response)
            }
        }
    }

    async fn batch_authorize(
        &self,
        request: Request<pb::BatchAuthorizeRequest>,
    ) -> Result<Response<pb::BatchAuthorizeResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let pb::BatchAuthorizeRequest { requests } = request.into_inner();
        within_batch(requests.len())?;
        let items = requests.iter().map(|request| BatchItem {
            token: Some(request.token.as_str()),
            uses: 1,
            answer: self.authorize_one(&visit, request),
        });
        let responses = self.door.engine().answer_batch(visit.policy(), items).await;
        Ok(Response::new(pb::BatchAuthorizeResponse { responses }))
    }

    async fn delegate(&self, request: Request<pb::DelegateRequest>) -> Result<Response<pb::DelegateResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let delegated = self.delegate_one(&visit, request.get_ref()).await;
        delegated.map(Response::new).map_err(|refusal| match refusal {
            Refusal::Malformed(malformed) => status::malformed(&malformed),
            Refusal::Denied(denial) => status::refusal(&denial),
        })
    }

    async fn batch_delegate(
        &self,
        request: Request<pb::BatchDelegateRequest>,
    ) -> Result<Response<pb::BatchDelegateResponse>, Status> {
        use pb::batch_delegate_response::{Result as Item, result::Result as Either};
        let visit = enter(&self.door, &request)?;
        let pb::BatchDelegateRequest { requests } = request.into_inner();
        within_batch(requests.len())?;
        let items = requests.iter().map(|request| BatchItem {
            token: Some(request.parent_token.as_str()),
            uses: uses_of_parent(visit.policy(), request),
            answer: self.delegate_one_of_batch(&visit, request),
        });
        let delegated = self.door.engine().answer_batch(visit.policy(), items).await;
        let results = delegated.into_iter().map(|delegated| {
            let result = match delegated {
                Ok(delegated) => Either::Delegated(delegated),
                Err(Refusal::Denied(denial)) => Either::Refused(wire::refusal(&denial)),
                Err(Refusal::Malformed(malformed)) => Either::Refused(wire::malformed_refusal(&malformed)),
            };
            Item { result: Some(result) }
        });
        Ok(Response::new(pb::BatchDelegateResponse { results: results.collect() }))
    }

    async fn revoke(&self, request: Request<pb::RevokeRequest>) -> Result<Response<pb::RevokeResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let engine = Arc::clone(self.door.engine());
        let revoked = to_the_end(async move {
            let revocation = wire::revocation(request.get_ref()).map_err(|malformed| status::malformed(&malformed))?;
            let revoked = engine.revoke_traced(&visit.caller, &revocation, visit.beginning.trace()).await;
            revoked.map_err(|denial| status::refusal(&denial))
        })
        .await?;
        Ok(Response::new(pb::RevokeResponse {
            revoked_at: Some(wire::timestamp(revoked.at)),
            state_revision: revoked.state_revision,
        }))
    }

    async fn reinstate(
        &self,
        request: Request<pb::ReinstateRequest>,
    ) -> Result<Response<pb::ReinstateResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let engine = Arc::clone(self.door.engine());
        to_the_end(async move {
            let (agent, note) =
                wire::reinstatement(request.get_ref()).map_err(|malformed| status::malformed(&malformed))?;
            let trace = visit.beginning.trace();
            match engine.reinstate_traced(&visit.caller, &agent, note, trace).await {
                Ok(state_revision) => Ok(Response::new(pb::ReinstateResponse { state_revision })),
                Err(NotReinstated::Denied(denial)) => Err(status::refusal(&denial)),
                Err(NotReinstated::ByFile(denial)) => Err(status::failed_precondition(&denial)),
            }
        })
        .await
    }

    async fn introspect(
        &self,
        request: Request<pb::IntrospectRequest>,
    ) -> Result<Response<pb::IntrospectResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let target = wire::introspection(request.get_ref()).map_err(|malformed| status::malformed(&malformed))?;
        let seen =
            self.door.engine().introspect(&visit.caller, target).await.map_err(|denial| status::refusal(&denial))?;
        Ok(Response::new(wire::introspect_response(seen)))
    }

    async fn verify_identity(
        &self,
        request: Request<pb::VerifyIdentityRequest>,
    ) -> Result<Response<pb::VerifyIdentityResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let identity = evidence::identity(&self.door, &visit, request.get_ref())?;
        Ok(Response::new(wire::identity_response(VerifiedIdentity::clone(&identity))))
    }

    async fn record_message(
        &self,
        request: Request<pb::RecordMessageRequest>,
    ) -> Result<Response<pb::RecordMessageResponse>, Status> {
        let visit = enter(&self.door, &request)?;
        let engine = self.door.engine();
        let message = wire::agent_message(request.get_ref(), visit.deadline)
            .inspect_err(|_| engine.tally().malformed(Verb::RecordMessage))
            .map_err(|malformed| status::malformed(&malformed))?;
        let recorded = engine.record_message(&visit.beginning, &visit.caller, &message).await;
        let sequence = recorded.map_err(|denial| status::refusal(&denial))?;
        Ok(Response::new(pb::RecordMessageResponse { sequence }))
    }

    async fn watch_decisions(
        &self,
        request: Request<pb::WatchDecisionsRequest>,
    ) -> Result<Response<Self::WatchDecisionsStream>, Status> {
        watch_decisions::begin(&self.door, &request, self.shutdown.clone()).map(Response::new)
    }
}
