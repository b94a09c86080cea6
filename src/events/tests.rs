use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::trial::{event, small};
use super::*;
use crate::domain::reason::Reason;

fn clock() -> impl Fn() -> Timestamp + Send + Sync + 'static {
    let start = Instant::now();
    move || Timestamp::from_nanos(trial::START).after(start.elapsed())
}

fn start(file: &Path, rotate_bytes: u64, config: &EventsConfig) -> Events {
    let audit = AuditConfig { file: Some(file.to_owned()), rotate_bytes, ..AuditConfig::default() };
    Events::start(&audit, config, 1, clock()).unwrap()
}

fn allow(events: &Events) -> Option<u64> {
    let event = event(events, "agent-a", Reason::Allowed, Timestamp::from_nanos(trial::START));
    Some(events.try_reserve(Share::Answer)?.commit(event))
}

/// The numbers of the lines, each of which has to be whole.
fn numbers(lines: &str) -> Vec<u64> {
    assert!(lines.is_empty() || lines.ends_with('\n'));
    lines
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("torn: {line}"));
            value["sequence"].as_u64().unwrap()
        })
        .collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_allow_is_a_line_across_rotated_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let events = start(&file, 64 * 1024, &small(1024));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let events = events.clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    // The queue is small on purpose, and a machine may be busy with something else.
                    let place = loop {
                        match events.reserve().await {
                            Ok(place) => break place,
                            Err(AuditUnavailable::Full | AuditUnavailable::Stalled) => {}
                            Err(why) => panic!("{why}"),
                        }
                    };
                    place.commit(event(&events, "agent-a", Reason::Allowed, Timestamp::from_nanos(trial::START)));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    events.shutdown(Duration::from_secs(10)).await.unwrap();
    let mut files: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.rotate_left(1);
    assert!(files.len() > 3 && files.last() == Some(&file), "{files:?}");
    let lines: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert_eq!(numbers(&lines), (1..=4000).collect::<Vec<u64>>());
    assert_eq!(events.numbers().waiting, 0);
}

