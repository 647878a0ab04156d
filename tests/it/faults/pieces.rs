//! Large writes go to disk in pieces, so that no sync of one file delays the others for long.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{limits::UNSYNCED_BYTES_MAX, protocol::entry::VerifiedEntry};

use super::setup::{author_b, encoded, flushed, log_path, next_of_b, open, put, soon};
use crate::support::disk::MemDisk;
use crate::support::disk::{EIO, Fail, Operation};

/// Entries with values of `bytes` each.
fn many(count: usize, bytes: usize) -> Vec<VerifiedEntry> {
    let mut entries: Vec<VerifiedEntry> = Vec::new();
    for n in 0..count {
        let op = put(format!("/{n:05}"), vec![7; bytes]);
        entries.push(next_of_b(entries.last(), vec![], vec![op]));
    }
    entries
}

fn bytes_of(entries: &[VerifiedEntry]) -> Vec<Bytes> {
    encoded(&entries.iter().collect::<Vec<_>>())
}

const BLOCK: u64 = 4096;

#[tokio::test]
async fn unsynced_bytes_of_a_file_are_bounded() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    // Small enough that the state has them, too.
    soon(store.ingest(bytes_of(&many(5000, 200))))
        .await
        .unwrap();
    flushed().await;
    soon(store.close()).await.unwrap();
    // By file: its 4 KiB blocks that were not yet handed to the disk.
    let mut waiting: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    let (mut most, mut written, mut told, mut before) = (0, 0, 0, (0, 0));
    for operation in disk.operations() {
        match operation {
            Operation::Write(file, offset, bytes) => {
                let end = offset + bytes.len() as u64;
                let blocks = waiting.entry(file).or_default();
                blocks.extend(offset / BLOCK..end.div_ceil(BLOCK));
                written += bytes.len();
            }
            Operation::WriteBack(file, offset, bytes) => {
                assert!(bytes <= UNSYNCED_BYTES_MAX as u64, "{bytes} B at once");
                assert!(before.0 != file || before.1 <= offset, "back to {offset}");
                before = (file, offset + bytes);
                let taken = offset / BLOCK..(offset + bytes).div_ceil(BLOCK);
                let blocks = waiting.entry(file).or_default();
                blocks.retain(|block| !taken.contains(block));
                told += 1;
            }
            Operation::Sync(file) => {
                let blocks = waiting.remove(&file).unwrap_or_default();
                most = most.max(blocks.len() as u64 * BLOCK);
                before = (0, 0);
            }
            _other => {}
        }
    }
    assert!(written > 3 * UNSYNCED_BYTES_MAX, "{written} B written");
    assert!(told > 0);
    // Partial blocks at both ends.
    let bound = UNSYNCED_BYTES_MAX as u64 + 2 * BLOCK;
    assert!(most <= bound, "{most} B of a file waited for one sync");
}

#[tokio::test]
async fn s11_failed_sync_of_a_piece_fails_its_group() {
    let entries = many(400, 4000);
    // The group does create, directory sync, write, sync, write, sync, ...: any of them may fail.
    for number in 1..8 {
        let disk = MemDisk::default();
        let store = open(&disk).await.unwrap();
        disk.fail(number, EIO, Fail::Changes);
        let refused = soon(store.ingest(bytes_of(&entries))).await;
        assert!(disk.has_failed());
        assert!(refused.is_err(), "change {number} failed");
        assert!(soon(store.get(b"/00000")).await.unwrap().is_none());
        drop(soon(store.close()).await);
        // Entries before the failure may be there, and are no obstacle.
        let disk = MemDisk::new(&disk.image());
        let store = open(&disk).await.unwrap();
        soon(store.ingest(bytes_of(&entries))).await.unwrap();
        let verified = soon(store.verify()).await.unwrap();
        assert!(verified.damage.is_empty(), "{:?}", verified.damage);
        let mut log: Vec<VerifiedEntry> = Vec::new();
        loop {
            let after = log.last().map_or(0, |entry| entry.header.seq);
            let more = soon(store.entries(author_b(), after, usize::MAX)).await;
            let more = more.unwrap().into_iter().map(|record| record.entry);
            let before = log.len();
            log.extend(more);
            if log.len() == before {
                break;
            }
        }
        assert_eq!(log, entries, "change {number} failed");
        assert!(disk.image().contains_key(&log_path(&author_b())));
        soon(store.close()).await.unwrap();
    }
}
