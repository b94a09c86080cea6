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

/// A process of this number on the log in the folder, and with `keep` so many renamed files.
fn process(number: u64, folder: &Path, keep: usize) -> Trial {
    let audit =
        AuditConfig { file: Some(folder.join("audit.jsonl")), rotate_bytes: 8 * 1024, keep, ..AuditConfig::default() };
    Trial::of_process(number, &audit, &small(64), None)
}

fn after(trial: &Trial, stream_id: &str, sequence: u64) -> Subscription {
    trial.events.subscribe(Since::After { stream_id, sequence }, Filter::default()).unwrap()
}

/// Streams, numbers and gaps up to this event, neighbours together: `1:1-300`, gaps in brackets.
async fn seen(watch: &mut Subscription, stream_id: &str, last: u64) -> String {
    let mut runs: Vec<(String, bool, u64, u64)> = Vec::new();
    loop {
        let (stream, is_gap, from, to) = match watch.next().await.unwrap() {
            Item::Event(event) => (event.stream_id().clone(), false, event.sequence(), event.sequence()),
            Item::Gap { stream_id, from, to } => (stream_id, true, from, to),
            Item::Heartbeat { .. } => continue,
        };
        let name = stream.trim_start_matches('0').to_owned();
        match runs.last_mut().filter(|run| (&run.0, run.1, run.3.saturating_add(1)) == (&name, is_gap, from) && !is_gap)
        {
            Some(run) => run.3 = to,
            None => runs.push((name, is_gap, from, to)),
        }
        if *stream == *format!("{stream_id:0>16}") && to >= last {
            break;
        }
    }
    let text = |(name, is_gap, from, to): &(String, bool, u64, u64)| {
        if *is_gap { format!("[{name}:{from}-{to}]") } else { format!("{name}:{from}-{to}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// The numbers in a renamed file's name.
fn numbers(file: &Path) -> (u64, u64) {
    let numbers = file.to_str().unwrap().trim_end_matches('+').rsplit_once('.').unwrap().1;
    numbers.split_once('-').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap()
}

const FIRST: &str = "0000000000000001";
const SECOND: &str = "0000000000000002";

#[tokio::test]
async fn an_earlier_process_s_stream_is_followed_by_the_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    for (number, count) in [(1, 150), (2, 3), (3, 200)] {
        let mut trial = process(number, folder.path(), 0);
        allow(&mut trial, count);
    }
    let mut live = process(4, folder.path(), 0);
    allow(&mut live, 100);
    let all = "1:1-150 2:1-3 3:1-200 4:1-100";
    assert_eq!(seen(&mut after(&live, FIRST, 0), "4", 100).await, all, "0 is the earliest of the named stream");
    assert_eq!(seen(&mut after(&live, FIRST, 149), "4", 100).await, all.replace("1:1-150", "1:150-150"));
    assert_eq!(seen(&mut after(&live, FIRST, 150), "4", 100).await, all.replace("1:1-150 ", ""), "it had all of it");
    assert_eq!(seen(&mut after(&live, FIRST, 999), "4", 100).await, all.replace("1:1-150 ", ""));
    assert_eq!(seen(&mut after(&live, SECOND, 1), "4", 100).await, "2:2-3 3:1-200 4:1-100", "within one file");
    assert_eq!(live.events.numbers().gaps, 0);
    let mut watch = after(&live, FIRST, 20);
    let first = seen(&mut watch, "1", 100).await;
    allow(&mut live, 300);
    let rest = seen(&mut watch, "4", 400).await;
    assert_eq!((first.as_str(), rest.as_str()), ("1:21-100", "1:101-150 2:1-3 3:1-200 4:1-400"), "it goes on live");
    assert_eq!(live.events.numbers().gaps, 0);
}

#[tokio::test]
async fn a_process_that_has_said_nothing_yet_is_followed_live() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = process(1, folder.path(), 0);
    allow(&mut first, 10);
    drop(first);
    let mut live = process(2, folder.path(), 0);
    let mut watch = after(&live, FIRST, 7);
    watch.heartbeat_after(std::time::Duration::from_millis(1));
    assert_eq!(seen(&mut watch, "1", 10).await, "1:8-10");
    let Some(Item::Heartbeat { stream_id, sequence }) = watch.next().await else { panic!("nothing follows") };
    assert_eq!((&*stream_id, sequence), (FIRST, 10));
    allow(&mut live, 200);
    assert_eq!(seen(&mut watch, "2", 200).await, "2:1-200", "also what memory had to forget meanwhile");
    assert_eq!(live.events.numbers().gaps, 0);
}

#[tokio::test]
async fn what_is_deleted_of_earlier_streams_is_told_by_stream() {
    let folder = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let mut trial = process(number, folder.path(), 0);
        // With two holes only the time tells what comes first.
        trial.pass(std::time::Duration::from_secs(number));
        allow(&mut trial, 150);
    }
    let mut live = process(3, folder.path(), 0);
    allow(&mut live, 10);
    let has = |file: &Path, stream: &str| {
        std::fs::read_to_string(file).unwrap().contains(&format!("\"stream_id\":\"{stream}\""))
    };
    let files = rotated_files(&folder.path().join("audit.jsonl")).unwrap();
    let inside = |file: &&PathBuf| has(file, FIRST) && !has(file, SECOND) && numbers(file).0 > 1;
    let file = files.iter().find(inside).unwrap();
    let (first, last) = numbers(file);
    std::fs::remove_file(file).unwrap();
    let wanted = format!("1:1-{} [1:{first}-{last}] 1:{}-150 2:1-150 3:1-10", first - 1, last + 1);
    assert_eq!(seen(&mut after(&live, FIRST, 0), "3", 10).await, wanted);
    assert_eq!(live.events.numbers().missed, last - first + 1);

    // The file in which the first stream ends and the second begins.
    let both = files.iter().find(|file| file.exists() && has(file, FIRST) && has(file, SECOND)).unwrap();
    let lines = std::fs::read_to_string(both).unwrap();
    let of_first: u64 =
        lines.lines().filter(|line| line.contains(&format!(":\"{FIRST}\""))).count().try_into().unwrap();
    let of_second = numbers(both).1;
    std::fs::remove_file(both).unwrap();
    let end = 150 - of_first;
    let wanted = if last < end { format!("1:{}-{end} [1:0-0]", last + 1) } else { "[1:0-0]".to_owned() };
    let wanted = format!("{wanted} [2:1-{of_second}] 2:{}-150 3:1-10", of_second + 1);
    assert_eq!(seen(&mut after(&live, FIRST, last), "3", 10).await, wanted, "how much of the first is not known");
}

#[tokio::test]
async fn a_stream_that_nobody_knows_is_one_gap_and_then_this_process_s() {
    let folder = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let mut trial = process(number, folder.path(), 0);
        allow(&mut trial, 150);
    }
    let mut live = process(3, folder.path(), 0);
    allow(&mut live, 100);
    assert_eq!(seen(&mut after(&live, "00000000000000ff", 5), "3", 100).await, "[ff:0-0] 3:1-100");
    let files = rotated_files(&folder.path().join("audit.jsonl")).unwrap();
    let first = format!("\"stream_id\":\"{FIRST}\"");
    for file in files.iter().filter(|file| std::fs::read_to_string(file).unwrap().contains(&first)) {
        std::fs::remove_file(file).unwrap();
    }
    assert_eq!(seen(&mut after(&live, FIRST, 5), "3", 100).await, "[1:0-0] 3:1-100", "forgotten is unknown");
}

