//! Remit, a policy decision point for systems of AI agents.
pub mod domain;
pub mod transport;
