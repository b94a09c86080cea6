//! Every way to tamper with a log, on logs that the recorder wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{Place, Unsigned};
use super::*;
use crate::domain::reason::Reason;
use crate::domain::time::Timestamp;
use crate::events::{AuditConfig, Checkpoint, Event, Events, EventsConfig, MessageType, Outcome, Share};

const EVENTS: u64 = 40;

const AT: Timestamp = Timestamp::from_seconds(1_795_297_903);

/// A log of several files, written by two processes one after the other.
async fn written(folder: &Path) -> Vec<PathBuf> {
    written_at(folder, |_, _| AT).await
}

/// The same, with the time that a process's clock has at an event.
async fn written_at(folder: &Path, time: impl Fn(u64, u64) -> Timestamp) -> Vec<PathBuf> {
    let file = folder.join("audit.jsonl");
    for process in [1, 2] {
        let audit = AuditConfig { file: Some(file.clone()), rotate_bytes: 8 * 1024, ..AuditConfig::default() };
        let at = AT;
        let events = Events::start(&audit, &EventsConfig::default(), process, move || at).unwrap();
        for number in 1..=EVENTS {
            let (id, at) = (events.decision_id(), time(process, number));
            let mut event = Event::new(MessageType::Delegate, Outcome::Accepted, Reason::Allowed, id, at);
            event.message = format!("number {number}, said \",\"sequence\":7").into();
            events.try_reserve(Share::Answer).unwrap().commit(event);
            if number % 8 == 0 {
                // What waits is written together, and a file is renamed between two writes.
                while events.numbers().waiting > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        events.shutdown(Duration::from_secs(10)).await.unwrap();
    }
    in_order(folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()).unwrap()
}

fn check(files: &[PathBuf]) -> Report {
    let mut backwards = files.to_vec();
    backwards.reverse();
    verify(backwards, None, None, |_| {}).unwrap()
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

/// Writes the file's lines anew as `change` leaves them; what is then found: line, sequence, what.
fn after(files: &[PathBuf], index: usize, change: impl FnOnce(&mut Vec<String>)) -> Vec<(u64, u64, What)> {
    let before = std::fs::read(&files[index]).unwrap();
    let mut lines = lines(&files[index]);
    change(&mut lines);
    std::fs::write(&files[index], lines.join("\n") + "\n").unwrap();
    let report = check(files);
    std::fs::write(&files[index], before).unwrap();
    assert_eq!(report.fault_count, u64::try_from(report.faults.len()).unwrap());
    report.faults.into_iter().map(|fault| (fault.line, fault.sequence, fault.what)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_across_files_and_restarts_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path()).await;
    let report = check(&files);
    assert!(files.len() > 3 && files.last().unwrap().ends_with("audit.jsonl"), "{files:?}");
    assert_eq!((report.faults.as_slice(), report.events, report.files.clone()), (&[][..], 2 * EVENTS, files.clone()));
    assert_eq!(report.last, ("0000000000000002".to_owned(), EVENTS));
    assert!(!report.continues && report.unrecorded == 0);
    let newest = check(&files[1..]);
    assert!(newest.continues && newest.faults.is_empty(), "the oldest file may be gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path()).await;
    let edited = after(&files, 0, |lines| lines[2] = lines[2].replace("accepted", "denied"));
    assert_eq!(edited, [(3, 3, What::Changed)]);
    let forged = after(&files, 0, |lines| {
        let text = lines[2].replace("accepted", "denied");
        let (body, _) = text.split_once(",\"hash\":").unwrap();
        lines[2] = format!("{body},\"hash\":\"{}\"}}", Digest::of(body.as_bytes()));
    });
    assert_eq!(forged, [(4, 4, What::DoesNotFollow)], "with a hash of its own, the next line gives it away");
    assert_eq!(after(&files, 0, |lines| lines[2] = "{}".to_owned())[0], (3, 0, What::NotAnEvent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_inserted_and_moved_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path()).await;
    let deleted = after(&files, 0, |lines| drop(lines.drain(1..3)));
    assert_eq!(deleted, [(2, 4, What::Missing { from: 2, to: 3 })]);
    let inserted = after(&files, 0, |lines| lines.insert(2, lines[0].clone()));
    assert_eq!(inserted, [(3, 1, What::DoesNotFollow), (4, 3, What::Missing { from: 2, to: 2 })]);
    let moved = after(&files, 0, |lines| lines.swap(1, 2));
    assert_eq!(moved.first().map(|(line, sequence, _)| (*line, *sequence)), Some((2, 3)));
    assert!(moved.len() >= 2, "{moved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_and_half_a_line_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path()).await;
    let (from, to) = (Place::of(lines(&files[1])[0].as_bytes()).sequence, lines(&files[1]).len());
    let without = [&files[..1], &files[2..]].concat();
    let report = check(&without);
    let missing = What::Missing { from, to: from + u64::try_from(to).unwrap() - 1 };
    assert_eq!(report.faults.iter().map(|fault| fault.what).collect::<Vec<_>>(), [missing]);
    assert_eq!(report.faults[0].file, files[2]);

    let last = files.last().unwrap();
    let text = std::fs::read(last).unwrap();
    std::fs::write(last, &text[..text.len() - 10]).unwrap();
    let report = check(&files);
    assert_eq!((report.fault_count, report.last.1), (0, EVENTS - 1), "whole up to there, as a crash leaves it");
    assert_eq!(report.unfinished.map(|fault| (fault.file, fault.what)), Some((last.clone(), What::BreaksOff)));
    let first = std::fs::read(&files[0]).unwrap();
    std::fs::write(&files[0], &first[..first.len() - 10]).unwrap();
    let found = check(&files).faults.iter().map(|fault| fault.what).collect::<Vec<_>>();
    assert_eq!(found.first(), Some(&What::BreaksOff), "something follows: {found:?}");
}

/// What the trial's key signs is its claims in clear, without the quotes that can't stand in a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_named_also_where_a_clock_ran_ahead_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let ahead =
        |process, number| if (process, number) <= (1, 20) { AT.after(Duration::from_secs(100_000_000)) } else { AT };
    let files = written_at(folder.path(), ahead).await;
    let place = (1..files.len() - 1).find(|place| lines(&files[*place + 1])[0].contains("51:43Z")).unwrap();
    let number = |line: &str| Place::of(line.as_bytes()).sequence;
    let (gone, next) = (lines(&files[place]), lines(&files[place + 1]));
    assert!(lines(&files[place - 1])[0].contains("\"2030-"), "what is before it is of a time after what follows on it");
    let without = [&files[..place], &files[place + 1..]].concat();
    let report = check(&without);
    let missing = What::Missing { from: number(&gone[0]), to: number(gone.last().unwrap()) };
    let found: Vec<_> = report.faults.iter().map(|fault| (fault.sequence, fault.what)).collect();
    assert_eq!(found, [(number(&next[0]), missing)]);
    assert_eq!(report.files, without);
}

fn hand(checkpoint: &Checkpoint) -> String {
    format!("key1.{}", serde_json::Value::Object(checkpoint.claims())).replace('"', "'")
}

fn opened(jwt: &str) -> Result<serde_json::Map<String, serde_json::Value>, &'static str> {
    let claims = jwt.strip_prefix("key1.").ok_or("no such key")?;
    Ok(serde_json::from_str(&claims.replace('\'', "\"")).unwrap())
}

/// A log of one file in which the second and then every fourth line is a checkpoint, and two events follow on the last.
async fn signed(folder: &Path) -> PathBuf {
    signed_by(folder, 1).await
}

/// The same of this process, after what is there.
async fn signed_by(folder: &Path, process: u64) -> PathBuf {
    let file = folder.join("audit.jsonl");
    let whole_lines = || std::fs::read_to_string(&file).map_or(0, |text| text.matches('\n').count());
    let before = whole_lines();
    let audit =
        AuditConfig { file: Some(file.clone()), checkpoint_events: 3, checkpoint_seconds: 0, ..AuditConfig::default() };
    let at = Timestamp::from_seconds(1_795_297_903);
    let sign: crate::events::Sign = Box::new(|checkpoint, _| Ok(hand(checkpoint)));
    let events =
        Events::start_signing(&audit, &EventsConfig::default(), process, move || at, Some(sign), None).unwrap();
    for number in 1..=12_usize {
        let event = Event::new(MessageType::Delegate, Outcome::Accepted, Reason::Allowed, events.decision_id(), at);
        events.try_reserve(Share::Answer).unwrap().commit(event);
        // What is written together is signed together; here nothing is.
        let checkpoints = number.saturating_sub(1).div_euclid(3).saturating_add(1);
        while whole_lines() < before.saturating_add(number).saturating_add(checkpoints) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // What an orderly end would sign is what a crash leaves unsigned.
    let text = std::fs::read(&file).unwrap();
    events.shutdown(Duration::from_secs(10)).await.unwrap();
    std::fs::write(&file, text).unwrap();
    file
}

fn checked(file: &Path) -> Report {
    verify(vec![file.to_owned()], Some(&opened), None, |_| {}).unwrap()
}

/// What is found after a change after which the whole chain was made anew, as somebody can who may write the file.
fn rechained(file: &Path, change: impl FnOnce(&mut Vec<String>)) -> Report {
    let other = file.with_extension("other");
    std::fs::write(&other, forged(file, change)).unwrap();
    checked(&other)
}

fn forged(file: &Path, change: impl FnOnce(&mut Vec<String>)) -> String {
    let mut lines = lines(file);
    change(&mut lines);
    let mut head = Digest::default();
    for line in &mut lines {
        let (body, _) = line.split_once(",\"prev_hash\":").unwrap();
        let body = format!("{body},\"prev_hash\":\"{head}\"");
        head = Digest::of(body.as_bytes());
        *line = format!("{body},\"hash\":\"{head}\"}}");
    }
    lines.join("\n") + "\n"
}

fn found(report: &Report) -> Vec<(u64, What)> {
    report.faults.iter().map(|fault| (fault.sequence, fault.what)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_checkpoints_say_how_far_the_log_is_proven() {
    let folder = tempfile::tempdir().unwrap();
    let file = signed(folder.path()).await;
    let report = checked(&file);
    assert_eq!((found(&report), report.events), (vec![], 16));
    let Signatures { checkpoints, good, last_good, uncovered, .. } = report.signatures;
    assert_eq!((checkpoints, good, uncovered), (4, 4, 2));
    assert_eq!(last_good, Some(("0000000000000001".to_owned(), 14)));
    let without = check(&[file]).signatures;
    assert_eq!(without, Signatures { checkpoints: 4, uncovered: 16, ..Signatures::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_makes_the_chain_anew_is_found_out_by_the_next_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let file = signed(folder.path()).await;
    assert!(rechained(&file, |_| ()).faults.is_empty(), "the same lines make the same chain");
    let edited = rechained(&file, |lines| lines[4] = lines[4].replace("accepted", "denied"));
    assert_eq!(found(&edited), [6, 10, 14].map(|at| (at, What::SignedElsewhere)));
    assert_eq!((edited.signatures.good, edited.signatures.uncovered), (1, 14));
    let removed = rechained(&file, |lines| drop(lines.remove(3)));
    assert_eq!(found(&removed), [6, 10, 14].map(|at| (at, What::SignedElsewhere)));
    let of_another_key = rechained(&file, |lines| lines[13] = lines[13].replace("key1.", "key2."));
    assert_eq!(found(&of_another_key), [(14, What::Forged("no such key"))]);
    let unsigned = rechained(&file, |lines| lines[13] = lines[13].replace("\"checkpoint\":\"key1", "\"task\":\"key1"));
    assert_eq!(found(&unsigned), [(14, What::Unsigned)]);
    let stripped = rechained(&file, |lines| lines.retain(|line| !line.contains("key1.")));
    assert_eq!((found(&stripped), stripped.signatures.good), (vec![], 0), "nothing vouches for it");
    let tail = rechained(&file, |lines| lines.truncate(15));
    assert_eq!((found(&tail), tail.signatures.uncovered), (vec![], 1), "what could be cut off unseen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_good_only_where_it_was_signed() {
    let folder = tempfile::tempdir().unwrap();
    let file = signed(folder.path()).await;
    let copied = after(std::slice::from_ref(&file), 0, |lines| lines.push(lines[5].clone()));
    assert_eq!(copied.first().map(|(line, _, what)| (*line, *what)), Some((17, What::DoesNotFollow)));
    let moved = rechained(&file, |lines| lines.push(lines[5].clone()));
    assert_eq!(found(&moved), [(6, What::SignedElsewhere)]);
    let other_stream =
        rechained(&file, |lines| lines[5] = lines[5].replace("\"0000000000000001\"", "\"000000000000000f\""));
    assert_eq!(found(&other_stream)[0], (6, What::SignedElsewhere));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_process_vouches_for_nothing_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = signed(folder.path()).await;
    let genuine = std::fs::read(&file).unwrap();
    signed_by(folder.path(), 2).await;
    let report = checked(&file);
    assert_eq!((found(&report), report.signatures.good, report.signatures.uncovered), (vec![], 8, 2));
    let killed = Unsigned { stream_id: "0000000000000001".to_owned(), from: 15, to: 16, count: 2, good: 4 };
    assert_eq!((report.signatures.unsigned.as_slice(), report.signatures.unsigned_count), (&[killed][..], 1));
    assert!(report.signatures.prove_each_stream(), "it began with a signature and ended by force");

    std::fs::write(&file, genuine).unwrap();
    let without = forged(&file, |lines| lines.retain(|line| !line.contains("key1.")));
    std::fs::write(&file, without).unwrap();
    signed_by(folder.path(), 2).await;
    let Report { signatures, faults, .. } = checked(&file);
    assert_eq!((faults.as_slice(), signatures.good, signatures.uncovered), (&[][..], 4, 2), "it chains on to anything");
    let replaced = Unsigned { stream_id: "0000000000000001".to_owned(), from: 1, to: 16, count: 12, good: 0 };
    assert_eq!((signatures.unsigned.as_slice(), signatures.unproven_streams), (&[replaced][..], 1));
    assert!(!signatures.prove_each_stream());
    assert_eq!(check(&[file]).signatures.unsigned, [], "without keys nobody can say");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_stream_without_a_signature_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = signed(folder.path()).await;
    let more = rechained(&file, |lines| {
        let other = lines[15].replace("\"0000000000000001\"", "\"000000000000000f\"");
        lines.truncate(14);
        lines.push(other);
    });
    let added = Unsigned { stream_id: "000000000000000f".to_owned(), from: 16, to: 16, count: 1, good: 0 };
    assert_eq!((found(&more), more.signatures.uncovered), (vec![], 1));
    assert_eq!((more.signatures.unsigned.as_slice(), more.signatures.prove_each_stream()), (&[added][..], false));
}
