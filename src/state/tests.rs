//! The order of stage, show and flush, and the bugs that break it.

use std::{path::PathBuf, sync::Arc};

use super::*;
use crate::{
    disk::RealDisk,
    id::StoreId,
    protocol::{
        entry::{
            VerifiedEntry,
            tests::{AUTHOR_A, entry},
        },
        heads::{Before, Heads},
    },
};

const STORE: StoreId = StoreId([7; 16]);

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    Place { _dir: dir, path }
}

fn open(place: &Place) -> (State, Stored) {
    State::open(Arc::new(RealDisk), &place.path, STORE).unwrap()
}

fn first() -> VerifiedEntry {
    entry(AUTHOR_A, 1, None, 10, "/1")
}

#[test]
fn shown_rows_are_in_the_file_after_a_flush() {
    let place = place();
    let (mut state, stored) = open(&place);
    assert!(stored.created && stored.frontier.is_empty());
    let (one, other) = (first(), entry(AUTHOR_A, 2, Some(first().id), 20, "/2"));
    state.stage(&one).unwrap();
    assert!(state.reader().view().frontier.is_empty(), "only staged");
    state.show();
    state.flush(vec![(b"note".to_vec(), b"body".to_vec())]);
    state.stage(&other).unwrap();
    assert!(state.finish_flush(true).unwrap());
    state.forget();
    assert_eq!(state.reader().view().keys, 1);
    state.stage(&other).unwrap();
    state.show();
    state.flush(Vec::new());
    assert!(state.finish_flush(true).unwrap());
    assert!(!state.finish_flush(true).unwrap(), "no flush is left");
    let shown = state.reader().view();
    state.close().unwrap();
    let (state, stored) = open(&place);
    assert_eq!(stored.frontier, *shown.frontier);
    assert_eq!(stored.notes, [(b"note".to_vec(), b"body".to_vec())]);
    let view = state.reader().view();
    assert_eq!((view.keys, view.entries), (2, 2));
    for (key, id) in [(b"/1", one.id), (b"/2", other.id)] {
        assert_eq!(view.heads(key).unwrap().winner().unwrap().id, id);
    }
}

/// If a row that is counted as new replaces another row, or the reverse, a look-up missed a row,
/// whose heads would be lost.
#[test]
fn flush_that_miscounts_its_keys_is_damage() {
    let place = place();
    let (mut state, _stored) = open(&place);
    state.stage(&first()).unwrap();
    state.show();
    state.flush(Vec::new());
    state.finish_flush(true).unwrap();
    let again = entry(AUTHOR_A, 2, Some(first().id), 20, "/1");
    let missed = Before {
        heads: vec![Heads::default()],
        ..Before::default()
    };
    state.stage_over(&again, missed).unwrap();
    state.show();
    state.flush(Vec::new());
    let flushed = state.finish_flush(true);
    assert!(
        matches!(flushed, Err(StateError::Damaged { .. })),
        "{flushed:?}"
    );
}

#[test]
#[should_panic(expected = "(2) only shown rows are flushed")]
fn flush_of_staged_rows_is_a_bug() {
    let place = place();
    let (mut state, _stored) = open(&place);
    state.stage(&first()).unwrap();
    state.flush(Vec::new());
}

#[test]
#[should_panic(expected = "(3) one flush at a time")]
fn second_flush_before_the_end_of_the_first_is_a_bug() {
    let place = place();
    let (mut state, _stored) = open(&place);
    state.flush(Vec::new());
    state.flush(Vec::new());
}

#[test]
#[should_panic(expected = "(4) heads for each op")]
fn entry_without_heads_for_each_op_is_a_bug() {
    let place = place();
    let (mut state, _stored) = open(&place);
    drop(state.stage_over(&first(), Before::default()));
}

// A file with many rows, and its bytes.
fn file_with_rows() -> (Place, Vec<u8>) {
    let place = place();
    let (mut state, _stored) = open(&place);
    let mut last: Option<VerifiedEntry> = None;
    for number in 1..=400_u64 {
        let prev = last.as_ref().map(|last| last.id);
        let key = format!("/{number:04}");
        let next = entry(
            AUTHOR_A,
            number,
            prev,
            number * 10,
            Box::leak(key.into_boxed_str()),
        );
        state.stage(&next).unwrap();
        last = Some(next);
    }
    state.show();
    state.flush(Vec::new());
    state.finish_flush(true).unwrap();
    state.close().unwrap();
    let bytes = std::fs::read(&place.path).unwrap();
    (place, bytes)
}

fn sums_of(place: &Place) -> PathBuf {
    place.path.with_extension("sums")
}

/// A file that redb's check has refused leaves no sums: the next open would take them for checked ones, and
/// read the damaged block without an error.
#[test]
fn file_that_was_refused_is_refused_again() {
    let (place, bytes) = file_with_rows();
    let mut refused = 0;
    for block in 1..bytes.len() / 4096 {
        let mut flipped = bytes.clone();
        flipped[block * 4096 + 100] ^= 8;
        std::fs::write(&place.path, &flipped).unwrap();
        drop(std::fs::remove_file(sums_of(&place)));
        let open = || State::open(Arc::new(RealDisk), &place.path, STORE).map(drop);
        if open().is_err() {
            refused += 1;
            assert!(!sums_of(&place).exists(), "block {block} leaves sums");
            assert!(open().is_err(), "block {block} is refused once only");
        }
    }
    assert!(refused > 5, "only {refused} blocks matter");
}

/// The check of a whole file learns all sums, and they are all kept: damage later on is found.
#[test]
fn sums_that_a_check_has_learned_are_kept() {
    let (place, bytes) = file_with_rows();
    std::fs::write(&place.path, &bytes).unwrap();
    drop(std::fs::remove_file(sums_of(&place)));
    let (state, _stored) = open(&place);
    state.close().unwrap();
    let (bytes, sums) = (
        std::fs::read(&place.path).unwrap(),
        std::fs::read(sums_of(&place)).unwrap(),
    );
    let mut found = 0;
    for block in 1..bytes.len() / 4096 {
        let mut flipped = bytes.clone();
        flipped[block * 4096 + 100] ^= 8;
        std::fs::write(&place.path, &flipped).unwrap();
        std::fs::write(sums_of(&place), &sums).unwrap();
        let read =
            State::open(Arc::new(RealDisk), &place.path, STORE).and_then(|(state, _stored)| {
                let view = state.reader().view();
                (1..=400).try_for_each(|number| {
                    let heads = view.heads(format!("/{number:04}").as_bytes())?;
                    assert!(heads.winner().is_some(), "block {block} hides /{number:04}");
                    Ok(())
                })
            });
        found += u32::from(read.is_err());
    }
    assert!(found > 5, "only {found} flips were found");
}
