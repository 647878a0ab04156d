//! What a removal costs whose entries wrote very many keys.

use std::{collections::BTreeSet, convert::Infallible, fs, sync::Arc, time::Instant};

use lattice::{
    Store, WatchEvent, WatchOptions,
    clock::Clock,
    disk::RealDisk,
    id::{Author, EntryId, StoreId},
    limits::{RECOUNT_BYTES_MAX, RECOUNT_KEY_BYTES},
    protocol::{
        change::Kind,
        frontier::FrontierTip,
        membership::{
            Members,
            acts::Acts,
            role::{Act, Role, Tips},
        },
    },
    store::{Authority, Start, StoreConfig},
};
use tokio_stream::StreamExt as _;

use super::setup::{NOW_MS, STORE, encoded, put, soon};
use crate::support::{store, writer::Writer};

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// Returns the events of a watch for a removal of all but 1,000 of `keys` keys.
async fn remove(keys: usize) -> Vec<WatchEvent> {
    let (me, dir) = (
        Writer::new([1; 32], STORE).author(),
        tempfile::tempdir().unwrap(),
    );
    let mut removed = Writer::new([2; 32], STORE);
    let acts = |seq: u8, acts| Acts {
        entry: EntryId([seq; 32]),
        author: me,
        seq: seq.into(),
        cites: Vec::new(),
        needs_authority: false,
        anchors: Vec::new(),
        founds: Vec::new(),
        describes: Vec::new(),
        acts,
    };
    let grant = acts(1, vec![(removed.author(), Act::Grant(Role::Writer))]);
    let members = |acts: &[&Acts]| {
        let leads = |_: &Author, _, _| Ok::<_, Infallible>(Some(true));
        let root = StoreId([1; 16]);
        let Ok(members) = Members::evaluate(me, root, acts.iter().copied(), leads);
        Arc::new(members)
    };
    let (publisher, known) = tokio::sync::watch::channel(members(&[&grant]));
    let config = StoreConfig {
        dir: dir.path().to_owned(),
        authority: Authority::Of(known),
        ..store::config(STORE, [1; 32], &Clock::manual(NOW_MS), RealDisk)
    };
    let store = Store::open(config).await.unwrap();
    let mut cut = None;
    for first in (0..keys).step_by(1000) {
        let ops = (first..first + 1000).map(|n| put(format!("/{n:099}"), "x"));
        let entry = removed.write(NOW_MS, ops.collect(), BTreeSet::new(), false);
        cut.get_or_insert(FrontierTip::of(&entry));
        store.ingest(encoded(&[&entry])).await.unwrap();
    }
    assert_eq!(store.status().await.keys, keys as u64);
    let mut watch = store.watch_with(WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    });
    // Sets the peak to what is in use now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, began) = (peak_kib(), Instant::now());
    let tips = Tips::new([(STORE, cut.unwrap())]).unwrap();
    let removal = acts(2, vec![(removed.author(), Act::Remove(tips))]);
    publisher.send(members(&[&grant, &removal])).unwrap();
    store.reconsider().await;
    assert_eq!(store.status().await.keys, 1000);
    eprintln!(
        "{keys} keys: {} MiB more than {} MiB, {:?}",
        (peak_kib() - before) / 1024,
        before / 1024,
        began.elapsed()
    );
    let mut events = Vec::new();
    loop {
        match soon(watch.next()).await.unwrap().unwrap() {
            WatchEvent::Progress if !events.is_empty() => break,
            WatchEvent::CaughtUp if !events.is_empty() => break,
            WatchEvent::CaughtUp | WatchEvent::Progress => {}
            event => events.push(event),
        }
    }
    store.close().await.unwrap();
    events
}

/// All keys and their heads before and after were in memory, and a change of each.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_removal_that_changes_very_many_keys_is_one_gap() {
    let events = remove(4000).await;
    let retracted = |event: &WatchEvent| matches!(event, WatchEvent::Change(change) if change.kind == Kind::Retract);
    assert_eq!(events.iter().filter(|event| retracted(event)).count(), 3000);
    assert_eq!(events.len(), 3000);
    // The gap, and then the state.
    let keys = RECOUNT_BYTES_MAX / (RECOUNT_KEY_BYTES + 100) / 1000 * 1000 + 3000;
    let events = remove(keys).await;
    assert!(
        matches!(events[0], WatchEvent::Gap { .. }),
        "{:?}",
        events[0]
    );
    assert_eq!(events.len(), 1 + 1000);
}

/// `cargo test --release -- --ignored --nocapture memory_of_a_removal`, alone in its process.
#[tokio::test]
#[ignore = "measures memory"]
async fn memory_of_a_removal() {
    drop(remove(200_000).await);
}
