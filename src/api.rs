//! The messages that `proto/` generates, and their descriptors.
#![expect(
    missing_docs,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated: what it means stands in the proto files"
)]

pub mod codec;
pub mod envoy;
pub mod google;
pub mod opentelemetry;

tonic::include_proto!("remit.v1");

/// The descriptors of `proto/` and of what it imports, encoded: for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/remit.v1.bin"));
