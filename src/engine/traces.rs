//! Traces of requests whose callers named none.

use super::Engine;
use crate::domain::trace::TraceContext;

/// Which requests begin a trace, where their caller named none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum NewTraces {
    /// None: nobody collects them.
    #[default]
    Never,
    /// This part of them, from 0 to 1.
    Ratio(f64),
}

impl Engine {
    /// The trace that an event belongs to.
    pub(super) fn trace(&self, named: Option<TraceContext>) -> Option<TraceContext> {
        match (named, self.new_traces) {
            (Some(named), _) => Some(named),
            (None, NewTraces::Never) => None,
            (None, NewTraces::Ratio(ratio)) => TraceContext::begin(self.chance.bytes(), ratio),
        }
    }
}
