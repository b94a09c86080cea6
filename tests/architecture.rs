//! Which room may import which, and which crates it may name: the house's directions, held by a table.
//!
//! A row is missing for a room that isn't in it, so that a new room has to say where it stands.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    reason = "a test may panic: that is how it fails"
)]

#[path = "architecture/points.rs"]
mod points;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A room, the rooms it may import, and the crates that it may name beside `std`.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
}

const HOUSE: &[Room] = &[
    // `cel` is an evaluator without clock, input or output: what a condition means is what it says.
    Room { name: "domain", rooms: &[], crates: &["serde", "serde_json", "faster_hex", "foldhash", "strsim", "cel"] },
    Room { name: "digest", rooms: &[], crates: &["faster_hex", "hmac", "sha2"] },
    Room { name: "json", rooms: &[], crates: &["serde", "serde_json"] },
    Room { name: "agent_card", rooms: &["json"], crates: &["serde_json"] },
    Room {
        name: "keyring",
        rooms: &["domain"],
        crates: &["hmac", "sha2", "subtle", "base64", "faster_hex", "zeroize", "rustix"],
    },
    Room {
        name: "state",
        rooms: &["domain"],
        crates: &["arc_swap", "parking_lot", "redis", "rustix", "tokio", "tracing", "zeroize"],
    },
    Room {
        name: "events",
        rooms: &["digest", "domain"],
        crates: &["serde", "serde_json", "tokio", "parking_lot", "tracing", "jiff", "arc_swap", "strsim", "rustix"],
    },
    Room { name: "baseline", rooms: &["domain", "events"], crates: &["serde"] },
    Room { name: "audit", rooms: &["digest", "events"], crates: &["serde", "serde_json"] },
    Room {
        name: "policy_file",
        rooms: &["domain"],
        crates: &[
            "serde",
            "serde_json",
            "jsonc_parser",
            "annotate_snippets",
            "strsim",
            "notify",
            "tokio",
            "tokio_util",
            "parking_lot",
            "tracing",
        ],
    },
    Room {
        name: "transport",
        rooms: &["domain"],
        crates: &[
            "rustls",
            "tokio",
            "tokio_rustls",
            "tokio_util",
            "hyper",
            "hyper_util",
            "http",
            "tower",
            "arc_swap",
            "socket2",
            "x509_parser",
            "parking_lot",
            "zeroize",
        ],
    },
    Room {
        name: "identity",
        // Of the keyring it wants the rule which files are closed to others.
        rooms: &["digest", "domain", "json", "keyring", "transport"],
        // Of jsonwebtoken only the cryptography is used, SHA-256 of tokens for their cache included.
        crates: &[
            "serde",
            "serde_json",
            "x509_parser",
            "http",
            "arc_swap",
            "base64",
            "jsonwebtoken",
            "moka",
            "parking_lot",
            "reqwest",
            "subtle",
            "tokio",
            "tracing",
            "url",
            "zeroize",
        ],
    },
    Room {
        name: "engine",
        rooms: &["baseline", "domain", "keyring", "state", "events"],
        crates: &[
            "arc_swap",
            "futures_util",
            "parking_lot",
            "prometheus",
            "rand",
            "serde_json",
            "tokio",
            "tokio_util",
            "tracing",
        ],
    },
    Room { name: "api", rooms: &[], crates: &["prost", "tonic", "tonic_prost", "tonic_types"] },
    Room { name: "door", rooms: &["domain", "engine", "identity", "transport"], crates: &["http", "tokio", "tracing"] },
    Room {
        name: "decision_feed",
        rooms: &["domain", "door", "engine", "events", "identity", "transport"],
        crates: &["http", "tokio", "tokio_util"],
    },
    Room {
        name: "proxied",
        rooms: &["domain", "door", "engine", "events", "identity", "json", "transport"],
        crates: &["http", "serde", "serde_json", "tracing"],
    },
    Room { name: "readiness", rooms: &["domain"], crates: &[] },
    Room {
        name: "grpc",
        rooms: &[
            "api",
            "decision_feed",
            "readiness",
            "domain",
            "door",
            "engine",
            "events",
            "identity",
            "proxied",
            "state",
            "transport",
        ],
        crates: &[
            "futures_util",
            "tonic",
            "tonic_health",
            "tonic_reflection",
            "tonic_types",
            "prost",
            "prost_types",
            "serde_json",
            "tokio",
            "tokio_stream",
            "tokio_util",
            "http",
            "tracing",
        ],
    },
    Room {
        name: "http",
        rooms: &[
            "decision_feed",
            "readiness",
            "domain",
            "door",
            "engine",
            "events",
            "identity",
            "json",
            "proxied",
            "state",
            "transport",
        ],
        crates: &[
            "axum",
            "form_urlencoded",
            "futures_util",
            "prometheus",
            "serde_json",
            "tokio",
            "tokio_stream",
            "tokio_util",
            "tracing",
            "url",
            "zeroize",
        ],
    },
    Room { name: "istio", rooms: &["domain", "identity"], crates: &["serde", "serde_json", "serde_saphyr"] },
    Room { name: "doctor", rooms: &[], crates: &["serde_json", "serde_saphyr"] },
    Room { name: "telemetry", rooms: &[], crates: &["serde", "tracing_subscriber"] },
    Room {
        name: "export",
        // Of the keyring it wants the rule which files are closed to others.
        rooms: &["api", "domain", "events", "keyring"],
        crates: &[
            "parking_lot",
            "prometheus",
            "prost",
            "tokio",
            "tokio_util",
            "tonic",
            "tonic_types",
            "tracing",
            "url",
        ],
    },
    Room { name: "shutdown", rooms: &[], crates: &["tokio", "tokio_util", "tracing"] },
    Room {
        name: "config",
        rooms: &[
            "baseline",
            "domain",
            "events",
            "export",
            "identity",
            "keyring",
            "policy_file",
            "proxied",
            "state",
            "telemetry",
            "transport",
        ],
        crates: &["serde", "toml", "strsim", "url", "zeroize"],
    },
    Room {
        name: "server",
        rooms: &[
            "readiness",
            "baseline",
            "config",
            "digest",
            "domain",
            "door",
            "engine",
            "events",
            "export",
            "grpc",
            "http",
            "identity",
            "keyring",
            "policy_file",
            "proxied",
            "shutdown",
            "state",
            "telemetry",
            "transport",
        ],
        crates: &[
            "tokio",
            "tokio_util",
            "tonic",
            "tonic_reflection",
            "tracing",
            "parking_lot",
            "prometheus",
            "zeroize",
        ],
    },
    Room {
        name: "dev_folder",
        rooms: &["config", "digest", "domain", "identity", "keyring", "policy_file"],
        crates: &["rcgen", "serde", "serde_json", "x509_parser", "zeroize"],
    },
    Room {
        name: "cli",
        rooms: &[
            "agent_card",
            "api",
            "audit",
            "config",
            "dev_folder",
            "digest",
            "doctor",
            "domain",
            "engine",
            "identity",
            "istio",
            "keyring",
            "policy_file",
            "server",
        ],
        crates: &[
            "base64",
            "clap",
            "faster_hex",
            "jiff",
            "prost_types",
            "serde_json",
            "tokio",
            "tokio_util",
            "tonic",
            "tonic_types",
            "zeroize",
        ],
    },
    Room { name: "main", rooms: &["cli"], crates: &["mimalloc", "remit"] },
];

