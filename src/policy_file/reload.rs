//! Reloads the policy file when it changes and when asked; whatever happens to it, the last good policy stays.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::directory::{Changes, Directory};
use super::file::{LoadError, PolicyFile};
use super::status::Status;
use super::{Compiled, Diagnostic};
use crate::domain::time::Timestamp;

/// How often the content is read when nobody says that it changed.
pub const DEFAULT_POLL: Duration = Duration::from_secs(2);
/// Requests for a reload that wait; more wait before they are sent.
const REQUESTS: usize = 16;

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The file is what is in force already.
    Unchanged {
        /// The policy in force.
        revision: u64,
    },
    /// A new policy is in force.
    Installed {
        /// The policy in force.
        revision: u64,
        /// What somebody should look at.
        warnings: Vec<Diagnostic>,
    },
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadError {
    /// There is no good policy in the file.
    Load(LoadError),
    /// The policy is good and could not be put in force; the text says why. It is tried again at each poll.
    Install(String),
    /// The watcher has stopped.
    Stopped,
}

impl std::fmt::Display for ReloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Load(error) => write!(f, "{error}"),
            Self::Install(error) => write!(f, "the policy can't be put in force: {error}"),
            Self::Stopped => f.write_str("the policy file is not watched any more: the process is stopping"),
        }
    }
}

impl std::error::Error for ReloadError {}

/// Asks the watcher for a reload. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Reloader {
    requests: mpsc::Sender<Request>,
}

type Request = oneshot::Sender<Result<Reloaded, ReloadError>>;

impl Reloader {
    /// Reads the file now. When this returns, the policy that was read is in force.
    ///
    /// # Errors
    /// Why nothing changed.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(answer).await.map_err(|_| ReloadError::Stopped)?;
        answered.await.unwrap_or(Err(ReloadError::Stopped))
    }
}

/// Watches a policy file from its first good reading on.
pub struct Watcher {
    file: Arc<PolicyFile>,
    poll: Duration,
    in_force: Arc<[u8]>,
    revision: u64,
    status: Arc<Status>,
    requests: mpsc::Receiver<Request>,
    broken: Option<Broken>,
    directory: Option<Directory>,
    changes: Changes,
}

/// What was wrong when the file was last read.
#[derive(Clone)]
struct Broken {
    /// The content; none if it could not be had.
    bytes: Option<Arc<[u8]>>,
    error: ReloadError,
}

/// What one reading found.
enum Reading {
    /// What is in force.
    Unchanged,
    /// A good policy.
    New(Box<Compiled>),
    Broken(Broken),
}

/// Who wants to know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Nobody: a poll or a file event.
    No,
    /// Somebody waits for the answer.
    Yes,
}

