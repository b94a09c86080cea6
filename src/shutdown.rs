//! The first signal drains, the second stops.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `drain` at the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// The signals can't be listened to.
pub fn on_signals(drain: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let next = async |terminate: &mut tokio::signal::unix::Signal, interrupt: &mut tokio::signal::unix::Signal| {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::info!(target: "server", signal = name, "draining; a second signal stops at once");
        drain.cancel();
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(target: "server", signal = name, "stopping at once");
        std::process::exit(1);
    });
    Ok(())
}
