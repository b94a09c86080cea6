//! What is shown, of logs made of what matters.

use super::*;

/// Kind, result, token, parent, agents of the chain; the number is that of the line, the second too.
type Told<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [&'a str]);

const LOG: &[Told<'_>] = &[
    ("delegate", "accepted", "root", "", &["a", "b"]),
    ("delegate", "accepted", "other", "", &["a", "x"]),
    ("delegate", "accepted", "child", "root", &["a", "b", "c"]),
    ("delegate", "accepted", "branch", "root", &["a", "b", "d"]),
    ("capability_request", "accepted", "root", "", &["a", "b"]),
    ("delegate", "denied", "child", "child", &["a", "b", "c", "e"]),
    ("delegate", "accepted", "grandchild", "child", &["a", "b", "c", "d"]),
    ("capability_request", "denied", "grandchild", "", &["a", "b", "c", "d"]),
    ("capability_request", "accepted", "branch", "", &["a", "b", "d"]),
    ("revoke", "accepted", "", "child", &[]),
    ("capability_request", "accepted", "other", "", &["a", "x"]),
];

fn line(number: usize, (kind, result, token, target, chain): Told<'_>) -> String {
    let (from, to) = (chain.first().unwrap_or(&"ops"), chain.last().unwrap_or(&""));
    serde_json::json!({
        "timestamp": format!("2026-11-21T21:00:{number:02}Z"), "from_agent": from, "to_agent": to, "message_type": kind,
        "delegation_chain": chain, "token_id": token, "result": result, "sequence": number, "target": target,
    })
    .to_string()
}

fn log() -> Vec<String> {
    (1..).zip(LOG).map(|(number, told)| line(number, *told)).collect()
}

fn shown(lines: &[String], ask: &Ask) -> (Vec<u64>, Shown) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let mut numbers = Vec::new();
    let shown = show(vec![file], ask, |line, text| {
        assert!(text.contains(&format!("\"sequence\":{}", line.sequence)));
        numbers.push(line.sequence);
        Ok::<_, std::convert::Infallible>(())
    });
    (numbers, shown.unwrap())
}

fn chain(lines: &[String], token: &str) -> Vec<u64> {
    shown(lines, &Ask { token: Some(token.to_owned()), ..Ask::default() }).0
}

#[test]
fn a_chain_is_the_token_what_it_came_from_and_what_came_of_it() {
    assert_eq!(chain(&log(), "child"), [1, 3, 5, 6, 7, 8, 10]);
    assert_eq!(chain(&log(), "root"), [1, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(chain(&log(), "grandchild"), [1, 3, 5, 6, 7, 8, 10]);
    assert_eq!(chain(&log(), "branch"), [1, 4, 5, 9]);
    assert_eq!(chain(&log(), "other"), [2, 11]);
    assert!(chain(&log(), "nobody").is_empty());
}

#[test]
fn a_chain_is_whole_in_whatever_order_its_links_are_read() {
    let mut backwards = log();
    backwards.reverse();
    for token in ["root", "child", "grandchild", "branch"] {
        let mut found = chain(&backwards, token);
        found.reverse();
        assert_eq!(found, chain(&log(), token), "{token}");
    }
}

#[test]
fn an_agent_is_found_wherever_it_is_named() {
    let of = |agent: &str| shown(&log(), &Ask { agent: Some(agent.to_owned()), ..Ask::default() }).0;
    assert_eq!(of("x"), [2, 11]);
    assert_eq!(of("d"), [4, 7, 8, 9]);
    assert_eq!(of("ops"), [10]);
    let caller = line(1, LOG[0]).replace("\"from_agent\":\"a\"", "\"from_agent\":\"a\",\"caller\":\"gate\"");
    assert_eq!(shown(&[caller], &Ask { agent: Some("gate".to_owned()), ..Ask::default() }).0, [1]);
}

#[test]
fn a_window_begins_with_its_first_moment_and_ends_before_its_last() {
    let at = |second: u32| Some(format!("2026-11-21T21:00:{second:02}Z"));
    assert_eq!(shown(&log(), &Ask { since: at(3), until: at(5), ..Ask::default() }).0, [3, 4]);
    let both = Ask { agent: Some("d".to_owned()), token: Some("root".to_owned()), since: at(7), until: at(9) };
    assert_eq!(shown(&log(), &both).0, [7, 8]);
}

#[test]
fn what_is_no_event_is_counted_and_not_shown() {
    let mut lines = log();
    lines.insert(3, "half a li".to_owned());
    lines.insert(5, "{}".to_owned());
    let (numbers, told) = shown(&lines, &Ask::default());
    assert_eq!((numbers.len(), told), (LOG.len(), Shown { events: 11, others: 2 }));
}