/// A pipe that is a file for the log: its name, and the end from which it is read.
fn pipe() -> (PathBuf, std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd())), reader, writer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_log_refuses_within_half_a_second_and_recovers() {
    let (file, mut reader, writer) = pipe();
    let events = start(&file, 0, &small(65_536));
    let mut watch = events.subscribe(Since::Now, Filter::default()).unwrap();
    drop(writer);
    let mut given = 0;
    // Nobody reads: the pipe takes 64 KiB, and then the recorder hangs in its write.
    let begin = Instant::now();
    while events.numbers().is_well {
        if let Some(sequence) = allow(&events) {
            given = sequence;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    let waited = Instant::now();
    assert_eq!(events.reserve().await.err(), Some(AuditUnavailable::Stalled));
    assert!(waited.elapsed() < Duration::from_millis(300));
    assert_eq!(allow(&events), None);
    events.deny(event(&events, "agent-a", Reason::AuditUnavailable, Timestamp::from_nanos(trial::START)));

    let lines = std::thread::spawn(move || {
        let mut lines = String::new();
        reader.read_to_string(&mut lines).unwrap();
        lines
    });
    until("recovery", || events.numbers().is_well).await;
    assert_eq!(allow(&events), Some(given + 1));
    events.shutdown(Duration::from_secs(10)).await.unwrap();
    let total = events.numbers().sequence;
    drop(events);
    assert_eq!(numbers(&lines.join().unwrap()), (1..=total).collect::<Vec<u64>>());
    let mut seen = 0;
    while let Some(Item::Event(event)) = watch.next().await {
        seen += 1;
        assert_eq!(event.sequence(), seen);
    }
    assert_eq!(seen, total);
    assert_eq!(total, given + 2, "the denial was held until it could be recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_log_refuses_and_recovers() {
    let (file, reader, writer) = pipe();
    let events = start(&file, 0, &small(1024));
    drop(reader);
    assert_eq!(allow(&events), Some(1));
    let refused_after = until("refusal", || !events.numbers().is_well).await;
    assert!(refused_after < Duration::from_millis(500), "{refused_after:?}");
    assert_eq!(allow(&events), None);
    assert_eq!(events.reserve().await.err(), Some(AuditUnavailable::Failing));
    until("more tries", || events.numbers().audit_failures >= 3).await;

    let mut reader = File::open(&file).unwrap();
    drop(writer);
    until("recovery", || events.numbers().is_well).await;
    assert_eq!(allow(&events), Some(2));
    events.shutdown(Duration::from_secs(10)).await.unwrap();
    drop(events);
    let mut lines = String::new();
    reader.read_to_string(&mut lines).unwrap();
    assert_eq!(numbers(&lines), [1, 2]);
}

#[tokio::test]
async fn a_full_disk_ends_in_an_error_and_not_in_a_loss() {
    let events = start(Path::new("/dev/full"), 0, &small(1024));
    let mut watch = events.subscribe(Since::Now, Filter::default()).unwrap();
    let mut given = 0;
    let begin = Instant::now();
    while let Some(sequence) = allow(&events) {
        given = sequence;
        assert!(begin.elapsed() < Duration::from_millis(500), "no refusal after {given}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let unrecorded = events.shutdown(Duration::from_millis(150)).await;
    assert_eq!(unrecorded, Err(Unrecorded { events: usize::try_from(given).unwrap() }));
    let shown = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(shown.is_err(), "what is not written is not shown: {shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_subscribers_cost_decisions_nothing_and_miss_exactly_what_they_are_told() {
    let events = Events::start(&AuditConfig::default(), &small(256), 1, clock()).unwrap();
    let stalled: Vec<_> = (0..16).map(|_| events.subscribe(Since::Now, Filter::default()).unwrap()).collect();
    let mut total = 0;
    while total < 10_000 {
        match allow(&events) {
            Some(sequence) => total = sequence,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    events.shutdown(Duration::from_secs(10)).await.unwrap();
    for mut watch in stalled {
        let (mut delivered, mut missed) = (0, 0);
        while let Some(item) = watch.next().await {
            match item {
                Item::Event(event) => {
                    delivered += 1;
                    assert_eq!(event.sequence(), delivered + missed);
                }
                Item::Gap { from, to, .. } => {
                    assert_eq!(from, delivered + missed + 1);
                    missed += to - from + 1;
                }
                Item::Heartbeat { .. } => panic!("the stream is over"),
            }
        }
        assert_eq!((delivered, delivered + missed), (256, total));
    }
    assert_eq!(events.numbers().missed, 16 * (total - 256));
    assert_eq!(events.numbers().subscribers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_the_writers_sees_everything_once() {
    let events = Events::start(&AuditConfig::default(), &small(512), 1, clock()).unwrap();
    let watch = events.subscribe(Since::Now, Filter::default()).unwrap();
    let reader = tokio::spawn(async move {
        let (mut watch, mut last, mut delivered, mut missed) = (watch, 0, 0, 0);
        while let Some(item) = watch.next().await {
            let (from, to) = match item {
                Item::Event(event) => (event.sequence(), event.sequence()),
                Item::Gap { from, to, .. } => (from, to),
                Item::Heartbeat { sequence, .. } => {
                    assert_eq!(sequence, last);
                    continue;
                }
            };
            assert_eq!(from, last + 1);
            last = to;
            if from == to { delivered += 1 } else { missed += to - from + 1 }
        }
        delivered + missed
    });
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let events = events.clone();
            std::thread::spawn(move || {
                let given = std::iter::repeat_with(|| allow(&events)).take(20_000).flatten().count();
                u64::try_from(given).unwrap()
            })
        })
        .collect();
    let given: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    events.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(events.numbers().sequence, given);
    assert_eq!(reader.await.unwrap(), given);
}

#[tokio::test]
async fn the_last_handle_ends_the_recorder_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let events = start(&file, 0, &small(256));
    let mut watch = events.subscribe(Since::Now, Filter::default()).unwrap();
    allow(&events);
    drop(events.clone());
    allow(&events);
    drop(events);
    assert!(matches!(watch.next().await, Some(Item::Event(event)) if event.sequence() == 1));
    assert!(matches!(watch.next().await, Some(Item::Event(event)) if event.sequence() == 2));
    assert_eq!(watch.next().await, None);
    assert_eq!(numbers(&std::fs::read_to_string(file).unwrap()), [1, 2]);
}

#[test]
fn settings_are_read_by_their_names_and_checked() {
    let audit: AuditConfig =
        serde_json::from_str(r#"{"file": "-", "rotate_bytes": 5, "keep": 2, "on_failure": "count"}"#).unwrap();
    let wanted = AuditConfig {
        file: Some("-".into()),
        rotate_bytes: 5,
        keep: 2,
        on_failure: OnFailure::Count,
        ..AuditConfig::default()
    };
    assert_eq!(audit, wanted);
    assert!(serde_json::from_str::<AuditConfig>(r#"{"files": "-"}"#).is_err());
    let events: EventsConfig = serde_json::from_str("{}").unwrap();
    assert_eq!((events.ring, events.max_subscribers, events.check()), (65_536, 64, Ok(())));
    for wrong in [r#"{"ring": 63}"#, r#"{"subscriber_buffer": 0}"#, r#"{"heartbeat_seconds": 0}"#] {
        assert!(serde_json::from_str::<EventsConfig>(wrong).unwrap().check().is_err(), "{wrong}");
    }
}
