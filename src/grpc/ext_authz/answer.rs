//! A verdict in Envoy's words. An empty answer is leave to pass there, so this is the only way to an answer: code 0 with
//! what the request goes on with, or another code with what the client is told.

use tonic::Code;

use crate::api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::api::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::api::envoy::service::auth::v3::check_response::HttpResponse;
use crate::api::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use crate::api::envoy::r#type::v3::{HttpStatus, StatusCode};
use crate::api::google::rpc;
use crate::grpc::wire::structure;
use crate::proxied::{Passed, Refused, Status, Verdict};

impl From<Verdict> for CheckResponse {
    fn from(verdict: Verdict) -> Self {
        match &verdict {
            Verdict::Passed(passed) => ok(passed),
            Verdict::Refused(refused) => denied(refused),
        }
    }
}

fn ok(passed: &Passed) -> CheckResponse {
    CheckResponse {
        status: Some(status(Code::Ok)),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: passed.set().iter().map(|(name, value)| header(name, value.clone())).collect(),
            headers_to_remove: passed.remove().to_vec(),
        })),
        dynamic_metadata: Some(structure(passed.told())),
    }
}

fn denied(refused: &Refused) -> CheckResponse {
    let (code, http) = match refused.status() {
        Status::Unauthorized => (Code::Unauthenticated, StatusCode::Unauthorized),
        Status::Forbidden => (Code::PermissionDenied, StatusCode::Forbidden),
        Status::TooManyRequests => (Code::ResourceExhausted, StatusCode::TooManyRequests),
        Status::Unavailable => (Code::Unavailable, StatusCode::ServiceUnavailable),
    };
    let retry_after = refused.retry_after_seconds().map(|seconds| header("retry-after", seconds.to_string()));
    CheckResponse {
        status: Some(status(code)),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: http.into() }),
            headers: [header("content-type", "application/json".to_owned())].into_iter().chain(retry_after).collect(),
            body: refused.body().to_owned(),
        })),
        dynamic_metadata: Some(structure(refused.told())),
    }
}

fn status(code: Code) -> rpc::Status {
    rpc::Status { code: code.into(), message: String::new() }
}

/// A header in place of one of the same name. Both ways of saying so are used: without them some releases of Envoy
/// append, and a second value is the client's.
fn header(name: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value, raw_value: Vec::new() }),
        append: Some(false),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
