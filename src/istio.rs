//! Communication rules as Istio's `AuthorizationPolicy` objects, and back.
//!
//! [`export`] writes objects of which Istio lets pass what `communication_rules` let pass, [`import`] reads such objects.
//! What the other side can't say is left out and named. An allow that is left out makes the result narrower; a DENY of
//! another's that is left out makes it wider than the objects were, so that what is named has to be read. Shapes and meaning: [AuthorizationPolicy](https://istio.io/latest/docs/reference/config/security/authorization-policy/).

mod export;
mod import;
mod names;
mod object;

pub use export::{Exported, Target, export};
pub use import::{Imported, import};
pub use names::Names;
pub use object::{NotObjects, read, write};

/// The label that names the agent of a workload, by Istio's convention.
const AGENT_LABEL: &str = "app";

/// The attribute of a caller's SPIFFE ID without its scheme.
const CALLER: &str = "source.principal";

/// What the source document's object asks of the called workload. Istio's own list of attributes has no such one.
const CALLED: &str = "destination.labels[app]";

#[cfg(test)]
mod tests;
