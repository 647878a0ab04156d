//! Portable cursors: a watch begun on one node and resumed on another one delivers exactly the
//! rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice::{
    Store, Watch, WatchEvent, WatchOptions,
    clock::Clock,
    id::{Author, EntryId, StoreId},
    protocol::{
        change::{Change, Kind},
        cursor::Cursor,
        entry::{Op, VerifiedEntry},
        frontier::{Frontier, FrontierTip, MissingRange},
        intake::Refusal,
        membership::{
            Members,
            acts::Acts,
            role::{Act, Role, Tips},
        },
    },
    store::{Authority, Ingested, List, RefusedEntry, Start, StoreConfig, WatchError, Write},
};
use tokio_stream::StreamExt as _;

use crate::support::{
    disk::MemDisk,
    model::{AUTHOR_A, AUTHOR_B, author_of, delete, put},
    random::{Random, for_each_seed},
    store,
    watch::{next, nothing},
    writer::{Writer, heads_of},
};

const STORE: StoreId = StoreId([6; 16]);
const NOW_MS: u64 = 1_700_000_000_000;
const NODE_A: [u8; 32] = [0x1a; 32];
const NODE_B: [u8; 32] = [0x1b; 32];
const KEYS: [&str; 6] = ["/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/c"];

async fn open(secret: [u8; 32], authority: Authority) -> Store {
    let config = StoreConfig {
        authority,
        ..store::config(STORE, secret, &Clock::manual(NOW_MS), MemDisk::default())
    };
    Store::open(config).await.unwrap()
}

async fn log_of(store: &Store) -> Vec<VerifiedEntry> {
    let frontier = store.frontier();
    let authors: BTreeSet<Author> = frontier.iter().map(|(author, _)| author).collect();
    let mut log = Vec::new();
    for author in authors {
        let records = store.entries(author, 0, usize::MAX).await.unwrap();
        log.extend(records.into_iter().map(|record| record.entry));
    }
    log
}

async fn take_in(store: &Store, entries: &[VerifiedEntry]) -> Vec<Ingested> {
    let entries = entries.iter().map(|entry| entry.signed.encode().into());
    store.ingest(entries.collect()).await.unwrap()
}

/// Brings entries of `from` to `to`, in a random order; not all of them unless `all`.
async fn send(random: &mut Random, from: &Store, to: &Store, all: bool) {
    let there: BTreeSet<EntryId> = log_of(to).await.iter().map(|entry| entry.id).collect();
    let mut log = log_of(from).await;
    log.retain(|entry| !there.contains(&entry.id));
    log.sort_by_key(|entry| entry.order());
    if !all {
        // A prefix, in order: no entry that is sent needs one that is left out.
        log.truncate(random.below(log.len() + 1));
    }
    random.shuffle(&mut log);
    take_in(to, &log).await;
}

fn after(cursor: Cursor, prefix: &'static str, wait: bool) -> WatchOptions {
    WatchOptions {
        prefixes: vec![prefix.into()],
        start: Start::After(cursor),
        heartbeat: Duration::from_millis(5),
        wait,
        ..WatchOptions::default()
    }
}

type OpId = (EntryId, u32);

/// Counts over all histories, to assert that rare paths ran.
#[derive(Debug, Default)]
struct Counts {
    hops: AtomicU64,
    inside_entries: AtomicU64,
    inside_batches: AtomicU64,
    behind: AtomicU64,
    waited: AtomicU64,
    forks: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// A watch that moves between nodes.
struct Traveller<'a> {
    prefix: &'static str,
    counts: &'a Counts,
    cursor: Cursor,
    told: Vec<(OpId, Arc<Change>)>,
}

