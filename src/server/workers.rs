//! One thread, one runtime and one listener a core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::ServerError;
use crate::config::Config;
use crate::grpc::Entrance;
use crate::transport::{Gate, Security, listen, serve};

/// The threads that answer gRPC.
pub(super) struct Workers(Vec<JoinHandle<usize>>);

/// A worker that ends before the drain takes the service with it: half a service that says it serves is worse.
struct Guard {
    drain: CancellationToken,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.drain.is_cancelled() {
            tracing::error!(target: "server", "a thread that answers requests ended by itself: stopping");
            self.drain.cancel();
        }
    }
}

impl Workers {
    pub(super) fn start(
        config: &Config,
        cores: usize,
        security: &Security,
        routes: &Entrance,
        gate: &Arc<Gate>,
        drain: &CancellationToken,
    ) -> Result<(SocketAddr, Self), ServerError> {
        let address = config.grpc.listen;
        let failed =
            |error: std::io::Error| ServerError::new(&format!("[grpc] listen {address} can't be listened on"), error);
        let listeners = listen::bind_many(address, cores).map_err(failed)?;
        let first = listeners.first().ok_or_else(|| ServerError::new("[grpc] runtimes", "there is none"))?;
        let bound = first.local_addr().map_err(failed)?;
        let mut threads = Vec::with_capacity(cores);
        for (core, listener) in listeners.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| ServerError::new("a runtime can't be started", error))?;
            let (security, routes, gate, drain) = (security.clone(), routes.clone(), Arc::clone(gate), drain.clone());
            let guard = Guard { drain: drain.clone() };
            let work = move || {
                let _guard = guard;
                runtime.block_on(async move {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => serve(listener, security, routes, gate, drain).await,
                        Err(error) => {
                            tracing::error!(target: "server", %error, "a listener could not be used");
                            0
                        }
                    }
                })
            };
            let thread = std::thread::Builder::new().name(format!("remit-grpc-{core}")).spawn(work);
            threads.push(thread.map_err(|error| ServerError::new("a thread can't be started", error))?);
        }
        Ok((bound, Self(threads)))
    }

    /// Waits until all have drained; how many connections had to be cut.
    ///
    /// # Errors
    /// A thread ended by a panic.
    pub(super) async fn join(self) -> Result<usize, ServerError> {
        let joined = tokio::task::spawn_blocking(|| {
            let cut = self.0.into_iter().map(|thread| thread.join().ok()).collect::<Vec<_>>();
            cut.into_iter().sum::<Option<usize>>()
        });
        let failed = || ServerError::new("the service ended", "a thread that answers requests panicked: see the log");
        joined.await.ok().flatten().ok_or_else(failed)
    }
}
