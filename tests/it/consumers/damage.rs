//! Consumers whose files are damaged, lost, full, or of another store.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use lattice::{
    id::StoreId,
    store::consumers::{Consumer, ConsumerError, ConsumerStart, ConsumerState},
};

use super::setup::{Bench, created, key, next, nothing_comes, options, put, soon};
use crate::support::{
    disk::{EIO, ENOSPC, Fail, Image, MemDisk},
    random::Random,
};

fn db() -> PathBuf {
    PathBuf::from("/store/consumers.db")
}

fn sums() -> PathBuf {
    PathBuf::from("/store/consumers.sums")
}

// Takes and acknowledges changes until none comes.
async fn drain(bench: &Bench, consumer: &Consumer) -> Result<BTreeSet<String>, ConsumerError> {
    let mut keys = BTreeSet::new();
    drain_into(&mut keys, bench, consumer).await?;
    Ok(keys)
}

async fn drain_into(
    keys: &mut BTreeSet<String>,
    bench: &Bench,
    consumer: &Consumer,
) -> Result<(), ConsumerError> {
    let begun = Instant::now();
    loop {
        let taken = tokio::time::timeout(Duration::from_millis(20), consumer.next()).await;
        if let Ok(taken) = taken {
            let delivery = taken?;
            keys.insert(key(&delivery));
            delivery.ack()?;
            continue;
        }
        let status = consumer.show().await?;
        if status.outstanding == 0 && status.backlog_entries == 0 {
            return Ok(());
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{status:?}");
        bench.clock.advance(10_000);
    }
}

// A consumer that has acknowledged /0, holds /1, and has /2 as a dead letter; /3 and /4 wait.
async fn in_the_middle(close: bool) -> Bench {
    let bench = Bench::new();
    let store = bench.open().await;
    for n in 0..5 {
        put(&store, &format!("/{n}"), "v").await;
    }
    let consumer = created(&store, "c").await;
    next(&consumer).await.ack().unwrap();
    let held = next(&consumer).await;
    next(&consumer).await.term().unwrap();
    consumer.flush().await.unwrap();
    if close {
        soon(store.close()).await.unwrap();
    }
    let after = bench.killed();
    drop(held);
    after
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_survive_a_lost_state() {
    let bench = in_the_middle(true).await;
    let mut image = bench.disk.image();
    assert!(image.remove(&PathBuf::from("/store/state.db")).is_some());
    image.remove(&PathBuf::from("/store/state.sums"));
    let bench = Bench::on(&image);
    let store = bench.open().await;
    let consumer = store.consumer("c");
    let keys = drain(&bench, &consumer).await.unwrap();
    assert_eq!(keys, ["/1", "/3", "/4"].map(str::to_owned).into());
    assert_eq!(consumer.dead().await.unwrap().len(), 1);
}

/// One bit in a hundred places of the file: whatever is given out afterwards is exactly what is
/// owed, or there is an error that says damage. A flipped bit that moved a position would lose
/// changes without a word.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bit_is_never_a_wrong_position() {
    let mut random = Random::new(7);
    let (mut errors, mut unharmed) = (0, 0);
    for close in [true, false] {
        let image = in_the_middle(close).await.disk.image();
        assert_eq!(image.contains_key(&sums()), close);
        let bytes = image[&db()].len();
        // The part that redb has written, without the room it reserved.
        let used: Vec<usize> = (0..bytes).filter(|at| image[&db()][*at] != 0).collect();
        for _ in 0..60 {
            let mut image = image.clone();
            let at = used[random.below(used.len())];
            image.get_mut(&db()).unwrap()[at] ^= 1 << random.below(8);
            let bench = Bench::on(&image);
            let store = bench.open().await;
            put(&store, "/5", "v").await;
            let consumer = store.consumer("c");
            match drain(&bench, &consumer).await {
                Ok(keys) => {
                    unharmed += 1;
                    assert_eq!(
                        keys,
                        ["/1", "/3", "/4", "/5"].map(str::to_owned).into(),
                        "byte {at}"
                    );
                }
                Err(ConsumerError::Damaged { .. } | ConsumerError::DamagedConsumer { .. }) => {
                    errors += 1;
                    assert!(
                        soon(store.get(b"/5")).await.unwrap().is_some(),
                        "the store goes on"
                    );
                }
                Err(other) => panic!("byte {at}: {other:?}"),
            }
        }
    }
    assert!(errors > 20, "{errors} errors, {unharmed} times unharmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_file_is_left_alone() {
    for garbage in [vec![7; 9000], b"x".to_vec()] {
        let mut image = in_the_middle(true).await.disk.image();
        image.insert(db(), garbage.clone());
        image.remove(&sums());
        let bench = Bench::on(&image);
        let store = bench.open().await;
        for _ in 0..2 {
            let refused = store.consumer("c").next().await;
            assert!(
                matches!(refused, Err(ConsumerError::Damaged { .. })),
                "{refused:?}"
            );
        }
        let listed = store.consumers().await;
        assert!(
            matches!(listed, Err(ConsumerError::Damaged { .. })),
            "{listed:?}"
        );
        put(&store, "/5", "v").await;
        assert_eq!(bench.disk.image()[&db()], garbage, "it is not rebuilt");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_of_another_store_is_refused() {
    let bench = in_the_middle(true).await;
    let mut config = bench.config();
    config.id = StoreId([4; 16]);
    let mut image = Image::new();
    for path in [db(), sums()] {
        image.insert(path.clone(), bench.disk.image()[&path].clone());
    }
    let disk = MemDisk::new(&image);
    config.disk = std::sync::Arc::new(disk);
    let store = soon(lattice::Store::open(config)).await.unwrap();
    let consumer = store.consumer("c");
    let refused = soon(consumer.next()).await;
    assert!(
        matches!(refused, Err(ConsumerError::DamagedConsumer { .. })),
        "{refused:?}"
    );
    let refused = consumer.reset(ConsumerStart::Now).await;
    assert!(
        matches!(refused, Err(ConsumerError::DamagedConsumer { .. })),
        "{refused:?}"
    );
    let status = consumer.show().await.unwrap();
    assert!(
        matches!(status.state, ConsumerState::Stopped { .. }),
        "{status:?}"
    );
    consumer.delete().await.unwrap();
    consumer.create(options(ConsumerStart::Now)).await.unwrap();
    nothing_comes(&consumer).await;
}

/// Every change of the disk fails once while a consumer is at work: callers are told, the next
/// call opens the file again, and nothing that was not durable is lost.
#[tokio::test(flavor = "multi_thread")]
async fn failed_write_is_reported_and_loses_nothing() {
    let base = in_the_middle(true).await.disk.image();
    let mut told = 0;
    for (errno, number) in [EIO, ENOSPC]
        .into_iter()
        .flat_map(|errno| (1..).map(move |n| (errno, n)).take(30))
    {
        let bench = Bench::on(&base);
        let store = bench.open().await;
        let consumer = store.consumer("c");
        consumer.show().await.unwrap();
        bench.clock.advance(10_000);
        bench.disk.fail(number, errno, Fail::Changes);
        let (mut acked, mut durable) = (BTreeSet::new(), BTreeSet::new());
        let mut after = BTreeSet::new();
        for _ in 0..3 {
            let taken = match soon(consumer.next()).await {
                Ok(taken) => taken,
                Err(error) => {
                    assert!(matches!(error, ConsumerError::Io { .. }), "{error:?}");
                    assert!(bench.disk.has_failed());
                    told += 1;
                    break;
                }
            };
            let key = key(&taken);
            if taken.ack().is_ok() {
                acked.insert(key);
            }
            match consumer.flush().await {
                Ok(()) => durable = acked.clone(),
                Err(ConsumerError::Io { .. }) if bench.disk.has_failed() => {
                    told += 1;
                    break;
                }
                Err(other) => panic!("operation {number}: {other:?}"),
            }
        }
        // Once: it is open again with the next call.
        for attempt in 0.. {
            match drain_into(&mut after, &bench, &consumer).await {
                Ok(()) => break,
                Err(ConsumerError::Io { .. }) if bench.disk.has_failed() && attempt == 0 => {
                    told += 1;
                }
                Err(other) => panic!("operation {number}: {other:?}"),
            }
        }
        assert!(
            after.is_disjoint(&durable),
            "operation {number}: {after:?} after {durable:?}"
        );
        after.extend(acked);
        let owed: BTreeSet<String> = ["/1", "/3", "/4"].map(str::to_owned).into();
        assert!(after.is_superset(&owed), "operation {number}: {after:?}");
    }
    assert!(told >= 10, "{told} errors were told");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_history_stops_until_reset() {
    let bench = Bench::new();
    let store = bench.open().await;
    for n in 0..3 {
        put(&store, &format!("/{n}"), &"v".repeat(3000)).await;
    }
    soon(store.close()).await.unwrap();
    let mut image = bench.disk.image();
    let log = image
        .keys()
        .find(|path| path.starts_with("/store/logs"))
        .unwrap()
        .clone();
    image.get_mut(&log).unwrap()[4500] ^= 1;
    let bench = Bench::on(&image);
    let store = bench.open().await;
    let consumer = created(&store, "c").await;
    let refused = loop {
        match soon(consumer.next()).await {
            Ok(delivery) => delivery.ack().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, ConsumerError::HistoryGone { .. }),
        "{refused:?}"
    );
    consumer.flush().await.unwrap();
    let bench = bench.killed();
    let store = bench.open().await;
    let consumer = store.consumer("c");
    let refused = soon(consumer.next()).await;
    assert!(
        matches!(refused, Err(ConsumerError::HistoryGone { .. })),
        "{refused:?}"
    );
    consumer.reset(ConsumerStart::Now).await.unwrap();
    put(&store, "/after", "v").await;
    assert_eq!(key(&next(&consumer).await), "/after");
}

/// The log has lost an entry that was fed and not finished: it becomes a dead letter, and does not
/// hold up the others.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_change_is_a_dead_letter() {
    let bench = Bench::new();
    let store = bench.open().await;
    for n in 0..3 {
        put(&store, &format!("/{n}"), &"v".repeat(3000)).await;
    }
    let consumer = created(&store, "c").await;
    let held = [
        next(&consumer).await,
        next(&consumer).await,
        next(&consumer).await,
    ];
    soon(store.close()).await.unwrap();
    let mut image = bench.disk.image();
    drop(held);
    let log = image
        .keys()
        .find(|path| path.starts_with("/store/logs"))
        .unwrap()
        .clone();
    image.get_mut(&log).unwrap()[4500] ^= 1;
    let bench = Bench::on(&image);
    let store = bench.open().await;
    let consumer = store.consumer("c");
    let keys = drain(&bench, &consumer).await.unwrap();
    assert_eq!(keys, ["/0", "/2"].map(str::to_owned).into());
    let dead = consumer.dead().await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        dead[0].reason,
        lattice::protocol::consumer::DeathReason::Unreadable
    );
}
