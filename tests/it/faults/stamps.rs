//! The stamps of cited entries come from the frames of their records: their values are not read.

use lattice::{protocol::entry::Parent, store::Ingested};

use super::setup::{STORE, encoded, key, next_of_b, open, put, signed, soon};
use crate::support::disk::MemDisk;

/// Each cited entry that was no head was read, decoded and hashed with its values: a short entry
/// cost a second of the writer's thread.
#[tokio::test]
async fn citing_long_entries_reads_their_frames_only() {
    const ENTRIES: usize = 100;
    const VALUE_BYTES: usize = 256 << 10;
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    // Two entries of B for each key: the long ones are no heads any more.
    let mut log = Vec::new();
    let mut parents = Vec::new();
    for n in 0..ENTRIES {
        let value = vec![u8::try_from(n).unwrap(); VALUE_BYTES];
        let long = next_of_b(log.last(), vec![], vec![put(format!("/{n}"), value)]);
        log.push(long.clone());
        let cites = vec![long.as_parent()];
        let short = next_of_b(log.last(), cites, vec![put(format!("/{n}"), "short")]);
        log.push(short);
        parents.push(long.as_parent());
    }
    for entries in log.chunks(20) {
        let entries: Vec<_> = entries.iter().collect();
        soon(store.ingest(encoded(&entries))).await.unwrap();
    }
    parents.sort_unstable();
    let cites = |parents: Vec<Parent>, to: &'static str| {
        signed(&key(3), STORE, None, parents, vec![put(to, "x")])
    };
    let before = disk.reads();
    let entry = cites(parents.clone(), "/c");
    let outcomes = soon(store.ingest(encoded(&[&entry]))).await.unwrap();
    assert_eq!(outcomes, [Ingested::Applied(entry.id)]);
    let bytes = disk.reads().bytes - before.bytes;
    assert!(bytes < ENTRIES as u64 * 16 * 1024, "{bytes} bytes read");
    // A wrong stamp is no fault; a missing parent is waited for all the same.
    parents[ENTRIES / 2].hlc.counter += 1;
    parents.sort_unstable();
    let entry = cites(parents, "/d");
    let outcomes = soon(store.ingest(encoded(&[&entry]))).await.unwrap();
    assert_eq!(outcomes, [Ingested::Applied(entry.id)]);
    soon(store.close()).await.unwrap();
}