impl Traveller<'_> {
    /// Resumes on `store`, which has all of the cursor, and reads `max` changes or all there are.
    async fn ride(&mut self, store: &Store, max: usize) {
        // The cursor travels as text, as a user would carry it.
        let cursor: Cursor = self.cursor.to_string().parse().unwrap();
        let mut watch = store.watch_with(after(cursor, self.prefix, false));
        add(&self.counts.hops);
        let mut last = None;
        for _ in 0..max {
            match next(&mut watch).await {
                WatchEvent::Change(change) => {
                    self.hear(&change);
                    last = Some(change);
                }
                WatchEvent::CaughtUp => {}
                WatchEvent::Progress => break,
                other => panic!("{other:?}"),
            }
        }
        self.cursor = watch.cursor();
        if self.cursor.partial.is_some() {
            add(&self.counts.inside_entries);
        }
        // The watch stopped in the middle of a batch: the whole batch comes again.
        let Some(last) = last.filter(|change| change.atomic) else {
            return;
        };
        let log = log_of(store).await;
        let prev = |id: EntryId| log.iter().find(|entry| entry.id == id)?.header.prev;
        let mut tips = self.cursor.frontier.tips(&last.entry.author).iter();
        let is_covered = tips.any(|tip| {
            let mut line = std::iter::successors(Some(tip.id), |id| prev(*id));
            line.any(|id| id == last.entry.id)
        });
        if !is_covered {
            add(&self.counts.inside_batches);
            self.told.retain(|((entry, _), _)| *entry != last.entry.id);
        }
    }

    fn hear(&mut self, change: &Arc<Change>) {
        assert!(change.key.starts_with(self.prefix.as_bytes()));
        if matches!(change.kind, Kind::Put | Kind::Delete) {
            let op = (change.entry.id, change.op_index);
            let twice = self.told.iter().any(|(told, _)| *told == op);
            assert!(!twice, "{change:?} came twice");
            self.told.push((op, Arc::clone(change)));
        }
    }

    /// Everything that matches was delivered, causes before effects.
    fn judge(&self, log: &[VerifiedEntry]) {
        let by_id: BTreeMap<EntryId, &VerifiedEntry> =
            log.iter().map(|entry| (entry.id, entry)).collect();
        let ops = log.iter().flat_map(|entry| {
            (0..)
                .zip(&entry.ops)
                .map(move |(n, op)| ((entry.id, n), op))
        });
        let matching = ops.filter(|(_, op)| op.key().starts_with(self.prefix.as_bytes()));
        let expected: BTreeSet<OpId> = matching.map(|(id, _)| id).collect();
        let told: BTreeSet<OpId> = self.told.iter().map(|(id, _)| *id).collect();
        assert_eq!(told, expected, "exactly the rest, in sum");
        let place: BTreeMap<OpId, usize> = self
            .told
            .iter()
            .enumerate()
            .map(|(n, (id, _))| (*id, n))
            .collect();
        for (n, ((id, _), _)) in self.told.iter().enumerate() {
            let entry = by_id[id];
            let causes = entry.header.prev.into_iter();
            for cause in causes.chain(entry.header.parents.iter().map(|parent| parent.id)) {
                let ops = (0..)
                    .zip(&by_id[&cause].ops)
                    .map(|(index, _)| (cause, index));
                let late = ops.filter_map(|op| place.get(&op)).find(|at| **at > n);
                assert!(late.is_none(), "{entry:?} came before its cause");
            }
        }
    }
}

async fn write_here(random: &mut Random, store: &Store) {
    let mut keys = KEYS.to_vec();
    random.shuffle(&mut keys);
    keys.truncate(1 + random.below(4));
    let ops: Vec<Op> = keys
        .iter()
        .map(|key| {
            if random.once_in(5) {
                delete(key)
            } else {
                put(key, "v")
            }
        })
        .collect();
    if random.once_in(2) {
        store.batch(ops).await.unwrap();
        return;
    }
    // One entry that may be split between its ops.
    let one = |op| Write {
        ops: vec![op],
        atomic: false,
        condition: None,
        cause: None,
    };
    for written in store.write_many(ops.into_iter().map(one).collect()).await {
        written.unwrap();
    }
}

async fn write_elsewhere(random: &mut Random, store: &Store, writer: &mut Writer) {
    let keys = [KEYS[random.below(3)], KEYS[3 + random.below(3)]];
    let parents = heads_of(store, &keys).await;
    let ops = keys.iter().map(|key| put(key, "e")).collect();
    let entry = writer.write(NOW_MS, ops, parents, random.once_in(2));
    take_in(store, &[entry]).await;
}

// The entries of `cursor` that `store` is missing, as a watch must report them for authors without
// a fork.
fn lacking(cursor: &Cursor, store: &Store) -> Vec<MissingRange> {
    let mut frontier = cursor.frontier.clone();
    if let Some(partial) = cursor.partial {
        frontier.replace(partial.author, partial.tip);
    }
    frontier.missing_from(&store.frontier())
}

