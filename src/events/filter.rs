//! Which events a subscriber wants, and from where.

use super::event::{Event, MessageType, Outcome};
use crate::domain::reason::Reason;

/// From where a subscriber wants to see events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since<'a> {
    /// From now on.
    Now,
    /// From the one after `sequence` of the stream `stream_id`, as far as it is kept; 0: from the earliest
    /// that is kept. After a stream come those of later processes, this process's last.
    After {
        /// The stream to which `sequence` belongs: this process's, or an earlier one's. Empty: this process's.
        stream_id: &'a str,
        /// The last one that the subscriber has.
        sequence: u64,
    },
}

/// Which events a subscriber wants: those that each list which isn't empty has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The agent acts, is acted on, or is in the chain.
    pub agents: Vec<Box<str>>,
    /// How it ended.
    pub results: Vec<Outcome>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What kind of event it is.
    pub message_types: Vec<MessageType>,
}

impl Filter {
    /// Whether the event passes.
    #[must_use]
    pub fn passes(&self, event: &Event) -> bool {
        has(&self.results, &event.outcome)
            && has(&self.reasons, &event.reason)
            && has(&self.message_types, &event.message_type)
            && (self.agents.is_empty() || self.agents.iter().any(|agent| concerns(event, agent)))
    }
}

fn has<T: PartialEq>(wanted: &[T], value: &T) -> bool {
    wanted.is_empty() || wanted.contains(value)
}

fn concerns(event: &Event, agent: &str) -> bool {
    *event.from_agent == *agent || *event.to_agent == *agent || event.chain.iter().any(|link| **link == *agent)
}
