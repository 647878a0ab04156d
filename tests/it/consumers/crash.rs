//! Power cuts: a consumer's disk is cut after every operation, with every page that is not yet
//! synced either there or not.
//!
//! In every image the consumer exists; a change that was acknowledged durably does not come again,
//! and every other change does; no position covers an entry that the log does not have.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lattice::store::{
    Write,
    consumers::{ConsumerError, ConsumerState},
};

use super::setup::{Bench, created, key, next, put, soon};
use crate::support::{
    disk::{Cut, Image, Operation},
    random::Random,
    threads::on_two_threads,
};

/// A workload, and the number of disk operations that were done when each fact was known.
#[derive(Debug, Default)]
struct Recording {
    operations: Vec<Operation>,
    // Operations done when the consumer had been made.
    made: usize,
    // Keys with the number of operations done when `ack` was called, and when the ack was durable.
    acked: Vec<(String, usize)>,
    durable: Vec<(String, usize)>,
    dead: Vec<(String, usize)>,
}

impl Recording {
    fn before(facts: &[(String, usize)], operations: usize) -> BTreeSet<String> {
        let before = facts.iter().filter(|(_, at)| *at <= operations);
        before.map(|(key, _)| key.clone()).collect()
    }
}

// Every key is written once, so that a key names a change.
async fn record() -> Recording {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut recording = Recording::default();
    for n in 0..3 {
        put(&store, &format!("/before/{n}"), "v").await;
    }
    let consumer = created(&store, "c").await;
    recording.made = bench.disk.recorded();
    for round in 0..6 {
        let writes = (0..4)
            .map(|n| Write::put(format!("/{round}/{n}"), "v"))
            .collect();
        for written in soon(store.write_many(writes)).await {
            written.unwrap();
        }
        let ops =
            [0, 1, 2].map(|n| crate::support::model::put(&format!("/{round}/batch/{n}"), "v"));
        soon(store.batch(ops.to_vec())).await.unwrap();
        for n in 0..6 {
            let delivery = next(&consumer).await;
            let key = key(&delivery);
            let at = bench.disk.recorded();
            match n {
                5 => {
                    delivery.term().unwrap();
                    recording.dead.push((key, at));
                }
                4 => delivery.nack(Some(Duration::from_millis(5))).unwrap(),
                _ => {
                    delivery.ack().unwrap();
                    recording.acked.push((key, at));
                }
            }
        }
        bench.clock.advance(100);
        if round % 2 == 0 {
            // Here the commit happens by itself, within CONSUMERS_COMMIT_EVERY.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        consumer.flush().await.unwrap();
        let at = bench.disk.recorded();
        let known = recording.acked.iter().map(|(key, _)| (key.clone(), at));
        let known: Vec<_> = known.skip(recording.durable.len()).collect();
        recording.durable.extend(known);
    }
    soon(store.close()).await.unwrap();
    recording.operations = bench.disk.operations();
    recording
}

async fn check(recording: &Recording, image: &Image, operations: usize, context: &str) {
    let bench = Bench::on(image);
    let store = bench.open().await;
    let consumer = store.consumer("c");
    let status = match soon(consumer.show()).await {
        Err(ConsumerError::Unknown { .. }) => {
            return assert!(operations < recording.made, "{context}: it was made");
        }
        shown => shown.unwrap_or_else(|error| panic!("{context}: {error:?}")),
    };
    assert!(status.outstanding <= 1000);
    put(&store, "/last", "v").await;
    let mut given = BTreeSet::new();
    let begun = Instant::now();
    loop {
        bench.clock.advance(10_000);
        while let Ok(taken) = tokio::time::timeout(Duration::from_millis(2), consumer.next()).await
        {
            let delivery = taken.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            assert!(given.insert(key(&delivery)), "{context}: twice");
            delivery.ack().unwrap();
        }
        let status = soon(consumer.show()).await.unwrap();
        assert_eq!(status.state, ConsumerState::Running, "{context}");
        if given.contains("/last") && status.outstanding == 0 && status.backlog_entries == 0 {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{context}: {status:?}"
        );
    }
    let durable = Recording::before(&recording.durable, operations);
    let again: Vec<_> = given.intersection(&durable).collect();
    assert!(again.is_empty(), "{context}: {again:?} was acknowledged");
    let dead = soon(consumer.dead()).await.unwrap();
    let mut done: BTreeSet<String> = dead
        .iter()
        .map(|letter| String::from_utf8_lossy(&letter.change.key).into_owned())
        .collect();
    assert!(
        done.is_subset(&Recording::before(&recording.dead, operations)),
        "{context}: {done:?}"
    );
    done.extend(given);
    done.extend(Recording::before(&recording.acked, operations));
    let all = soon(store.list(lattice::store::List::default()))
        .await
        .unwrap();
    for item in all {
        let key = String::from_utf8_lossy(&item.key).into_owned();
        assert!(done.contains(&key), "{context}: {key} is lost");
    }
}

// Images of `recording` that pass.
fn check_all(recording: &Recording, target: usize) -> usize {
    each_image(
        &recording.operations,
        target,
        async |image, operations, context| {
            check(recording, &image, operations, &context).await;
        },
    )
}

/// Checks what power cuts leave behind after each of `operations`, each cut in one way, or more,
/// until there are `target`. Returns how many there were.
pub fn each_image(
    operations: &[Operation],
    target: usize,
    check: impl AsyncFn(Image, usize, String) + Sync,
) -> usize {
    let images = AtomicUsize::new(0);
    let each = target.div_ceil(operations.len() + 1);
    let cuts = Mutex::new((Cut::new(&Image::new(), 4096), 0));
    on_two_threads(operations.len() + 1, |_| {
        let (cut, done) = {
            let mut cuts = cuts.lock().unwrap();
            let (cut, done) = &mut *cuts;
            let this = (cut.clone(), *done);
            if let Some(operation) = operations.get(*done) {
                cut.step(operation);
            }
            *done += 1;
            this
        };
        let (images, check) = (&images, &check);
        async move {
            let mut random = Random::new(done as u64);
            for number in 0..each {
                let image = match number {
                    0 => cut.image(|_| 0),
                    1 => cut.image(|count| count - 1),
                    _random => cut.image(|count| random.below(count)),
                };
                let context = format!("cut after {done} operations, image {number}");
                images.fetch_add(1, Ordering::Relaxed);
                check(image, done, context).await;
            }
        }
    });
    images.into_inner()
}

#[test]
fn power_cut_keeps_acks_and_redelivers_the_rest() {
    let started = Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let recording = runtime.block_on(record());
    assert!(recording.durable.len() >= 20 && recording.dead.len() >= 6);
    let soak = if std::env::var_os("LATTICE_SOAK").is_some() {
        10
    } else {
        1
    };
    let images = check_all(&recording, 600 * soak);
    eprintln!(
        "{images} images of {} operations in {:?}",
        recording.operations.len(),
        started.elapsed()
    );
    assert!(images >= 600);
}

/// The check itself: on a disk that does not do what `sync_data` promises, it must fail.
#[test]
#[should_panic(expected = "a scoped thread panicked")]
fn disk_that_ignores_fsync_does_not_pass() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut recording = runtime.block_on(record());
    for operation in &mut recording.operations {
        if matches!(operation, Operation::Sync(_)) {
            *operation = Operation::SyncDir("/elsewhere".into());
        }
    }
    check_all(&recording, 600);
}
