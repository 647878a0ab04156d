//! Watches that resume with a cursor at a replica whose clock differs.

use std::collections::BTreeMap;

use lattice::{
    clock::Clock,
    protocol::{change::Change, cursor::Cursor, entry::Op},
    store::{
        Start, Watch, WatchEvent, WatchOptions, Write,
        consumers::{ConsumerOptions, ConsumerStart},
    },
};

use crate::{
    consumers::{setup as consumers, setup::options},
    guarantees::replica::{Replica, START_MS, soon},
    support::{
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C},
        watch::{next, nothing},
    },
};

async fn replica(secret: [u8; 32]) -> Replica {
    Replica::open(secret, Clock::manual(START_MS), BTreeMap::new()).await
}

// Moves a clock to `ms` after the start, and waits until the expiries due by then are delivered.
async fn come_to(replica: &Replica, ms: u64) {
    let ms = START_MS + ms;
    let last = Write::put(format!("/last/{ms}"), "").expires_ms(ms);
    soon(replica.store.write(last)).await.unwrap();
    replica.clock.set(ms);
    let told_ms = || {
        let now = watch(replica, Start::Now);
        now.cursor().expired_through_ms
    };
    while told_ms() < ms {
        // Wakes the writer, which looks at the clock a few times a second otherwise.
        soon(replica.store.put("/wake", "")).await.unwrap();
    }
}

fn watch(replica: &Replica, start: Start) -> Watch {
    replica.store.watch_with(WatchOptions {
        prefixes: vec!["/lease/".into()],
        start,
        ..WatchOptions::default()
    })
}

fn go_on(replica: &Replica, cursor: &Cursor) -> Watch {
    // The cursor travels as text, as a user would carry it.
    watch(replica, Start::After(cursor.to_string().parse().unwrap()))
}

fn ttl(key: &'static str, ms: u64) -> Op {
    Op::Put {
        key: key.into(),
        value: "v".into(),
        expires_ms: Some(START_MS + ms),
    }
}

async fn write(replica: &Replica, key: &'static str, ms: u64) {
    let write = Write::put(key, "v").expires_ms(START_MS + ms);
    soon(replica.store.write(write)).await.unwrap();
}

fn line(change: &Change) -> String {
    format!(
        "{} {}",
        change.kind.name(),
        String::from_utf8_lossy(&change.key)
    )
}

// Returns the changes up to `CaughtUp`.
async fn replayed(watch: &mut Watch) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match next(watch).await {
            WatchEvent::Change(change) => told.push(line(&change)),
            WatchEvent::CaughtUp => return told,
            other => panic!("{other:?}"),
        }
    }
}

// Puts `/lease/end` and returns the changes before it.
async fn live(watch: &mut Watch, replica: &Replica) -> Vec<String> {
    soon(replica.store.put("/lease/end", "")).await.unwrap();
    let mut told = Vec::new();
    loop {
        match next(watch).await {
            WatchEvent::Change(change) if change.key == "/lease/end" => return told,
            WatchEvent::Change(change) => told.push(line(&change)),
            // It may fall behind, and catch up.
            WatchEvent::Progress | WatchEvent::CaughtUp => {}
            other => panic!("{other:?}"),
        }
    }
}

