use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;
use crate::config::Sources;

const NOW: Timestamp = Timestamp::from_seconds(1_780_000_000);

fn config(folder: &DevFolder) -> Config {
    let sources = Sources { file: Some(folder.file("remit.toml")), ..Sources::default() };
    Config::read(&sources).unwrap().0
}

fn lay_out(path: &Path, now: Timestamp) -> (DevFolder, Vec<String>) {
    let folder = DevFolder::lay_out(path, || "ab".repeat(32).into(), now).unwrap();
    let warnings = folder.certify_agents(&config(&folder), now).unwrap();
    (folder, warnings)
}

/// Every file with its bytes.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(contents(&entry.path()).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn lays_out_what_a_service_needs() {
    let place = tempfile::tempdir().unwrap();
    let (folder, warnings) = lay_out(&place.path().join("dev"), NOW);
    assert!(warnings.is_empty());
    let found = contents(folder.path());
    let mut wanted: Vec<String> =
        ["api_keys.txt", "ca.key", "ca.pem", "forward.key", "hmac.key", "policy.json", "remit.toml", "server.key"]
            .into_iter()
            .chain(["server.pem", "api_keys/ops-admin.key", "api_keys/svc-demo.key"])
            .map(str::to_owned)
            .collect();
    for agent in ["coordinator", "analyst", "deployer", "writer", "validator"].map(|name| format!("agent-{name}")) {
        wanted.extend([format!("agents/{agent}.pem"), format!("agents/{agent}.key")]);
    }
    for agent in ["ops-admin", "svc-demo"] {
        wanted.extend([format!("agents/{agent}.pem"), format!("agents/{agent}.key")]);
    }
    wanted.sort_unstable();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), wanted);
    for name in found.keys().filter(|name| Path::new(name).extension().is_some_and(|end| end == "key")) {
        let mode = std::fs::metadata(folder.file(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    config(&folder).key_files().read().unwrap();
}

#[test]
fn the_files_say_what_the_defaults_say() {
    let place = tempfile::tempdir().unwrap();
    let (folder, _) = lay_out(place.path(), NOW);
    let (defaults, _) =
        Config::read(&Sources { dev: Some(DevFolder::defaults_in(folder.path())), ..Sources::default() }).unwrap();
    assert_eq!(defaults, config(&folder));
    assert!(defaults.keys[0].foreign);
    assert_eq!(DevFolder::around(&folder.file("remit.toml")), Some(folder));
    assert_eq!(DevFolder::around(Path::new("/etc/remit.toml")), None);
}

#[test]
fn keeps_what_is_there_and_completes_it() {
    let place = tempfile::tempdir().unwrap();
    let policy = br#"{"delegation_rules": {"a": {"can_delegate_to": ["b/c", ".."]}}}"#;
    std::fs::write(place.path().join("policy.json"), policy).unwrap();
    let (folder, warnings) = lay_out(place.path(), NOW);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with(".. gets no certificate") && warnings[1].starts_with("b/c gets"));
    let first = contents(folder.path());
    assert_eq!(first["policy.json"], policy);
    assert!(first.contains_key("agents/a.pem") && !first.contains_key("agents/agent-deployer.pem"));

    lay_out(place.path(), NOW.after(Duration::from_mins(1)));
    assert_eq!(contents(folder.path()), first);

    std::fs::remove_file(folder.file("agents/a.key")).unwrap();
    std::fs::remove_file(folder.file("hmac.key")).unwrap();
    lay_out(place.path(), NOW);
    let second = contents(folder.path());
    assert_eq!(second.len(), first.len());
    let changed: Vec<&str> = first.keys().filter(|name| first[*name] != second[*name]).map(String::as_str).collect();
    assert_eq!(changed, ["agents/a.key", "agents/a.pem"]);
}

#[test]
fn certificates_about_to_expire_are_made_anew() {
    let place = tempfile::tempdir().unwrap();
    let day = Duration::from_hours(24);
    lay_out(place.path(), NOW);
    let first = contents(place.path());
    lay_out(place.path(), NOW.after(day * 88));
    assert_eq!(contents(place.path()), first);
    lay_out(place.path(), NOW.after(day * 89 + Duration::from_secs(1)));
    let second = contents(place.path());
    for name in ["server.pem", "server.key", "agents/ops-admin.pem"] {
        assert_ne!(first[name], second[name], "{name}");
    }
    assert_eq!(first["ca.pem"], second["ca.pem"]);
    lay_out(place.path(), NOW.after(day * 3650));
    assert_ne!(contents(place.path())["ca.pem"], first["ca.pem"]);
}

#[test]
fn a_new_ca_issues_everything_anew() {
    let place = tempfile::tempdir().unwrap();
    lay_out(place.path(), NOW);
    let first = contents(place.path());
    std::fs::remove_file(place.path().join("ca.pem")).unwrap();
    std::fs::remove_file(place.path().join("ca.key")).unwrap();
    let folder = DevFolder::lay_out(place.path(), || String::new().into(), NOW).unwrap();
    folder.certify_agents(&config(&folder), NOW).unwrap();
    let second = contents(place.path());
    for name in ["server.pem", "agents/svc-demo.pem"] {
        assert_ne!(first[name], second[name], "{name}");
    }
}

#[test]
fn a_ca_of_somebody_else_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    lay_out(place.path(), NOW);
    std::fs::remove_file(place.path().join("ca.key")).unwrap();
    let error = DevFolder::lay_out(place.path(), || String::new().into(), NOW).unwrap_err().to_string();
    assert!(error.contains("without its key ca.key"), "{error}");
    std::fs::copy(place.path().join("server.pem"), place.path().join("ca.pem")).unwrap();
    std::fs::copy(place.path().join("server.key"), place.path().join("ca.key")).unwrap();
    let error = DevFolder::lay_out(place.path(), || String::new().into(), NOW).unwrap_err().to_string();
    assert!(error.contains("not a CA that Remit made"), "{error}");
}

#[test]
fn a_policy_with_errors_still_lets_the_administrator_in() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("policy.json"), "{").unwrap();
    lay_out(place.path(), NOW);
    let found = contents(place.path());
    assert!(found.contains_key("agents/ops-admin.pem") && found.contains_key("agents/svc-demo.pem"));
}
