//! Maps and sets by name, for what a decision looks up: some thirty names each.
//!
//! Their keys are the operator's, from the policy. A stranger can ask for any name and choose none that is held, so that
//! no name can be made to collide, and the hash need not be one that withstands that.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// What policy says, by name.
pub type NameMap<N, V> = HashMap<N, V, RandomState>;
/// Names that policy lists.
pub type NameSet<N> = HashSet<N, RandomState>;
