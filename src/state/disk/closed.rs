//! Who else could change the state: a directory or file that strangers may write to is not believed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::error::StateError;

const WRITABLE_BY_OTHERS: u32 = 0o002;
const WRITABLE_BY_GROUP: u32 = 0o020;

/// It is this user's or root's, and nobody else writes to it but the process's own group: that is what Kubernetes'
/// `fsGroup` makes of a volume and of all that is in it.
pub(super) fn closed(path: &Path, metadata: &Metadata) -> Result<(), StateError> {
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let user = rustix::process::geteuid().as_raw();
    if is_closed(mode, owner, user, || is_own_group(metadata.gid())) {
        return Ok(());
    }
    Err(StateError::Exposed { path: path.to_owned(), mode, owner, user })
}

fn is_closed(mode: u32, owner: u32, user: u32, is_own_group: impl Fn() -> bool) -> bool {
    let is_own = owner == user || owner == 0;
    is_own && mode & WRITABLE_BY_OTHERS == 0 && (mode & WRITABLE_BY_GROUP == 0 || is_own_group())
}

fn is_own_group(group: u32) -> bool {
    let supplementary = rustix::process::getgroups().unwrap_or_default();
    rustix::process::getegid().as_raw() == group || supplementary.iter().any(|own| own.as_raw() == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_may_write_to_is_refused() {
        let (own, stranger) = (|| true, || false);
        for (mode, owner) in [(0o600, 1000), (0o755, 1000), (0o700, 0), (0o2755, 0)] {
            assert!(is_closed(mode, owner, 1000, stranger), "{mode:o} {owner}");
        }
        assert!(is_closed(0o2775, 0, 1000, own) && is_closed(0o660, 1000, 1000, own), "fsGroup");
        assert!(!is_closed(0o770, 1000, 1000, stranger), "another group");
        assert!(!is_closed(0o702, 1000, 1000, own), "everybody");
        assert!(!is_closed(0o1777, 0, 1000, own), "everybody, as in /tmp");
        assert!(!is_closed(0o700, 1001, 1000, own), "another owner");
        assert!(!is_closed(0o700, 1001, 0, own), "another owner, and the process is root's");
    }
}
