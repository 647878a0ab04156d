//! Durable consumers: what takers are given, over restarts, kills, damage and time.

mod answers;
mod caused;
mod crash;
mod damage;
mod histories;
mod manage;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::StoreId,
    store::{
        Authority, StoreConfig,
        consumers::{Consumer, ConsumerError, ConsumerOptions, ConsumerStart, Delivery},
    },
};

use crate::{
    faults::disk::{Image, MemDisk},
    model::key_of,
};

const STORE: StoreId = StoreId([9; 16]);
const START_MS: u64 = 1_700_000_000_000;

/// A node with one store on a disk in memory.
#[derive(Debug, Clone)]
struct Bench {
    clock: Clock,
    disk: MemDisk,
    secret: [u8; 32],
}

impl Bench {
    fn new() -> Self {
        Self::on(&Image::new())
    }

    fn on(image: &Image) -> Self {
        Self {
            clock: Clock::manual(START_MS),
            disk: MemDisk::new(image),
            secret: [1; 32],
        }
    }

    /// The machine without its process: what is on the disk now.
    fn killed(&self) -> Self {
        Self {
            disk: MemDisk::new(&self.disk.image()),
            ..self.clone()
        }
    }

    fn config(&self) -> StoreConfig {
        StoreConfig {
            id: STORE,
            dir: PathBuf::from("/store"),
            key: Arc::new(key_of(self.secret)),
            clock: self.clock.clone(),
            disk: Arc::new(self.disk.clone()),
            bus_batches: 4,
            root: false,
            authority: Authority::Anyone,
            lease: None,
        }
    }

    async fn open(&self) -> Store {
        soon(Store::open(self.config())).await.unwrap()
    }
}

/// Nothing may hang.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .expect("an answer within 30 s")
}

/// Returns the next delivery.
pub async fn next(consumer: &Consumer) -> Delivery {
    soon(consumer.next()).await.unwrap()
}

/// Panics when something is given out.
pub async fn nothing_comes(consumer: &Consumer) {
    let next = tokio::time::timeout(Duration::from_millis(60), consumer.next()).await;
    assert!(next.is_err(), "{next:?}");
}

/// Waits until what was fed has gone through `done`.
async fn until(
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
async fn created(store: &Store, name: &str) -> Consumer {
    let consumer = store.consumer(name);
    soon(consumer.create(options(ConsumerStart::Beginning)))
        .await
        .unwrap();
    consumer
}

fn key(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.change().key).into_owned()
}

fn value(delivery: &Delivery) -> Option<Bytes> {
    delivery.change().value.clone()
}

async fn put(store: &Store, key: &str, value: &str) {
    soon(store.put(key.to_owned(), value.to_owned()))
        .await
        .unwrap();
}

fn is_unknown(outcome: Result<Delivery, ConsumerError>) -> bool {
    matches!(outcome, Err(ConsumerError::Unknown { .. }))
}
