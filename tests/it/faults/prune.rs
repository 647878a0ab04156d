//! Power cuts and failed calls while entries are removed from the logs: a log begins where it did, or
//! where it shall, and no other entry is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, EntryId, Seq, StoreId},
    log::Pruning,
    protocol::{
        anchors_act::AnchorsAct,
        cursor::Cursor,
        entry::{Parent, VerifiedEntry},
        finality::Taking,
        frontier::FrontierTip,
        hlc::Hlc,
        membership::{
            Members,
            acts::Acts,
            role::{Act, Role},
        },
        placed_act::PlacedAct,
    },
    store::{
        Authority, Ingested, PruneError, ReadError, Start, StoreConfig, WatchEvent, WatchOptions,
    },
};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use super::setup::{random, soak, soon};
use crate::support::{
    disk::{Cut, EIO, ENOSPC, Fail, Image, MemDisk, Operation},
    model::{AUTHOR_A, AUTHOR_B, STORE, author_of, put},
    pruned::{
        Chains, ENTRIES, SEGMENT_BYTES, STAMPED_MS, WAY_MS, author_b, author_c, config, listed,
        signed,
    },
    random::Random,
    threads::on_two_threads,
    watch::nothing,
};

// Where the logs of B and C begin, one after the other.
const PLACES: [(Seq, Seq); 3] = [(0, 0), (7, 11), (19, 18)];

struct Recording {
    base: Image,
    operations: Vec<Operation>,
    // How many operations had been done when each of `PLACES` was answered.
    answered: [usize; 3],
    expected: BTreeMap<Bytes, Bytes>,
}

fn disk(image: &Image) -> MemDisk {
    MemDisk::new(image).in_segments_of(SEGMENT_BYTES)
}

async fn open(image: &Image) -> Store {
    open_on(&disk(image)).await
}

async fn open_on(disk: &MemDisk) -> Store {
    let clock = Clock::manual(STAMPED_MS + 2 * WAY_MS);
    soon(Store::open(config(disk, &clock))).await.unwrap()
}

// A store in which the last entries were not flushed when the first pruning began.
async fn record() -> Recording {
    let chains = Chains::with(20).await;
    let mut chains = Chains {
        disk: disk(&{
            soon(chains.store.close()).await.unwrap();
            chains.disk.image()
        }),
        ..chains
    };
    let base = chains.disk.image();
    chains.store = soon(chains.open()).await.unwrap();
    for entry in &chains.entries[20..] {
        chains.ingest(entry).await;
    }
    let mut answered = [0; 3];
    for (n, (b, c)) in PLACES.into_iter().enumerate().skip(1) {
        // The last time, the newest base has more entries than are removed.
        let pruning = match n {
            1 => chains.drop_before(b, c).await,
            _more => drop_some(&chains, &chains.store, (b, c)).await.unwrap(),
        };
        assert!(pruning.files > 2, "{pruning:?}");
        answered[n] = chains.disk.recorded();
    }
    let expected = listed(&chains.store).await;
    soon(chains.store.close()).await.unwrap();
    Recording {
        base,
        operations: chains.disk.operations(),
        answered,
        expected,
    }
}

// Removes entries through these places, once a base has all entries of B and C.
async fn drop_some(
    chains: &Chains,
    store: &Store,
    (b, c): (Seq, Seq),
) -> Result<Pruning, PruneError> {
    let folded = soon(store.fold(chains.tips(ENTRIES, ENTRIES), Taking::default())).await?;
    soon(store.drop_through(&folded, chains.tips(b, c))).await
}

// Returns the last entry of each log that is gone, once all others were read.
async fn begins(store: &Store, context: &str) -> (Seq, Seq) {
    let mut begins = Vec::new();
    for author in [author_b(), author_c()] {
        let through = match soon(store.entries(author, 0, 1)).await {
            Ok(_first) => 0,
            Err(ReadError::Pruned(pruned)) => pruned.through,
            Err(error) => panic!("{context}: {error}"),
        };
        let rest = soon(store.entries(author, through, usize::MAX))
            .await
            .unwrap();
        let seqs: Vec<_> = rest.iter().map(|read| read.entry.header.seq).collect();
        let newest = store.newest_seq(author);
        assert_eq!(
            seqs,
            (through + 1..=newest).collect::<Vec<_>>(),
            "{context}"
        );
        begins.push(through);
    }
    (begins[0], begins[1])
}