async fn one(random: &mut Random, counts: &Counts) {
    let stores = [
        open(NODE_A, Authority::Anyone).await,
        open(NODE_B, Authority::Anyone).await,
    ];
    let mut writers = [AUTHOR_A, AUTHOR_B].map(|secret| Writer::new(secret, STORE));
    // At most one author forks: each of the two copies goes on at one node.
    let forks = random.once_in(3);
    let mut forked = None;
    let mut traveller = Traveller {
        prefix: ["", "/a/", "/b/1"][random.below(3)],
        counts,
        cursor: nothing(&stores[0]),
        told: Vec::new(),
    };
    for _ in 0..30 {
        let at = random.below(2);
        let (here, there) = (&stores[at], &stores[1 - at]);
        match random.below(8) {
            0..=2 => write_here(random, here).await,
            3 => write_elsewhere(random, here, &mut writers[at]).await,
            4 if forks => {
                let twin = forked.get_or_insert_with(|| {
                    add(&counts.forks);
                    writers.clone()
                });
                write_elsewhere(random, here, &mut twin[1 - at]).await;
            }
            4 | 5 => send(random, there, here, false).await,
            _ => {
                let missing = lacking(&traveller.cursor, here);
                if missing.is_empty() {
                    traveller.ride(here, random.below(7)).await;
                    continue;
                }
                let refused = here
                    .watch_with(after(traveller.cursor.clone(), traveller.prefix, false))
                    .next()
                    .await;
                let Some(Err(WatchError::Behind { missing: told })) = refused else {
                    // A frontier does not show which entries the branches of a fork share.
                    assert!(forked.is_some(), "{refused:?}, missing {missing:?}");
                    continue;
                };
                add(&counts.behind);
                if forked.is_none() {
                    assert_eq!(told, missing);
                }
                let mut waiting =
                    here.watch_with(after(traveller.cursor.clone(), traveller.prefix, true));
                // The heartbeat of a watch that waits: it says what for.
                assert_eq!(next(&mut waiting).await, WatchEvent::Progress);
                assert_eq!(waiting.lacks(), told);
                assert_eq!(waiting.cursor(), traveller.cursor);
                send(random, there, here, true).await;
                let begun = Instant::now();
                loop {
                    match next(&mut waiting).await {
                        WatchEvent::Change(change) => traveller.hear(&change),
                        WatchEvent::CaughtUp => break,
                        WatchEvent::Progress => {
                            assert!(begun.elapsed() < Duration::from_secs(30), "it waits on");
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert!(waiting.lacks().is_empty());
                add(&counts.waited);
                // Told of everything, a batch never in part.
                traveller.cursor = waiting.cursor();
            }
        }
    }
    for (from, to) in [(0, 1), (1, 0)] {
        send(random, &stores[from], &stores[to], true).await;
    }
    assert_eq!(stores[0].frontier(), stores[1].frontier());
    traveller.ride(&stores[random.below(2)], usize::MAX).await;
    traveller.judge(&log_of(&stores[0]).await);
}

#[test]
fn cursor_resumes_on_any_replica() {
    let counts = Counts::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for_each_seed(1..=150, |random| runtime.block_on(one(random, &counts)));
    if std::env::var_os("SEED").is_some() {
        return;
    }
    eprintln!("{counts:?}");
    for (what, count) in [
        ("hops", &counts.hops),
        ("inside entries", &counts.inside_entries),
        ("inside batches", &counts.inside_batches),
        ("behind", &counts.behind),
        ("waited", &counts.waited),
        ("forks", &counts.forks),
    ] {
        assert!(
            count.load(Ordering::Relaxed) >= 20,
            "{what} hardly ever happened"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_watch_ends_with_its_store() {
    let store = open(NODE_A, Authority::Anyone).await;
    let mut cursor = nothing(&store);
    let tip = FrontierTip {
        seq: 3,
        id: EntryId([3; 32]),
    };
    cursor.frontier.insert(author_of(AUTHOR_A), tip);
    let mut watch = store.watch_with(after(cursor, "", true));
    assert_eq!(next(&mut watch).await, WatchEvent::Progress);
    let missing = MissingRange {
        author: author_of(AUTHOR_A),
        after: 0,
        through: 3,
        tip: tip.id,
    };
    assert_eq!(watch.lacks(), [missing]);
    store.close().await.unwrap();
    loop {
        match watch.next().await {
            Some(Ok(WatchEvent::Progress)) => {}
            Some(Err(WatchError::Closed)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(watch.next().await.is_none());
}

/// A was told of entries that a removal takes back; B heard of the removal first and never had
/// them. The cursor names entries that B will never have: it must go on where they end, and bring
/// the others' entries exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn cursor_past_a_removal_resumes_at_its_cut() {
    let (a, b) = (author_of(NODE_A), author_of(NODE_B));
    let mut removed = Writer::new(AUTHOR_A, STORE);
    let acts = |seq: u8, acts| Acts {
        entry: EntryId([seq; 32]),
        author: a,
        seq: seq.into(),
        cites: Vec::new(),
        needs_authority: false,
        anchors: Vec::new(),
        founds: Vec::new(),
        describes: Vec::new(),
        acts,
    };
    let grant = acts(
        1,
        vec![
            (b, Act::Grant(Role::Writer)),
            (removed.author(), Act::Grant(Role::Writer)),
        ],
    );
    let members = |acts: &[&Acts]| {
        let root = StoreId([1; 16]);
        let leads = |_: &Author, _, _| Ok::<_, Infallible>(Some(true));
        let Ok(members) = Members::evaluate(a, root, acts.iter().copied(), leads);
        Arc::new(members)
    };
    let (of_a, members_of_a) = tokio::sync::watch::channel(members(&[&grant]));
    let store_a = open(NODE_A, Authority::Of(members_of_a)).await;
    let mut entries = Vec::new();
    for n in 0..4 {
        let ops = vec![put(&format!("/removed/{n}"), "v")];
        entries.push(removed.write(NOW_MS + n, ops, BTreeSet::new(), false));
    }
    take_in(&store_a, &entries).await;
    store_a.put("/a/1", "v").await.unwrap();
    let mut watch = store_a.watch_with(after(nothing(&store_a), "", false));
    assert_eq!(keys(&mut watch).await.len(), 5);
    let cursor = watch.cursor();
    assert_eq!(cursor.frontier.seq(&removed.author()), 4);

    let cut = FrontierTip {
        seq: 2,
        id: entries[1].id,
    };
    let removal = acts(
        2,
        vec![(
            removed.author(),
            Act::Remove(Tips::new([(STORE, cut)]).unwrap()),
        )],
    );
    let (_of_b, members_of_b) = tokio::sync::watch::channel(members(&[&grant, &removal]));
    let store_b = open(NODE_B, Authority::Of(members_of_b)).await;
    let outcomes = take_in(&store_b, &entries).await;
    let refused = |outcome: &Ingested| {
        matches!(
            outcome,
            Ingested::Refused(RefusedEntry::Rules(Refusal::Removed { .. }))
        )
    };
    assert_eq!(
        outcomes.iter().filter(|outcome| refused(outcome)).count(),
        2,
        "{outcomes:?}"
    );
    take_in(&store_b, &log_of(&store_a).await).await;
    store_b.put("/b/1", "v").await.unwrap();
    let mut watch = store_b.watch_with(after(cursor, "", false));
    // This replica cannot know which of the rest was delivered, so all of it comes again.
    let said = next(&mut watch).await;
    assert!(matches!(said, WatchEvent::Gap { .. }), "{said:?}");
    let told = keys(&mut watch).await;
    assert_eq!(told, ["/a/1", "/b/1", "/removed/0", "/removed/1"]);
    let expected: Frontier = [(removed.author(), cut)].into_iter().collect();
    let at = watch.cursor().frontier;
    assert_eq!(at.tips(&removed.author()), expected.tips(&removed.author()));

    // A writes over one that will not count.
    store_a.put("/removed/2", "kept").await.unwrap();
    // A receives the removal too: the entries taken back are no longer in its past.
    let before = store_a.get_at(b"/removed/3", NOW_MS + 9).await.unwrap();
    assert!(before.is_some());
    of_a.send(members(&[&grant, &removal])).unwrap();
    store_a.reconsider().await;
    let after = store_a.get_at(b"/removed/3", NOW_MS + 9).await.unwrap();
    assert_eq!(after, None);
    // Nor is the value before the write over it, which has the next stamp.
    let after = store_a.get_at(b"/removed/2", NOW_MS + 2).await.unwrap();
    assert_eq!(after.unwrap().value, "kept");
    let after = store_a.get_at(b"/removed/2", NOW_MS + 1).await.unwrap();
    assert_eq!(after, None);
    let past = |store: Store| async move { store.list_at(List::default(), NOW_MS + 60_000).await };
    assert_eq!(past(store_a).await.unwrap().len(), 4);
    assert_eq!(past(store_b).await.unwrap().len(), 4);
}

// Everything up to the next heartbeat.
async fn keys(watch: &mut Watch) -> Vec<Bytes> {
    let mut keys = Vec::new();
    loop {
        match next(watch).await {
            WatchEvent::Change(change) => keys.push(change.key.clone()),
            WatchEvent::CaughtUp => {}
            WatchEvent::Progress => return keys,
            other => panic!("{other:?}"),
        }
    }
}
