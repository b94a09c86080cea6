//! Remit, a policy decision point for systems of AI agents.
pub mod domain;
pub mod events;
pub mod keyring;
pub mod state;
