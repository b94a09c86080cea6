//! Uses on the disk.

use std::io::Write as _;
use std::path::Path;

use remit::state::{Backend, Directory, State};

use super::{Rounds, Took, authorize, tokens};
use crate::fixture::{self, CAPACITY, now};

/// In flight, and how many a round.
const SIZES: [(usize, usize); 3] = [(1, 300), (16, 3_000), (64, 8_000)];

pub(crate) async fn rows() {
    // Beside what was built, and so on a disk: a machine's folder for temporary files may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = dir.path().join("state");
    let engine = fixture::engine_on(fixture::POLICY, &dir.path().join("audit.jsonl"), |clock| {
        let time = clock.clone();
        let directory = Directory::open(&folder).unwrap();
        State::in_directory(directory, Backend::Journal, CAPACITY, move || time.now(), 1).unwrap()
    });
    // What one use takes in the file.
    let some = tokens(&engine, 1_000).await;
    let before = length(&folder);
    assert!(authorize(&engine, some, 64).await.is_some(), "the disk stands still");
    let bytes = (length(&folder) - before) / 1_000;
    println!(
        "P9 journal: authorize beside append and fdatasync of {bytes} bytes a use (goal: p50 at most 2, uses a second at least 0.5)"
    );
    let mut bare = std::fs::File::create(dir.path().join("bare")).unwrap();
    for (in_flight, count) in SIZES {
        let mut rounds = Rounds::default();
        while !rounds.are_done() {
            let wanted = tokens(&engine, count).await;
            let own = authorize(&engine, wanted, in_flight).await;
            let bare = append(&mut bare, &vec![0xa5; bytes * in_flight], in_flight, count);
            rounds.add(own, bare).await;
        }
        rounds.tell(in_flight, "fdatasync");
    }
}

fn length(folder: &Path) -> usize {
    std::fs::metadata(folder.join("ledger")).unwrap().len() as usize
}

/// So many uses are on the disk with each sync.
fn append(file: &mut std::fs::File, bytes: &[u8], at_once: usize, count: usize) -> Took {
    let began = now();
    let mut each = Vec::with_capacity(count);
    for _ in 0..count / at_once {
        let began = now();
        file.write_all(bytes).unwrap();
        file.sync_data().unwrap();
        each.extend(std::iter::repeat_n(began.elapsed().as_secs_f64() * 1e6, at_once));
    }
    Took { each, all: began.elapsed() }
}
