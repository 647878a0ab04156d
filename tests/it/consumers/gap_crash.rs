//! Power cuts around gaps: the disk is cut after every operation of a consumer that comes to two of them.
//!
//! The taker keeps what it knows, and forgets it at a gap. In every image it knows the whole store in the
//! end, and gets each gap under one id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice::{
    Store,
    protocol::{
        change::{Change, Kind},
        consumer::{ChangeId, DeathReason},
    },
    store::consumers::{
        Consumer, ConsumerChanges, ConsumerError, ConsumerStart, ConsumerState, Delivery,
    },
};

use super::{
    crash::each_image,
    gaps::{Taker, one_at_a_time, prune},
    setup::{Bench, next, put, soon, until},
};
use crate::support::{
    disk::{Image, Operation},
    pruned::listed,
};

/// A change that the taker got, its id, and the operations that were done by then.
type Got = (Arc<Change>, ChangeId, usize);

#[derive(Debug, Default)]
struct Recording {
    operations: Vec<Operation>,
    // Operations done when the consumer had been made.
    made: usize,
    got: Vec<Got>,
}

impl Recording {
    fn take(&mut self, bench: &Bench, delivery: Delivery) {
        let change = Arc::clone(delivery.change());
        let id = delivery.id().change;
        self.got.push((change, id, bench.disk.recorded()));
        delivery.ack().unwrap();
    }

    fn gaps(&self) -> usize {
        let gaps = self.got.iter().filter(|(it, ..)| it.kind == Kind::Gap);
        gaps.count()
    }
}

async fn fill(store: &Store, round: u32) {
    for n in 0..3 {
        put(store, &format!("/{round}/{n}"), "1").await;
    }
    put(store, "/again", &round.to_string()).await;
    if round > 0 {
        soon(store.delete(format!("/{}/0", round - 1)))
            .await
            .unwrap();
    }
}

async fn record() -> Recording {
    let bench = Bench::new();
    let mut store = bench.open().await;
    let mut recording = Recording::default();
    fill(&store, 0).await;
    let mut consumer = store.consumer("c");
    soon(consumer.create(one_at_a_time(ConsumerStart::Beginning)))
        .await
        .unwrap();
    recording.made = bench.disk.recorded();
    recording.take(&bench, next(&consumer).await);
    until(&consumer, |status| status.outstanding == 1).await;
    for round in 1..3 {
        soon(store.close()).await.unwrap();
        store = bench.open().await;
        fill(&store, round).await;
        prune(&store).await;
        consumer = store.consumer("c");
        // The gap, and a part of the state.
        while recording.gaps() < round as usize {
            recording.take(&bench, next(&consumer).await);
        }
        soon(consumer.flush()).await.unwrap();
        for _ in 0..2 {
            recording.take(&bench, next(&consumer).await);
        }
        let room = ConsumerChanges {
            max_in_flight: Some(round as usize),
            ..ConsumerChanges::default()
        };
        soon(consumer.set(room)).await.unwrap();
        if round == 2 {
            put(&store, "/live", "1").await;
            while let Ok(delivery) =
                tokio::time::timeout(Duration::from_millis(60), consumer.next()).await
            {
                recording.take(&bench, delivery.unwrap());
            }
        }
    }
    soon(store.close()).await.unwrap();
    recording.operations = bench.disk.operations();
    recording
}

async fn drain(bench: &Bench, store: &Store, consumer: &Consumer, context: &str) -> Vec<Got> {
    put(store, "/last", "1").await;
    let (mut got, begun) = (Vec::new(), Instant::now());
    loop {
        bench.clock.advance(10_000);
        while let Ok(taken) = tokio::time::timeout(Duration::from_millis(2), consumer.next()).await
        {
            let delivery = taken.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            got.push((Arc::clone(delivery.change()), delivery.id().change, 0));
            delivery.ack().unwrap();
        }
        let status = soon(consumer.show()).await.unwrap();
        assert_eq!(status.state, ConsumerState::Running, "{context}");
        let last = |(it, ..): &Got| it.key == "/last" && it.gap_number == 0;
        if status.outstanding == 0 && status.backlog_entries == 0 && got.iter().any(last) {
            return got;
        }
        // It may have come with the state.
        let is_settled = status.outstanding == 0 && status.backlog_entries == 0;
        if is_settled && begun.elapsed() > Duration::from_millis(300) {
            return got;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{context}: {status:?}"
        );
    }
}

async fn check(recording: &Recording, image: &Image, operations: usize, context: &str) {
    let bench = Bench::on(image);
    let store = bench.open().await;
    let consumer = store.consumer("c");
    match soon(consumer.show()).await {
        Err(ConsumerError::Unknown { .. }) => {
            return assert!(operations < recording.made, "{context}: it was made");
        }
        shown => drop(shown.unwrap_or_else(|error| panic!("{context}: {error:?}"))),
    }
    let before = recording.got.iter().filter(|(.., at)| *at <= operations);
    let mut got: Vec<Got> = before.cloned().collect();
    got.extend(drain(&bench, &store, &consumer, context).await);
    let mut taker = Taker::default();
    let mut gaps: BTreeSet<ChangeId> = BTreeSet::new();
    let mut last: BTreeMap<Bytes, u64> = BTreeMap::new();
    for (change, id, _) in &got {
        taker.take_change(change);
        if change.kind == Kind::Gap {
            gaps.insert(*id);
        }
        let newest = last.entry(change.key.clone()).or_default();
        *newest = (*newest).max(change.gap_number);
    }
    let names = || {
        got.iter()
            .map(|(it, ..)| (it.key.clone(), it.kind, it.gap_number))
    };
    assert_eq!(
        taker.known,
        listed(&store).await,
        "{context}: {:?}",
        names().collect::<Vec<_>>()
    );
    assert!(
        gaps.len() <= 2,
        "{context}: {:?}",
        names().collect::<Vec<_>>()
    );
    let status = soon(consumer.show()).await.unwrap();
    assert_eq!(
        status.gaps,
        gaps.len() as u64,
        "{context}: a gap came under two ids"
    );
    // A value of the first state that was replaced and removed since; the second gap covers it.
    let dead = soon(consumer.dead()).await.unwrap();
    let is_gone = dead
        .iter()
        .all(|it| it.reason == DeathReason::Pruned && it.change.gap_number == 1);
    assert!(is_gone, "{context}: {dead:?}");
}

#[test]
fn power_cut_around_gaps_loses_nothing_and_repeats_no_gap() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let recording = runtime.block_on(record());
    assert_eq!(recording.gaps(), 2);
    let soak = if std::env::var_os("LATTICE_SOAK").is_some() {
        10
    } else {
        1
    };
    let images = each_image(
        &recording.operations,
        500 * soak,
        async |image, operations, context| {
            check(&recording, &image, operations, &context).await;
        },
    );
    assert!(images >= 500);
}
