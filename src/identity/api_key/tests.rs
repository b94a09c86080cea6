use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::digest::sha256_hex;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(text: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        world.write(text);
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("api_keys.txt")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn keys(&self) -> Result<ApiKeys, ApiKeyFileError> {
        ApiKeys::read(self.path())
    }

    fn error(&self) -> String {
        self.keys().err().unwrap().to_string()
    }
}

fn line(id: &str, agent: &str, key: &str) -> String {
    line_for(id, &AgentName::parse(agent).unwrap(), key)
}

fn found(keys: &ApiKeys, key: &str) -> Option<(String, String)> {
    keys.find(key).map(|known| (known.id.to_string(), known.agent.to_string()))
}

fn pair(id: &str, agent: &str) -> (String, String) {
    (id.to_owned(), agent.to_owned())
}

#[test]
fn a_key_is_known_by_its_digest() {
    let text = format!("# people\n\n  {}  # first\n{}\n", line("k1", "svc-a", "one"), line("k2", "svc-b", "two"));
    let keys = World::new(&text).keys().unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(found(&keys, "one"), Some(pair("k1", "svc-a")));
    assert_eq!(found(&keys, "two"), Some(pair("k2", "svc-b")));
    for wrong in ["", "three", "one ", "One", "k1", &sha256_hex(b"one"), &"x".repeat(600)] {
        assert_eq!(found(&keys, wrong), None, "{wrong}");
    }
    assert_eq!(found(&ApiKeys::default(), "one"), None);
}

#[test]
fn every_key_of_many_is_found() {
    let text = (0..3000).map(|n| line(&format!("k{n}"), "svc-a", &format!("key {n}"))).collect::<Vec<_>>().join("\n");
    let keys = World::new(&text).keys().unwrap();
    for n in 0..3000 {
        assert_eq!(found(&keys, &format!("key {n}")), Some(pair(&format!("k{n}"), "svc-a")));
    }
    assert_eq!(found(&keys, "key 3000"), None);
}

#[test]
fn a_bad_line_is_named_with_what_to_write() {
    let good = line("k1", "svc-a", "one");
    let digest = sha256_hex(b"two");
    let upper = digest.to_uppercase();
    let short = digest.split_at(63).0;
    for (bad, says) in [
        ("k2 svc-b".to_owned(), "write `id agent sha256`"),
        (format!("k2 svc-b {digest} more"), "write `id agent sha256`"),
        (format!("k2 svc-b {upper}"), "lower-case"),
        (format!("k2 svc-b {short}"), "64 lower-case"),
        (format!("k2 svc'b {digest}"), "no agent's name"),
        (format!("{} svc-b {digest}", "k".repeat(129)), "at most 128"),
        (format!("k1 svc-b {digest}"), "the id stands in an earlier line"),
        (line("k2", "svc-b", "one"), "the key stands in an earlier line"),
    ] {
        let error = World::new(&format!("{good}\n\n{bad}\n")).error();
        assert!(error.contains("line 3") && error.contains(says), "{error}");
    }
}

#[test]
fn a_file_is_bounded_readable_and_not_for_everybody_to_write() {
    let many = (0..=10_000).map(|n| line(&format!("k{n}"), "a", &n.to_string())).collect::<Vec<_>>().join("\n");
    assert!(World::new(&many).error().contains("more than 10000 keys"));
    assert!(World::new(&"#".repeat(5 * 1024 * 1024)).error().contains("bytes"));
    let world = World::new("");
    assert!(world.keys().unwrap().is_empty());
    std::fs::set_permissions(world.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(world.error().contains("chmod 644"));
    std::fs::remove_file(world.path()).unwrap();
    assert!(world.error().contains("remit api-key new"));
}

#[test]
fn a_line_that_is_gone_ends_its_key_and_a_broken_file_changes_nothing() {
    let world = World::new(&line("k1", "svc-a", "one"));
    let keys = world.keys().unwrap();
    assert!(!keys.reload().unwrap());
    world.write("nonsense");
    assert!(keys.reload().is_err());
    assert_eq!(found(&keys, "one"), Some(pair("k1", "svc-a")), "the last good ones stay");
    world.write(&line("k2", "svc-b", "two"));
    assert!(keys.reload().unwrap());
    assert_eq!((found(&keys, "one"), found(&keys, "two")), (None, Some(pair("k2", "svc-b"))));
}