// A reader at `seq` of B gets an event or a gap: it begins at what was there, and may not find itself
// between the two.
async fn check_watch(
    chains: &Chains,
    store: &Store,
    b: Seq,
    (at_b, at_c): (Seq, Seq),
    context: &str,
) {
    let after = Cursor {
        frontier: chains.tips(b, at_c),
        ..nothing(store)
    };
    let mut watch = store.watch_with(WatchOptions {
        start: Start::After(after),
        ..WatchOptions::default()
    });
    let (mut gaps, mut first, mut changes) = (0, None, 0);
    loop {
        match soon(watch.next()).await.unwrap().unwrap() {
            WatchEvent::Gap { .. } => gaps += 1,
            WatchEvent::Change(change) => {
                changes += 1;
                if change.entry.author == author_b() && first.is_none() {
                    first = Some(change.entry.seq);
                }
            }
            WatchEvent::CaughtUp => break,
            event => panic!("{context}: {event:?}"),
        }
    }
    assert_eq!(gaps, usize::from(b < at_b), "{context}: B{b} of {at_b}");
    if gaps == 0 && b < store.newest_seq(author_b()) {
        assert_eq!(first, Some(b + 1), "{context}");
    }
    assert!(changes > 0, "{context}");
}

#[test]
fn s16_every_power_cut_leaves_the_old_or_the_new_beginning() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let recording = runtime.block_on(record());
    let chains = runtime.block_on(Chains::with(0));
    let count = recording.operations.len() + 1;
    let mut random = random(20_261_129);
    let seeds: Vec<u64> = (0..count).map(|_| random.bits()).collect();
    let each = soak(16);
    let seen = Mutex::new([0; 3]);
    let images = AtomicUsize::new(0);
    on_two_threads(count, |operations| {
        let (recording, chains, seen, images) = (&recording, &chains, &seen, &images);
        let mut random = Random::new(seeds[operations]);
        async move {
            let mut cut = Cut::new(&recording.base, 4096);
            for operation in &recording.operations[..operations] {
                cut.step(operation);
            }
            let answered = recording.answered.iter().rposition(|at| *at <= operations);
            for number in 0..cut.ways().min(each as u64) {
                let image = match number {
                    0 => cut.image(|_| 0),
                    1 => cut.image(|count| count - 1),
                    _random => cut.image(|count| random.below(count)),
                };
                let context = format!("cut after {operations} operations, image {number}");
                let (disk, nth) = (disk(&image), images.fetch_add(1, Ordering::Relaxed));
                let store = open_on(&disk).await;
                let at = begins(&store, &context).await;
                let place = PLACES.iter().position(|place| *place == at);
                let place = place.unwrap_or_else(|| panic!("{context}: {at:?}"));
                assert!(
                    place >= answered.unwrap_or(0),
                    "{context}: {at:?} came back"
                );
                seen.lock().unwrap()[place] += 1;
                if place > 0 {
                    assert_eq!(listed(&store).await, recording.expected, "{context}");
                }
                for b in [at.0.saturating_sub(1), at.0, at.0 + 1] {
                    check_watch(chains, &store, b, at, &context).await;
                }
                let report = soon(store.verify()).await.unwrap();
                assert_eq!(report.damage, [], "{context}");
                assert_eq!(
                    soon(store.status()).await.damage,
                    [] as [String; 0],
                    "{context}"
                );
                soon(store.put("/after", "cut")).await.unwrap();
                soon(store.close()).await.unwrap();
                if nth.is_multiple_of(8) {
                    // And the power goes again, in the recovery or after it.
                    let operations = disk.operations();
                    let mut again = Cut::new(&image, 4096);
                    let upto = random.below(operations.len() + 1);
                    operations[..upto].iter().for_each(|it| again.step(it));
                    let store = open(&again.image(|count| random.below(count))).await;
                    assert_eq!(begins(&store, &context).await, at, "{context}: again");
                    let report = soon(store.verify()).await.unwrap();
                    assert_eq!(report.damage, [], "{context}: again");
                }
            }
        }
    });
    let (seen, images) = (seen.into_inner().unwrap(), images.into_inner());
    eprintln!("{images} images of {count} cuts: {seen:?} began at each of {PLACES:?}");
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}

