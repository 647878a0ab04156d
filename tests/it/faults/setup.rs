//! A store on a disk in memory, two authors, and the reads that the store must answer.

use std::{collections::BTreeMap, future::Future, path::PathBuf, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, EntryId, StoreId},
    limits::FLUSH_EVERY,
    log::LogFiles,
    protocol::{
        entry::{Header, Op, Parent, VerifiedEntry, sign},
        heads::Heads,
        hlc::Hlc,
    },
    store::{OpenError, StoreConfig},
};

use crate::support::{disk::MemDisk, model::heads_after, random::Random, store};

pub(super) const NOW_MS: u64 = 1_700_000_000_000;
/// So little that a log of a few entries has several files.
pub(super) const SEGMENT_BYTES: u64 = 2000;
pub(super) const STORE: StoreId = StoreId([7; 16]);

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// This node.
pub(super) fn author_a() -> Author {
    Author(key(1).verifying_key().to_bytes())
}

/// Another node, whose entries are ingested.
pub(super) fn author_b() -> Author {
    Author(key(2).verifying_key().to_bytes())
}

pub(super) fn config(disk: &MemDisk) -> StoreConfig {
    StoreConfig {
        bus_batches: 16,
        files: LogFiles::default().with_segments_of(disk.segment_bytes()),
        ..store::config(STORE, [1; 32], &Clock::manual(NOW_MS), disk.clone())
    }
}

pub(super) async fn open(disk: &MemDisk) -> Result<Store, OpenError> {
    soon(Store::open(config(disk))).await
}

/// Nothing may hang.
pub(super) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("an answer within 60 s")
}

/// Waits until the rows in memory are written to the state file.
pub(super) async fn flushed() {
    tokio::time::sleep(FLUSH_EVERY + Duration::from_millis(500)).await;
}

pub(super) fn log_path(author: &Author) -> PathBuf {
    PathBuf::from(format!("/store/logs/{author}.log"))
}

pub(super) fn state_path() -> PathBuf {
    PathBuf::from("/store/state.db")
}

pub(super) fn sums_path() -> PathBuf {
    PathBuf::from("/store/state.sums")
}

pub(super) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: None,
    }
}

/// Signs what `author_b` writes after `before`.
pub(super) fn next_of_b(
    before: Option<&VerifiedEntry>,
    parents: Vec<Parent>,
    ops: Vec<Op>,
) -> VerifiedEntry {
    signed(&key(2), STORE, before, parents, ops)
}

pub(super) fn signed(
    key: &SigningKey,
    store: StoreId,
    before: Option<&VerifiedEntry>,
    parents: Vec<Parent>,
    ops: Vec<Op>,
) -> VerifiedEntry {
    let latest = parents.iter().map(|parent| parent.hlc);
    let latest = latest.chain(before.map(|entry| entry.header.hlc)).max();
    let header = Header {
        store,
        seq: before.map_or(1, |entry| entry.header.seq + 1),
        prev: before.map(|entry| entry.id),
        hlc: latest.unwrap_or(Hlc::ZERO).next(NOW_MS).unwrap(),
        atomic: false,
        cause: None,
        parents,
    };
    sign(key, header, ops).unwrap()
}

pub(super) fn encoded(entries: &[&VerifiedEntry]) -> Vec<Bytes> {
    let entries = entries.iter().map(|entry| entry.signed.encode());
    entries.map(Bytes::from).collect()
}

/// All entries of all logs, by author, branch and place.
pub(super) type Known = BTreeMap<(Author, u32), Vec<VerifiedEntry>>;

pub(super) async fn all_entries(store: &Store) -> Known {
    let mut known = Known::new();
    for author in [author_a(), author_b()] {
        for record in soon(store.entries(author, 0, usize::MAX)).await.unwrap() {
            let branch = known.entry((author, record.branch)).or_default();
            branch.push(record.entry);
        }
    }
    known
}

/// Returns the state that follows from a set of entries.
pub(super) fn heads_of<'a>(
    entries: impl Iterator<Item = &'a VerifiedEntry>,
) -> BTreeMap<Bytes, Heads> {
    heads_after(entries)
}

/// The answer of a read of one key: entry and value of each head, the winner first.
pub(super) type Shown = Vec<(EntryId, Option<Bytes>)>;

/// Returns the answers that a store with `entries` must give, by key.
pub(super) fn shown_of<'a>(
    entries: impl Iterator<Item = &'a VerifiedEntry> + Clone,
) -> BTreeMap<Bytes, Shown> {
    let by_id: BTreeMap<EntryId, &VerifiedEntry> =
        entries.clone().map(|entry| (entry.id, entry)).collect();
    let value = |id: &EntryId, key: &Bytes| {
        by_id[id].ops.iter().find_map(|op| match op {
            Op::Put { key: at, value, .. } if at == key => Some(value.clone()),
            _other => None,
        })
    };
    let state = heads_of(entries);
    let rows = state.iter().map(|(key, heads)| {
        let heads = heads.as_slice().iter().rev();
        let shown = heads.map(|head| (head.id, value(&head.id, key))).collect();
        (key.clone(), shown)
    });
    rows.collect()
}

/// Returns the answers of `store` for `keys`.
pub(super) async fn shown(
    store: &Store,
    keys: impl Iterator<Item = &Bytes>,
) -> Result<BTreeMap<Bytes, Shown>, lattice::store::ReadError> {
    let mut rows = BTreeMap::new();
    for key in keys {
        let heads = soon(store.heads(key)).await?;
        let heads = heads.into_iter().map(|head| (head.entry.id, head.value));
        rows.insert(key.clone(), heads.collect());
    }
    Ok(rows)
}

/// Choices from `SEED`, or from `fallback`; prints which.
pub(super) fn random(fallback: u64) -> Random {
    let seed = std::env::var("SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(fallback);
    eprintln!("SEED={seed}");
    Random::new(seed)
}

/// Ten times as much with `LATTICE_SOAK=1`.
pub(super) fn soak(count: usize) -> usize {
    if std::env::var_os("LATTICE_SOAK").is_some() {
        count * 10
    } else {
        count
    }
}
