//! Reloads the file when it changes and when asked; whatever happens to it, the last good policy stays.

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
pub struct Watch {
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

impl Watch {
    /// Watches `file`, of which `first` is in force since `now`. `poll` is how often the content is read in
    /// any case; zero is taken as [`DEFAULT_POLL`].
    #[must_use]
    pub fn new(file: PolicyFile, first: &Compiled, now: Timestamp, poll: Duration) -> (Self, Reloader, Arc<Status>) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let revision = first.policy.id.revision;
        let status = Arc::new(Status::new(revision, now));
        let (directory, changes) = Directory::of(file.path());
        let watch = Self {
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
        (watch, Reloader { requests: sender }, status)
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
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use parking_lot::Mutex;
    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::policy_file::ExtraRoles;

    const QUICK: Duration = Duration::from_millis(10);
    /// So long that only file events and requests make a difference.
    const NEVER: Duration = Duration::from_hours(1);

    /// A watched policy file in a folder of its own.
    struct Rig {
        folder: TempDir,
        path: PathBuf,
        reloader: Reloader,
        status: Arc<Status>,
        /// The depth of each policy that was put in force: what the tests change.
        depths: Arc<Mutex<Vec<u8>>>,
        install_fails: Arc<AtomicBool>,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
    }

    fn depth(depth: u8) -> String {
        format!("{{\"max_delegation_depth\": {depth}}}")
    }

    fn digest(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    impl Rig {
        /// Policy 1 is in force from `policy.json`, laid there by `lay`.
        async fn start(poll: Duration, lay: impl FnOnce(&std::path::Path)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            lay(folder.path());
            let path = folder.path().join("policy.json");
            let file = PolicyFile::new(path.clone(), ExtraRoles::default(), digest);
            let first = file.load(1).unwrap();
            let (watch, reloader, status) = Watch::new(file, &first, Timestamp::from_nanos(0), poll);
            let (depths, install_fails) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
            let install = {
                let (depths, fails) = (Arc::clone(&depths), Arc::clone(&install_fails));
                move |compiled: Compiled, _: Timestamp| {
                    let (depths, fails) = (Arc::clone(&depths), fails.load(Ordering::SeqCst));
                    async move {
                        if fails {
                            return Err("the quarantine can't be written");
                        }
                        depths.lock().push(compiled.policy.max_delegation_depth);
                        Ok(())
                    }
                }
            };
            let ticks = AtomicU64::new(1);
            let now = move || Timestamp::from_nanos(ticks.fetch_add(1, Ordering::SeqCst));
            let shutdown = CancellationToken::new();
            let task = tokio::spawn(watch.run(install, now, shutdown.clone()));
            let rig = Self { folder, path, reloader, status, depths, install_fails, shutdown, task };
            // The first reading is over and the directory is watched.
            rig.until("it is watched", || rig.status.last_valid_read() > Timestamp::from_nanos(0)).await;
            rig.reloader.reload().await.unwrap();
            rig
        }

        async fn of_depth_1(poll: Duration) -> Self {
            Self::start(poll, |folder| fs::write(folder.join("policy.json"), depth(1)).unwrap()).await
        }

        async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
            let wait = async {
                while !is_so() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let seen = tokio::time::timeout(Duration::from_secs(10), wait).await;
            assert!(seen.is_ok(), "{what}: {:?} {:?}", self.status, self.depths.lock());
        }

        async fn until_depth(&self, wanted: u8) {
            self.until("the new policy is in force", || self.depths.lock().last() == Some(&wanted)).await;
            self.until("the status says so", || self.status.last_error().is_none()).await;
        }

        async fn until_broken(&self) {
            self.until("the file is found broken", || self.status.last_error().is_some()).await;
        }

        fn rename_into_place(&self, text: &str) {
            let new = self.folder.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, &self.path).unwrap();
        }
    }

    #[tokio::test]
    async fn an_event_reloads_what_was_written_in_place() {
        let rig = Rig::of_depth_1(NEVER).await;
        fs::write(&rig.path, depth(3)).unwrap();
        rig.until_depth(3).await;
        assert_eq!(rig.status.revision(), 2);
        assert!(rig.status.loaded_at() > Timestamp::from_nanos(0));
    }

    #[tokio::test]
    async fn an_event_reloads_what_was_renamed_into_place() {
        let rig = Rig::of_depth_1(NEVER).await;
        for wanted in [3, 4, 5] {
            rig.rename_into_place(&depth(wanted));
            rig.until_depth(wanted).await;
        }
        assert_eq!((rig.status.revision(), rig.status.reload_failures()), (4, 0));
    }

    #[tokio::test]
    async fn an_event_reloads_a_config_map() {
        let lay = |folder: &std::path::Path| {
            fs::create_dir(folder.join("..v1")).unwrap();
            fs::write(folder.join("..v1/policy.json"), depth(1)).unwrap();
            std::os::unix::fs::symlink("..v1", folder.join("..data")).unwrap();
            std::os::unix::fs::symlink("..data/policy.json", folder.join("policy.json")).unwrap();
        };
        let rig = Rig::start(NEVER, lay).await;
        let folder = rig.folder.path();
        for wanted in [3, 4] {
            let version = format!("..v{wanted}");
            fs::create_dir(folder.join(&version)).unwrap();
            fs::write(folder.join(&version).join("policy.json"), depth(wanted)).unwrap();
            std::os::unix::fs::symlink(&version, folder.join("..data_tmp")).unwrap();
            let old = fs::read_link(folder.join("..data")).unwrap();
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
            fs::remove_dir_all(folder.join(old)).unwrap();
            rig.until_depth(wanted).await;
        }
        assert_eq!(rig.status.reload_failures(), 0);
    }

    #[tokio::test]
    async fn half_a_file_changes_nothing() {
        let rig = Rig::of_depth_1(NEVER).await;
        fs::write(&rig.path, "{\"max_dele").unwrap();
        rig.until_broken().await;
        assert!(rig.status.last_error().unwrap().contains("half written"));
        assert_eq!((rig.status.revision(), rig.depths.lock().len()), (1, 0));
        fs::write(&rig.path, depth(3)).unwrap();
        rig.until_depth(3).await;
    }

    #[tokio::test]
    async fn deleted_and_made_anew() {
        let rig = Rig::of_depth_1(NEVER).await;
        fs::remove_file(&rig.path).unwrap();
        rig.until_broken().await;
        assert_eq!(rig.status.revision(), 1);
        fs::write(&rig.path, depth(3)).unwrap();
        rig.until_depth(3).await;
    }

    #[tokio::test]
    async fn the_folder_replaced_is_watched_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let (mut directory, changes) = Directory::of(&inner.join("policy.json"));
        directory.watch();
        fs::rename(&inner, folder.path().join("old")).unwrap();
        directory.watch();
        fs::create_dir(&inner).unwrap();
        directory.watch();
        fs::write(inner.join("policy.json"), "{}").unwrap();
        tokio::time::timeout(Duration::from_secs(10), changes.settled()).await.unwrap();
    }

