//! Word from the system that something in the policy file's directory changed. It makes reloads quick; that
//! they come at all is the poll's business.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Quiet that must follow an event before the file is read: the first event of a swap comes before its rename.
const QUIET: Duration = Duration::from_millis(75);
/// The file is read after this long even if there is no quiet.
const LONGEST: Duration = Duration::from_millis(500);

/// Watches the directory, never the file: a watch on a file follows the symlink and dies with its target, as
/// a Kubernetes `ConfigMap` removes it.
pub(super) struct Directory {
    path: PathBuf,
    file: Arc<OsStr>,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Which directory is watched, so that one that took its place is seen.
    watched: Option<Identity>,
    has_warned: bool,
}

/// Device, inode, and when it was made, since inodes are used again.
type Identity = (u64, u64, Option<SystemTime>);

/// The receiving end.
#[derive(Clone)]
pub(super) struct Changes(Arc<Notify>);

impl Changes {
    /// Waits for a change and then for quiet. Given up meanwhile, it loses nothing that a reading of the file
    /// at that moment doesn't see.
    pub(super) async fn settled(&self) {
        self.0.notified().await;
        let quiet = async {
            loop {
                tokio::select! {
                    () = self.0.notified() => {}
                    () = sleep(QUIET) => return,
                }
            }
        };
        // After the longest wait, the file is read without quiet.
        let _ = timeout(LONGEST, quiet).await;
    }
}

impl Directory {
    /// The directory of this file, not watched yet.
    pub(super) fn of(file: &Path) -> (Self, Changes) {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let changed = Arc::new(Notify::new());
        let directory = Self {
            path: parent.unwrap_or_else(|| Path::new(".")).to_owned(),
            file: file.file_name().unwrap_or_default().into(),
            changed: Arc::clone(&changed),
            watcher: None,
            watched: None,
            has_warned: false,
        };
        (directory, Changes(changed))
    }

    /// Watches the directory if it isn't watched yet or was replaced by another. To be called before the file is
    /// read, so that no change falls between. Blocks for a moment.
    pub(super) fn watch(&mut self) {
        let now = identity(&self.path);
        if self.watcher.is_some() && self.watched == now {
            return;
        }
        self.watcher = None;
        match self.start() {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.watched = now;
                self.has_warned = false;
            }
            Err(error) if !self.has_warned => {
                self.has_warned = true;
                tracing::warn!(
                    directory = %self.path.display(), %error,
                    "no file events for the policy's directory: changes are found by polling alone"
                );
            }
            Err(_) => {}
        }
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let (file, changed) = (Arc::clone(&self.file), Arc::clone(&self.changed));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, |event| concerns(event, &file)) {
                changed.notify_one();
            }
        })?;
        watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Whether the file may have changed: its own name, or a name that begins with `..`, as the links and folders
/// of a `ConfigMap` do. Others, such as an audit log beside it, may change all the time. Our own reading is an
/// event too, and none of these.
fn concerns(event: &Event, file: &OsStr) -> bool {
    let is_read = matches!(event.kind, EventKind::Access(_));
    let is_written = matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)));
    if is_read && !is_written {
        return false;
    }
    let is_ours =
        |path: &PathBuf| path.file_name().is_none_or(|name| name == file || name.as_encoded_bytes().starts_with(b".."));
    event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(is_ours)
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino(), metadata.created().ok()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|metadata| (0, 0, metadata.created().ok()))
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind};

    use super::*;

    #[test]
    fn only_what_may_be_the_file_concerns_us() {
        let file = OsStr::new("policy.json");
        let modified = |name: &str| Event::new(EventKind::Modify(ModifyKind::Any)).add_path(Path::new("/d").join(name));
        assert!(concerns(&modified("policy.json"), file));
        assert!(concerns(&modified("..data"), file));
        assert!(concerns(&Event::new(EventKind::Create(CreateKind::Any)).add_path("/d/..2024_tmp".into()), file));
        assert!(!concerns(&modified("audit.jsonl"), file));
        assert!(concerns(&Event::new(EventKind::Other).set_flag(Flag::Rescan), file));
        let opened = |kind| Event::new(EventKind::Access(kind)).add_path("/d/policy.json".into());
        assert!(!concerns(&opened(AccessKind::Open(AccessMode::Any)), file));
        assert!(!concerns(&opened(AccessKind::Close(AccessMode::Read)), file));
        assert!(concerns(&opened(AccessKind::Close(AccessMode::Write)), file));
    }
}