#[tokio::test]
async fn a_reader_whose_file_is_deleted_goes_on_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = process(1, folder.path(), 0);
    allow(&mut first, 150);
    drop(first);
    let mut live = process(2, folder.path(), 2);
    let mut watch = after(&live, FIRST, 0);
    let begin = seen(&mut watch, "1", 1).await;
    // Two files are kept: the one at hand goes, and with it others that were not read yet.
    allow(&mut live, 300);
    let rest = seen(&mut watch, "2", 300).await;
    // Of the first stream what was in the open file; how much there was after it nobody knows any more.
    assert_eq!(begin, "1:1-1");
    let (open_file, later) = rest.split_once(" [1:0-0] ").unwrap();
    assert!(open_file.starts_with("1:2-"), "{rest}");
    let (gap, kept) = later.split_once(' ').unwrap();
    let missing: u64 = gap.trim_start_matches("[2:1-").trim_end_matches(']').parse().unwrap();
    assert_eq!(kept, format!("2:{}-300", missing + 1), "{rest}");
    assert_eq!(live.events.numbers().missed, missing);
}

#[test]
fn a_renamed_file_is_searched_once_and_never_for_one_who_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let line = |stream: &str, number| {
        let time = "2026-11-21T21:51:43Z";
        format!("{{\"timestamp\":\"{time}\",\"stream_id\":\"{stream}\",\"sequence\":{number}}}\n")
    };
    let renamed = folder.path().join(format!("audit.jsonl.20261121T215143Z.{:020}-{:020}", 1, 4));
    std::fs::write(&renamed, line("a", 1) + &line("b", 1) + &line("b", 2) + &line("c", 1)).unwrap();
    let files = Files::new(path);
    let wanted = |is_abandoned| Wanted {
        from: Position { stream_id: "b".into(), next: 1 },
        own_before: 1,
        most: 16,
        abandoned: Arc::new(AtomicBool::new(is_abandoned)),
    };
    let found = |stream, is_abandoned| within_one(&files.list().unwrap(), stream, &wanted(is_abandoned));
    assert_eq!(found("b", true).unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert_eq!(found("b", false).unwrap(), Some(0));
    // The same name with other lines: what is known of a renamed file is not read again.
    std::fs::write(&renamed, line("a", 1) + &line("c", 1)).unwrap();
    assert_eq!((found("b", false).unwrap(), found("x", false).unwrap()), (Some(0), None));
}
