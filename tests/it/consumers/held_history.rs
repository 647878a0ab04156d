//! Which history consumers hold: what they have not read, not finished, or given up.

use lattice::{
    Store,
    protocol::frontier::{Frontier, FrontierTip},
    store::consumers::{ConsumerChanges, ConsumerOptions, ConsumerStart, HeldHistory},
};

use super::{
    gaps::{prune, with_state},
    setup::{Bench, next, options, put, soon, until},
};

async fn held(store: &Store, points: &[Frontier]) -> Vec<HeldHistory> {
    soon(store.held_history(points.to_vec())).await.unwrap()
}

/// Puts `/0`, `/1` ... a second apart; returns the frontier after each.
async fn fill(bench: &Bench, store: &Store, count: u64) -> Vec<Frontier> {
    let mut points = Vec::new();
    for n in 0..count {
        bench.clock.advance(1000);
        put(store, &format!("/{n}"), "1").await;
        points.push(store.frontier());
    }
    points
}

fn seq(held: &HeldHistory, store: &Store) -> u64 {
    held.place.seq(&store.author())
}

#[tokio::test]
async fn consumer_holds_what_it_has_not_finished() {
    let bench = Bench::new();
    let store = bench.open().await;
    assert_eq!(held(&store, &[]).await, []);
    let start_ms = bench.clock.now_ms();
    let points = fill(&bench, &store, 6).await;
    let consumer = store.consumer("c");
    soon(consumer.create(options(ConsumerStart::Beginning)))
        .await
        .unwrap();
    until(&consumer, |status| status.outstanding == 6).await;
    // All were read and none is finished.
    let all = held(&store, &points).await;
    assert_eq!((all.len(), all[0].consumer.as_str()), (1, "c"));
    assert_eq!((all[0].done, all[0].since_ms), (0, start_ms + 1000));
    assert_eq!((all[0].place.is_empty(), all[0].bytes > 0), (true, true));
    let mut bytes = all[0].bytes;
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(next(&consumer).await);
    }
    // The first and the third are acknowledged: the second one holds.
    let fourth = taken.pop().unwrap();
    taken.remove(2).ack().unwrap();
    taken.remove(0).ack().unwrap();
    let one = held(&store, &points).await;
    assert_eq!((one[0].done, seq(&one[0], &store)), (1, 1));
    assert_eq!(one[0].since_ms, start_ms + 2000);
    assert!(one[0].bytes < bytes);
    bytes = one[0].bytes;
    // A dead letter holds as an outstanding change does.
    taken.remove(0).term().unwrap();
    let dead = held(&store, &points).await;
    assert_eq!((dead[0].done, dead[0].bytes), (1, bytes));
    assert_eq!(soon(consumer.dead_skip(&[])).await.unwrap(), 1);
    let skipped = held(&store, &points).await;
    assert_eq!((skipped[0].done, seq(&skipped[0], &store)), (3, 3));
    let rule = skipped[0].as_rule();
    assert_eq!(
        (rule.done, rule.since_ms, rule.bytes),
        (3, start_ms + 4000, skipped[0].bytes)
    );
    // It is the same after a restart, and while it is paused.
    drop(fourth);
    soon(consumer.pause()).await.unwrap();
    soon(store.close()).await.unwrap();
    let store = bench.open().await;
    let again = held(&store, &points).await;
    assert_eq!(
        (again[0].done, again[0].since_ms, &again[0].place),
        (3, skipped[0].since_ms, &skipped[0].place)
    );
    let consumer = store.consumer("c");
    soon(consumer.resume()).await.unwrap();
    bench.clock.advance(100_000);
    for _ in 0..3 {
        next(&consumer).await.ack().unwrap();
    }
    until(&consumer, |status| status.outstanding == 0).await;
    assert_eq!(held(&store, &points).await, []);
}

