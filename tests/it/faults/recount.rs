//! What a removal costs whose entries wrote very many keys.

use std::{collections::BTreeSet, convert::Infallible, fs, sync::Arc, time::Instant};

use lattice::{
    Store,
    clock::Clock,
    disk::RealDisk,
    id::{Author, EntryId, StoreId},
    protocol::{
        frontier::FrontierTip,
        membership::{
            Members,
            acts::Acts,
            role::{Act, Role, Tips},
        },
    },
    store::{Authority, StoreConfig},
};

use super::setup::{NOW_MS, STORE, encoded, put};
use crate::support::{store, writer::Writer};

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// `cargo test --release -- --ignored --nocapture memory_of_a_removal`, alone in its process.
#[tokio::test]
#[ignore = "measures memory"]
async fn memory_of_a_removal() {
    const KEYS: usize = 200_000;
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
    for first in (0..KEYS).step_by(1000) {
        let ops = (first..first + 1000).map(|n| put(format!("/{n:099}"), "x"));
        let entry = removed.write(NOW_MS, ops.collect(), BTreeSet::new(), false);
        cut.get_or_insert(FrontierTip::of(&entry));
        store.ingest(encoded(&[&entry])).await.unwrap();
    }
    assert_eq!(store.status().await.keys, KEYS as u64);
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, began) = (peak_kib(), Instant::now());
    let tips = Tips::new([(STORE, cut.unwrap())]).unwrap();
    let removal = acts(2, vec![(removed.author(), Act::Remove(tips))]);
    publisher.send(members(&[&grant, &removal])).unwrap();
    store.reconsider().await;
    assert_eq!(store.status().await.keys, 1000);
    eprintln!(
        "{KEYS} keys: {} MiB more than {} MiB, {:?}",
        (peak_kib() - before) / 1024,
        before / 1024,
        began.elapsed()
    );
    store.close().await.unwrap();
}
