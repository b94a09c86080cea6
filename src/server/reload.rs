//! What changes while we run: the policy, keys and certificates; and what is forgotten.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::build::{self, Built};
use super::troubles::Troubles;
use super::{ServerError, tls_stores};
use crate::baseline::Baseline;
use crate::config::Config;
use crate::engine::Engine;
use crate::grpc::ReloadPolicy;
use crate::identity::{Identity, Sources};
use crate::keyring::KeyFiles;
use crate::policy_file::{Reloaded, Status};
use crate::transport::TlsStore;

/// How often the time of the policy file's last good reading is passed on.
const PASS_ON: Duration = Duration::from_millis(500);

/// Begins to watch everything that may change; the answer asks for the policy's reload.
pub(super) fn begin(
    built: &Built,
    config: &Config,
    troubles: Troubles,
    drain: CancellationToken,
) -> Result<ReloadPolicy, ServerError> {
    if let Some(watcher) = built.policy_watcher.lock().take() {
        let (engine, clock) = (Arc::clone(&built.engine), built.engine.clock().clone());
        let install = move |compiled, now| {
            let engine = Arc::clone(&engine);
            async move {
                engine.install(build::in_force(compiled, now)).await;
                Ok::<_, Infallible>(())
            }
        };
        tokio::spawn(watcher.run(install, move || clock.now(), drain.clone()));
    }
    tokio::spawn(pass_on_freshness(Arc::clone(&built.engine), Arc::clone(&built.policy_status), drain.clone()));
    let sweeper = Arc::clone(&built.engine);
    let stop = drain.clone();
    tokio::spawn(async move { sweeper.forget_expired(stop).await });

    if config.detection.baseline {
        let (engine, stop) = (Arc::clone(&built.engine), drain.clone());
        let baseline = Baseline::new(&config.detection);
        tokio::spawn(async move { engine.watch_behaviour(baseline, stop).await });
    }

    let files = Files {
        engine: Arc::clone(&built.engine),
        stores: tls_stores(built),
        keys: Arc::new(built.keys.clone()),
        identity: Arc::clone(&built.identity),
        troubles,
    };
    let poll = Duration::from_secs(config.policy.poll_seconds.max(1));
    let reloader = built.policy_reloader.clone();
    let mut hang_up =
        signal(SignalKind::hangup()).map_err(|error| ServerError::new("SIGHUP can't be listened to", error))?;
    let by_signal = reloader.clone();
    tokio::spawn(async move {
        let watching = async {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(poll) => {}
                    _ = hang_up.recv() => {
                        tracing::info!(target: "reload", "SIGHUP: reading policy, keys and certificates again");
                        // What is wrong is logged by the watcher.
                        let _ = by_signal.reload().await;
                    }
                }
                files.read_again().await;
            }
        };
        let _ = drain.run_until_cancelled(watching).await;
    });
    Ok(Arc::new(move || {
        let reloader = reloader.clone();
        Box::pin(async move {
            let outcome = reloader.reload().await.map_err(|error| error.to_string())?;
            Ok(matches!(outcome, Reloaded::Installed { .. }))
        })
    }))
}

async fn pass_on_freshness(engine: Arc<Engine>, status: Arc<Status>, drain: CancellationToken) {
    while drain.run_until_cancelled(tokio::time::sleep(PASS_ON)).await.is_some() {
        engine.policy_found_valid(status.last_valid_read());
    }
}

/// Keys and certificates, read again when their content may have changed.
struct Files {
    engine: Arc<Engine>,
    stores: Vec<(&'static str, Arc<TlsStore>)>,
    keys: Arc<KeyFiles>,
    identity: Arc<Identity>,
    troubles: Troubles,
}

impl Files {
    async fn read_again(&self) {
        for (listener, store) in &self.stores {
            let (listener, store) = (*listener, Arc::clone(store));
            let reloaded = tokio::task::spawn_blocking(move || store.reload().map_err(|error| error.to_string())).await;
            match reloaded {
                Ok(Ok(changed)) => {
                    self.troubles.note(listener, None);
                    if changed {
                        tracing::info!(target: "reload", listener, "new certificates are in force");
                    }
                }
                Ok(Err(error)) => self.troubles.note(listener, Some(error)),
                Err(stopped) => self.troubles.note(listener, Some(stopped.to_string())),
            }
        }
        let keys = Arc::clone(&self.keys);
        let read = tokio::task::spawn_blocking(move || keys.read().map_err(|error| error.to_string())).await;
        match read {
            Ok(Ok(keyring)) => {
                self.troubles.note("keys", None);
                if keyring != *self.engine.keyring() {
                    tracing::info!(target: "reload", keys = ?keyring.key_ids().collect::<Vec<_>>(), "new keys are in force");
                    self.engine.install_keys(keyring);
                }
            }
            Ok(Err(error)) => self.troubles.note("keys", Some(error)),
            Err(stopped) => self.troubles.note("keys", Some(stopped.to_string())),
        }
        self.read_evidence_again().await;
    }

    /// What evidence beside certificates is checked against. A file that is not good changes nothing.
    async fn read_evidence_again(&self) {
        let (identity, now) = (Arc::clone(&self.identity), self.engine.clock().now());
        let reading = tokio::task::spawn_blocking(move || {
            let Sources { api_keys, forwarding, clients, .. } = identity.sources();
            let api_keys = api_keys.reload().map_err(|error| error.to_string());
            let signing = forwarding.reload(now).map_err(|error| error.to_string());
            let clients = clients.reload().map_err(|error| error.to_string());
            [
                ("api_keys", api_keys, "new API keys are in force"),
                ("forward", signing, "a new signing key is announced"),
                ("clients", clients, "new keys of clients are in force"),
            ]
        });
        let read = match reading.await {
            Ok(read) => read,
            Err(stopped) => return self.troubles.note("api_keys", Some(stopped.to_string())),
        };
        for (concern, changed, news) in read {
            if matches!(changed, Ok(true)) {
                tracing::info!(target: "reload", "{news}");
            }
            self.troubles.note(concern, changed.err());
        }
    }
}