/// The dependencies of `Cargo.toml`, as code names them.
const CRATES: &[&str] = &[
    "annotate_snippets",
    "arc_swap",
    "axum",
    "base64",
    "cel",
    "clap",
    "faster_hex",
    "foldhash",
    "form_urlencoded",
    "hmac",
    "http",
    "hyper",
    "hyper_util",
    "jiff",
    "jsonc_parser",
    "jsonwebtoken",
    "mimalloc",
    "moka",
    "notify",
    "parking_lot",
    "prometheus",
    "prost",
    "prost_types",
    "rand",
    "rcgen",
    "redis",
    "reqwest",
    "rustix",
    "rustls",
    "serde",
    "serde_json",
    "serde_saphyr",
    "sha2",
    "socket2",
    "strsim",
    "subtle",
    "tokio",
    "tokio_rustls",
    "tokio_stream",
    "tokio_util",
    "toml",
    "tonic",
    "tonic_health",
    "tonic_prost",
    "tonic_reflection",
    "tonic_types",
    "tower",
    "tracing",
    "tracing_subscriber",
    "url",
    "x509_parser",
    "zeroize",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The room that a file belongs to: its first folder, or its own name.
fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The file without its tests, comments and strings, which may say anything.
fn code_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let body = text.split("#[cfg(test)]").next().unwrap();
    let without_comment = |line: &str| match line.find("//") {
        Some(at) => line[..at].to_owned(),
        None => line.to_owned(),
    };
    let mut code = String::new();
    for line in body.lines() {
        let line = without_comment(line);
        let outside = line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
        code.push_str(&outside);
        code.push('\n');
    }
    code
}

fn is_test_file(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    name.ends_with("_tests") || name == "testing" || name == "tests"
}

/// The names that stand before `::` at the beginning of a path.
fn roots(code: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut roots = BTreeSet::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let word = before.rsplit(|c: char| !is_word(c)).next().unwrap();
        let rest = &before[..before.len() - word.len()];
        if !rest.ends_with("::") && !word.is_empty() {
            roots.insert(word.to_owned());
        }
    }
    roots
}

