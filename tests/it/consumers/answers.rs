//! Ends of a delivery: acknowledged, given back, dropped, timed out, dead.

use std::{collections::BTreeSet, time::Duration};

use lattice::{
    protocol::consumer::{AckError, DeathReason, DeliveryId},
    store::{
        Write,
        consumers::{ConsumerError, ConsumerOptions, ConsumerStart},
    },
};
use tokio_stream::StreamExt as _;

use super::setup::{Bench, created, key, next, nothing_comes, options, put, soon, value};
use crate::support::disk::Operation;

#[tokio::test(flavor = "multi_thread")]
async fn clean_restart_redelivers_only_unacknowledged() {
    let bench = Bench::new();
    let store = bench.open().await;
    put(&store, "/a", "1").await;
    put(&store, "/b", "2").await;
    let consumer = created(&store, "billing").await;
    let first = next(&consumer).await;
    assert_eq!((key(&first).as_str(), first.attempt()), ("/a", 1));
    assert_eq!(value(&first).unwrap(), "1");
    first.ack().unwrap();
    let second = next(&consumer).await;
    assert_eq!(key(&second), "/b");
    soon(store.close()).await.unwrap();
    assert!(matches!(second.ack(), Err(ConsumerError::Closed)));
    assert!(matches!(consumer.next().await, Err(ConsumerError::Closed)));
    drop((store, consumer));

    let store = bench.open().await;
    put(&store, "/c", "3").await;
    let consumer = store.consumer("billing");
    // From now on it waits for its second attempt.
    consumer.show().await.unwrap();
    bench.clock.advance(100);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let delivery = next(&consumer).await;
        seen.push((
            key(&delivery),
            value(&delivery).unwrap(),
            delivery.attempt(),
        ));
        delivery.ack().unwrap();
    }
    seen.sort();
    let expected = [("/b", "2", 2), ("/c", "3", 1)];
    assert_eq!(seen, expected.map(|(k, v, n)| (k.to_owned(), v.into(), n)));
    nothing_comes(&consumer).await;
    let status = consumer.show().await.unwrap();
    assert_eq!(
        (status.acked, status.redelivered, status.outstanding),
        (3, 1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_redelivers_unacknowledged_with_attempts() {
    let bench = Bench::new();
    let store = bench.open().await;
    for n in 0..4 {
        put(&store, &format!("/{n}"), "v").await;
    }
    let consumer = created(&store, "billing").await;
    let (zero, one) = (next(&consumer).await, next(&consumer).await);
    zero.ack().unwrap();
    let held_by_another_process = next(&consumer).await.detach().unwrap();
    consumer.flush().await.unwrap();

    let bench = bench.killed();
    let store = bench.open().await;
    let again = store.consumer("billing");
    again.show().await.unwrap();
    bench.clock.advance(100);
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let delivery = next(&again).await;
        seen.insert((key(&delivery), delivery.attempt()));
        delivery.ack().unwrap();
    }
    assert_eq!(
        seen,
        BTreeSet::from([("/1".to_owned(), 2), ("/3".to_owned(), 1)])
    );
    nothing_comes(&again).await;
    again.ack(held_by_another_process).await.unwrap();
    let twice = again.ack(held_by_another_process).await;
    assert!(
        matches!(
            twice,
            Err(ConsumerError::Ack(AckError::NotOutstanding { .. }))
        ),
        "{twice:?}"
    );
    drop(one);
}

#[tokio::test(flavor = "multi_thread")]
async fn takers_share_without_duplicates() {
    let bench = Bench::new();
    let store = bench.open().await;
    let writes = (0..300).map(|n| Write::put(format!("/{n}"), "v")).collect();
    for written in soon(store.write_many(writes)).await {
        written.unwrap();
    }
    let consumer = created(&store, "shared").await;
    // Nobody takes a second one before each has one.
    let all_have_one = std::sync::Arc::new(tokio::sync::Barrier::new(4));
    let takers = (0..4).map(|_| {
        let mut deliveries = consumer.deliveries();
        let all_have_one = std::sync::Arc::clone(&all_have_one);
        tokio::spawn(async move {
            let mut taken = Vec::new();
            let pause = Duration::from_secs(3);
            while let Ok(Some(delivery)) = tokio::time::timeout(pause, deliveries.next()).await {
                let delivery = delivery.unwrap();
                taken.push(key(&delivery));
                if taken.len() == 1 {
                    all_have_one.wait().await;
                }
                delivery.ack().unwrap();
            }
            taken
        })
    });
    let mut all = Vec::new();
    let mut busy = 0;
    for taker in takers.collect::<Vec<_>>() {
        let taken = soon(taker).await.unwrap();
        busy += usize::from(!taken.is_empty());
        all.extend(taken);
    }
    assert_eq!(busy, 4);
    assert_eq!(all.len(), 300);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_comes_in_order_and_blocks_no_other() {
    let bench = Bench::new();
    let store = bench.open().await;
    for (key, value) in [("/a", "1"), ("/a", "2"), ("/b", "1"), ("/a", "3")] {
        put(&store, key, value).await;
    }
    let consumer = created(&store, "c").await;
    let a1 = next(&consumer).await;
    let b1 = next(&consumer).await;
    assert_eq!((key(&a1), key(&b1)), ("/a".to_owned(), "/b".to_owned()));
    nothing_comes(&consumer).await;
    a1.nack(Some(Duration::from_millis(10))).unwrap();
    nothing_comes(&consumer).await;
    bench.clock.advance(10);
    for value_expected in ["1", "2", "3"] {
        let delivery = next(&consumer).await;
        assert_eq!(value(&delivery).unwrap(), value_expected);
        nothing_comes(&consumer).await;
        delivery.ack().unwrap();
    }
    b1.ack().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_or_late_change_returns_until_dead() {
    let bench = Bench::new();
    let store = bench.open().await;
    put(&store, "/a", "v").await;
    let consumer = store.consumer("c");
    let few = ConsumerOptions {
        max_deliver: Some(3),
        ..options(ConsumerStart::Beginning)
    };
    consumer.create(few).await.unwrap();
    drop(next(&consumer).await);
    nothing_comes(&consumer).await;
    bench.clock.advance(100);
    let late = next(&consumer).await;
    assert_eq!(late.attempt(), 2);
    bench.clock.advance(900);
    late.extend().unwrap();
    bench.clock.advance(999);
    nothing_comes(&consumer).await;
    bench.clock.advance(1);
    nothing_comes(&consumer).await;
    bench.clock.advance(500);
    let third = next(&consumer).await;
    assert_eq!(third.attempt(), 3);
    let refused = late.ack();
    assert!(
        matches!(
            refused,
            Err(ConsumerError::Ack(AckError::GivenAgain { attempts: 3, .. }))
        ),
        "{refused:?}"
    );
    bench.clock.advance(1000);
    nothing_comes(&consumer).await;
    let dead = consumer.dead().await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].reason, dead[0].attempts),
        (DeathReason::MaxDeliver, 3)
    );
    assert_eq!(&dead[0].change.key[..], b"/a");
    let refused = third.ack();
    assert!(
        matches!(refused, Err(ConsumerError::Ack(AckError::Dead { .. }))),
        "{refused:?}"
    );

    assert_eq!(consumer.dead_retry(&[99]).await.unwrap(), 0);
    assert_eq!(consumer.dead_retry(&[]).await.unwrap(), 1);
    let again = next(&consumer).await;
    assert_eq!((again.attempt(), key(&again)), (1, "/a".to_owned()));
    again.term().unwrap();
    let bench = bench.killed_after(&consumer).await;
    let store = bench.open().await;
    let consumer = store.consumer("c");
    let dead = consumer.dead().await.unwrap();
    assert_eq!(dead[0].reason, DeathReason::Terminated);
    assert_eq!(consumer.dead_skip(&[dead[0].number]).await.unwrap(), 1);
    assert_eq!(consumer.show().await.unwrap().dead, 0);
    nothing_comes(&consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_ids_are_refused() {
    let bench = Bench::new();
    let store = bench.open().await;
    let consumer = created(&store, "c").await;
    let id: DeliveryId = format!("{}.1", "ab".repeat(16)).parse().unwrap();
    for refused in [
        consumer.ack(id).await,
        consumer.nack(id, None).await,
        consumer.term(id).await,
        consumer.extend(id).await,
    ] {
        assert!(
            matches!(
                refused,
                Err(ConsumerError::Ack(AckError::NotOutstanding { .. }))
            ),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_in_flight_bounds_outstanding_changes() {
    let bench = Bench::new();
    let store = bench.open().await;
    for n in 0..5 {
        put(&store, &format!("/{n}"), "v").await;
    }
    let consumer = store.consumer("c");
    let narrow = ConsumerOptions {
        max_in_flight: 2,
        ..options(ConsumerStart::Beginning)
    };
    consumer.create(narrow).await.unwrap();
    let (one, two) = (next(&consumer).await, next(&consumer).await);
    nothing_comes(&consumer).await;
    let status = consumer.show().await.unwrap();
    assert_eq!((status.outstanding, status.in_flight), (2, 2));
    assert_eq!(status.backlog_entries, 3);
    one.ack().unwrap();
    assert_eq!(key(&next(&consumer).await), "/2");
    two.ack().unwrap();

    let single = store.consumer("single");
    let ops = ["/x", "/y", "/z"].map(|key| crate::support::model::put(key, "v"));
    soon(store.batch(ops.to_vec())).await.unwrap();
    let one_at_a_time = ConsumerOptions {
        max_in_flight: 1,
        prefixes: vec!["/x".into(), "/y".into(), "/z".into()],
        ..options(ConsumerStart::Beginning)
    };
    single.create(one_at_a_time).await.unwrap();
    next(&single).await.ack().unwrap();
    // Killed in the middle of the batch: the position has passed all of it, the rest is saved.
    let bench = bench.killed_after(&single).await;
    let store = bench.open().await;
    let single = store.consumer("single");
    let rest = [key(&next(&single).await), key(&next(&single).await)];
    assert_eq!(rest, ["/y", "/z"]);
    nothing_comes(&single).await;
}

/// With one place in flight, what dies because its time was over makes room for the next: the
/// feeder was not notified, and the consumer stood still.
#[tokio::test(flavor = "multi_thread")]
async fn timed_out_change_makes_room() {
    let bench = Bench::new();
    let store = bench.open().await;
    for n in 0..3 {
        put(&store, &format!("/{n}"), "v").await;
    }
    let consumer = store.consumer("c");
    let one = ConsumerOptions {
        max_in_flight: 1,
        max_deliver: Some(1),
        ..options(ConsumerStart::Beginning)
    };
    consumer.create(one).await.unwrap();
    let zero = next(&consumer).await;
    bench.clock.advance(1000);
    let one = next(&consumer).await;
    assert_eq!((key(&zero), key(&one)), ("/0".to_owned(), "/1".to_owned()));
    bench.clock.advance(1000);
    assert_eq!(consumer.show().await.unwrap().dead, 2);
    assert_eq!(key(&next(&consumer).await), "/2");
}

#[tokio::test(flavor = "multi_thread")]
async fn ack_is_durable_soon() {
    let bench = Bench::new();
    let store = bench.open().await;
    put(&store, "/a", "v").await;
    let consumer = created(&store, "c").await;
    let delivery = next(&consumer).await;
    consumer.flush().await.unwrap();
    let before = bench.disk.recorded();
    delivery.ack().unwrap();
    let syncs = || {
        let operations = bench.disk.operations();
        let since = operations[before..].iter();
        since
            .filter(|done| matches!(done, Operation::Sync(_)))
            .count()
    };
    let durable = async {
        // A commit has two phases.
        while syncs() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(durable).await;
    let store = bench.killed().open().await;
    nothing_comes(&store.consumer("c")).await;
}

/// More than the bus holds, many times: the feeder goes back to the log and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn long_log_is_acknowledged_one_by_one() {
    const CHANGES: usize = 20_000;
    let bench = Bench::new();
    let store = bench.open().await;
    let consumer = created(&store, "c").await;
    let writes = (0..CHANGES).map(|n| Write::put(format!("/{}", n % 5000), "v"));
    let writing = tokio::spawn({
        let (store, writes) = (store.clone(), writes.collect());
        async move { store.write_many(writes).await }
    });
    let begun = std::time::Instant::now();
    let mut newest = 0;
    for _ in 0..CHANGES {
        let delivery = next(&consumer).await;
        let entry = delivery.change().entry;
        assert!(entry.seq >= newest, "per author in sequence");
        newest = entry.seq;
        delivery.ack().unwrap();
    }
    eprintln!("{CHANGES} changes acknowledged in {:?}", begun.elapsed());
    soon(writing).await.unwrap();
    nothing_comes(&consumer).await;
    assert_eq!(consumer.show().await.unwrap().acked, CHANGES as u64);
}

impl Bench {
    /// The machine after a kill at which all that was answered is durable.
    async fn killed_after(&self, consumer: &lattice::store::consumers::Consumer) -> Self {
        consumer.flush().await.unwrap();
        self.killed()
    }
}
