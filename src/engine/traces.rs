//! Traces of requests whose callers named none.

use super::Engine;
use crate::domain::trace::TraceContext;
use crate::events::Event;

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
    /// The trace of a request: the one that its caller named, or one that begins here.
    #[must_use]
    pub fn trace(&self, named: Option<TraceContext>) -> Option<TraceContext> {
        match (named, self.new_traces) {
            (Some(named), _) => Some(named),
            (None, NewTraces::Never) => None,
            (None, NewTraces::Ratio(ratio)) => TraceContext::begin(self.chance.bytes(), ratio),
        }
    }

    /// The event, with the time that was taken for it where somebody will ask.
    pub(super) fn timed(&self, mut event: Event) -> Event {
        if event.trace.is_some_and(|trace| trace.is_sampled()) {
            event.took = self.clock.now().since(event.at);
        }
        event
    }
}