/// The rooms that are named after `crate::`, also in `use crate::{a, b}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap();
            let first_word = |item: &str| item.trim().split("::").next().unwrap().trim().to_owned();
            rooms.extend(list.split(',').map(first_word).filter(|word| !word.is_empty()));
        } else {
            rooms.insert(rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned());
        }
    }
    rooms
}

#[test]
fn rooms_import_only_what_stands_below_them() {
    let mut wrong = Vec::new();
    for file in rust_files(&source()) {
        let name = room_of(&file);
        if name == "lib" || is_test_file(&file) {
            continue;
        }
        let Some(room) = HOUSE.iter().find(|room| room.name == name) else {
            wrong.push(format!("{}: the room {name} has no row in the table", file.display()));
            continue;
        };
        let code = code_of(&file);
        for import in imports(&code) {
            if import != room.name && !room.rooms.contains(&import.as_str()) {
                wrong.push(format!("{}: {name} may not import {import}", file.display()));
            }
        }
        for root in roots(&code) {
            // A room may have a crate's name; whoever imports the room means it.
            let is_room = root == room.name || room.rooms.contains(&root.as_str());
            let is_crate = CRATES.contains(&root.as_str()) && !is_room;
            if is_crate && !room.crates.contains(&root.as_str()) {
                wrong.push(format!("{}: {name} may not name the crate {root}", file.display()));
            }
        }
        if code.contains("super::super::") {
            wrong.push(format!("{}: super::super:: climbs over a room; name the way from crate::", file.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_row_for_nothing() {
    let rooms = rust_files(&source()).iter().map(|file| room_of(file)).collect::<BTreeSet<_>>();
    for room in HOUSE {
        assert!(rooms.contains(room.name), "there is no room {}", room.name);
    }
}

#[test]
fn the_map_is_the_house() {
    let text = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | [`")?.split_once('`')).map(|(name, _)| name);
    let rooms = HOUSE.iter().map(|room| room.name).filter(|name| !["lib", "main"].contains(name));
    assert_eq!(
        rows.collect::<Vec<_>>(),
        rooms.collect::<Vec<_>>(),
        "src/lib.rs has a row for each room, in this order"
    );
}

#[test]
fn a_room_says_of_itself_what_the_map_says() {
    let map = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let rows = map.lines().filter_map(|line| line.strip_prefix("//! | [`")?.strip_suffix(" |")?.split_once("`] | "));
    for (room, sentence) in rows {
        let text = std::fs::read_to_string(source().join(format!("{room}.rs"))).unwrap();
        let doc = text.lines().map_while(|line| line.strip_prefix("//!")).collect::<String>();
        assert!(doc.trim().starts_with(sentence.trim_end_matches('.')), "{room}: {sentence}");
    }
}

#[test]
fn arrows_point_down() {
    // A room's imports stand above it in the table, so that there is no circle.
    for (place, room) in HOUSE.iter().enumerate() {
        for below in room.rooms {
            let other = HOUSE.iter().position(|room| room.name == *below);
            assert!(
                other.is_some_and(|other| other < place),
                "{} imports {below}, which does not stand above it",
                room.name
            );
        }
    }
}

#[test]
fn files_and_the_entrance_stay_small() {
    let mut wrong = Vec::new();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    for file in rust_files(&source()).into_iter().chain(rust_files(&tests)).chain(rust_files(&benches)) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        let limit = if file.ends_with("src/main.rs") { 40 } else { 600 };
        if lines > limit {
            wrong.push(format!("{}: {lines} lines, at most {limit}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn rooms_have_no_mod_rs_and_no_names_that_say_nothing() {
    for file in rust_files(&source()) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        for empty in ["mod", "utils", "util", "common", "helpers", "helper", "manager", "handler", "types", "misc"] {
            assert_ne!(name, empty, "{}", file.display());
        }
    }
}

#[test]
fn exceptions_to_lints_say_why() {
    for file in rust_files(&source()) {
        let code = code_of(&file);
        for (at, _) in code.match_indices("[expect(") {
            let attribute = code[at..].split(")]").next().unwrap();
            assert!(attribute.contains("reason"), "{}: {attribute}", file.display());
        }
        assert!(!code.contains("[allow("), "{}: expect a lint, don't allow it", file.display());
    }
}

#[test]
fn the_oracle_stays_small_and_shares_nothing() {
    let files = rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model"));
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<Vec<_>>();
    let lines = texts.iter().map(|text| text.lines().count()).sum::<usize>();
    assert!(!texts.is_empty() && lines <= 400, "the oracle has {lines} lines, at most 400");
    // The crate is spoken of as Remit; only code would name it as it is imported.
    let shapes = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/laws/words.rs")).unwrap();
    assert!(texts.iter().chain([&shapes]).all(|text| !text.contains("remit")), "the oracle shares code with the crate");
}