// The calls of one pruning fail, one after the other, until it runs through.
fn fail_all(errno: i32, which: Fail) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = runtime.block_on(async {
        let chains = Chains::new().await;
        soon(chains.store.close()).await.unwrap();
        chains.disk.image()
    });
    let chains = runtime.block_on(Chains::with(0));
    let outcomes = Mutex::new((0, 0, 0));
    let count = AtomicUsize::new(0);
    on_two_threads(300, |n| {
        let (base, chains, outcomes, count) = (&base, &chains, &outcomes, &count);
        async move {
            let disk = disk(base);
            let clock = Clock::manual(STAMPED_MS + 2 * WAY_MS);
            let store = soon(Store::open(config(&disk, &clock))).await.unwrap();
            let expected = listed(&store).await;
            disk.fail(1 + n as u64, errno, which);
            let done = match n % 2 {
                0 => soon(store.drop_before(chains.tips(7, 11))).await,
                _odd => drop_some(chains, &store, (7, 11)).await,
            };
            let happened = disk.has_failed();
            disk.mend();
            let context = format!("operation {n} fails with {errno}: {done:?}");
            assert!(done.is_ok() || happened, "{context}");
            count.fetch_add(usize::from(happened), Ordering::Relaxed);
            // It goes on as it is, and as the next process finds it.
            let live = begins(&store, &context).await;
            assert_eq!(listed(&store).await, expected, "{context}");
            for b in [6, 7, 8] {
                check_watch(chains, &store, b, live, &context).await;
            }
            assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{context}");
            let put = soon(store.put("/after", "fault")).await;
            let closed = soon(store.close()).await;
            let again = open(&disk.image()).await;
            let at = begins(&again, &context).await;
            assert!(at == (0, 0) || at == (7, 11), "{context}: {at:?}");
            assert!(at >= live, "{context}: {at:?} after {live:?}");
            assert!(done.is_err() || at == (7, 11), "{context}");
            let mut now = listed(&again).await;
            now.remove(&b"/after"[..]);
            assert_eq!(now, expected, "{context}");
            assert_eq!(soon(again.verify()).await.unwrap().damage, [], "{context}");
            soon(again.put("/after", "again")).await.unwrap();
            let mut outcomes = outcomes.lock().unwrap();
            outcomes.0 += usize::from(done.is_ok());
            outcomes.1 += usize::from(done.is_err() && at == (0, 0));
            outcomes.2 += usize::from(done.is_err() && at == (7, 11));
            // A store whose state could not be written says so, and takes writes again later.
            drop((put, closed));
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let count = count.into_inner();
    eprintln!("{count} failed operations; done, not done, done later: {outcomes:?}");
    assert!(
        count > 15 && outcomes.0 > 0 && outcomes.1 > 5 && outcomes.2 > 3,
        "{outcomes:?}"
    );
}

#[test]
fn s16_every_operation_of_a_pruning_fails_once() {
    fail_all(EIO, Fail::Any);
}

#[test]
fn s16_every_change_of_a_pruning_fails_once_with_disk_full() {
    fail_all(ENOSPC, Fail::Changes);
}

/// The log that would be removed is damaged, or the log that would stay.
#[tokio::test]
async fn damaged_log_keeps_its_entries() {
    for (place, is_before) in [(2, true), (12, false)] {
        let chains = Chains::new().await;
        soon(chains.store.close()).await.unwrap();
        let mut image = chains.disk.image();
        let author = author_b().to_string();
        // The frame of the entry, in whichever file it is.
        let id = chains.at(AUTHOR_B, place).unwrap().id;
        let mut files = image
            .iter_mut()
            .filter(|(path, _)| path.to_string_lossy().contains(&author));
        let (bytes, at) = files
            .find_map(|(_, bytes)| {
                let at = bytes.windows(32).position(|it| it == id.0)?;
                Some((bytes, at))
            })
            .unwrap();
        bytes[at] ^= 1;
        let disk = disk(&image);
        let store = soon(Store::open(config(&disk, &chains.clock)))
            .await
            .unwrap();
        if !is_before {
            // Nobody knows of it before the log is read.
            let report = soon(store.verify()).await.unwrap();
            assert!(!report.damage.is_empty());
        }
        let names = || -> Vec<_> { disk.image().into_keys().collect() };
        let files = names();
        let refused = soon(store.drop_before(chains.tips(10, 0))).await;
        let left = names();
        assert!(
            files.iter().all(|file| left.contains(file)),
            "nothing was removed: {refused:?}"
        );
        assert!(
            matches!(refused, Err(PruneError::Lacks { .. })),
            "{refused:?}"
        );
        soon(store.close()).await.unwrap();
    }
}

// The last final entries of B and C.
const FINAL: (Seq, Seq) = (12, 12);

/// A store with two branches of B that left before the last final entry, and the act that made them void.
struct WithVoids {
    base: Image,
    members: Arc<Members>,
    expected: BTreeMap<Bytes, Bytes>,
}

fn acts(seq: u8, acts: Vec<(Author, Act)>, anchors: Vec<Arc<PlacedAct>>) -> Acts {
    Acts {
        place: Parent {
            hlc: Hlc::ZERO,
            author: author_of(AUTHOR_A),
            id: EntryId([seq; 32]),
            seq: seq.into(),
        },
        cites: Vec::new(),
        needs_authority: false,
        anchors,
        founds: Vec::new(),
        describes: Vec::new(),
        acts,
    }
}

fn members(acts: &[&Acts]) -> Arc<Members> {
    let leads = |_: &Author, _, _| Ok::<_, Infallible>(Some(true));
    let acts = acts.iter().copied();
    let Ok(members) = Members::evaluate(author_of(AUTHOR_A), StoreId([1; 16]), acts, leads);
    Arc::new(members)
}

impl WithVoids {
    async fn new() -> Self {
        let chains = Chains::with(0).await;
        let disk = disk(&Image::new());
        let writers = [author_b(), author_c()].map(|author| (author, Act::Grant(Role::Writer)));
        let grants = acts(1, writers.into(), Vec::new());
        let (publisher, known) = watch::channel(members(&[&grants]));
        let store = Self::open_as(&disk, known).await;
        let mut entries = chains.entries.clone();
        // One ends after the last final entry, and one before it.
        entries.extend(fork(&chains, 5, 20, 9000));
        entries.extend(fork(&chains, 8, 2, 10));
        for entry in &entries {
            let done = soon(store.ingest(vec![entry.signed.encode().into()])).await;
            assert_eq!(done.unwrap(), [Ingested::Applied(entry.id)]);
        }
        let anchors = chains.tips(FINAL.0, FINAL.1);
        let placed = PlacedAct {
            by: author_of(AUTHOR_A),
            at: FrontierTip {
                seq: 2,
                id: EntryId([2; 32]),
            },
            store: STORE,
            cites: Vec::new(),
            act: AnchorsAct::new(1, None, 0, anchors, None).unwrap(),
        };
        let act = acts(2, Vec::new(), vec![Arc::new(placed)]);
        let members = members(&[&grants, &act]);
        publisher.send(Arc::clone(&members)).unwrap();
        soon(store.reconsider()).await;
        let expected = listed(&store).await;
        assert!(!expected.contains_key(&b"/fork/0"[..]), "it is void");
        soon(store.close()).await.unwrap();
        Self {
            base: disk.image(),
            members,
            expected,
        }
    }

    async fn open_as(disk: &MemDisk, known: watch::Receiver<Arc<Members>>) -> Store {
        let clock = Clock::manual(STAMPED_MS + 2 * WAY_MS);
        let config = StoreConfig {
            authority: Authority::Of(known),
            ..config(disk, &clock)
        };
        soon(Store::open(config)).await.unwrap()
    }

    async fn open(&self, disk: &MemDisk) -> Store {
        let (_publisher, known) = watch::channel(Arc::clone(&self.members));
        Self::open_as(disk, known).await
    }

    async fn drop_final(&self, store: &Store, chains: &Chains) -> Result<Pruning, PruneError> {
        soon(store.drop_before(chains.tips(FINAL.0, FINAL.1))).await
    }

    // Everything that counts is here, and can be written on. Returns whether the void branches are gone.
    async fn check(&self, disk: &MemDisk, chains: &Chains, context: &str) -> bool {
        let mut is_pruned = Vec::new();
        // A branch that is begun after the pruning may get the name of one that was set aside.
        let on = fork(chains, FINAL.0 + 1, 3, ON_BYTES);
        for opened in 0..3 {
            let store = self.open(disk).await;
            let context = format!("{context}, opened {opened} times before");
            assert_eq!(soon(store.verify()).await.unwrap().damage, [], "{context}");
            let damage = soon(store.status()).await.damage;
            assert_eq!(damage, [] as [String; 0], "{context}");
            let mut now = listed(&store).await;
            if opened > 0 {
                assert_eq!(now.remove(&b"/after"[..]), Some("cut".into()), "{context}");
                for n in 0..=3 {
                    let key = Bytes::from(format!("/fork/{n}"));
                    let value = now.remove(&key).unwrap_or_default();
                    assert!(value == vec![b'f'; ON_BYTES], "{context}: {}", value.len());
                }
            }
            assert_eq!(now, self.expected, "{context}");
            is_pruned.push(soon(store.entries(author_b(), 0, 1)).await.is_err());
            soon(store.put("/after", "cut")).await.unwrap();
            for entry in &on {
                let done = soon(store.ingest(vec![entry.signed.encode().into()])).await;
                let done = done.unwrap().remove(0);
                let is_new = matches!(done, Ingested::Applied(_));
                let is_here = matches!(done, Ingested::Duplicate(_));
                assert!(is_new && opened == 0 || is_here, "{context}: {done:?}");
            }
            match opened {
                // As a crash leaves it.
                0 => drop(soon(store.close()).await),
                _more => soon(store.close()).await.unwrap(),
            }
        }
        assert!(is_pruned.iter().all(|it| *it == is_pruned[0]), "{context}");
        let names = disk.image().into_keys();
        let names: Vec<_> = names.map(|name| name.display().to_string()).collect();
        assert!(
            !names.iter().any(|name| name.contains("left-")),
            "{names:?}"
        );
        let aside = names.iter().filter(|name| name.contains(".log.aside-"));
        let is_aside = aside.filter(|name| !name.contains('+')).count();
        assert_eq!(
            is_aside,
            if is_pruned[0] { 2 } else { 0 },
            "{context}: {names:?}"
        );
        is_pruned[0]
    }
}

// Bytes of a value of the branch that is begun after a pruning. Both it and a branch that was set aside have
// index points: those of the one must not be taken for those of the other.
const ON_BYTES: usize = 20_000;

// Entries of B after the one at `seq`, on a branch of their own.
fn fork(chains: &Chains, seq: Seq, count: u64, bytes: usize) -> Vec<VerifiedEntry> {
    let mut before = chains.at(AUTHOR_B, seq).cloned();
    let mut fork = Vec::new();
    for n in 0..=count {
        let stamp = before.as_ref().unwrap().header.hlc.wall_ms + 1;
        let ops = vec![put(&format!("/fork/{n}"), &"f".repeat(bytes))];
        let next = signed(AUTHOR_B, before.as_ref(), BTreeSet::new(), stamp, ops);
        fork.push(next.clone());
        before = Some(next);
    }
    fork
}

/// One branch of one member that left before the last final entry kept the history of the store for ever.
#[test]
fn s16_every_power_cut_sets_void_branches_aside_or_leaves_them() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (it, operations, answered) = runtime.block_on(async {
        let (it, chains) = (WithVoids::new().await, Chains::with(0).await);
        let disk = disk(&it.base);
        let store = it.open(&disk).await;
        let pruning = it.drop_final(&store, &chains).await.unwrap();
        assert_eq!((pruning.voids, pruning.branches), (2, 2));
        let answered = disk.recorded();
        soon(store.close()).await.unwrap();
        let operations = disk.operations();
        // Nothing is left to be done.
        let store = it.open(&disk).await;
        assert_eq!(soon(store.status()).await.recovered, [] as [String; 0]);
        (it, operations, answered)
    });
    let chains = runtime.block_on(Chains::with(0));
    let count = operations.len() + 1;
    let mut random = random(20_261_131);
    let seeds: Vec<u64> = (0..count).map(|_| random.bits()).collect();
    let each = soak(4);
    let seen = Mutex::new([0; 2]);
    on_two_threads(count, |upto| {
        let (it, operations, chains, seen) = (&it, &operations, &chains, &seen);
        let mut random = Random::new(seeds[upto]);
        async move {
            let mut cut = Cut::new(&it.base, 4096);
            for operation in &operations[..upto] {
                cut.step(operation);
            }
            for number in 0..cut.ways().min(each as u64) {
                let image = match number {
                    0 => cut.image(|_| 0),
                    1 => cut.image(|count| count - 1),
                    _random => cut.image(|count| random.below(count)),
                };
                let context = format!("cut after {upto} operations, image {number}");
                let mut disk = disk(&image);
                if number % 2 == 1 {
                    // And the power goes again, in the recovery.
                    drop(it.open(&disk).await);
                    let operations = disk.operations();
                    let mut again = Cut::new(&image, 4096);
                    let upto = random.below(operations.len() + 1);
                    operations[..upto].iter().for_each(|it| again.step(it));
                    disk = self::disk(&again.image(|count| random.below(count)));
                }
                let is_pruned = it.check(&disk, chains, &context).await;
                assert!(is_pruned || upto < answered, "{context}: they came back");
                seen.lock().unwrap()[usize::from(is_pruned)] += 1;
            }
        }
    });
    let seen = seen.into_inner().unwrap();
    eprintln!("{count} cuts: {seen:?} images with the void branches and without");
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn s16_every_operation_fails_once_while_void_branches_are_set_aside() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (it, chains) = runtime.block_on(async { (WithVoids::new().await, Chains::with(0).await) });
    let outcomes = Mutex::new([0; 4]);
    on_two_threads(300, |n| {
        let (it, chains, outcomes) = (&it, &chains, &outcomes);
        async move {
            let disk = disk(&it.base);
            let store = it.open(&disk).await;
            let (errno, which) = match n % 2 {
                0 => (EIO, Fail::Any),
                _odd => (ENOSPC, Fail::Changes),
            };
            disk.fail(1 + n as u64 / 2, errno, which);
            let done = it.drop_final(&store, chains).await;
            let happened = disk.has_failed();
            disk.mend();
            let context = format!("operation {} fails with {errno}: {done:?}", n / 2);
            assert!(done.is_ok() || happened, "{context}");
            assert_eq!(listed(&store).await, it.expected, "{context}");
            drop(soon(store.close()).await);
            let is_pruned = it.check(&self::disk(&disk.image()), chains, &context).await;
            assert!(done.is_err() || is_pruned, "{context}");
            let mut outcomes = outcomes.lock().unwrap();
            outcomes[usize::from(done.is_ok()) * 2 + usize::from(is_pruned)] +=
                usize::from(happened);
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    eprintln!("refused, refused and done later, -, done: {outcomes:?}");
    assert!(outcomes[0] > 5 && outcomes[1] > 3, "{outcomes:?}");
}
