use clap::CommandFactory as _;

use super::*;

fn exit(arguments: &[&str]) -> bool {
    let arguments = std::iter::once("remit").chain(arguments.iter().copied()).map(OsString::from);
    Cli::try_parse_from(arguments).is_ok()
}

/// The status as a shell sees it.
fn status(arguments: &[&str]) -> ExitCode {
    run(std::iter::once("remit").chain(arguments.iter().copied()).map(OsString::from))
}

fn same(left: ExitCode, right: u8) -> bool {
    format!("{left:?}") == format!("{:?}", ExitCode::from(right))
}

#[test]
fn the_arguments_are_well_defined() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_an_example() {
    fn check(command: &clap::Command) {
        let children: Vec<&clap::Command> =
            command.get_subcommands().filter(|child| child.get_name() != "help").collect();
        if children.is_empty() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains(&format!("remit {}", command.get_name())) || help.contains(command.get_name()),
                "{}",
                command.get_name()
            );
            assert!(help.starts_with("Example"), "{}", command.get_name());
        }
        children.into_iter().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn wrong_usage_is_2() {
    for wrong in [
        &["nonsense"][..],
        &[],
        &["authorize", "kubectl_get"],
        &["authorize", "a", "b", "--token", "secret"],
        &["delegate", "--to", "a"],
        &["delegate", "--to", "a", "--capability", "c", "--resource", "r", "--ttl", "1.5s"],
        &["revoke", "--all", "--agent", "a"],
        &["revoke", "--all", "--quarantine"],
        &["watch", "--result", "maybe"],
        &["status", "--cert", "a.pem"],
        &["status", "--as", "a", "--cert", "a.pem", "--key", "a.key"],
        &["keygen", "--output", "yaml"],
        &["agent-card"],
        &["agent-card", "--in", "card.json", "--a2a", "0.2"],
    ] {
        assert!(!exit(wrong), "{wrong:?}");
        assert!(same(status(wrong), 2), "{wrong:?}");
    }
    for right in [
        &["authorize", "--method", "POST", "--path", "/v1", "--destination", "b", "--as", "a"][..],
        &["revoke", "--agent", "a", "--quarantine", "--note", "why", "--as", "ops-admin"],
        &["watch", "--after", "0", "--agent", "a", "--result", "denied", "--reason", "TOKEN_EXPIRED", "--count", "3"],
        &["--output", "json", "status", "--as", "a"],
        &["agent-card", "--in", "-", "--out", "card.json", "--config", "remit.toml", "--a2a", "0.3"],
        &["introspect", "--token-id", "00", "--as", "a", "--output", "json"],
    ] {
        assert!(exit(right), "{right:?}");
    }
}

#[test]
fn help_and_version_are_0_and_errors_are_2() {
    assert!(
        same(status(&["--help"]), 0) && same(status(&["delegate", "--help"]), 0) && same(status(&["--version"]), 0)
    );
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    assert!(same(status(&["status", "--as", "nobody", "--dev-dir", dir]), 2));
    assert!(same(status(&["policy", "check", "/nonexistent"]), 2));
}

#[test]
fn a_policy_with_a_misspelt_key_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.json");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        status(&["policy", "check", file.to_str().unwrap()])
    };
    assert!(same(check(include_str!("../../examples/policy.json")), 0));
    assert!(same(check("{\"max_delegation_dept\": 2}"), 1));
}
