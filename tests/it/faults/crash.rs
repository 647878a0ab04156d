//! Power cuts. A workload's disk is cut after every operation, with every page that is not yet
//! synced either there or not.
//!
//! Every image must have all that was acknowledged before the cut and nothing that was never
//! written; its state must follow from its log, and writes must go on.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use bytes::Bytes;
use lattice::{
    Store,
    id::EntryId,
    protocol::entry::VerifiedEntry,
    store::{Ingested, Write},
};

use crate::support::random::Random;

use super::setup::{
    Known, SEGMENT_BYTES, all_entries, author_a, encoded, key, next_of_b, open, put, shown,
    shown_of, signed, soak, soon,
};
use crate::support::{
    disk::{Cut, Image, MemDisk, Operation},
    threads::on_two_threads,
};

/// A workload on a disk that began as `base`.
struct Recording {
    base: Image,
    operations: Vec<Operation>,
    // Entry, and how many operations had been done when it was acknowledged.
    acknowledged: Vec<(EntryId, usize)>,
    known: Known,
}

/// Writes to a store and notes when each write was acknowledged.
struct Session<'a> {
    disk: MemDisk,
    store: Store,
    recording: &'a mut Recording,
}

impl Session<'_> {
    fn acknowledge(&mut self, entry: EntryId) {
        let at = self.disk.recorded();
        self.recording.acknowledged.push((entry, at));
    }

    async fn put(&mut self, key: &str, bytes: usize) {
        let value = vec![b'a' + u8::try_from(key.len() % 26).unwrap(); bytes];
        let written = soon(self.store.put(key.to_owned(), value)).await.unwrap();
        self.acknowledge(written.entry);
    }

    async fn ingest(&mut self, entries: &[&VerifiedEntry]) {
        for outcome in soon(self.store.ingest(encoded(entries))).await.unwrap() {
            let Ingested::Applied(id) = outcome else {
                panic!("{outcome:?}")
            };
            self.acknowledge(id);
        }
    }

    async fn reopen(&mut self) {
        soon(self.store.close()).await.unwrap();
        self.store = open(&self.disk).await.unwrap();
    }
}

async fn record(base: &Image, durable: &[EntryId]) -> Recording {
    let disk = MemDisk::new(base).in_segments_of(SEGMENT_BYTES);
    let mut recording = Recording {
        base: base.clone(),
        operations: Vec::new(),
        acknowledged: durable.iter().map(|id| (*id, 0)).collect(),
        known: Known::new(),
    };
    let store = open(&disk).await.unwrap();
    let round = durable.len();
    let mut session = Session {
        disk: disk.clone(),
        store,
        recording: &mut recording,
    };
    for n in 0..5 {
        session.put(&format!("/k/{n}"), 30 * n).await;
    }
    session.put("/big", 9000).await;
    let b1 = first_of_b(&session.store).await;
    let b2 = next_of_b(Some(&b1), vec![], vec![put("/b/2", "2"), put("/k/1", "b")]);
    let b3 = next_of_b(Some(&b2), vec![], vec![put("/b/3", "3")]);
    session.ingest(&[&b2, &b3]).await;
    super::setup::flushed().await;
    let batch = vec![put("/k/1", "batch"), put("/k/9", "batch")];
    let written = soon(session.store.batch(batch)).await.unwrap().unwrap();
    session.acknowledge(written.entry);
    // A fork of author B, in its own file.
    let fork = next_of_b(
        Some(&b1),
        vec![],
        vec![put(format!("/b/fork/{round}"), "f")],
    );
    session.ingest(&[&fork]).await;
    let writes = (0..6).map(|n| Write::put(format!("/many/{n}"), vec![n; 3000]));
    for written in soon(session.store.write_many(writes.collect())).await {
        session.acknowledge(written.unwrap().unwrap().entry);
    }
    session.reopen().await;
    let written = soon(session.store.delete("/k/2")).await;
    let written = written.unwrap().unwrap();
    session.acknowledge(written.entry);
    session.put("/k/1", 10).await;
    super::setup::flushed().await;
    session
        .ingest(&[&next_of_b(Some(&fork), vec![], vec![put("/b/fork", "g")])])
        .await;
    session.put("/last", 5000).await;
    session.put("/last", 10).await;
    let store = session.store;
    recording.known = all_entries(&store).await;
    recording.operations = disk.operations();
    soon(store.close()).await.unwrap();
    recording
}

