//! A hundred thousand events in several files, as the recorder writes them, and every way to tamper with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::order::in_order;
use super::*;
use crate::digest::Digest;
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;
use crate::events::{AuditConfig, Checkpoint, Event, Events, EventsConfig, MessageType, Outcome, Share, Sign};

const EVENTS: u64 = 100_000;

/// What the trial's key signs is its claims in clear, without the quotes that can't stand in a line.
fn hand(checkpoint: &Checkpoint) -> String {
    serde_json::Value::Object(checkpoint.claims()).to_string().replace('"', "'")
}

fn opened(jwt: &str) -> Result<serde_json::Map<String, serde_json::Value>, &'static str> {
    serde_json::from_str(&jwt.replace('\'', "\"")).map_err(|_| "it is not signed")
}

async fn written(folder: &Path) -> Vec<PathBuf> {
    let file = folder.join("audit.jsonl");
    let audit = AuditConfig { file: Some(file), rotate_bytes: 12 << 20, ..AuditConfig::default() };
    let at = Timestamp::from_seconds(1_795_297_903);
    let sign: Sign = Box::new(|checkpoint, _| Ok(hand(checkpoint)));
    let ring = EventsConfig::default();
    let events = Events::start_signing(&audit, &ring, 1, move || at, Some(sign), None).unwrap();
    for number in 1..=EVENTS {
        let place = loop {
            match events.try_reserve(Share::Answer) {
                Some(place) => break place,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let id = events.decision_id();
        let mut event = Event::new(MessageType::CapabilityRequest, Outcome::Accepted, Reason::Allowed, id, at);
        event.from_agent = "agent-deployer".into();
        event.to_agent = "svc-demo".into();
        event.caller = "svc-demo".into();
        event.chain = vec!["agent-coordinator".into(), "agent-deployer".into()];
        event.capabilities = vec!["kubectl_get".into()];
        event.resource = format!("k8s://prod/deployments/web-{number}").into();
        place.commit(event);
    }
    events.shutdown(Duration::from_mins(2)).await.unwrap();
    in_order(folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()).unwrap()
}

fn check(files: &[PathBuf], kept: Option<Digest>) -> Report {
    verify(files.to_vec(), Some(&opened), kept, |_| {}).unwrap()
}

fn found(report: &Report) -> Vec<(u64, What)> {
    report.faults.iter().map(|fault| (fault.sequence, fault.what)).collect()
}

/// Writes the file anew as `change` leaves its lines.
fn change(file: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<_> = std::fs::read_to_string(file).unwrap().lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    std::fs::write(file, lines.concat()).unwrap();
}

/// The place of an event in its file's lines.
fn place(lines: &[String], sequence: u64) -> usize {
    lines.iter().position(|line| Place::of(line.as_bytes()).sequence == sequence).unwrap()
}

fn ends(file: &Path) -> (u64, u64) {
    let text = std::fs::read_to_string(file).unwrap();
    let number = |line: Option<&str>| Place::of(line.unwrap().as_bytes()).sequence;
    (number(text.lines().next()), number(text.lines().next_back()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_tamper_with_a_hundred_thousand_events_is_named_by_its_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path()).await;
    let begun = Instant::now();
    let clean = check(&files, None);
    let seconds = begun.elapsed().as_secs_f64();
    let total = clean.last.1;
    assert_eq!((found(&clean), clean.events, clean.files.len()), (vec![], total, files.len()));
    assert!(total > EVENTS && files.len() >= 5, "{total} in {files:?}");
    assert!(clean.signatures.good > 1 && clean.signatures.uncovered == 0, "{:?}", clean.signatures);
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    println!(
        "ASSURE {}",
        serde_json::json!({"what": "audit verify in the test profile", "events": total, "bytes": bytes, "seconds": seconds})
    );

    let before: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let restore = |index: usize| std::fs::write(&files[index], &before[index]).unwrap();
    // Far from each other, so that each is found for itself; in the middle of its file.
    let at: Vec<u64> = files.iter().map(|file| ends(file)).map(|(first, last)| u64::midpoint(first, last)).collect();
    change(&files[0], |lines| {
        let line = place(lines, at[0]);
        lines[line] = lines[line].replacen("accepted", "rejected", 1).replacen("agent-deployer", "agent-destroyer", 1);
    });
    change(&files[1], |lines| drop(lines.remove(place(lines, at[1]))));
    change(&files[2], |lines| {
        let line = place(lines, at[2]);
        lines.insert(line, lines[line - 500].clone());
    });
    change(&files[3], |lines| {
        let line = place(lines, at[3]);
        lines.swap(line, line + 1);
    });
    let missing = |from, to| What::Missing { from, to };
    let wanted = [
        (at[0], What::Changed),
        (at[1] + 1, missing(at[1], at[1])),
        (at[2] - 500, What::DoesNotFollow),
        (at[2], missing(at[2] - 499, at[2] - 1)),
        (at[3] + 1, missing(at[3], at[3])),
        (at[3], What::DoesNotFollow),
        (at[3] + 2, missing(at[3] + 1, at[3] + 1)),
    ];
    assert_eq!(found(&check(&files, None)), wanted);
    (0..4).for_each(restore);

    let (first, last) = ends(&files[1]);
    change(&files[1], |lines| lines.truncate(place(lines, at[1] + 1)));
    assert_eq!(found(&check(&files, None)), [(last + 1, missing(at[1] + 1, last))], "the end of a file in the middle");
    let without: Vec<_> = files.iter().filter(|file| **file != files[1]).cloned().collect();
    assert_eq!(found(&check(&without, None)), [(last + 1, missing(first, last))], "a whole file");
    restore(1);

    // The end: nothing in the files can show it. What was kept elsewhere does, and checkpoints say how much is open.
    let end = files.len() - 1;
    change(&files[end], |lines| lines.truncate(place(lines, at[end] + 1)));
    let cut = check(&files, clean.head);
    assert_eq!((found(&cut), cut.last.1), (vec![(at[end], What::CutOff)], at[end]));
    assert!(cut.signatures.uncovered > 0 && check(&files, None).faults.is_empty());
    let text = std::fs::read(&files[end]).unwrap();
    std::fs::write(&files[end], &text[..text.len() - 7]).unwrap();
    let torn = check(&files, None);
    assert_eq!((torn.last.1, torn.unfinished.map(|fault| fault.sequence)), (at[end] - 1, Some(at[end])));
    let last_gone = check(&files[..end], clean.head);
    assert_eq!(found(&last_gone), [(ends(&files[end - 1]).1, What::CutOff)], "the newest file");
}