    #[tokio::test]
    async fn the_poll_needs_no_event() {
        let folder = tempfile::tempdir().unwrap();
        let (real, path) = (folder.path().join("real.json"), folder.path().join("link/policy.json"));
        fs::create_dir(folder.path().join("link")).unwrap();
        fs::write(&real, depth(1)).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let lay = |rig: &std::path::Path| std::os::unix::fs::symlink(&path, rig.join("policy.json")).unwrap();
        let rig = Rig::start(QUICK, lay).await;
        // Two links away: no event in the watched folder.
        fs::write(&real, depth(3)).unwrap();
        rig.until_depth(3).await;
    }

    #[tokio::test]
    async fn a_pipe_in_its_place_blocks_nothing() {
        let rig = Rig::of_depth_1(QUICK).await;
        fs::remove_file(&rig.path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&rig.path).status().unwrap().success());
        let is_said = || rig.status.last_error().is_some_and(|error| error.contains("is not a file"));
        rig.until("the pipe is refused", is_said).await;
        rig.rename_into_place(&depth(3));
        rig.until_depth(3).await;
    }

    #[tokio::test]
    async fn an_unreadable_file_changes_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let rig = Rig::of_depth_1(QUICK).await;
        fs::set_permissions(&rig.path, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(&rig.path).is_ok() {
            return; // Root reads everything.
        }
        rig.until_broken().await;
        fs::set_permissions(&rig.path, fs::Permissions::from_mode(0o600)).unwrap();
        rig.until("it is good again", || rig.status.last_error().is_none()).await;
        assert_eq!(rig.status.revision(), 1);
    }