// B's first entry, ingested where it is not there yet, and a longer chain each time.
async fn first_of_b(store: &Store) -> VerifiedEntry {
    let known = all_entries(store).await;
    let tip = known
        .iter()
        .filter(|((author, _), _)| *author != author_a())
        .filter_map(|(_, entries)| entries.last())
        .next();
    let next = next_of_b(tip, vec![], vec![put("/b/1", "1")]);
    soon(store.ingest(encoded(&[&next]))).await.unwrap();
    next
}

#[test]
fn s1_s7_s13_every_power_cut_keeps_acknowledged_writes() {
    let started = Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = super::setup::random(20_260_101);
    let first = runtime.block_on(record(&Image::new(), &[]));
    // The second one begins with a recovery, which is cut as well.
    let middle = first.operations.len() * 2 / 3;
    let base = cut_at(&first, middle, 4096).image(|count| random.below(count));
    let durable = acknowledged(&first, middle);
    let second = runtime.block_on(record(&base, &durable));
    let target = soak(20_000);
    let mut images = 0;
    for (recording, page, share) in [
        (&first, 4096, 5),
        (&first, 512, 2),
        (&second, 4096, 2),
        (&second, 512, 1),
    ] {
        images += check_all(recording, page, target * share / 10, &mut random);
    }
    eprintln!(
        "{images} crash images of {} and {} operations in {:?}",
        first.operations.len(),
        second.operations.len(),
        started.elapsed()
    );
    assert!(images >= target, "{images} images are too few");
}

fn cut_at(recording: &Recording, operations: usize, page: usize) -> Cut {
    let mut cut = Cut::new(&recording.base, page);
    for operation in &recording.operations[..operations] {
        cut.step(operation);
    }
    cut
}

fn acknowledged(recording: &Recording, operations: usize) -> Vec<EntryId> {
    let acknowledged = recording.acknowledged.iter();
    acknowledged
        .filter(|(_, at)| *at <= operations)
        .map(|(id, _)| *id)
        .collect()
}

// Checks `target` images or more, spread evenly over the cuts, and returns how many.
fn check_all(recording: &Recording, page: usize, target: usize, random: &mut Random) -> usize {
    let mut cut = Cut::new(&recording.base, page);
    let mut ways = vec![cut.ways()];
    for operation in &recording.operations {
        cut.step(operation);
        ways.push(cut.ways());
    }
    // The least bound on images of one cut that makes enough of them.
    let total = |most: u64| ways.iter().map(|ways| (*ways).min(most)).sum::<u64>();
    let most = (1..).find(|most| total(*most) >= target as u64).unwrap();
    let seeds: Vec<u64> = ways.iter().map(|_| random.bits()).collect();
    let images = AtomicUsize::new(0);
    let cuts = std::sync::Mutex::new((Cut::new(&recording.base, page), 0));
    on_two_threads(ways.len(), |_| {
        // The next cut, in order: cheaper than from the start each time.
        let (cut, operations) = {
            let mut cuts = cuts.lock().unwrap();
            let (cut, operations) = &mut *cuts;
            let this = (cut.clone(), *operations);
            if let Some(operation) = recording.operations.get(*operations) {
                cut.step(operation);
            }
            *operations += 1;
            this
        };
        let (ways, seed) = (ways[operations], seeds[operations]);
        let images = &images;
        async move {
            let mut random = Random::new(seed);
            for number in 0..ways.min(most) {
                let image = if ways <= most {
                    let mut left = number;
                    cut.image(|count| {
                        let chosen = left % count as u64;
                        left /= count as u64;
                        usize::try_from(chosen).unwrap()
                    })
                } else {
                    match number {
                        0 => cut.image(|_| 0),
                        1 => cut.image(|count| count - 1),
                        _random => cut.image(|count| random.below(count)),
                    }
                };
                let context =
                    format!("cut after {operations} operations, page {page}, image {number}");
                let durable = acknowledged(recording, operations);
                let nth = images.fetch_add(1, Ordering::Relaxed);
                check(recording, &image, &durable, nth, &context).await;
            }
        }
    });
    images.into_inner()
}

