//! What is said of a request beside what is decided: untrusted, and seen by the policy's conditions alone.

use serde_json::{Map, Value};

/// Facts in whichever form they came; made into JSON only where a condition looks at them.
pub trait Facts: Send + Sync {
    /// The facts by name.
    fn to_map(&self) -> Map<String, Value>;
}

impl Facts for Map<String, Value> {
    fn to_map(&self) -> Map<String, Value> {
        self.clone()
    }
}

/// The facts that came with a request. Nobody vouches for them but the caller.
#[derive(Clone, Copy, Default)]
pub struct Given<'a> {
    /// Of the request as a whole.
    pub context: Option<&'a dyn Facts>,
    /// Of the agent that acts.
    pub subject: Option<&'a dyn Facts>,
    /// Of the action.
    pub action: Option<&'a dyn Facts>,
    /// Of what it is done to.
    pub resource: Option<&'a dyn Facts>,
}
