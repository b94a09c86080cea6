//! The binary as people and scripts use it: what it prints, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The program in this folder, with no `REMIT_` variable set but these.
fn remit(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remit"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("REMIT_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    remit(folder, &[], arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A service on free ports that ends with the test.
struct Service {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Service {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let ports = ["REMIT_GRPC_LISTEN", "REMIT_HTTP_LISTEN", "REMIT_ADMIN_LISTEN"].map(|name| (name, "127.0.0.1:0"));
        let mut command = remit(folder, &ports, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines }
    }

    /// The lines up to the one that starts like this.
    fn until(&self, start: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|line: &String| !line.starts_with(start)) {
            seen.push(self.lines.recv_timeout(Duration::from_secs(30)).unwrap());
        }
        seen
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_misspelt_key_is_shown_with_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.json"), "{\n  \"max_delegation_dept\": 2\n}\n").unwrap();
    let checked = run(folder.path(), &["policy", "check", "policy.json"]);
    assert_eq!(checked.status.code(), Some(1));
    assert_eq!(out(&checked), "");
    assert_eq!(
        err(&checked),
        "error: unknown key `max_delegation_dept`\n \
         --> policy.json:2:3\n  \
           |\n\
         2 |   \"max_delegation_dept\": 2\n  \
           |   ^^^^^^^^^^^^^^^^^^^^^\n  \
           |\n  \
           = help: did you mean `max_delegation_depth`?\n"
    );
    let json = run(folder.path(), &["policy", "check", "policy.json", "--output", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &answer["valid"]), (Some(1), &serde_json::Value::Bool(false)));
}

#[test]
fn what_is_missing_or_misspelt_in_the_configuration_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing = run(folder.path(), &["serve"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("[policy]\nfile = \"policy.json\""), "{}", err(&missing));
    std::fs::write(folder.path().join("remit.toml"), "[grpc]\nlisen = \"127.0.0.1:0\"\n").unwrap();
    let misspelt = run(folder.path(), &["serve", "--print-config"]);
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(
        err(&misspelt).contains("^^^^^") && err(&misspelt).contains("did you mean `listen`?"),
        "{}",
        err(&misspelt)
    );
    let printed = remit(folder.path(), &[("REMIT_PORT", "tcp://x")], &["serve", "--dev", "--print-config"]);
    let printed = { printed }.output().unwrap();
    assert_eq!(printed.status.code(), Some(0));
    assert!(out(&printed).contains("listen = \"127.0.0.1:7443\"") && err(&printed).contains("REMIT_PORT"));
    assert!(!folder.path().join(".remit-dev").exists(), "showing makes nothing");
}

#[test]
fn keys_are_private_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let keygen = || run(folder.path(), &["keygen", "--out", "hmac.key"]).status.code();
    assert_eq!((keygen(), keygen()), (Some(0), Some(2)));
    let key = folder.path().join("hmac.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(out(&run(folder.path(), &["keygen"])).trim_end().len(), 64);
}

#[test]
fn a_token_is_no_argument() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(folder.path(), &["authorize", "a", "b", "--as", "c", "--token", "x"]);
    assert_eq!(refused.status.code(), Some(2));
    let secret = remit(folder.path(), &[("REMIT_TOKEN", "c2VjcmV0.x")], &["token", "inspect"]).output().unwrap();
    assert_eq!(secret.status.code(), Some(2));
    assert!(!err(&secret).contains("c2VjcmV0"));
}

#[test]
fn what_serve_dev_prints_can_be_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["serve", "--dev"]);
    let greeting = service.until("# Every decision");
    assert!(greeting.first().unwrap().starts_with("NOT FOR PRODUCTION"));
    assert!(greeting.iter().any(|line| line.contains(".remit-dev/")));
    let watch = service.until("/").pop().unwrap();
    let commands: Vec<&String> = greeting.iter().filter(|line| line.starts_with('/')).collect();
    let paste = |command: &str| Command::new("sh").current_dir(folder.path()).args(["-c", command]).output().unwrap();
    let [allowed, refused] = commands.as_slice() else { panic!("{commands:?}") };
    let allowed = paste(allowed);
    assert_eq!(allowed.status.code(), Some(0), "{}", err(&allowed));
    assert!(out(&allowed).contains("allowed\n"), "{}", out(&allowed));
    let refused = paste(refused);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).starts_with("denied  CAPABILITY_NOT_GRANTED  at agent-analyst: "), "{}", err(&refused));
    let watched = paste(&format!("{watch} --count 5"));
    assert_eq!(out(&watched).lines().count(), 5, "{}", err(&watched));
    assert!(out(&watched).lines().last().unwrap().contains("CAPABILITY_NOT_GRANTED"));
    let status = run(folder.path(), &["status", "--as", "ops-admin", "--output", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["ready"], true);
}

#[test]
fn the_dev_folders_configuration_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    drop({
        let service = Service::start(folder.path(), &["serve", "--dev"]);
        service.until("# Every decision");
        service
    });
    let ports = folder.path().join(".remit-dev/ports.json");
    std::fs::remove_file(&ports).unwrap();
    let _service = Service::start(folder.path(), &["serve", "--config", ".remit-dev/remit.toml"]);
    for _ in 0..300 {
        if ports.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let delegated = run(
        folder.path(),
        &[
            "delegate",
            "--as",
            "agent-coordinator",
            "--to",
            "agent-deployer",
            "--capability",
            "kubectl_get",
            "--resource",
            "prod/*",
            "-q",
        ],
    );
    assert_eq!(delegated.status.code(), Some(0), "{}", err(&delegated));
    let token = out(&delegated);
    let authorize = |dry: &[&str]| {
        let arguments =
            [&["authorize", "kubectl_get", "prod/web", "--as", "svc-demo", "--agent", "agent-deployer"], dry].concat();
        remit(folder.path(), &[("REMIT_TOKEN", token.trim_end())], &arguments).output().unwrap().status.code()
    };
    assert_eq!((authorize(&["--dry-run"]), authorize(&[]), authorize(&[])), (Some(0), Some(0), Some(1)));
}