    #[tokio::test]
    async fn a_broken_content_is_counted_once() {
        let rig = Rig::of_depth_1(QUICK).await;
        rig.rename_into_place("{\"a\": 1}");
        rig.until_broken().await;
        tokio::time::sleep(QUICK.saturating_mul(10)).await;
        assert_eq!(rig.status.reload_failures(), 1);
        rig.rename_into_place("{\"b\": 1}");
        rig.until("the next is counted", || rig.status.reload_failures() == 2).await;
        rig.rename_into_place(&depth(1));
        rig.until("it is good again", || rig.status.last_error().is_none()).await;
        assert_eq!((rig.status.revision(), rig.status.reload_failures()), (1, 2));
    }

    #[tokio::test]
    async fn who_asks_gets_the_result() {
        let rig = Rig::of_depth_1(NEVER).await;
        assert_eq!(rig.reloader.reload().await, Ok(Reloaded::Unchanged { revision: 1 }));
        rig.rename_into_place(&depth(3));
        let installed = rig.reloader.reload().await.unwrap();
        assert!(matches!(installed, Reloaded::Installed { revision: 2, .. }), "{installed:?}");
        assert_eq!(*rig.depths.lock(), [3]);
        rig.rename_into_place("[]");
        for failures in [1, 2] {
            let error = rig.reloader.reload().await.unwrap_err();
            assert!(error.to_string().contains("policy.json:1:1"), "{error}");
            assert!(rig.status.reload_failures() >= failures);
        }
        assert_eq!(rig.status.revision(), 2);
    }

    #[tokio::test]
    async fn what_can_not_be_put_in_force_is_tried_again() {
        let rig = Rig::of_depth_1(QUICK).await;
        rig.install_fails.store(true, Ordering::SeqCst);
        rig.rename_into_place(&depth(3));
        rig.until_broken().await;
        assert!(rig.status.last_error().unwrap().contains("the quarantine can't be written"));
        tokio::time::sleep(QUICK.saturating_mul(5)).await;
        assert_eq!((rig.status.revision(), rig.status.reload_failures()), (1, 1));
        rig.install_fails.store(false, Ordering::SeqCst);
        rig.until_depth(3).await;
        assert_eq!(rig.status.revision(), 2);
    }

    #[tokio::test]
    async fn unchanged_is_found_valid_and_broken_is_not() {
        let rig = Rig::of_depth_1(QUICK).await;
        let before = rig.status.last_valid_read();
        rig.until("it is read again", || rig.status.last_valid_read() > before).await;
        rig.rename_into_place("{");
        rig.until_broken().await;
        let last = rig.status.last_valid_read();
        tokio::time::sleep(QUICK.saturating_mul(5)).await;
        assert_eq!(rig.status.last_valid_read(), last);
    }

    #[tokio::test]
    async fn it_stops_when_told() {
        let rig = Rig::of_depth_1(NEVER).await;
        rig.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), rig.task).await.unwrap().unwrap();
        assert_eq!(rig.reloader.reload().await, Err(ReloadError::Stopped));
    }
}
