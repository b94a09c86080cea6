//! The background task that keeps an issuer's keys fresh. Single flight: it does one thing at a time.

use std::sync::Arc;
use std::time::Duration;

use super::fetch::Client;
use super::issuer::Issuer;
use super::schedule::Schedule;
use super::{Issuers, Known};
use crate::domain::time::Timestamp;

/// Keeps one issuer's keys fresh, once it runs.
pub struct Refresher {
    known: Arc<Known>,
    issuer: Arc<Issuer>,
}

impl Issuers {
    /// One for each issuer, to be run in the background.
    #[must_use]
    pub fn refreshers(&self) -> Vec<Refresher> {
        let of = |known: &Arc<Known>| {
            let each = |issuer: &Arc<Issuer>| Refresher { known: Arc::clone(known), issuer: Arc::clone(issuer) };
            known.issuers.values().map(each).collect()
        };
        self.0.as_ref().map(of).unwrap_or_default()
    }
}

impl Refresher {
    /// Whether it needs certificate authorities.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.issuer.terms.source.url().scheme() == "https"
    }

    /// Fetches keys now, whenever they are due and when a token wants newer ones. It never ends; drop it to stop.
    pub async fn run(self, client: Client, now: impl Fn() -> Timestamp) {
        let mut schedule = Schedule::new(self.issuer.terms.refresh, now());
        loop {
            self.wait(&mut schedule, &now).await;
            let began_at = now();
            let went_well = self.refresh(&client, &now).await;
            schedule.done(began_at, now(), went_well);
        }
    }

    async fn wait(&self, schedule: &mut Schedule, now: &impl Fn() -> Timestamp) {
        loop {
            let left = schedule.wait(now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                // A little more, so that the timer's rounding doesn't wake it early.
                () = tokio::time::sleep(left.saturating_add(Duration::from_millis(1))) => {}
                () = self.issuer.wanted() => schedule.wish(now()),
            }
        }
    }

    /// Fetches keys once; whether they came. New trouble, and its end, is logged once.
    pub(super) async fn refresh(&self, client: &Client, now: &impl Fn() -> Timestamp) -> bool {
        let fetched = client.key_set(&self.issuer.terms).await.map_err(|error| error.to_string());
        let installed =
            fetched.and_then(|text| self.known.install(&self.issuer, &text, now()).map_err(|error| error.to_string()));
        let issuer = self.issuer.name();
        match installed {
            Ok(is_new) => {
                if is_new {
                    tracing::info!(target: "identity", %issuer, keys = self.issuer.usable(), "an issuer's keys are in force");
                }
                true
            }
            Err(why) => {
                if self.issuer.note(Some(why.clone())) {
                    tracing::warn!(target: "identity", %issuer, why, "an issuer's keys could not be fetched");
                }
                false
            }
        }
    }
}