impl Watcher {
    /// Watches `file`, of which `first` is in force since `now`. `poll` is how often the content is read in
    /// any case; zero is taken as [`DEFAULT_POLL`].
    #[must_use]
    pub fn new(file: PolicyFile, first: &Compiled, now: Timestamp, poll: Duration) -> (Self, Reloader, Arc<Status>) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let revision = first.policy.id.revision;
        let status = Arc::new(Status::new(revision, now));
        let (directory, changes) = Directory::of(file.path());
        let watcher = Self {
            file: Arc::new(file),
            poll: if poll.is_zero() { DEFAULT_POLL } else { poll },
            in_force: Arc::clone(&first.source),
            revision,
            status: Arc::clone(&status),
            requests,
            broken: None,
            directory: Some(directory),
            changes,
        };
        (watcher, Reloader { requests: sender }, status)
    }

    /// Runs until `shutdown`. `install` puts a policy in force: the swap, then what entering quarantine
    /// needs. When it fails, the policy before stays in force, and it is asked again at the next poll.
    pub async fn run<I, F, E>(
        mut self,
        mut install: I,
        now: impl Fn() -> Timestamp + Send + Sync,
        shutdown: CancellationToken,
    ) where
        I: FnMut(Compiled, Timestamp) -> F + Send,
        F: Future<Output = Result<(), E>> + Send,
        E: std::fmt::Display,
    {
        let mut poll = tokio::time::interval(self.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changes = self.changes.clone();
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(request) = self.requests.recv() => Some(request),
                () = changes.settled() => None,
                _ = poll.tick() => None,
            };
            let asked = if request.is_some() { Asked::Yes } else { Asked::No };
            let result = self.reload(asked, &mut install, &now).await;
            if let Some(request) = request {
                // Whoever asked may have gone.
                let _ = request.send(result);
            }
        }
    }

    async fn reload<I, F, E>(
        &mut self,
        asked: Asked,
        install: &mut I,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Reloaded, ReloadError>
    where
        I: FnMut(Compiled, Timestamp) -> F,
        F: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let read_at = now();
        let installed = match self.read().await {
            Reading::Unchanged => Ok(Reloaded::Unchanged { revision: self.revision }),
            Reading::Broken(broken) => Err(broken),
            Reading::New(compiled) => self.install(*compiled, install, now).await,
        };
        match installed {
            Ok(reloaded) => {
                self.recovered(read_at);
                Ok(reloaded)
            }
            Err(broken) => {
                let error = broken.error.clone();
                self.failed(asked, broken);
                Err(error)
            }
        }
    }

    /// Reads and compiles off the async threads.
    async fn read(&mut self) -> Reading {
        let (file, in_force, broken) = (Arc::clone(&self.file), Arc::clone(&self.in_force), self.broken.clone());
        let mut directory = self.directory.take();
        let revision = self.revision.saturating_add(1);
        let read = tokio::task::spawn_blocking(move || {
            if let Some(directory) = &mut directory {
                directory.watch();
            }
            (read_once(&file, &in_force, broken, revision), directory)
        });
        match read.await {
            Ok((reading, directory)) => {
                self.directory = directory;
                reading
            }
            // The runtime is going down; nothing is read any more.
            Err(_) => Reading::Broken(Broken { bytes: None, error: ReloadError::Stopped }),
        }
    }

    async fn install<I, F, E>(
        &mut self,
        compiled: Compiled,
        install: &mut I,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Reloaded, Broken>
    where
        I: FnMut(Compiled, Timestamp) -> F,
        F: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let (source, warnings) = (Arc::clone(&compiled.source), compiled.warnings.clone());
        let id = compiled.policy.id.clone();
        let at = now();
        if let Err(error) = install(compiled, at).await {
            return Err(Broken { bytes: Some(source), error: ReloadError::Install(error.to_string()) });
        }
        self.in_force = source;
        self.revision = id.revision;
        self.status.installed(id.revision, at);
        tracing::info!(revision = id.revision, digest = %id.digest, "a new policy is in force");
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        Ok(Reloaded::Installed { revision: id.revision, warnings })
    }

    fn recovered(&mut self, read_at: Timestamp) {
        self.status.found_valid(read_at);
        if self.broken.take().is_some() {
            tracing::info!(revision = self.revision, "the policy file is good again");
        }
    }

    /// Logs each error once for as long as it lasts, and counts each broken content once.
    fn failed(&mut self, asked: Asked, broken: Broken) {
        let before = self.broken.as_ref();
        let is_new_error = before.is_none_or(|before| before.error != broken.error);
        let is_new_content = before.is_none_or(|before| before.bytes != broken.bytes);
        if is_new_error {
            tracing::error!(
                revision = self.revision,
                path = %self.file.path().display(),
                "the policy file changes nothing, the policy before stays in force:\n{}",
                broken.error
            );
        }
        if is_new_error || is_new_content || asked == Asked::Yes {
            self.status.failed(broken.error.to_string());
        }
        self.broken = Some(broken);
    }
}

fn read_once(file: &PolicyFile, in_force: &[u8], before: Option<Broken>, revision: u64) -> Reading {
    let bytes = match file.read_now() {
        Ok(bytes) => bytes,
        Err(error) => return Reading::Broken(Broken { bytes: None, error: ReloadError::Load(LoadError::Read(error)) }),
    };
    if bytes == in_force {
        return Reading::Unchanged;
    }
    // What was broken is broken still, unless it only could not be installed.
    if let Some(before) = before
        && before.bytes.as_deref() == Some(bytes.as_slice())
        && matches!(before.error, ReloadError::Load(_))
    {
        return Reading::Broken(before);
    }
    match file.compile(&bytes, revision) {
        Ok(compiled) => Reading::New(Box::new(compiled)),
        Err(error) => {
            let error = ReloadError::Load(LoadError::Policy(error));
            Reading::Broken(Broken { bytes: Some(bytes.into()), error })
        }
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
