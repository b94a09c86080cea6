//! Remit, a policy decision point for systems of AI agents.
pub mod api;
pub mod condition;
pub mod domain;
pub mod engine;
pub mod events;
pub mod grpc;
pub mod http;
pub mod identity;
pub mod keyring;
pub mod policy_file;
pub mod shutdown;
pub mod state;
pub mod telemetry;
pub mod transport;
