//! What who watches is given: an event that is recorded, with the stream in which it has its number.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use super::event::Event;
use super::line::stamp;

/// A recorded event, as subscribers get it: the sequence is its place in the stream that [`Self::stream_id`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    stream_id: Arc<str>,
    event: Arc<Event>,
    /// The line of the file that it was read from.
    line: Option<Arc<str>>,
}

impl Published {
    /// An event that is in memory.
    pub(super) const fn kept(stream_id: Arc<str>, event: Arc<Event>) -> Self {
        Self { stream_id, event, line: None }
    }

    /// An event that was read from this line.
    pub(super) fn read(stream_id: Arc<str>, event: Event, line: &str) -> Self {
        Self { stream_id, event: Arc::new(event), line: Some(line.into()) }
    }

    /// The stream that its sequence counts in: this process's, or an earlier one's.
    #[must_use]
    pub const fn stream_id(&self) -> &Arc<str> {
        &self.stream_id
    }

    /// The line of the audit log, without its end. Where nothing is written it has no hashes.
    #[must_use]
    pub fn line(&self) -> Cow<'_, str> {
        if let Some(line) = &self.line {
            return Cow::Borrowed(line);
        }
        let mut line = Vec::new();
        self.event.write_json(&mut line, &self.stream_id, &stamp(self.event.at));
        if let Some(links) = self.event.links() {
            links.close(&mut line);
        }
        Cow::Owned(String::from_utf8_lossy(&line).into_owned())
    }
}

impl Deref for Published {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}
