//! What stands before the gRPC services: who asks is settled by the headers, and no message is waited for without end.

#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use http::{HeaderMap, Request};
    use prost::Message as _;
    use remit::api::envoy::service::auth::v3::CheckResponse;
    use remit::api::envoy::service::auth::v3::check_response::HttpResponse;
    use remit::domain::caller::Caller;
    use remit::door::Door;
    use remit::engine::{Engine, Revocation, RevokeTarget};
    use remit::grpc::{
        AdminService, DecisionService, Entrance, ExtAuthz, Reloading, admin_routes, decision_routes, health,
    };
    use remit::identity::{Config, Identity, SELF_ASSERTED_HEADER};
    use remit::proxied::Gatekeeper;
    use remit::readiness::Condition;
    use tokio_util::sync::CancellationToken;
    use tonic::Code;
    use tower::ServiceExt as _;

    use crate::harness::audit::AuditLog;
    use crate::harness::{Setup, World};

    const POLICY: &str =
        r#"{"delegation_rules": {"deployer": {"max_capability_set": ["get"]}}, "administrators": ["ops"]}"#;
    const AUTHORIZE: &str = "/remit.v1.PolicyDecisionService/Authorize";
    const BATCHES: [&str; 2] =
        ["/remit.v1.PolicyDecisionService/BatchAuthorize", "/remit.v1.PolicyDecisionService/BatchDelegate"];
    const WATCH: &str = "/remit.v1.PolicyDecisionService/WatchDecisions";
    const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

    struct House {
        engine: Arc<Engine>,
        door: Door,
        ops: Caller,
    }

    impl House {
        async fn open() -> Self {
            // A world has a runtime of its own, which must not end inside of another.
            let made = tokio::task::spawn_blocking(|| {
                let world = World::of(Setup { audit: AuditLog::none(), ..Setup::policy(POLICY) });
                (world.caller("ops"), Arc::new(world.engine))
            });
            let (ops, engine) = made.await.unwrap();
            let identity = Arc::new(Identity::new(Config::default(), true).unwrap());
            let door = Door::new(Arc::clone(&engine), identity, 1);
            Self { engine, door, ops }
        }

        async fn decisions(&self, reflects: bool) -> Entrance {
            let service = DecisionService::new(self.door.clone(), CancellationToken::new());
            let ext_authz = ExtAuthz::new(Gatekeeper::new(self.door.clone(), Arc::default()));
            decision_routes(service, ext_authz, health().await.1, reflects).unwrap()
        }

        async fn administration(&self) -> Entrance {
            let reload = || -> Reloading { Box::pin(async { Ok(false) }) };
            let service = AdminService::new(self.door.clone(), Arc::new(reload), Arc::new(Condition::default));
            admin_routes(service, health().await.1).unwrap()
        }
    }

    /// A request whose message comes, or never does.
    fn request(path: &str, agent: Option<&str>, body: Body) -> Request<Body> {
        let request = Request::post(format!("http://remit{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "1m");
        let request = match agent {
            Some(agent) => request.header(SELF_ASSERTED_HEADER, agent),
            None => request,
        };
        request.body(body).unwrap()
    }

    /// A body of which nothing ever comes.
    fn never() -> Body {
        Body::from_stream(tokio_stream::pending::<Result<&str, std::io::Error>>())
    }

    fn framed(message: &[u8]) -> Body {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        Body::from([&[0][..], &length, message].concat())
    }

    struct Answered {
        headers: HeaderMap,
        body: tonic::body::Body,
    }

    impl Answered {
        /// The status of an answer that has headers and nothing else.
        fn code(&self) -> Option<Code> {
            self.headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
        }
    }

    async fn ask(entrance: &Entrance, request: Request<Body>) -> Answered {
        let (parts, body) = entrance.clone().oneshot(request).await.unwrap().into_parts();
        Answered { headers: parts.headers, body }
    }

    #[tokio::test]
    async fn nobody_is_refused_before_the_message_is_read() {
        let entrance = House::open().await.decisions(false).await;
        for path in [AUTHORIZE, BATCHES[0], WATCH, REFLECTION, "/nobody/Knows"] {
            let answered = ask(&entrance, request(path, None, never())).await;
            assert_eq!(answered.code(), Some(Code::Unauthenticated), "{path}");
            assert_eq!(answered.headers["grpc-message"], "no%20verified%20identity", "{path}");
        }
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_is_waited_for_until_the_deadline() {
        let entrance = House::open().await.decisions(true).await;
        for (path, agent) in [(AUTHORIZE, Some("deployer")), (HEALTH, None)] {
            let answered = ask(&entrance, request(path, agent, never())).await;
            assert_eq!(answered.code(), Some(Code::DeadlineExceeded), "{path}");
        }
    }

    #[tokio::test]
    async fn c03_a_proxys_message_that_does_not_come_is_refused_in_an_answer() {
        let entrance = House::open().await.decisions(false).await;
        let answered = ask(&entrance, request(CHECK, Some("deployer"), never())).await;
        assert_eq!(answered.code(), None, "a gRPC error may be leave to pass");
        let bytes = to_bytes(Body::new(answered.body), usize::MAX).await.unwrap();
        let answer = CheckResponse::decode(&bytes[5..]).unwrap();
        assert_eq!(answer.status.unwrap().code, i32::from(Code::Unavailable));
        let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!("it is no refusal") };
        assert_eq!(denied.status.unwrap().code, 503);
        assert!(denied.body.contains("DEADLINE_EXCEEDED"), "{}", denied.body);
    }

    #[tokio::test]
    async fn reflection_and_health_are_open_where_they_should_be() {
        let house = House::open().await;
        let (trial, other) = (house.decisions(true).await, house.decisions(false).await);
        let admin = house.administration().await;
        let asked = |agent| request(REFLECTION, agent, never());
        assert_eq!(ask(&trial, asked(None)).await.code(), None);
        assert_eq!(ask(&other, asked(Some("deployer"))).await.code(), Some(Code::Unimplemented));
        assert_eq!(ask(&admin, asked(None)).await.code(), Some(Code::Unauthenticated));
        assert_eq!(ask(&admin, asked(Some("deployer"))).await.code(), None);
        for entrance in [&trial, &other, &admin] {
            assert_eq!(ask(entrance, request(HEALTH, None, framed(b""))).await.code(), None);
        }
    }

    #[tokio::test]
    async fn a_proxy_that_is_nobody_is_refused_in_an_answer_unread() {
        let entrance = House::open().await.decisions(false).await;
        for agent in [None, Some("no name")] {
            let answered = ask(&entrance, request(CHECK, agent, never())).await;
            assert_eq!(answered.code(), None, "a gRPC error may be leave to pass");
            let bytes = to_bytes(Body::new(answered.body), usize::MAX).await.unwrap();
            let answer = CheckResponse::decode(&bytes[5..]).unwrap();
            assert_eq!(answer.status.unwrap().code, i32::from(Code::PermissionDenied));
        }
    }

    #[tokio::test]
    async fn a_stream_lives_on_after_its_headers() {
        let entrance = House::open().await.decisions(true).await;
        let answered = ask(&entrance, request(REFLECTION, None, never())).await;
        assert_eq!(answered.code(), None);
        // Longer than the deadline of its headers.
        let whole = to_bytes(Body::new(answered.body), usize::MAX);
        tokio::time::timeout(Duration::from_millis(800), whole).await.unwrap_err();
    }

    #[tokio::test]
    async fn the_visit_is_over_with_the_answer() {
        let house = House::open().await;
        let entrance = house.decisions(false).await;
        // More than there is room for at once.
        for _ in 0..3000 {
            let answered = ask(&entrance, request(AUTHORIZE, Some("deployer"), framed(b""))).await;
            assert_eq!(answered.code(), Some(Code::InvalidArgument));
        }
    }

    #[tokio::test]
    async fn without_room_nobody_comes_in_and_a_proxy_is_told_in_an_answer() {
        let house = House::open().await;
        let entrance = house.decisions(false).await;
        let named = request(AUTHORIZE, Some("deployer"), Body::empty()).headers().clone();
        let enter = || house.door.enter(None, &named, Duration::from_secs(1));
        let visits = std::iter::from_fn(|| enter().ok()).collect::<Vec<_>>();
        assert!(!visits.is_empty());
        let answered = ask(&entrance, request(AUTHORIZE, Some("deployer"), never())).await;
        assert_eq!(answered.code(), Some(Code::ResourceExhausted));
        let answered = ask(&entrance, request(CHECK, Some("deployer"), never())).await;
        let bytes = to_bytes(Body::new(answered.body), usize::MAX).await.unwrap();
        let answer = CheckResponse::decode(&bytes[5..]).unwrap();
        assert_eq!(answer.status.unwrap().code, i32::from(Code::ResourceExhausted));
    }

    #[tokio::test]
    async fn a_batch_is_counted_before_it_is_decoded() {
        let entrance = House::open().await.decisions(false).await;
        let field = "at%20most%20100%20in%20a%20batch";
        for path in BATCHES {
            // The 101st is broken: what decodes as it goes would say so.
            let broken = [&b"\x0a\x00".repeat(101)[..], b"\x0a\xff"].concat();
            let answered = ask(&entrance, request(path, Some("deployer"), framed(&broken))).await;
            assert_eq!(answered.code(), Some(Code::InvalidArgument));
            assert!(answered.headers["grpc-message"].to_str().unwrap().ends_with(field), "{path}");
            assert_eq!(answered.headers["remit-reason"], "REQUEST_MALFORMED");
            // Other fields are no items, and a hundred items are taken.
            let whole = [b"\x0a\x00".repeat(100), b"\x12\x00".repeat(200)].concat();
            assert_eq!(ask(&entrance, request(path, Some("deployer"), framed(&whole))).await.code(), None, "{path}");
            let answered = ask(&entrance, request(path, Some("deployer"), framed(b"\x0a\xff"))).await;
            assert_eq!(answered.code(), Some(Code::InvalidArgument));
            assert!(!answered.headers["grpc-message"].to_str().unwrap().ends_with(field), "{path}");
        }
    }

    #[tokio::test]
    async fn what_began_before_a_revocation_is_no_longer_current() {
        let House { engine, ops, .. } = House::open().await;
        let beginning = engine.begin();
        assert!(engine.is_current(&beginning));
        engine.revoke(&ops, &Revocation { target: RevokeTarget::All, note: "" }).await.unwrap();
        assert!(!engine.is_current(&beginning));
        assert!(engine.is_current(&engine.begin()));
    }
}
