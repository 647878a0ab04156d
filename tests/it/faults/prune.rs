//! Power cuts and failed calls while entries are removed from the logs: a log begins where it did, or
//! where it shall, and no other entry is missing.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::Seq,
    log::Pruning,
    protocol::cursor::Cursor,
    store::{PruneError, ReadError, Start, WatchEvent, WatchOptions},
};
use tokio_stream::StreamExt as _;

use super::setup::{random, soak, soon};
use crate::support::{
    disk::{Cut, EIO, ENOSPC, Fail, Image, MemDisk, Operation},
    pruned::{
        Chains, ENTRIES, SEGMENT_BYTES, STAMPED_MS, WAY_MS, author_b, author_c, config, listed,
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
    let folded = soon(store.fold(chains.tips(ENTRIES, ENTRIES), None)).await?;
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
        let id = chains
            .at(crate::support::model::AUTHOR_B, place)
            .unwrap()
            .id;
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
