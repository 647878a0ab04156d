//! What disks do to a store: power cuts, flipped bits, failed calls, files that lie.

mod crash;
pub(crate) mod disk;
mod flip;
mod format;
mod hole;
mod inject;
mod lie;
mod mend;
mod pieces;
mod state_flip;

use std::{collections::BTreeMap, future::Future, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, EntryId, StoreId},
    limits::FLUSH_EVERY,
    protocol::{
        entry::{Header, Op, Parent, VerifiedEntry, sign},
        heads::Heads,
        hlc::Hlc,
    },
    store::{OpenError, StoreConfig},
};

use disk::MemDisk;

use crate::random::Random;

const NOW_MS: u64 = 1_700_000_000_000;
const STORE: StoreId = StoreId([7; 16]);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// This node.
fn author_a() -> Author {
    Author(key(1).verifying_key().to_bytes())
}

/// Another node, whose entries are ingested.
fn author_b() -> Author {
    Author(key(2).verifying_key().to_bytes())
}

fn config(disk: &MemDisk) -> StoreConfig {
    StoreConfig {
        id: STORE,
        dir: PathBuf::from("/store"),
        key: Arc::new(key(1)),
        clock: Clock::manual(NOW_MS),
        disk: Arc::new(disk.clone()),
        bus_batches: 16,
        root: false,
        authority: lattice::store::Authority::Anyone,
        lease: None,
    }
}

async fn open(disk: &MemDisk) -> Result<Store, OpenError> {
    soon(Store::open(config(disk))).await
}

/// Nothing may hang.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("an answer within 60 s")
}

/// Waits until the rows in memory have gone to the state file.
async fn flushed() {
    tokio::time::sleep(FLUSH_EVERY + Duration::from_millis(500)).await;
}

fn log_path(author: &Author) -> PathBuf {
    PathBuf::from(format!("/store/logs/{author}.log"))
}

fn state_path() -> PathBuf {
    PathBuf::from("/store/state.db")
}

fn sums_path() -> PathBuf {
    PathBuf::from("/store/state.sums")
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: None,
    }
}

/// Signs what `author_b` writes after `before`.
fn next_of_b(before: Option<&VerifiedEntry>, parents: Vec<Parent>, ops: Vec<Op>) -> VerifiedEntry {
    signed(&key(2), STORE, before, parents, ops)
}

fn signed(
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

fn encoded(entries: &[&VerifiedEntry]) -> Vec<Bytes> {
    let entries = entries.iter().map(|entry| entry.signed.encode());
    entries.map(Bytes::from).collect()
}

/// All entries of all logs, by author, branch and place.
type Known = BTreeMap<(Author, u32), Vec<VerifiedEntry>>;

async fn all_entries(store: &Store) -> Known {
    let mut known = Known::new();
    for author in [author_a(), author_b()] {
        for record in soon(store.entries(author, 0, usize::MAX)).await.unwrap() {
            let branch = known.entry((author, record.branch)).or_default();
            branch.push(record.entry);
        }
    }
    known
}

/// The state that follows from a set of entries.
fn heads_of<'a>(entries: impl Iterator<Item = &'a VerifiedEntry>) -> BTreeMap<Bytes, Heads> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|entry| entry.order());
    let mut state: BTreeMap<Bytes, Heads> = BTreeMap::new();
    for entry in entries {
        for op in &entry.ops {
            let heads = state.entry(op.key().clone()).or_default();
            *heads = heads.apply(entry, op);
        }
    }
    state
}

/// What reads return for a key: per head, the winner first, its entry and its value.
type Shown = Vec<(EntryId, Option<Bytes>)>;

/// What a store that holds `entries` must show, key by key.
fn shown_of<'a>(
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

/// What `store` shows for `keys`.
async fn shown(
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
fn random(fallback: u64) -> Random {
    let seed = std::env::var("SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(fallback);
    eprintln!("SEED={seed}");
    Random::new(seed)
}

/// Ten times as much with `LATTICE_SOAK=1`.
fn soak(count: usize) -> usize {
    if std::env::var_os("LATTICE_SOAK").is_some() {
        count * 10
    } else {
        count
    }
}

/// Runs `work(n)` for every `n` of `0..count` on two threads, each with its own runtime.
pub(crate) fn on_two_threads<F: Future<Output = ()>>(
    count: usize,
    work: impl Fn(usize) -> F + Sync,
) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    runtime.block_on(work(n));
                }
            });
        }
    });
}
