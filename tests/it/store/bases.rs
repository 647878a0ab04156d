//! Bases of random histories: whatever was removed when, the rows are those of a node that keeps all, and
//! two nodes that removed the same have the same base.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, EntryId},
    limits::PARENT_WAIT_MS,
    protocol::{
        entry::{Op, Parent, VerifiedEntry},
        frontier::{Frontier, FrontierTip},
        hlc::Hlc,
        merkle::TreeRoot,
    },
    store::StoreConfig,
};

use crate::support::{
    disk::{Image, MemDisk},
    model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, STORE},
    mutator::soaked,
    random::{Random, for_each_seed},
    store,
    writer::Writer,
};

const START_MS: u64 = 1_700_000_000_000;
const KEYS: usize = 7;

/// A history of three authors, in the order in which it was written.
struct History {
    entries: Vec<VerifiedEntry>,
}

impl History {
    /// Each author sees a random part of the others' entries. Some cite what does not exist.
    fn random(random: &mut Random, count: usize) -> Self {
        let mut writers = [AUTHOR_A, AUTHOR_B, AUTHOR_C].map(|it| Writer::new(it, STORE));
        let mut entries: Vec<VerifiedEntry> = Vec::new();
        for n in 0..count {
            let writer = random.below(writers.len());
            let keys: BTreeSet<usize> = (0..1 + random.below(3))
                .map(|_| random.below(KEYS))
                .collect();
            let ops: Vec<Op> = keys.iter().map(|key| op(random, *key, n)).collect();
            let mut parents = BTreeSet::new();
            for known in entries.iter().rev().take(12) {
                let is_of_keys = known
                    .ops
                    .iter()
                    .any(|op| ops.iter().any(|it| it.key() == op.key()));
                if is_of_keys && random.once_in(2) {
                    parents.insert(known.as_parent());
                }
            }
            if random.once_in(10) {
                // A reference to nothing: another stamp, another place, or another id.
                let mut parent = match entries.last() {
                    Some(last) => last.as_parent(),
                    None => continue,
                };
                match random.below(3) {
                    0 => parent.seq += random.below(4) as u64,
                    1 => parent.id = EntryId([n.to_le_bytes()[0]; 32]),
                    _stamp => parent.hlc = Hlc::new(parent.hlc.wall_ms, 77).unwrap(),
                }
                parents.insert(parent);
            }
            let ms = START_MS + 10 * n as u64;
            entries.push(writers[writer].write(ms, ops, parents, random.once_in(3)));
        }
        Self { entries }
    }

    /// Returns the last entry of each author among the first `count` entries, each author's by chance
    /// earlier.
    fn anchors(&self, random: &mut Random, count: usize) -> Frontier {
        let mut anchors = Frontier::default();
        for entry in &self.entries[..count] {
            anchors.replace(entry.author(), FrontierTip::of(entry));
        }
        let authors: Vec<Author> = anchors.iter().map(|(author, _tip)| author).collect();
        for author in authors {
            let of_author = self.entries[..count].iter();
            let of_author: Vec<_> = of_author.filter(|it| it.author() == author).collect();
            let at = of_author.len() - 1 - random.below(of_author.len().min(3));
            anchors.replace(author, FrontierTip::of(of_author[at]));
        }
        anchors
    }
}

fn op(random: &mut Random, key: usize, n: usize) -> Op {
    let key = Bytes::from(format!("/{key}"));
    match random.below(8) {
        0 => Op::Delete { key },
        kind => Op::Put {
            key,
            value: vec![n.to_le_bytes()[0]; if kind == 1 { 3000 } else { 20 }].into(),
            expires_ms: (kind == 2).then_some(u64::from(u32::MAX) << 10),
        },
    }
}

fn config(disk: &MemDisk, clock: &Clock) -> StoreConfig {
    store::config(STORE, [0x77; 32], clock, disk.clone())
}

fn disk(image: &Image) -> MemDisk {
    MemDisk::new(image).in_segments_of(1500)
}

/// Opens a store that has the entries, which came in this order.
async fn with(entries: &[VerifiedEntry]) -> (MemDisk, Store) {
    let (disk, clock) = (disk(&Image::new()), Clock::manual(START_MS + 1_000_000));
    let store = Store::open(config(&disk, &clock)).await.unwrap();
    for part in entries.chunks(9) {
        let part = part.iter().map(|it| it.signed.encode().into());
        store.ingest(part.collect()).await.unwrap();
    }
    // An entry begins to wait for a parent when the one before it is applied.
    let missing = async || entries.len() as u64 - store.status().await.entries;
    for _wait in 0..entries.len() {
        if missing().await == 0 {
            break;
        }
        clock.set(clock.now_ms() + PARENT_WAIT_MS + 1);
        store.settle().await;
    }
    assert_eq!(missing().await, 0, "all are applied");
    (disk, store)
}

