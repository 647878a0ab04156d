//! A consumer takes a change, writes an entry caused by it, and acknowledges it. Wherever the power
//! fails, the entry is written once: after every cut the consumer goes on with the same causes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice::{
    Store,
    id::EntryId,
    protocol::consumer::cause_of,
    store::{
        Write, WriteError,
        consumers::{Consumer, ConsumerError, ConsumerOptions, ConsumerStart, Delivery},
    },
};

use super::{
    crash::each_image,
    setup::{Bench, next, options, put, soon},
};
use crate::support::disk::{Image, Operation};

type OpId = (EntryId, u32);

/// A workload, and the acknowledged writes by number of disk operations.
#[derive(Debug, Default)]
struct Recording {
    operations: Vec<Operation>,
    // Operations done when the consumer had been made.
    made: usize,
    written: Vec<(OpId, EntryId, usize)>,
    again: usize,
}

async fn copy(store: &Store) -> Consumer {
    let consumer = store.consumer("copy");
    let made = ConsumerOptions {
        prefixes: vec!["/in/".into()],
        max_deliver: None,
        ..options(ConsumerStart::Beginning)
    };
    soon(consumer.create(made)).await.unwrap();
    consumer
}

fn op_of(delivery: &Delivery) -> OpId {
    (delivery.change().entry.id, delivery.change().op_index)
}

// Writes what a change causes: the entry, and whether that was written before.
async fn cause(store: &Store, delivery: &Delivery) -> (EntryId, bool) {
    let change = delivery.change();
    let key: Bytes = [b"/out", &change.key[..]].concat().into();
    let write = Write::put(key, "x").caused_by(cause_of("copy", change));
    match soon(store.write(write)).await {
        Ok(Some(written)) => (written.entry, false),
        Ok(None) => panic!("a put always writes"),
        Err(WriteError::AlreadyCaused { entry, .. }) => (entry, true),
        Err(error) => panic!("{error}"),
    }
}

// The entries that were caused, by the op that caused them.
async fn caused(store: &Store, context: &str) -> BTreeMap<OpId, EntryId> {
    let mut caused = BTreeMap::new();
    let log = store.entries(store.author(), 0, usize::MAX);
    for record in soon(log).await.unwrap() {
        if let Some(cause) = &record.entry.header.cause {
            let op = (cause.trigger, cause.position);
            let other = caused.insert(op, record.entry.id);
            assert_eq!(other, None, "{context}: {op:?} has caused two entries");
        }
    }
    caused
}

async fn record() -> Recording {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut recording = Recording::default();
    put(&store, "/in/before", "v").await;
    let consumer = copy(&store).await;
    recording.made = bench.disk.recorded();
    for round in 0..5 {
        let ops =
            [0, 1].map(|n| crate::support::model::put(&format!("/in/{round}/batch/{n}"), "v"));
        soon(store.batch(ops.to_vec())).await.unwrap();
        put(&store, &format!("/in/{round}"), "v").await;
        for n in 0..4 {
            let delivery = next(&consumer).await;
            let (entry, again) = cause(&store, &delivery).await;
            let at = bench.disk.recorded();
            recording.written.push((op_of(&delivery), entry, at));
            recording.again += usize::from(again);
            match n {
                // It is given out again, and has been answered.
                1 => delivery.nack(Some(Duration::ZERO)).unwrap(),
                _ => delivery.ack().unwrap(),
            }
            if n == 2 {
                // Here the commit happens by itself, within CONSUMERS_COMMIT_EVERY.
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
        if round % 2 == 0 {
            soon(consumer.flush()).await.unwrap();
        }
    }
    soon(store.close()).await.unwrap();
    recording.operations = bench.disk.operations();
    recording
}

async fn check(recording: &Recording, image: Image, operations: usize, context: &str) {
    let bench = Bench::on(&image);
    let store = bench.open().await;
    let before = caused(&store, context).await;
    for (op, entry, at) in &recording.written {
        let there = before.get(op);
        let is_lost = *at <= operations && there != Some(entry);
        assert!(
            !is_lost,
            "{context}: {op:?} has caused {entry}, not {there:?}"
        );
    }
    let consumer = store.consumer("copy");
    match soon(consumer.show()).await {
        Err(ConsumerError::Unknown { .. }) => {
            return assert!(operations < recording.made, "{context}: it was made");
        }
        shown => drop(shown.unwrap_or_else(|error| panic!("{context}: {error:?}"))),
    }
    put(&store, "/in/last", "v").await;
    let begun = Instant::now();
    loop {
        bench.clock.advance(10_000);
        while let Some(delivery) = soon(consumer.try_next()).await.unwrap() {
            let (entry, again) = cause(&store, &delivery).await;
            let there = before.get(&op_of(&delivery));
            assert_eq!(there, again.then_some(&entry), "{context}");
            delivery.ack().unwrap();
        }
        let status = soon(consumer.show()).await.unwrap();
        let (after, owed) = (caused(&store, context).await, triggers(&store).await);
        if status.outstanding == 0 && after.keys().eq(&owed) {
            break;
        }
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(30),
            "{context}: {owed:?} has caused {after:?}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

// The changes that must cause an entry.
async fn triggers(store: &Store) -> BTreeSet<OpId> {
    let mut triggers = BTreeSet::new();
    let log = store.entries(store.author(), 0, usize::MAX);
    for record in soon(log).await.unwrap() {
        let ops = (0..).zip(&record.entry.ops);
        let of_consumer = ops.filter(|(_, op)| op.key().starts_with(b"/in/"));
        triggers.extend(of_consumer.map(|(index, _)| (record.entry.id, index)));
    }
    triggers
}

#[test]
fn power_cut_causes_each_entry_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let recording = runtime.block_on(record());
    assert!(recording.written.len() >= 20 && recording.again >= 1);
    let soak = if std::env::var_os("LATTICE_SOAK").is_some() {
        10
    } else {
        1
    };
    let recording = &recording;
    let images = each_image(
        &recording.operations,
        400 * soak,
        async |image, operations, context| {
            check(recording, image, operations, &context).await;
        },
    );
    assert!(images >= 400);
}
