//! The keys of those who issue JWTs, kept fresh in the background. The start doesn't wait for them.

use tokio_util::sync::CancellationToken;

use super::ServerError;
use crate::engine::clock::Clock;
use crate::identity::jwt::{Client, Issuers, Refresher};

/// Begins to fetch the keys of every issuer, until the drain.
pub(super) fn begin(issuers: &Issuers, clock: &Clock, drain: &CancellationToken) -> Result<(), ServerError> {
    let refreshers = issuers.refreshers();
    if refreshers.is_empty() {
        return Ok(());
    }
    // Certificate authorities are looked for only where they are needed: a bare container may have none.
    let uses_tls = refreshers.iter().any(Refresher::uses_tls);
    let client = if uses_tls { Client::new() } else { Client::loopback() };
    let client = client.map_err(|error| {
        ServerError::new(
            "[[identity.jwt]]",
            format!("{error}: install certificate authorities, or name them in SSL_CERT_FILE"),
        )
    })?;
    for refresher in refreshers {
        let (client, clock, drain) = (client.clone(), clock.clone(), drain.clone());
        tokio::spawn(async move {
            drain.run_until_cancelled(refresher.run(client, move || clock.now())).await;
        });
    }
    Ok(())
}
