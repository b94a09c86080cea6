//! `envoy.service.auth.v3.Authorization`: Envoy asks before a request passes.
//!
//! An error, a timeout and an empty answer may each let a request pass in Envoy. So every answer here is a whole one, and made
//! of a [`Verdict`](crate::proxied::Verdict) in one place.

mod answer;
mod request;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::authenticate::timeout;
use crate::api::envoy::service::auth::v3 as pb;
use crate::api::envoy::service::auth::v3::authorization_server::Authorization;
use crate::proxied::Gatekeeper;
use crate::transport::Peer;

/// Answers Envoy.
pub struct ExtAuthz(Gatekeeper);

impl ExtAuthz {
    /// A service by this gatekeeper.
    #[must_use]
    pub fn new(gatekeeper: Gatekeeper) -> Self {
        Self(gatekeeper)
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<pb::CheckResponse>, Status> {
        let credentials = request.metadata().as_ref();
        let peer = request.extensions().get::<Arc<Peer>>();
        // Envoy tells the certificate in a field of its own, which no client writes.
        let held = |_: Option<&str>| request::held(request.get_ref());
        let verdict = self.0.check(peer, credentials, timeout(credentials), held).await;
        Ok(Response::new(verdict.into()))
    }
}
