//! A node with one store on a disk in memory, and the calls of a taker.

use std::time::Duration;

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::StoreId,
    store::{
        StoreConfig,
        consumers::{Consumer, ConsumerError, ConsumerOptions, ConsumerStart, Delivery},
    },
};

use crate::support::{
    disk::{Image, MemDisk},
    store,
};

pub(super) const STORE: StoreId = StoreId([9; 16]);
pub(super) const START_MS: u64 = 1_700_000_000_000;

/// A node with one store on a disk in memory.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    pub(super) clock: Clock,
    pub(super) disk: MemDisk,
    pub(super) secret: [u8; 32],
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(&Image::new())
    }

    pub(super) fn on(image: &Image) -> Self {
        Self {
            clock: Clock::manual(START_MS),
            disk: MemDisk::new(image),
            secret: [1; 32],
        }
    }

    /// The machine after its process was killed: a copy of the disk as it is now.
    pub(super) fn killed(&self) -> Self {
        Self {
            disk: MemDisk::new(&self.disk.image()),
            ..self.clone()
        }
    }

    pub(super) fn config(&self) -> StoreConfig {
        StoreConfig {
            bus_batches: 4,
            ..store::config(STORE, self.secret, &self.clock, self.disk.clone())
        }
    }

    pub(super) async fn open(&self) -> Store {
        soon(Store::open(self.config())).await.unwrap()
    }
}

/// Nothing may hang.
pub(super) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .expect("an answer within 30 s")
}

/// Returns the next delivery.
pub async fn next(consumer: &Consumer) -> Delivery {
    soon(consumer.next()).await.unwrap()
}

/// Panics if a delivery comes.
pub async fn nothing_comes(consumer: &Consumer) {
    let next = tokio::time::timeout(Duration::from_millis(60), consumer.next()).await;
    assert!(next.is_err(), "{next:?}");
}

/// Waits until the status of the consumer satisfies `done`.
pub(super) async fn until(
    consumer: &Consumer,
    done: impl Fn(&lattice::store::consumers::ConsumerStatus) -> bool,
) {
    let wait = async {
        loop {
            let status = consumer.show().await.unwrap();
            if done(&status) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(wait).await;
}

pub fn options(from: ConsumerStart) -> ConsumerOptions {
    ConsumerOptions {
        from,
        ack_wait: Duration::from_millis(1000),
        backoff: vec![Duration::from_millis(100), Duration::from_millis(500)],
        ..ConsumerOptions::default()
    }
}

/// Returns a consumer of everything since the beginning.
pub(super) async fn created(store: &Store, name: &str) -> Consumer {
    let consumer = store.consumer(name);
    soon(consumer.create(options(ConsumerStart::Beginning)))
        .await
        .unwrap();
    consumer
}

pub(super) fn key(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.change().key).into_owned()
}

pub(super) fn value(delivery: &Delivery) -> Option<Bytes> {
    delivery.change().value.clone()
}

pub(super) async fn put(store: &Store, key: &str, value: &str) {
    soon(store.put(key.to_owned(), value.to_owned()))
        .await
        .unwrap();
}

pub(super) fn is_unknown(outcome: Result<Delivery, ConsumerError>) -> bool {
    matches!(outcome, Err(ConsumerError::Unknown { .. }))
}
