//! What `serve --dev` says when it answers: where everything is, and three commands to paste.

use crate::config::process;
use crate::dev_folder::{self, DevFolder};
use crate::server;

/// The first line.
pub(super) const WARNING: &str =
    "NOT FOR PRODUCTION: --dev makes its own CA and keys, and believes whoever says a name (x-remit-agent).";

/// Everything after the first line.
pub(super) fn greeting(folder: &DevFolder, ports: server::Ports) -> String {
    let server::Ports { grpc, http, admin } = ports;
    let path = folder.path().display();
    let lines = [
        format!("Everything is in {path}/: policy.json (edit it and watch it reload), agents/ (a certificate each), audit.jsonl,"),
        "remit.toml (what --dev amounts to). By remit.toml ops-admin is administrator and auditor, svc-demo enforcement point.".to_owned(),
        format!("Listening: gRPC {grpc}, HTTP {http}, admin gRPC {admin}"),
        commands(folder, &process::program()),
    ];
    lines.join("\n")
}

/// Commands to paste, each with a line above that says what one will see.
fn commands(folder: &DevFolder, program: &str) -> String {
    let path = folder.path().to_string_lossy();
    let program = quoted(program);
    let dir = if path == dev_folder::DEFAULT { String::new() } else { format!(" --dev-dir {}", quoted(&path)) };
    let watch = format!(
        "# Every decision so far, and each new one as it is made (ends with Ctrl-C):\n\
         {program} watch --as ops-admin --after 0{dir}"
    );
    if !folder.has_example_policy() {
        return format!("\n{watch}\n");
    }
    let token = quoted(&folder.file("token").to_string_lossy());
    format!(
        "\n# Allowed: agent-coordinator hands agent-deployer one use of kubectl_get on prod/*, and agent-deployer takes it.\n\
         {program} delegate --as agent-coordinator --to agent-deployer --capability kubectl_get --resource 'prod/*' --out {token}{dir} && \
         {program} authorize kubectl_get prod/web --as agent-deployer --token-file {token}{dir}\n\
         \n# Refused: agent-analyst may not hold kubectl_apply, and so nobody can hand it over; the answer names it and says why.\n\
         {program} delegate --as agent-coordinator --to agent-analyst --capability kubectl_apply --resource 'prod/*'{dir}\n\
         \n{watch}\n"
    )
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn the_commands_fit_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("it's here");
        let folder =
            DevFolder::lay_out(&path, || "k".to_owned().into(), Timestamp::from_seconds(1_780_000_000)).unwrap();
        let text = commands(&folder, "./target/release/remit");
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 6);
        for pair in lines.chunks(2) {
            assert!(pair[0].starts_with("# ") && pair[1].starts_with("./target/release/remit "), "{pair:?}");
            assert!(pair[1].contains(r"it'\''s here'"), "{pair:?}");
        }
        std::fs::write(folder.file("policy.json"), "{}").unwrap();
        assert!(!commands(&folder, "remit").contains("agent-coordinator"));
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted("/a/b.c"), "/a/b.c");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted(""), "''");
    }
}
