//! What is wrong in the background.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// What is wrong in the background, by what it concerns; the last word on each.
#[derive(Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<BTreeMap<String, String>>>);

impl Troubles {
    pub(super) fn list(&self) -> Vec<String> {
        self.0.lock().values().cloned().collect()
    }

    /// Notes trouble or its end; a new trouble is logged once.
    pub(super) fn note(&self, concern: &str, trouble: Option<String>) {
        let mut troubles = self.0.lock();
        match trouble {
            Some(text) if troubles.get(concern) != Some(&text) => {
                tracing::error!(target: "reload", concern, "{text}");
                troubles.insert(concern.to_owned(), text);
            }
            Some(_) => {}
            None => {
                troubles.remove(concern);
            }
        }
    }
}