async fn root(store: &Store) -> TreeRoot {
    store.root(b"").await.unwrap().root
}

async fn values(store: &Store) -> Vec<(usize, Option<Bytes>)> {
    let mut values = Vec::new();
    for key in 0..KEYS {
        let item = store.get(format!("/{key}").as_bytes()).await.unwrap();
        values.push((key, item.map(|item| item.value)));
        for head in store.heads(format!("/{key}").as_bytes()).await.unwrap() {
            values.push((key, head.value));
        }
    }
    values
}

fn parts(image: &Image) -> Image {
    let is_part = |path: &Path| {
        path.starts_with("/store/base") && path.extension().is_some_and(|it| it == "part")
    };
    let parts = image.iter().filter(|(path, _bytes)| is_part(path));
    parts
        .map(|(path, bytes)| (path.clone(), bytes.clone()))
        .collect()
}

fn without_state(mut image: Image) -> Image {
    image.remove(&PathBuf::from("/store/state.db"));
    image.remove(&PathBuf::from("/store/state.sums"));
    image
}

#[test]
fn rows_are_those_of_a_node_that_keeps_all_entries() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for_each_seed(0..=soaked(25), |random| {
        let count = 30 + random.below(60);
        let history = History::random(random, count);
        runtime.block_on(schedule(random, &history));
    });
}

async fn schedule(random: &mut Random, history: &History) {
    let entries = &history.entries;
    let (_disk, whole) = with(entries).await;
    let expected = (root(&whole).await, values(&whole).await);
    // One removes in several steps, in between a state is lost; the other at once.
    let (mut one_disk, mut one) = with(entries).await;
    let mut joined = Frontier::default();
    let mut at = 0;
    for _step in 0..1 + random.below(4) {
        at = (at + 1 + random.below(entries.len() / 3)).min(entries.len());
        let anchors = history.anchors(random, at);
        for (author, tip) in anchors.iter() {
            if tip.seq > joined.seq(&author) {
                joined.replace(author, tip);
            }
        }
        one.drop_before(anchors).await.unwrap();
        assert_eq!((root(&one).await, values(&one).await), expected, "live");
        assert_eq!(one.verify().await.unwrap().damage, [], "live");
        if random.once_in(2) {
            one.close().await.unwrap();
            one_disk = disk(&without_state(one_disk.image()));
            let clock = Clock::manual(START_MS + 9_000_000);
            one = Store::open(config(&one_disk, &clock)).await.unwrap();
            assert_eq!((root(&one).await, values(&one).await), expected, "built");
            assert_eq!(one.verify().await.unwrap().damage, [], "built");
        }
    }
    let (other_disk, other) = with(entries).await;
    other.drop_before(joined).await.unwrap();
    one.close().await.unwrap();
    other.close().await.unwrap();
    assert!(parts(&one_disk.image()) == parts(&other_disk.image()));
    // What comes later finds the same rows.
    let mut images = vec![one_disk.image(), without_state(other_disk.image())];
    images.push(without_state(one_disk.image()));
    let mut late = Writer::new([0x66; 32], STORE);
    let heads: BTreeSet<Parent> = {
        let mut heads = BTreeSet::new();
        for head in whole.heads(b"/1").await.unwrap() {
            heads.insert(Parent {
                hlc: head.entry.hlc,
                author: head.entry.author,
                id: head.entry.id,
                seq: head.entry.seq,
            });
        }
        heads
    };
    let op = Op::Put {
        key: "/1".into(),
        value: "late".into(),
        expires_ms: None,
    };
    let late = late.write(START_MS + 5000, vec![op], heads, false);
    let encoded: Bytes = late.signed.encode().into();
    whole.ingest(vec![encoded.clone()]).await.unwrap();
    let expected = (root(&whole).await, values(&whole).await);
    for image in images {
        let clock = Clock::manual(START_MS + 9_000_000);
        let store = Store::open(config(&disk(&image), &clock)).await.unwrap();
        store.ingest(vec![encoded.clone()]).await.unwrap();
        assert_eq!((root(&store).await, values(&store).await), expected);
        store.close().await.unwrap();
    }
}
