//! `envoy.service.auth.v3.Authorization`: Envoy asks before a request passes.
//!
//! An error, a timeout and an empty answer may each let a request pass in Envoy. So every answer here is a whole one, and made
//! of a [`Verdict`](crate::proxied::Verdict) in one place.

mod answer;
mod request;

use tonic::{Request, Response, Status};

use super::authenticate::visit;
use crate::api::envoy::service::auth::v3 as pb;
use crate::api::envoy::service::auth::v3::authorization_server::Authorization;
use crate::door::TurnedAway;
use crate::proxied::Gatekeeper;

/// Answers Envoy.
pub struct ExtAuthz(Gatekeeper);

impl ExtAuthz {
    /// A service by this gatekeeper.
    #[must_use]
    pub fn new(gatekeeper: Gatekeeper) -> Self {
        Self(gatekeeper)
    }
}

/// Marks what stands for a request that was not answered in time.
#[derive(Clone, Copy)]
pub(super) struct TooLate;

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<pb::CheckResponse>, Status> {
        if let Some(turned_away) = request.extensions().get::<TurnedAway>() {
            return Ok(Response::new(self.0.turned_away(turned_away).into()));
        }
        if request.extensions().get::<TooLate>().is_some() {
            return Ok(Response::new(self.0.too_late().into()));
        }
        // Envoy tells the certificate in a field of its own, which no client writes.
        let held = |_: Option<&str>| request::held(request.get_ref());
        let verdict = self.0.check(|door| visit(door, &request), held).await;
        Ok(Response::new(verdict.into()))
    }
}
