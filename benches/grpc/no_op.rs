//! A service that decides nothing.

use remit::api as pb;
use remit::api::policy_decision_service_server::PolicyDecisionService;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Gives every request the same answer, of the size of a real one.
#[derive(Clone)]
pub(crate) struct NoOp {
    pub(crate) decision: pb::AuthorizeResponse,
    pub(crate) delegation: pb::DelegateResponse,
}

#[tonic::async_trait]
impl PolicyDecisionService for NoOp {
    type WatchDecisionsStream = ReceiverStream<Result<pb::WatchDecisionsResponse, Status>>;

    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(self.decision.clone()))
    }

    async fn batch_authorize(
        &self,
        _: Request<pb::BatchAuthorizeRequest>,
    ) -> Result<Response<pb::BatchAuthorizeResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn delegate(&self, request: Request<pb::DelegateRequest>) -> Result<Response<pb::DelegateResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(self.delegation.clone()))
    }

    async fn batch_delegate(
        &self,
        _: Request<pb::BatchDelegateRequest>,
    ) -> Result<Response<pb::BatchDelegateResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn revoke(&self, _: Request<pb::RevokeRequest>) -> Result<Response<pb::RevokeResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn reinstate(&self, _: Request<pb::ReinstateRequest>) -> Result<Response<pb::ReinstateResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn introspect(&self, _: Request<pb::IntrospectRequest>) -> Result<Response<pb::IntrospectResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn verify_identity(
        &self,
        _: Request<pb::VerifyIdentityRequest>,
    ) -> Result<Response<pb::VerifyIdentityResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn record_message(
        &self,
        _: Request<pb::RecordMessageRequest>,
    ) -> Result<Response<pb::RecordMessageResponse>, Status> {
        Err(Status::unimplemented("a no-op"))
    }

    async fn watch_decisions(
        &self,
        _: Request<pb::WatchDecisionsRequest>,
    ) -> Result<Response<Self::WatchDecisionsStream>, Status> {
        Err(Status::unimplemented("a no-op"))
    }
}