#[tokio::test]
async fn consumer_that_is_behind_holds_from_its_position() {
    let bench = Bench::new();
    let store = bench.open().await;
    let before = fill(&bench, &store, 2).await;
    let options = ConsumerOptions {
        max_in_flight: 1,
        ..with_state(ConsumerStart::Beginning)
    };
    let slow = store.consumer("slow");
    soon(slow.create(options.clone())).await.unwrap();
    let quick = store.consumer("quick");
    soon(quick.create(with_state(ConsumerStart::Now)))
        .await
        .unwrap();
    next(&slow).await.ack().unwrap();
    until(&slow, |status| status.outstanding == 1).await;
    // Nothing is outstanding at the second one, and it has read nothing since.
    let room = ConsumerChanges {
        prefixes: Some(vec!["/none".into()]),
        ..ConsumerChanges::default()
    };
    soon(slow.set(room)).await.unwrap();
    let mut points = before.clone();
    points.extend(fill(&bench, &store, 3).await);
    let all = held(&store, &points).await;
    let names: Vec<_> = all
        .iter()
        .map(|it| (it.consumer.as_str(), it.done))
        .collect();
    // Of the first of `quick`, the entry is its third.
    assert_eq!(names, [("quick", 2), ("slow", 1)]);
    // A point that names an entry that is not here is not done, nor are those after it.
    let unknown = {
        let mut unknown = points[0].clone();
        unknown.replace(
            store.author(),
            FrontierTip {
                seq: 100,
                id: lattice::id::EntryId([1; 32]),
            },
        );
        unknown
    };
    let some = held(&store, &[points[0].clone(), unknown, points[1].clone()]).await;
    assert_eq!(some.iter().map(|it| it.done).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn consumer_that_has_stopped_or_is_behind_the_log_holds_nothing() {
    let bench = Bench::new();
    let store = bench.open().await;
    let points = fill(&bench, &store, 4).await;
    let one = ConsumerOptions {
        max_in_flight: 1,
        ..options(ConsumerStart::Beginning)
    };
    for name in ["stops", "goes-on"] {
        let consumer = store.consumer(name);
        soon(consumer.create(one.clone())).await.unwrap();
        until(&consumer, |status| status.outstanding == 1).await;
    }
    let state = ConsumerChanges {
        on_gap: Some(lattice::protocol::consumer::OnGap::State),
        ..ConsumerChanges::default()
    };
    soon(store.consumer("goes-on").set(state)).await.unwrap();
    assert_eq!(held(&store, &points).await.len(), 2);
    soon(store.close()).await.unwrap();
    let store = bench.open().await;
    prune(&store).await;
    let after = fill(&bench, &store, 2).await;
    assert_eq!(held(&store, &after).await, [], "their history is gone");
    for name in ["stops", "goes-on"] {
        next(&store.consumer(name)).await.ack().unwrap();
    }
    let consumer = store.consumer("goes-on");
    until(&consumer, |status| status.gaps == 1).await;
    let stopped = store.consumer("stops");
    until(&stopped, |status| {
        matches!(
            status.state,
            lattice::store::consumers::ConsumerState::Stopped { .. }
        )
    })
    .await;
    // The gap was met where nothing is left to read but what came since.
    put(&store, "/live", "1").await;
    let held = held(&store, &after).await;
    let names: Vec<_> = held
        .iter()
        .map(|it| (it.consumer.as_str(), it.done))
        .collect();
    assert_eq!(names, [("goes-on", 2)]);
}

/// It begins at a time and has read nothing yet, because nothing is there.
#[tokio::test]
async fn consumer_that_begins_at_a_time_holds_from_then_on() {
    let bench = Bench::new();
    let store = bench.open().await;
    let points = fill(&bench, &store, 4).await;
    let paused = store.consumer("c");
    let since = ConsumerStart::SinceArrived {
        ms: bench.clock.now_ms() - 1500,
    };
    soon(paused.create(ConsumerOptions {
        max_in_flight: 1,
        ..options(since)
    }))
    .await
    .unwrap();
    until(&paused, |status| status.outstanding == 1).await;
    let held = held(&store, &points).await;
    assert_eq!((held[0].done, seq(&held[0], &store)), (2, 2));
    assert_eq!(held[0].since_ms, bench.clock.now_ms() - 1000);
}
