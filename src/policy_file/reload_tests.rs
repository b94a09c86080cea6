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
        let (watcher, reloader, status) = Watcher::new(file, &first, Timestamp::from_nanos(0), poll);
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
        let task = tokio::spawn(watcher.run(install, now, shutdown.clone()));
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