// Told again before: a watch that had caught up forgot the time of its cursor, and the next one
// began behind that.
#[tokio::test(flavor = "multi_thread")]
async fn expiry_of_a_fast_clock_is_not_repeated() {
    let (fast, slow) = (replica(AUTHOR_A).await, replica(AUTHOR_B).await);
    write(&slow, "/lease/a", 50).await;
    write(&slow, "/lease/later", 200).await;
    fast.sync(&slow, None).await;
    let mut reader = go_on(&fast, &nothing(&fast.store));
    let told = replayed(&mut reader).await;
    assert_eq!(told, ["put /lease/a", "put /lease/later"]);
    come_to(&fast, 100).await;
    assert_eq!(live(&mut reader, &fast).await, ["expire /lease/a"]);

    slow.sync(&fast, None).await;
    let mut reader = go_on(&slow, &reader.cursor());
    assert_eq!(replayed(&mut reader).await, NOTHING);
    come_to(&slow, 40).await;
    assert_eq!(live(&mut reader, &slow).await, NOTHING);
    let before = reader.cursor();
    assert_eq!(before.expired_through_ms, START_MS + 100);
    come_to(&slow, 60).await;
    assert_eq!(live(&mut reader, &slow).await, NOTHING);
    assert_eq!(reader.cursor().expired_through_ms, START_MS + 100);

    // Nor by a third that has yet to come to it, nor by the first.
    let third = replica(AUTHOR_C).await;
    third.sync(&slow, None).await;
    let mut reader = go_on(&third, &before);
    assert_eq!(replayed(&mut reader).await, ["put /lease/end"]);
    come_to(&third, 70).await;
    assert_eq!(live(&mut reader, &third).await, NOTHING);
    fast.sync(&third, None).await;
    let mut reader = go_on(&fast, &reader.cursor());
    assert_eq!(replayed(&mut reader).await, NOTHING);
    // An expiry that no replica has delivered is delivered here.
    come_to(&fast, 200).await;
    assert_eq!(live(&mut reader, &fast).await, ["expire /lease/later"]);
}

// Lost before: if a value came too late for the fast clock, no replica delivered its expiry.
#[tokio::test(flavor = "multi_thread")]
async fn value_expired_on_arrival_expires_once() {
    let (fast, slow) = (replica(AUTHOR_A).await, replica(AUTHOR_B).await);
    come_to(&fast, 100).await;
    slow.sync(&fast, None).await;
    let ahead = watch(&fast, Start::Now).cursor();
    assert_eq!(ahead.expired_through_ms, START_MS + 100);

    write(&slow, "/lease/behind", 55).await;
    write(&slow, "/lease/behind", 50).await;
    let mut reader = go_on(&slow, &ahead);
    let told = replayed(&mut reader).await;
    // One was superseded by the time the replay began: only the winner expires.
    let put = "put /lease/behind";
    assert_eq!(told, [put, put, "expire /lease/behind"]);
    write(&slow, "/lease/live", 60).await;
    write(&slow, "/lease/later", 150).await;
    let told = live(&mut reader, &slow).await;
    assert_eq!(
        told,
        ["put /lease/live", "expire /lease/live", "put /lease/later"]
    );
    assert_eq!(reader.cursor().expired_through_ms, START_MS + 100);
    // The clock of the replica is another matter.
    assert!(slow.store.get(b"/lease/live").await.unwrap().is_some());
    let told = reader.cursor();
    come_to(&slow, 99).await;
    assert_eq!(live(&mut reader, &slow).await, NOTHING);
    come_to(&slow, 150).await;
    assert_eq!(live(&mut reader, &slow).await, ["expire /lease/later"]);

    // The fast replica gets the value after it expired there, and delivers the expiry to watches
    // that did not get it.
    let mut there = watch(&fast, Start::Now);
    assert_eq!(next(&mut there).await, WatchEvent::CaughtUp);
    fast.sync(&slow, None).await;
    let expiry = |line: &&String| *line == "expire /lease/live";
    let all = live(&mut there, &fast).await;
    assert_eq!(all.iter().filter(expiry).count(), 1, "{all:?}");
    let mut reader = go_on(&fast, &told);
    assert!(
        replayed(&mut reader)
            .await
            .iter()
            .all(|line| !expiry(&line))
    );
}