async fn check(
    recording: &Recording,
    image: &Image,
    durable: &[EntryId],
    nth: usize,
    context: &str,
) {
    let disk = MemDisk::new(image).in_segments_of(SEGMENT_BYTES);
    let store = match open(&disk).await {
        Ok(store) => store,
        Err(error) => panic!("{context}: does not open: {error:?}"),
    };
    let mended = soon(store.status()).await.recovered;
    let is_of_state = |what: &String| what.contains("state");
    assert!(!mended.iter().any(is_of_state), "{context}: {mended:?}");
    let found = all_entries(&store).await;
    check_entries(recording, &found, durable, context);
    let expected = shown_of(found.values().flatten());
    let keys: Vec<Bytes> = expected.keys().cloned().collect();
    let rows = shown(&store, keys.iter()).await.unwrap();
    assert_eq!(rows, expected, "{context}: the state is not the log's");
    let listed = soon(store.list(lattice::store::List::default()))
        .await
        .unwrap();
    let live = expected.values().filter(|row| row[0].1.is_some()).count();
    assert_eq!(listed.len(), live, "{context}: keys listed");
    let written = soon(store.put("/after", "cut")).await;
    let written = written.unwrap_or_else(|error| panic!("{context}: no write: {error}"));
    if nth.is_multiple_of(16) {
        let report = soon(store.verify()).await.unwrap();
        assert_eq!(report.damage, [], "{context}");
        let after = soon(store.status()).await;
        assert_eq!(after.damage, [] as [String; 0], "{context}");
    }
    if nth.is_multiple_of(64) {
        // And the power goes again: in the middle of the recovery, or after it.
        let operations = disk.operations();
        let mut cut = Cut::new(image, 4096);
        let mut random = Random::new(nth as u64);
        let at = random.below(operations.len() + 1);
        for operation in &operations[..at] {
            cut.step(operation);
        }
        let again = cut.image(|count| random.below(count));
        let store = open(&MemDisk::new(&again)).await.unwrap();
        let found_again = all_entries(&store).await;
        for id in durable {
            assert!(
                has(&found_again, id),
                "{context}: {id} lost by the second cut"
            );
        }
        if at == operations.len() {
            assert!(has(&found_again, &written.entry), "{context}: put lost");
        }
        let expected = shown_of(found_again.values().flatten());
        let rows = shown(&store, expected.keys()).await.unwrap();
        assert_eq!(rows, expected, "{context}: state after the second cut");
    }
}

fn has(known: &Known, id: &EntryId) -> bool {
    known.values().flatten().any(|entry| entry.id == *id)
}

fn check_entries(recording: &Recording, found: &Known, durable: &[EntryId], context: &str) {
    let mut there = BTreeMap::new();
    for (branch, entries) in found {
        let written = recording.known.get(branch).map(Vec::as_slice);
        let written = written.unwrap_or_default();
        assert!(entries.len() <= written.len(), "{context}: a phantom");
        for (entry, written) in entries.iter().zip(written) {
            assert_eq!(entry.id, written.id, "{context}: a phantom");
            there.insert(entry.id, ());
        }
    }
    for id in durable {
        assert!(there.contains_key(id), "{context}: {id} was acknowledged");
    }
}

/// The check itself: on a disk that does not do what `sync_data` promises, it must fail.
#[test]
#[should_panic(expected = "a scoped thread panicked")]
fn disk_that_ignores_fsync_does_not_pass() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut recording = runtime.block_on(record(&Image::new(), &[]));
    for operation in &mut recording.operations {
        if matches!(operation, Operation::Sync(_)) {
            *operation = Operation::SyncDir("/elsewhere".into());
        }
    }
    check_all(&recording, 4096, 500, &mut Random::new(1));
}

/// A group that did not fit was refused, and its room was used again. The power failed before the
/// next fsync, with the old group's last page on disk and the new group's first: a record whose
/// predecessor never was. It must not come back.
#[tokio::test]
async fn rolled_back_record_is_not_a_successor() {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    soon(store.put("/first", "1")).await.unwrap();
    let mut image = disk.image();
    let known = all_entries(&store).await;
    drop(store);
    let first = &known[&(author_a(), 0)][0];
    let signed = |before, value: &str| {
        let ops = vec![put("/x", value.to_owned())];
        signed(&key(1), super::setup::STORE, Some(before), vec![], ops)
    };
    let (old2, new2) = (signed(first, "old"), signed(first, "new"));
    let old3 = signed(&old2, "three");
    let log = image.get_mut(&super::setup::log_path(&author_a())).unwrap();
    let end = super::flip::frames(log).last().unwrap().end;
    let end = super::flip::write_frame(log, end, &new2, 0);
    super::flip::write_frame(log, end, &old3, 0);
    let store = open(&MemDisk::new(&image)).await.unwrap();
    let found = all_entries(&store).await;
    let ids: Vec<_> = found[&(author_a(), 0)].iter().map(|e| e.id).collect();
    assert_eq!(ids, [first.id, new2.id]);
    soon(store.put("/x", "next")).await.unwrap();
    assert_eq!(soon(store.verify()).await.unwrap().damage, []);
}
