//! A store with the logs of two other authors, to remove entries from.
//!
//! B and C write in turns: B1 C1 B2 C2 ... Each entry has three ops, is not atomic, and cites the heads
//! of its keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, Seq},
    log::LogFiles,
    protocol::{
        entry::{Header, Op, Parent, VerifiedEntry, sign},
        frontier::{Frontier, FrontierTip},
        heads::Head,
        hlc::Hlc,
    },
    store::{Ingested, List, OpenError, StoreConfig},
};

use super::{
    disk::{Image, MemDisk},
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, STORE, author_of, header, heads_after, key_of, put},
    store,
};

/// When the first entry is stamped, and how far apart the next ones are.
pub const STAMPED_MS: u64 = 1_700_000_000_000;
pub const STEP_MS: u64 = 100;
/// How long after its stamp an entry arrives.
pub const WAY_MS: u64 = 1_000_000;
/// Entries of B, and of C.
pub const ENTRIES: Seq = 20;
/// Entries of both.
pub const COUNT: usize = 40;
/// So few that the logs have several files.
pub const SEGMENT_BYTES: u64 = 1000;

/// An open store, which is A's.
pub struct Chains {
    pub disk: MemDisk,
    pub clock: Clock,
    pub store: Store,
    /// Entries of B and C in the order of their stamps.
    pub entries: Vec<VerifiedEntry>,
}

/// Returns the entry of `secret` after `before`, which cites `seen`. It is not atomic.
pub fn signed(
    secret: [u8; 32],
    before: Option<&VerifiedEntry>,
    seen: BTreeSet<Parent>,
    wall_ms: u64,
    ops: Vec<Op>,
) -> VerifiedEntry {
    let header = Header {
        seq: before.map_or(1, |before| before.header.seq + 1),
        prev: before.map(|before| before.id),
        hlc: Hlc {
            wall_ms,
            counter: 0,
        },
        parents: seen.into_iter().collect(),
        ..header(0)
    };
    sign(&key_of(secret), header, ops).unwrap()
}

/// Returns the entries of B and C.
pub fn entries() -> Vec<VerifiedEntry> {
    let mut entries: Vec<VerifiedEntry> = Vec::new();
    for n in 0..2 * ENTRIES {
        let (secret, name) = match n % 2 {
            0 => (AUTHOR_B, "b"),
            _odd => (AUTHOR_C, "c"),
        };
        let mut before = entries.iter().rev();
        let before = before.find(|entry| entry.author() == author_of(secret));
        let own = |n: u64| format!("/{name}/{}", n / 2 % 3);
        let second = if n % 8 == 7 {
            Op::Delete {
                key: own(n - 2).into(),
            }
        } else {
            put(&own(n), &format!("{n} {}", "x".repeat(100)))
        };
        let ops = vec![
            put("/shared", &n.to_string()),
            second,
            put(&format!("/each/{n:02}"), &n.to_string()),
        ];
        let stamp = STAMPED_MS + n * STEP_MS;
        let heads = heads_after(&entries);
        let seen = ops.iter().filter_map(|op| heads.get(op.key()));
        let seen = seen.flat_map(|heads| heads.as_slice().iter().map(Head::as_parent));
        entries.push(signed(secret, before, seen.collect(), stamp, ops));
    }
    entries
}

impl Chains {
    /// Opens a store that has the first `count` of the entries. They arrive one after the other.
    pub async fn with(count: usize) -> Self {
        let disk = MemDisk::new(&Image::new()).in_segments_of(SEGMENT_BYTES);
        let clock = Clock::manual(STAMPED_MS);
        let store = Store::open(config(&disk, &clock)).await.unwrap();
        let chains = Self {
            disk,
            clock,
            store,
            entries: entries(),
        };
        for entry in &chains.entries[..count] {
            chains.ingest(entry).await;
        }
        chains
    }

    /// Opens a store that has all entries.
    pub async fn new() -> Self {
        Self::with(COUNT).await
    }

    pub async fn ingest(&self, entry: &VerifiedEntry) {
        self.clock.set(entry.header.hlc.wall_ms + WAY_MS);
        let done = self.store.ingest(vec![entry.signed.encode().into()]).await;
        assert_eq!(done.unwrap(), [Ingested::Applied(entry.id)]);
    }

    /// Makes the logs of B and C begin after these places; 0 leaves a log as it is.
    pub async fn drop_before(&self, b: Seq, c: Seq) -> lattice::log::Pruning {
        self.store.drop_before(self.tips(b, c)).await.unwrap()
    }

    /// Returns the frontier with the entries of B and C at these places; 0 for none.
    pub fn tips(&self, b: Seq, c: Seq) -> Frontier {
        let mut frontier = Frontier::default();
        for (secret, seq) in [(AUTHOR_B, b), (AUTHOR_C, c)] {
            if let Some(entry) = self.at(secret, seq) {
                frontier.insert(entry.author(), FrontierTip::of(entry));
            }
        }
        frontier
    }

    pub fn at(&self, secret: [u8; 32], seq: Seq) -> Option<&VerifiedEntry> {
        let author = author_of(secret);
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.author() == author && entry.header.seq == seq)
    }

    /// Closes the store and opens it again.
    pub async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = self.open().await.unwrap();
    }

    pub async fn open(&self) -> Result<Store, OpenError> {
        Store::open(config(&self.disk, &self.clock)).await
    }

    /// Returns the files of the logs of B and C.
    pub fn files(&self) -> BTreeSet<String> {
        let of_others = [AUTHOR_B, AUTHOR_C].map(|secret| author_of(secret).to_string());
        let image = self.disk.image();
        let names = image.keys().filter_map(|path| path.file_name()?.to_str());
        let names = names.filter(|name| of_others.iter().any(|it| name.starts_with(it.as_str())));
        names.map(str::to_owned).collect()
    }
}

pub fn config(disk: &MemDisk, clock: &Clock) -> StoreConfig {
    StoreConfig {
        files: LogFiles::default().with_segments_of(disk.segment_bytes()),
        ..store::config(STORE, AUTHOR_A, clock, disk.clone())
    }
}

pub fn author_b() -> Author {
    author_of(AUTHOR_B)
}

pub fn author_c() -> Author {
    author_of(AUTHOR_C)
}

/// Returns the live keys of `store` and their values.
pub async fn listed(store: &Store) -> BTreeMap<Bytes, Bytes> {
    let items = store.list(List::default()).await.unwrap();
    items
        .into_iter()
        .map(|item| (item.key, item.value))
        .collect()
}
