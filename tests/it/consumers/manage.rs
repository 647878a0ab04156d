//! Consumers are made, shown, paused, reset and deleted; invalid ones are refused.

use std::time::Duration;

use lattice::{
    id::{EntryId, StoreId},
    limits::{CONSUMER_IN_FLIGHT_MAX, CONSUMERS_MAX},
    protocol::{consumer::State, cursor::Cursor, frontier::FrontierTip},
    store::{
        Start, WatchError, WatchEvent, WatchOptions, Write,
        consumers::{
            ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerStart, ConsumerState, Idle,
        },
    },
};
use tokio_stream::StreamExt as _;

use super::setup::{
    Bench, created, is_unknown, key, next, nothing_comes, options, put, soon, until,
};
use crate::support::model::{AUTHOR_A, author_of};

#[tokio::test(flavor = "multi_thread")]
async fn consumer_begins_at_its_start() {
    let bench = Bench::new();
    let store = bench.open().await;
    put(&store, "/1", "v").await;
    bench.clock.advance(1000);
    put(&store, "/2", "v").await;
    let mut watch = store.watch_with(WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    });
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::CaughtUp);
    let cursor = watch.cursor();
    put(&store, "/3", "v").await;
    let starts = [
        (ConsumerStart::Beginning, vec!["/1", "/2", "/3", "/4"]),
        (ConsumerStart::Now, vec!["/4"]),
        (ConsumerStart::After(cursor), vec!["/3", "/4"]),
        (
            ConsumerStart::SinceAuthored {
                ms: bench.clock.now_ms(),
            },
            vec!["/2", "/3", "/4"],
        ),
        (
            ConsumerStart::SinceArrived {
                ms: bench.clock.now_ms(),
            },
            vec!["/2", "/3", "/4"],
        ),
    ];
    let mut consumers = Vec::new();
    for (n, (from, keys)) in starts.into_iter().enumerate() {
        let consumer = store.consumer(&format!("c{n}"));
        soon(consumer.create(options(from))).await.unwrap();
        consumers.push((consumer, keys));
    }
    put(&store, "/4", "v").await;
    // Half of it before a kill, half after.
    for (consumer, keys) in &mut consumers {
        if keys.len() > 1 {
            let delivery = next(consumer).await;
            assert_eq!(key(&delivery), keys.remove(0));
            delivery.ack().unwrap();
        }
    }
    consumers[0].0.flush().await.unwrap();
    let store = bench.killed().open().await;
    for (consumer, keys) in consumers {
        let consumer = store.consumer(consumer.name());
        for expected in keys {
            let delivery = next(&consumer).await;
            assert_eq!(key(&delivery), expected, "{}", consumer.name());
            delivery.ack().unwrap();
        }
        nothing_comes(&consumer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_consumer_is_refused() {
    let bench = Bench::new();
    let store = bench.open().await;
    assert!(is_unknown(store.consumer("nobody").next().await));
    for name in ["", "a/b", "a b", "ä", &"x".repeat(65)] {
        let refused = store
            .consumer(name)
            .create(ConsumerOptions::default())
            .await;
        assert!(
            matches!(refused, Err(ConsumerError::Name { .. })),
            "{refused:?}"
        );
    }
    let base = ConsumerOptions::default;
    for wrong in [
        ConsumerOptions {
            max_in_flight: 0,
            ..base()
        },
        ConsumerOptions {
            max_in_flight: CONSUMER_IN_FLIGHT_MAX + 1,
            ..base()
        },
        ConsumerOptions {
            max_deliver: Some(0),
            ..base()
        },
        ConsumerOptions {
            ack_wait: Duration::ZERO,
            ..base()
        },
        ConsumerOptions {
            backoff: vec![Duration::ZERO; 17],
            ..base()
        },
        ConsumerOptions {
            prefixes: vec!["/x".into(); 65],
            ..base()
        },
        ConsumerOptions {
            prefixes: vec![vec![b'x'; 4097].into()],
            ..base()
        },
    ] {
        let refused = store.consumer("c").create(wrong).await;
        assert!(
            matches!(refused, Err(ConsumerError::Option { .. })),
            "{refused:?}"
        );
    }
    let mut foreign: Cursor = store.watch("").cursor();
    foreign.store = StoreId([1; 16]);
    let refused = store
        .consumer("c")
        .create(options(ConsumerStart::After(foreign)))
        .await;
    assert!(
        matches!(
            refused,
            Err(ConsumerError::Start(WatchError::ForeignCursor { .. }))
        ),
        "{refused:?}"
    );
    let mut ahead: Cursor = store.watch("").cursor();
    let tip = FrontierTip {
        seq: 7,
        id: EntryId([9; 32]),
    };
    ahead.frontier.insert(author_of(AUTHOR_A), tip);
    let refused = store
        .consumer("c")
        .create(options(ConsumerStart::After(ahead)))
        .await;
    let Err(ConsumerError::Start(WatchError::Behind { missing })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (missing[0].author, missing[0].through),
        (author_of(AUTHOR_A), 7)
    );
    assert!(
        is_unknown(store.consumer("c").next().await),
        "nothing was made"
    );

    created(&store, "c").await;
    let same = store
        .consumer("c")
        .create(options(ConsumerStart::Now))
        .await;
    assert!(same.is_ok(), "where it began is of no account: {same:?}");
    let other = ConsumerOptions {
        max_in_flight: 3,
        ..options(ConsumerStart::Beginning)
    };
    let refused = store.consumer("c").create(other).await;
    assert!(
        matches!(
            refused,
            Err(ConsumerError::Exists {
                differs: "max_in_flight",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn number_of_consumers_is_bounded() {
    let store = Bench::new().open().await;
    let many = (0..CONSUMERS_MAX).map(|n| {
        let consumer = store.consumer(&format!("c{n}"));
        tokio::spawn(async move { consumer.create(ConsumerOptions::default()).await })
    });
    for made in many.collect::<Vec<_>>() {
        soon(made).await.unwrap().unwrap();
    }
    let refused = store
        .consumer("more")
        .create(ConsumerOptions::default())
        .await;
    assert!(
        matches!(refused, Err(ConsumerError::TooMany)),
        "{refused:?}"
    );
    assert_eq!(store.consumers().await.unwrap().len(), CONSUMERS_MAX);
    store.consumer("c7").delete().await.unwrap();
    store
        .consumer("more")
        .create(ConsumerOptions::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_prefixes_and_a_quiet_one_advance() {
    let bench = Bench::new();
    let store = bench.open().await;
    let consumer = store.consumer("c");
    let two = ConsumerOptions {
        prefixes: vec!["/jobs/a".into(), "/jobs/b/".into()],
        ..options(ConsumerStart::Beginning)
    };
    consumer.create(two).await.unwrap();
    for key in [
        "/jobs/b",
        "/jobs/a1",
        "/job",
        "/jobs/b/1",
        "/jobs/c",
        "/jobs/a",
    ] {
        put(&store, key, "v").await;
    }
    for expected in ["/jobs/a1", "/jobs/b/1", "/jobs/a"] {
        let delivery = next(&consumer).await;
        assert_eq!(key(&delivery), expected);
        delivery.ack().unwrap();
    }
    for _ in 0..3 {
        put(&store, "/elsewhere", "v").await;
    }
    until(&consumer, |status| status.backlog_entries == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_survives_a_restart() {
    let bench = Bench::new();
    let store = bench.open().await;
    put(&store, "/a", "v").await;
    let consumer = created(&store, "c").await;
    consumer.pause().await.unwrap();
    nothing_comes(&consumer).await;
    assert_eq!(consumer.show().await.unwrap().state, ConsumerState::Paused);

    let store = bench.killed().open().await;
    let consumer = store.consumer("c");
    nothing_comes(&consumer).await;
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.next().await }
    });
    consumer.resume().await.unwrap();
    let delivery = soon(waiting).await.unwrap().unwrap();
    assert_eq!(key(&delivery), "/a");
    assert_eq!(consumer.show().await.unwrap().state, ConsumerState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_forgets_outstanding_changes() {
    let bench = Bench::new();
    let store = bench.open().await;
    for key in ["/a", "/b", "/c"] {
        put(&store, key, "v").await;
    }
    let consumer = created(&store, "c").await;
    next(&consumer).await.ack().unwrap();
    let taken = next(&consumer).await;
    next(&consumer).await.term().unwrap();
    consumer.reset(ConsumerStart::Now).await.unwrap();
    assert!(taken.ack().is_err(), "it is not outstanding any more");
    nothing_comes(&consumer).await;
    put(&store, "/d", "v").await;
    next(&consumer).await.ack().unwrap();
    consumer.reset(ConsumerStart::Beginning).await.unwrap();
    let store = bench.killed().open().await;
    let consumer = store.consumer("c");
    for expected in ["/a", "/b", "/c", "/d"] {
        let delivery = next(&consumer).await;
        assert_eq!((key(&delivery).as_str(), delivery.attempt()), (expected, 1));
        delivery.ack().unwrap();
    }
    let dead = consumer.dead().await.unwrap();
    assert_eq!(dead.len(), 1, "dead letters stay");
}

/// Options could be changed only by a delete, which loses the position and what is outstanding.
#[tokio::test(flavor = "multi_thread")]
async fn changed_options_lose_nothing() {
    let bench = Bench::new();
    let store = bench.open().await;
    for key in ["/a", "/b", "/c", "/d"] {
        put(&store, key, "v").await;
    }
    let consumer = store.consumer("c");
    let few = ConsumerOptions {
        max_in_flight: 2,
        ..options(ConsumerStart::Beginning)
    };
    soon(consumer.create(few)).await.unwrap();
    let (a, b) = (next(&consumer).await, next(&consumer).await);
    nothing_comes(&consumer).await;
    let status = consumer.show().await.unwrap();
    assert_eq!((status.idle, status.outstanding), (Some(Idle::Full), 2));
    let listed = consumer.outstanding(9).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|waits| waits.id).collect();
    assert_eq!(ids, [a.id(), b.id()]);
    assert!(
        listed
            .iter()
            .all(|waits| matches!(waits.state, State::Taken { .. }))
    );

    let changes = ConsumerChanges {
        max_in_flight: Some(3),
        max_deliver: Some(Some(1)),
        ack_wait: Some(Duration::from_secs(7)),
        ..ConsumerChanges::default()
    };
    consumer.set(changes).await.unwrap();
    let c = next(&consumer).await;
    assert_eq!(key(&c), "/c");
    // The new number of attempts also counts for a change that was taken before.
    b.nack(None).unwrap();
    assert_eq!(consumer.dead().await.unwrap().len(), 1);
    a.ack().unwrap();
    let none = ConsumerChanges {
        max_in_flight: Some(0),
        ..ConsumerChanges::default()
    };
    let refused = consumer.set(none).await;
    assert!(
        matches!(refused, Err(ConsumerError::Option { .. })),
        "{refused:?}"
    );
    consumer.flush().await.unwrap();

    let store = bench.killed().open().await;
    let rules = store.consumer("c").show().await.unwrap().rules;
    assert_eq!(
        (rules.max_in_flight, rules.max_deliver, rules.ack_wait_ms),
        (3, Some(1), 7000)
    );
    assert_eq!(key(&next(&store.consumer("c")).await), "/d");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_consumer_leaves_nothing() {
    let bench = Bench::new();
    let store = bench.open().await;
    put(&store, "/a", "v").await;
    let (consumer, other) = (created(&store, "c").await, created(&store, "d").await);
    let taken = next(&consumer).await;
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.next().await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    consumer.delete().await.unwrap();
    assert!(is_unknown(soon(waiting).await.unwrap()));
    assert!(matches!(taken.ack(), Err(ConsumerError::Unknown { .. })));
    assert!(matches!(
        consumer.delete().await,
        Err(ConsumerError::Unknown { .. })
    ));
    assert!(is_unknown(
        bench.killed().open().await.consumer("c").next().await
    ));
    // A new consumer with the old name is another one.
    let late = ConsumerOptions {
        max_in_flight: 2,
        ..options(ConsumerStart::Now)
    };
    consumer.create(late).await.unwrap();
    nothing_comes(&consumer).await;
    let again = bench.killed().open().await;
    nothing_comes(&again.consumer("c")).await;
    let names: Vec<_> = store.consumers().await.unwrap();
    let names: Vec<_> = names.iter().map(|status| status.name.as_str()).collect();
    assert_eq!(names, ["c", "d"]);
    assert_eq!(key(&next(&other).await), "/a");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_counts_open_and_done_work() {
    let bench = Bench::new();
    let store = bench.open().await;
    let consumer = created(&store, "c").await;
    let status = consumer.show().await.unwrap();
    assert_eq!((status.last_seen_ms, status.created_ms), (None, START_MS));
    assert_eq!(status.state, ConsumerState::Running);
    let writes = (0..6).map(|n| Write::put(format!("/{n}"), "v")).collect();
    for written in soon(store.write_many(writes)).await {
        written.unwrap();
    }
    next(&consumer).await.ack().unwrap();
    let _held = next(&consumer).await;
    bench.clock.advance(5);
    next(&consumer)
        .await
        .nack(Some(Duration::from_secs(9)))
        .unwrap();
    next(&consumer).await.term().unwrap();
    let status = consumer.show().await.unwrap();
    assert_eq!((status.outstanding, status.in_flight), (4, 1));
    assert_eq!((status.acked, status.redelivered, status.dead), (1, 0, 1));
    assert_eq!(status.last_seen_ms, Some(START_MS + 5));
    assert_eq!(status.backlog_entries, 0);
    assert_eq!(status.position.unwrap().frontier, store.frontier());
}

const START_MS: u64 = super::setup::START_MS;
