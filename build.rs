//! Compiles `proto/` with protox, so that no `protoc` is needed, and keeps the descriptors for reflection.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 3] = ["remit/v1/types.proto", "remit/v1/decision_service.proto", "remit/v1/admin_service.proto"];
const ENVOY_FILES: [&str; 1] = ["envoy/service/auth/v3/external_auth.proto"];

const OTLP_FILES: [&str; 2] = [
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "opentelemetry/proto/collector/logs/v1/logs_service.proto",
];

/// Messages that hold a token's text or a credential, and those that hold such messages: they have no `Debug`, so that no log can
/// print one.
const WITH_TOKENS: [&str; 20] = [
    ".remit.v1.AuthorizeRequest",
    ".remit.v1.AuthorizeResponse",
    ".remit.v1.BatchAuthorizeRequest",
    ".remit.v1.BatchAuthorizeResponse",
    ".remit.v1.DelegateRequest",
    ".remit.v1.BatchDelegateRequest",
    ".remit.v1.DelegateResponse",
    ".remit.v1.BatchDelegateResponse",
    ".remit.v1.BatchDelegateResponse.Result",
    ".remit.v1.BatchDelegateResponse.Result.result",
    ".remit.v1.RevokeRequest",
    ".remit.v1.RevokeRequest.target",
    ".remit.v1.IntrospectRequest",
    ".remit.v1.AgentCredential",
    ".remit.v1.AgentCredential.evidence",
    ".remit.v1.UserCredential",
    ".remit.v1.UserCredential.evidence",
    ".remit.v1.VerifyIdentityRequest",
    ".remit.v1.VerifyIdentityRequest.evidence",
    ".remit.v1.RecordMessageRequest",
];

/// The same of Envoy's: headers and bodies hold tokens.
const ENVOY_WITH_TOKENS: [&str; 11] = [
    ".envoy.config.core.v3.HeaderValue",
    ".envoy.config.core.v3.HeaderValueOption",
    ".envoy.config.core.v3.HeaderMap",
    ".envoy.service.auth.v3.AttributeContext",
    ".envoy.service.auth.v3.AttributeContext.Request",
    ".envoy.service.auth.v3.AttributeContext.HttpRequest",
    ".envoy.service.auth.v3.CheckRequest",
    ".envoy.service.auth.v3.CheckResponse",
    ".envoy.service.auth.v3.CheckResponse.http_response",
    ".envoy.service.auth.v3.DeniedHttpResponse",
    ".envoy.service.auth.v3.OkHttpResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let all = protox::compile(FILES.iter().chain(&ENVOY_FILES), ["proto"])?;
    fs::write(out.join("remit.v1.bin"), all.encode_to_vec())?;
    tonic_prost_build::configure()
        .boxed(".remit.v1.WatchDecisionsResponse.item.event")
        .skip_debug(WITH_TOKENS)
        .codec_path("crate::api::codec::StrictCodec")
        .compile_fds(protox::compile(FILES, ["proto"])?)?;
    tonic_prost_build::configure()
        .skip_debug(ENVOY_WITH_TOKENS)
        .codec_path("crate::api::codec::LenientCodec")
        .compile_fds(protox::compile(ENVOY_FILES, ["proto"])?)?;
    tonic_prost_build::configure().build_server(false).compile_fds(protox::compile(OTLP_FILES, ["proto"])?)?;
    Ok(())
}
