use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_795_297_903).after(Duration::from_secs(seconds))
}

fn config(file: &Path) -> AuditConfig {
    AuditConfig { file: Some(file.to_owned()), ..AuditConfig::default() }
}

fn open(config: &AuditConfig) -> Log {
    Log::open(config).unwrap().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_file_is_appended_to_and_not_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    open(&config(&file)).write(b"one\n", (1, 1), at(0)).unwrap();
    open(&config(&file)).write(b"two\n", (1, 1), at(0)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777 & !0o640, 0);
    let missing = folder.path().join("missing/audit.jsonl");
    assert!(matches!(Log::open(&config(&missing)), Err(LogError::Unopened(path, _)) if path == missing));
}

#[test]
fn a_full_file_is_renamed_and_only_the_newest_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    std::fs::write(folder.path().join("audit.jsonl.bak"), "mine").unwrap();
    let mut log = open(&AuditConfig { rotate_bytes: 20, keep: 2, ..config(&file) });
    for number in 1..=8_u64 {
        log.write(format!("line {number:04}\n").as_bytes(), (number, number), at(number)).unwrap();
    }
    let rotated = |first, last, time| format!("audit.jsonl.20261121T{time}Z.{first:020}-{last:020}");
    let wanted = ["audit.jsonl".into(), rotated(3, 4, "215148"), rotated(5, 6, "215150"), "audit.jsonl.bak".into()];
    assert_eq!(names(folder.path()), wanted);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "line 0007\nline 0008\n");
    let oldest = folder.path().join(&wanted[1]);
    assert_eq!(std::fs::read_to_string(oldest).unwrap(), "line 0003\nline 0004\n");
}

#[test]
fn a_rotated_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    for _ in 0..3 {
        let mut log = open(&AuditConfig { rotate_bytes: 5, ..config(&file) });
        log.write(b"one\n", (1, 1), at(0)).unwrap();
        log.write(b"two\n", (2, 2), at(0)).unwrap();
    }
    let lines: usize = names(folder.path())
        .iter()
        .map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap().lines().count())
        .sum();
    assert_eq!((lines, names(folder.path()).len()), (6, 6));
}

#[test]
fn a_log_that_cannot_be_renamed_grows_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut log = open(&AuditConfig { rotate_bytes: 5, ..config(&file) });
    log.write(b"one\n", (1, 1), at(0)).unwrap();
    std::fs::rename(folder.path(), folder.path().with_extension("away")).unwrap();
    log.write(b"two\n", (2, 2), at(0)).unwrap();
    let away = folder.path().with_extension("away");
    assert_eq!(std::fs::read_to_string(away.join("audit.jsonl")).unwrap(), "one\ntwo\n");
    assert!(log.write(b"three\n", (3, 3), at(2)).is_err(), "nobody would find it");
    std::fs::rename(&away, folder.path()).unwrap();
    log.write(b"three\n", (3, 3), at(2)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
}

#[test]
fn a_file_that_was_deleted_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut log = open(&config(&file));
    log.write(b"one\n", (1, 1), at(0)).unwrap();
    std::fs::remove_file(&file).unwrap();
    log.write(b"two\n", (2, 2), at(2)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n");
}

