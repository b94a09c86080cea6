//! What the words mean, and the two pure functions that decide. No clock, no chance, no input or output, no async, no log.
//!
//! Text from outside becomes a type of this room once, at the edge, and is not checked twice.
//! Deciding is pure and total: [`decision::decide`] and [`chain::attenuate`] are the two functions
//! that everything else exists to call.

pub mod agent;
pub mod caller;
pub mod capability;
pub mod chain;
pub mod condition;
pub mod decision;
pub mod entities;
pub mod facts;
pub mod limits;
pub mod names;
pub mod policy;
pub mod reason;
pub mod resource;
pub mod time;
pub mod token;
pub mod trace;
