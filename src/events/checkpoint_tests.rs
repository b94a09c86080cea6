//! When checkpoints are written, and what they say, with a signature that is only the text of what it signs.

use super::super::chain;
use super::super::trial::Trial;
use super::super::{EventsConfig, MessageType};
use super::*;

fn signing(folder: &std::path::Path, events: u64, seconds: u64, sign: Option<Sign>) -> Trial {
    let audit = AuditConfig {
        file: Some(folder.join("audit.jsonl")),
        checkpoint_events: events,
        checkpoint_seconds: seconds,
        ..AuditConfig::default()
    };
    Trial::signing(&audit, &EventsConfig::default(), sign)
}

fn in_clear() -> Sign {
    Box::new(|checkpoint, _| Ok(Value::Object(checkpoint.claims()).to_string()))
}

/// Number and, of a checkpoint, what it signs.
fn lines(folder: &std::path::Path) -> Vec<(u64, Option<Checkpoint>)> {
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let is_one = value["message_type"] == MessageType::Checkpoint.as_str();
        let signed = is_one.then(|| serde_json::from_str(value["checkpoint"].as_str().unwrap()).unwrap());
        let signed = signed.map(|claims: Value| Checkpoint::read(claims.as_object().unwrap()).unwrap());
        let links = chain::read(line.as_bytes()).unwrap().links;
        assert!(signed.as_ref().is_none_or(|signed| signed.previous == links.previous));
        (value["sequence"].as_u64().unwrap(), signed)
    };
    text.lines().map(read).collect()
}

fn checkpoints(folder: &std::path::Path) -> Vec<(u64, u64)> {
    let lines = lines(folder);
    assert!(lines.iter().map(|(sequence, _)| *sequence).eq(1..=u64::try_from(lines.len()).unwrap()));
    let signed = lines.into_iter().filter_map(|(at, signed)| {
        let Checkpoint { sequence, events, stream_id, .. } = signed?;
        assert_eq!((sequence, stream_id.as_str()), (at, "0000000000000001"));
        Some((at, events))
    });
    signed.collect()
}

#[test]
fn after_so_many_events_a_checkpoint_names_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = signing(folder.path(), 3, 0, Some(in_clear()));
    for _ in 0..7 {
        trial.allow("agent-a");
        trial.recorder.turn();
        trial.recorder.turn();
    }
    assert_eq!(checkpoints(folder.path()), [(2, 1), (6, 3), (10, 3)], "one at once, then after three each");
    for _ in 0..5 {
        trial.allow("agent-a");
    }
    trial.recorder.turn();
    trial.recorder.turn();
    assert_eq!(checkpoints(folder.path()).last(), Some(&(16, 5)), "what was written together is signed together");
    trial.pass(Duration::from_hours(1));
    trial.recorder.turn();
    assert_eq!(checkpoints(folder.path()).len(), 4, "not by time");
}

#[test]
fn after_so_long_a_checkpoint_is_written_if_anything_came() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = signing(folder.path(), 0, 60, Some(in_clear()));
    trial.pass(Duration::from_hours(1));
    trial.recorder.turn();
    trial.allow("agent-a");
    trial.recorder.turn();
    trial.recorder.turn();
    assert_eq!(checkpoints(folder.path()), [(2, 1)], "the first at once");
    trial.allow("agent-a");
    trial.recorder.turn();
    trial.pass(Duration::from_secs(59));
    trial.allow("agent-a");
    trial.recorder.turn();
    assert_eq!(checkpoints(folder.path()).len(), 1);
    trial.pass(Duration::from_secs(1));
    trial.recorder.turn();
    assert_eq!(checkpoints(folder.path())[1..], [(5, 2)], "a minute after the first of them");
    trial.pass(Duration::from_hours(1));
    trial.recorder.turn();
    assert_eq!(checkpoints(folder.path()).len(), 2, "a checkpoint alone needs none");
}

#[tokio::test]
async fn the_last_line_of_an_orderly_end_is_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let Trial { events, recorder, .. } = {
        let trial = signing(folder.path(), 1000, 1000, Some(in_clear()));
        trial.allow("agent-a");
        trial
    };
    let thread = std::thread::spawn(move || recorder.run());
    events.shutdown(Duration::from_secs(10)).await.unwrap();
    thread.join().unwrap();
    assert_eq!(checkpoints(folder.path()), [(2, 1)]);
}

#[test]
fn without_who_signs_or_where_none_is_wanted_there_is_none() {
    for (events, seconds, sign) in [(1, 1, None), (0, 0, Some(in_clear()))] {
        let folder = tempfile::tempdir().unwrap();
        let mut trial = signing(folder.path(), events, seconds, sign);
        for _ in 0..3 {
            trial.allow("agent-a");
            trial.pass(Duration::from_mins(1));
            trial.recorder.turn();
        }
        assert_eq!(lines(folder.path()).len(), 3);
    }
}

#[test]
fn a_checkpoint_that_can_not_be_signed_says_so_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = signing(folder.path(), 1, 0, Some(Box::new(|_, _| Err("the key is gone".to_owned()))));
    trial.allow("agent-a");
    trial.recorder.turn();
    trial.recorder.turn();
    trial.allow("agent-a");
    trial.recorder.turn();
    let text = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let line: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&line["message_type"], &line["result"]), (&"checkpoint".into(), &"error".into()));
    assert!(line.get("checkpoint").is_none() && line["message"].as_str().unwrap().contains("the key is gone"));
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn claims_read_back() {
    let checkpoint = Checkpoint { stream_id: "s".to_owned(), sequence: 7, previous: Digest::of(b"x"), events: 3 };
    let claims = checkpoint.claims();
    assert_eq!(Checkpoint::read(&claims), Some(checkpoint));
    for name in ["stream_id", "sequence", "prev_hash", "events"] {
        let mut less = claims.clone();
        less.remove(name);
        assert_eq!(Checkpoint::read(&less), None, "without {name}");
    }
}