#[test]
fn half_a_line_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    for (before, after) in [("one\ntw", "one\nnext\n"), ("{\"timestamp\":\"20", "next\n"), ("one\n", "one\nnext\n")] {
        std::fs::write(&file, before).unwrap();
        open(&config(&file)).write(b"next\n", (1, 1), at(0)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
    }
    std::fs::write(&file, "root:x:0:0").unwrap();
    assert!(matches!(Log::open(&config(&file)), Err(LogError::NotALog(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "root:x:0:0");
}

#[test]
fn after_a_torn_write_the_same_lines_come_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut log = open(&config(&file));
    log.write(b"one\n", (1, 1), at(0)).unwrap();
    // What a disk that is full leaves: a part is written, the rest is an error.
    log.file.write_all(b"tw").unwrap();
    log.written = 2;
    log.write(b"two\nthree\n", (2, 3), at(1)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
    assert_eq!(log.size, 14);
}

fn line(number: u64, head: &mut chain::Chain) -> Vec<u8> {
    let mut line = format!("{{\"sequence\":{number}}}").into_bytes();
    head.add(&mut line, 0);
    line
}

#[test]
fn the_chain_goes_on_after_the_file_that_was_written_last() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut head = chain::Chain::after(Digest::default());
    // Two processes in the same second: the second counts from 1 again.
    for first in [50, 1] {
        let mut log = open(&AuditConfig { rotate_bytes: 5, ..config(&file) });
        for number in [first, first + 1] {
            log.write(&line(number, &mut head), (number, number), at(0)).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // A crash between the two steps of a rotation.
    std::fs::rename(&file, free_name(&file, at(0), Some((2, 2)))).unwrap();
    assert_eq!(open(&config(&file)).ends_with(), head.head());
}

#[test]
fn a_clock_that_once_ran_ahead_does_not_say_where_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut head = chain::Chain::after(Digest::default());
    let mut log = open(&AuditConfig { rotate_bytes: 5, ..config(&file) });
    for (number, seconds) in [(1, 100_000_000), (2, 100_000_001), (3, 5), (4, 6)] {
        log.write(&line(number, &mut head), (number, number), at(seconds)).unwrap();
    }
    drop(log);
    // A crash between the two steps of a rotation: the file's name is there, and nothing is in it.
    std::fs::rename(&file, free_name(&file, at(7), Some((4, 4)))).unwrap();
    std::fs::write(&file, "").unwrap();
    let ahead = names(folder.path()).pop().unwrap();
    assert!(ahead.contains(".2030") && ahead.ends_with("-00000000000000000001"), "{ahead} is the newest by name");
    assert_eq!(open(&config(&file)).ends_with(), head.head());
}

fn syncing(file: &Path) -> AuditConfig {
    AuditConfig { sync: Durability::Each, ..config(file) }
}

#[test]
fn after_a_failed_sync_the_same_lines_come_in_a_fresh_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut log = open(&syncing(&file));
    log.write(b"one\n", (1, 1), at(0)).unwrap();
    // What a failed sync leaves: it is written, and counts for nothing.
    log.file.write_all(b"two\n").unwrap();
    (log.written, log.is_broken) = (4, true);
    log.write(b"two\n", (2, 2), at(1)).unwrap();
    let rotated = folder.path().join("audit.jsonl.20261121T215144Z.00000000000000000001-00000000000000000001");
    assert_eq!(std::fs::read_to_string(rotated).unwrap(), "one\n", "what was synced");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n");
    (log.written, log.is_broken) = (0, true);
    std::fs::write(&file, "").unwrap();
    log.write(b"three\n", (3, 3), at(1)).unwrap();
    assert_eq!(names(folder.path()).len(), 2, "an empty one is not kept");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "three\n");
}

#[test]
fn what_can_not_be_synced_is_refused() {
    assert!(matches!(Log::open(&syncing(Path::new("/dev/null"))), Err(LogError::NotSyncable(_))));
    for (wrong, says) in [
        (AuditConfig { on_failure: super::super::OnFailure::Count, ..syncing(Path::new("a")) }, "\"deny\""),
        (syncing(Path::new("-")), "standard output"),
        (AuditConfig { file: None, ..syncing(Path::new("a")) }, "file = \"audit.jsonl\""),
    ] {
        let refused = wrong.check().unwrap_err().to_string();
        assert!(refused.starts_with("[audit] sync is \"each\"") && refused.contains(says), "{refused}");
    }
}

#[test]
fn what_is_synced_never_goes_to_a_file_that_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut log = open(&syncing(&file));
    log.write(b"one\n", (1, 1), at(0)).unwrap();
    std::fs::remove_file(&file).unwrap();
    // In the same moment, long before the name is looked up again.
    log.write(b"two\n", (2, 2), at(0)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n");
    // Deleted between the write and the end of its sync.
    std::fs::remove_file(&file).unwrap();
    log.file.write_all(b"three\n").unwrap();
    log.written = 6;
    assert!(log.sync().is_err(), "it is not released");
    log.write(b"three\n", (3, 3), at(0)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "three\n");
}

#[test]
fn a_clock_that_once_ran_ahead_never_costs_the_newest_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut head = chain::Chain::after(Digest::default());
    // What stands there from a clock that ran ahead: two files of this chain, and one that nobody knows.
    for number in [1, 2] {
        std::fs::write(free_name(&file, at(100_000_000), Some((number, number))), line(number, &mut head)).unwrap();
    }
    std::fs::write(free_name(&file, at(200_000_000), Some((1, 9))), "{\"old\":1}\n").unwrap();
    let mut log = open(&AuditConfig { rotate_bytes: 5, keep: 3, ..config(&file) });
    let mut kept = Vec::new();
    for number in 3..=8 {
        log.write(&line(number, &mut head), (number, number), at(number)).unwrap();
        let names = names(folder.path());
        kept.push(names.iter().filter_map(|name| name.rsplit('-').next()?.parse::<u64>().ok()).collect::<Vec<_>>());
    }
    let wanted: [&[u64]; 6] = [&[1, 2, 9], &[3, 1, 2], &[3, 4, 2], &[3, 4, 5], &[4, 5, 6], &[5, 6, 7]];
    assert_eq!(kept, wanted);
}

#[test]
fn a_pipe_without_a_reader_is_refused_at_once_and_one_with_a_reader_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
    let refused = Log::open(&config(&file)).err().unwrap();
    assert!(matches!(&refused, LogError::Unread(path) if *path == file), "{refused}");
    assert!(refused.to_string().ends_with("is a pipe that nobody reads: start its reader first"), "{refused}");
    let mut reader = OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let mut log = open(&config(&file));
    assert!(!fcntl_getfl(&log.file).unwrap().contains(OFlags::NONBLOCK), "a full pipe is waited for");
    log.write(b"one\n", (1, 1), at(0)).unwrap();
    let mut read = [0; 4];
    reader.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"one\n");
}

#[test]
fn a_pipe_in_the_file_s_place_is_a_failing_log_that_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let mut log = open(&config(&file));
    log.write(b"one\n", (1, 1), at(0)).unwrap();
    std::fs::remove_file(&file).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
    assert!(log.write(b"two\n", (2, 2), at(2)).is_err(), "without a reader");
    let reader = OpenOptions::new().read(true).write(true).open(&file).unwrap();
    assert!(log.write(b"two\n", (2, 2), at(4)).is_err(), "a file was asked for");
    drop(reader);
    std::fs::remove_file(&file).unwrap();
    log.write(b"two\n", (2, 2), at(6)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "two\n");
}

#[test]
fn one_process_writes_a_file_also_after_it_was_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let settings = AuditConfig { rotate_bytes: 5, ..config(&file) };
    let mut log = open(&settings);
    for number in 1..=3 {
        log.write(b"line\n", (number, number), at(number)).unwrap();
        let refused = Log::open(&settings).err().unwrap();
        assert!(matches!(&refused, LogError::InUse(path) if *path == file), "{refused}");
    }
    assert_eq!(names(folder.path()).len(), 3, "it was rotated");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "line\n", "readers don't need the lock");
    drop(log);
    open(&settings);
}
