//! Subscribers who come late, with more events in the files than in memory.

use std::path::Path;

use super::super::rotation::rotated_files;
use super::super::trial::{Trial, small};
use super::super::{AuditConfig, Filter, Item, Since, Subscription};
use super::*;

/// A ring of 64 events, and files of some 8 KiB.
fn trial(folder: &Path) -> Trial {
    let audit =
        AuditConfig { file: Some(folder.join("audit.jsonl")), rotate_bytes: 8 * 1024, ..AuditConfig::default() };
    Trial::new(&audit, &small(64))
}

fn allow(trial: &mut Trial, count: u64) {
    for _ in 0..count {
        trial.allow("agent-a");
        trial.recorder.turn();
    }
}

fn from(trial: &Trial, sequence: u64) -> Subscription {
    trial.events.subscribe(Since::After { stream_id: "", sequence }, Filter::default()).unwrap()
}

/// Numbers and gaps up to this event.
async fn until(watch: &mut Subscription, last: u64) -> Vec<(u64, u64)> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, to)| *to < last) {
        match watch.next().await.unwrap() {
            Item::Event(event) => seen.push((event.sequence(), event.sequence())),
            Item::Gap { from, to, .. } => seen.push((from, to)),
            Item::Heartbeat { .. } => {}
        }
    }
    seen
}

fn each(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    numbers.into_iter().map(|number| (number, number)).collect()
}

#[tokio::test]
async fn who_comes_late_gets_from_the_files_what_memory_forgot() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = trial(folder.path());
    allow(&mut trial, 300);
    assert!(folder.path().read_dir().unwrap().count() > 5);
    assert_eq!(until(&mut from(&trial, 0), 300).await, each(1..=300), "0 is the earliest that is kept");
    let mut watch = from(&trial, 17);
    assert_eq!(until(&mut watch, 300).await, each(18..=300));
    allow(&mut trial, 200);
    assert_eq!(until(&mut watch, 500).await, each(301..=500), "and goes on, however far it fell behind");
    assert_eq!(trial.events.numbers().gaps, 0);
}

#[tokio::test]
async fn what_the_files_do_not_have_is_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = trial(folder.path());
    allow(&mut trial, 300);
    let mut files = rotated_files(&folder.path().join("audit.jsonl")).unwrap();
    files.sort();
    std::fs::remove_file(&files[1]).unwrap();
    let numbers = files[1].to_str().unwrap().rsplit_once('.').unwrap().1;
    let (first, last) = numbers.split_once('-').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap();
    let wanted = [each(1..first), vec![(first, last)], each(last.saturating_add(1)..=300)].concat();
    assert_eq!(until(&mut from(&trial, 0), 300).await, wanted);
    assert_eq!(trial.events.numbers().missed, last.saturating_sub(first).saturating_add(1));

    for file in folder.path().read_dir().unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let wanted = [vec![(11, 236)], each(237..=300)].concat();
    assert_eq!(until(&mut from(&trial, 10), 300).await, wanted, "memory has the rest");
    assert_eq!(until(&mut from(&trial, 0), 300).await, each(237..=300), "the earliest that is kept");
}

#[tokio::test]
async fn an_event_from_a_file_is_the_one_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = trial(folder.path());
    allow(&mut trial, 1);
    let Some(Item::Event(kept)) = from(&trial, 0).next().await else { panic!("it is kept") };
    allow(&mut trial, 100);
    let Some(Item::Event(read)) = from(&trial, 0).next().await else { panic!("it is in a file") };
    assert_eq!((&*read, read.stream_id()), (&*kept, kept.stream_id()));
    assert_eq!(read.line(), kept.line());
    let files = rotated_files(&folder.path().join("audit.jsonl")).unwrap();
    let first = std::fs::read_to_string(files.into_iter().min().unwrap()).unwrap();
    assert_eq!(first.lines().next(), Some(&*read.line()), "to the byte");
}

#[tokio::test]
async fn lines_of_another_process_are_not_of_this_stream() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = trial(folder.path());
    allow(&mut first, 150);
    let file = folder.path().join("audit.jsonl");
    let forged = std::fs::read_to_string(&file).unwrap().replace("\"0000000000000001\"", "\"00000000000000ff\"");
    std::fs::write(&file, forged).unwrap();
    drop(first);
    for rotated in rotated_files(&file).unwrap() {
        std::fs::remove_file(rotated).unwrap();
    }
    let mut second = trial(folder.path());
    allow(&mut second, 100);
    assert_eq!(until(&mut from(&second, 0), 100).await, each(1..=100));
}
