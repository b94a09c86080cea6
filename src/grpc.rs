//! The gRPC face: services, who asks, messages, statuses. The sockets are the transport's.

mod admin_service;
mod authenticate;
mod decision_service;
mod entrance;
mod evidence;
mod ext_authz;
mod introduction;
mod status;
mod watch_decisions;
mod wire;

use std::time::Duration;

use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder;

use crate::api as pb;
use crate::api::admin_service_server::AdminServiceServer;
use crate::api::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use crate::api::policy_decision_service_server::PolicyDecisionServiceServer;
pub use admin_service::{AdminService, ReloadPolicy, Reloading};
pub use decision_service::DecisionService;
use entrance::Rules;
pub use entrance::{Answer, Entrance};
pub use ext_authz::ExtAuthz;

/// The largest message: a batch of 100, or a request with its body. Each field has a smaller bound of its own.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// The largest message of Envoy's that gets an answer, if only a refusal: beyond 1 MiB none is read. Beyond this it is an
/// error, which may be leave to pass, so it is more than the headers and bodies that Envoy holds.
const CHECK_BYTES: usize = 16 * 1024 * 1024;
/// The largest answer: a batch of 100 tokens with what they are good for.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The largest question about health: a service's name. Anybody may send one.
const HEALTH_BYTES: usize = 4 * 1024;
/// Time for the answer of an engine that waited until a caller's patience ended.
const MARGIN: Duration = Duration::from_millis(500);
/// Time for an operator's answer: a large policy is read and compiled first.
const OPERATORS_MARGIN: Duration = Duration::from_secs(10);

/// Names of services, as health is asked for them.
const SERVICES: [&str; 3] = ["remit.v1.PolicyDecisionService", "envoy.service.auth.v3.Authorization", ""];
/// Time for "not serving" to reach those who watch.
const LAST_WORD: Duration = Duration::from_millis(100);
const ADMIN_SERVICE: &str = "remit.v1.AdminService";

/// Whether the services answer, for `grpc.health.v1`.
#[derive(Clone)]
pub struct Answering(HealthReporter);

impl Answering {
    /// Says of every service whether it answers.
    pub async fn set(&self, is_answering: bool) {
        let status =
            if is_answering { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        for name in SERVICES.into_iter().chain([ADMIN_SERVICE]) {
            self.0.set_service_status(name, status).await;
        }
    }

    /// Says that nothing answers any more, and then ends the streams of those who watch health: they would hold up
    /// the drain.
    pub async fn end(&mut self) {
        self.set(false).await;
        tokio::time::sleep(LAST_WORD).await;
        for name in SERVICES.into_iter().chain([ADMIN_SERVICE]) {
            self.0.clear_service_status(name).await;
        }
    }
}

/// The health service, and what sets it. It says "not serving" until told otherwise.
pub async fn health() -> (Answering, HealthServer<impl Health>) {
    let (reporter, server) = tonic_health::server::health_reporter();
    let answering = Answering(reporter);
    answering.set(false).await;
    (answering, server)
}

/// What agents, services and proxies ask. With reflection everywhere only where `reflects`.
///
/// # Errors
/// The descriptors can't be read: a fault of the build.
pub fn decision_routes(
    service: DecisionService,
    ext_authz: ExtAuthz,
    health: HealthServer<impl Health>,
    reflects: bool,
) -> Result<Entrance, tonic_reflection::server::Error> {
    let rules = Rules { door: service.door().clone(), reflects_to_all: reflects, margin: MARGIN };
    let service = PolicyDecisionServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let ext_authz = AuthorizationServer::new(ext_authz).max_decoding_message_size(CHECK_BYTES);
    let health = health.max_decoding_message_size(HEALTH_BYTES);
    let routes = Routes::new(service).add_service(ext_authz).add_service(health);
    let routes = if reflects { reflecting(routes)? } else { routes };
    Ok(Entrance::new(routes, rules))
}

/// What administrators ask, with reflection for whoever is somebody.
///
/// # Errors
/// The descriptors can't be read: a fault of the build.
pub fn admin_routes(
    service: AdminService,
    health: HealthServer<impl Health>,
) -> Result<Entrance, tonic_reflection::server::Error> {
    let rules = Rules { door: service.door().clone(), reflects_to_all: false, margin: OPERATORS_MARGIN };
    let service = AdminServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES);
    let health = health.max_decoding_message_size(HEALTH_BYTES);
    Ok(Entrance::new(reflecting(Routes::new(service).add_service(health))?, rules))
}

/// Old clients speak v1alpha alone.
fn reflecting(routes: Routes) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}

/// Routes that several listeners can share.
#[must_use]
pub fn prepared(routes: Entrance) -> Entrance {
    routes.prepared()
}