// This watch has not learned the time: the expiries meanwhile were of other keys.
#[tokio::test(flavor = "multi_thread")]
async fn quiet_watch_learns_the_time_with_a_change() {
    let replica = replica(AUTHOR_A).await;
    let mut reader = go_on(&replica, &nothing(&replica.store));
    assert_eq!(replayed(&mut reader).await, NOTHING);
    come_to(&replica, 100).await;
    assert!(reader.cursor().expired_through_ms < START_MS + 100);
    write(&replica, "/lease/a", 50).await;
    let told = live(&mut reader, &replica).await;
    assert_eq!(told, ["put /lease/a", "expire /lease/a"]);
    assert_eq!(reader.cursor().expired_through_ms, START_MS + 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_batch_is_never_split_by_a_cursor() {
    let (fast, slow) = (replica(AUTHOR_A).await, replica(AUTHOR_B).await);
    come_to(&fast, 100).await;
    slow.sync(&fast, None).await;
    let before = watch(&fast, Start::Now).cursor();
    let ops = vec![
        ttl("/lease/a", 50),
        ttl("/lease/b", 150),
        ttl("/lease/c", 60),
    ];
    soon(slow.store.batch(ops)).await.unwrap();
    let batch = [
        "put /lease/a",
        "put /lease/b",
        "put /lease/c",
        "expire /lease/a",
        "expire /lease/c",
    ];
    let mut reader = go_on(&slow, &before);
    for told in batch {
        assert_eq!(reader.cursor(), before);
        let event = next(&mut reader).await;
        assert!(
            matches!(&event, WatchEvent::Change(change) if line(change) == told),
            "{event:?}"
        );
    }
    assert_eq!(reader.cursor().frontier, slow.store.frontier());
    // A watch that stopped inside the batch gets it again, also on another replica.
    fast.sync(&slow, None).await;
    assert_eq!(replayed(&mut go_on(&fast, &before)).await, batch);
    assert_eq!(replayed(&mut go_on(&fast, &reader.cursor())).await, NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_never_splits_a_value_from_its_expiry() {
    let (fast, slow) = (replica(AUTHOR_A).await, replica(AUTHOR_B).await);
    come_to(&fast, 100).await;
    slow.sync(&fast, None).await;
    let mut reader = go_on(&slow, &watch(&fast, Start::Now).cursor());
    assert_eq!(replayed(&mut reader).await, NOTHING);
    // They share an entry.
    let keys = ["/lease/a", "/lease/b"];
    let writes = keys.map(|key| Write::put(key, "v").expires_ms(START_MS + 50));
    for written in soon(slow.store.write_many(writes.into())).await {
        written.unwrap();
    }
    let all = [
        "put /lease/a",
        "expire /lease/a",
        "put /lease/b",
        "expire /lease/b",
    ];
    for at in 0..all.len() {
        let begin = at / 2 * 2;
        let event = next(&mut go_on(&slow, &reader.cursor())).await;
        assert!(
            matches!(&event, WatchEvent::Change(change) if line(change) == all[begin]),
            "{event:?}"
        );
        let event = next(&mut reader).await;
        assert!(
            matches!(&event, WatchEvent::Change(change) if line(change) == all[at]),
            "{event:?}"
        );
    }
    assert_eq!(replayed(&mut go_on(&slow, &reader.cursor())).await, NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_since_a_future_time_is_not_ahead() {
    let replica = replica(AUTHOR_A).await;
    come_to(&replica, 10).await;
    let since = START_MS + 1000;
    for start in [
        Start::SinceAuthored { ms: since },
        Start::SinceArrived { ms: since },
    ] {
        let mut reader = watch(&replica, start);
        assert_eq!(replayed(&mut reader).await, NOTHING);
        assert_eq!(reader.cursor().expired_through_ms, START_MS + 10);
        write(&replica, "/lease/a", 50).await;
        assert_eq!(live(&mut reader, &replica).await, ["put /lease/a"]);
    }
}

// Both come in one piece, though there is room for one.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_ahead_of_its_clock_repeats_no_expiry() {
    let (fast, slow) = (replica(AUTHOR_A).await, replica(AUTHOR_B).await);
    write(&slow, "/lease/told", 40).await;
    fast.sync(&slow, None).await;
    come_to(&fast, 100).await;
    slow.sync(&fast, None).await;
    let consumer = slow.store.consumer("c");
    let from = ConsumerStart::After(watch(&fast, Start::Now).cursor());
    let options = ConsumerOptions {
        prefixes: vec!["/lease/".into()],
        max_in_flight: 1,
        ..options(from)
    };
    soon(consumer.create(options)).await.unwrap();
    write(&slow, "/lease/a", 50).await;
    for told in ["put /lease/a", "expire /lease/a"] {
        let delivery = consumers::next(&consumer).await;
        assert_eq!(line(delivery.change()), told);
        delivery.ack().unwrap();
    }
    come_to(&slow, 60).await;
    consumers::nothing_comes(&consumer).await;
}

const NOTHING: [&str; 0] = [];
