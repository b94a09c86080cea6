//! The generated wire types of `proto/google`, where Envoy's look for them.

/// `google.rpc`.
pub mod rpc {
    tonic::include_proto!("google.rpc");
}
