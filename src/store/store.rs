//! A store: the handle in front of its single writer.
//!
//! Writes go through a bounded queue to one thread, which makes whole groups of them durable with
//! one fsync; reads take the newest view of the state and do not wait for it. What is applied goes
//! onto the bus and from there to watchers.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    id::{Author, StoreId},
    protocol::{entry::Op, frontier::Frontier},
    store::{
        OpenError, Shared, StoreConfig, Watch, WatchOptions, Write, WriteError, Written,
        consumers::{Consumer, ConsumerError, ConsumerStatus, Consumers, HeldHistory},
        writer::{
            actor::Actor,
            command::{Command, Writes},
            open,
            queue::Queue,
        },
    },
};

/// A handle on an open store. Cheap to clone.
///
/// `open` comes first, `close` last. In between, from any number of tasks: `put`, `delete`, `batch`
/// and `write` change keys, and return when the change is durable and visible; `get`, `list`,
/// `history`, `get_at` and others (`store/read`) read, and never wait for the writer; `watch` and
/// `consumer` follow changes; `status`, `verify` and `repair` look after the store. The net uses
/// `ingest`, `lacks`, `outgoing` and others (`store/replication.rs`).
///
/// The store closes with `close`, or on its own thread when the last handle is dropped. Its watches
/// end then.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
    // Dropped with the last handle, before the queue: consumers end before the writer does.
    pub(super) consumers: Arc<Consumers>,
    // Dropped with the last handle: the writer closes the store then.
    pub(super) queue: Queue,
}

impl Store {
    /// Opens a store and starts its writer thread. Must be called within a tokio runtime.
    ///
    /// Cuts tails that were never acknowledged, and builds a damaged or missing state again from the
    /// log. `StoreStatus::recovered` lists what was mended.
    ///
    /// # Errors
    /// `OpenError`: the file system refuses, or a log is not what this store wrote.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Handle::current();
        let (disk, lease) = (Arc::clone(&config.disk), config.lease.clone());
        let watches = runtime.clone();
        let opening = tokio::task::spawn_blocking(move || open::open(config, watches));
        let (shared, writer) = opening.await.map_err(|_panic| OpenError::Panicked)??;
        let shared = Arc::new(shared);
        Ok(Self {
            consumers: Arc::new(Consumers::new(Arc::clone(&shared), disk, lease)),
            shared,
            queue: Actor::start(writer, runtime),
        })
    }

    /// Returns the store's id.
    pub fn id(&self) -> StoreId {
        self.shared.id
    }

    /// Returns the key this node signs with.
    pub fn author(&self) -> Author {
        self.shared.author
    }

    /// Returns the wall clock as the store sees it, ms since 1970.
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// Returns the entries that reads see now.
    pub fn frontier(&self) -> Frontier {
        Frontier::clone(&self.shared.state.view().frontier)
    }

    /// Sets `key` and waits until the entry is durable and applied.
    ///
    /// On return it survives power loss, reads see it, and it is published to watches. Puts that wait
    /// at the same time share one entry and one fsync. Cancel-safe: a dropped call may still have
    /// written.
    ///
    /// # Errors
    /// `WriteError`. Nothing was written then, except after `Poisoned`: the entry may or may not be
    /// on disk.
    #[expect(clippy::missing_panics_doc, reason = "a put always writes")]
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, WriteError> {
        let written = self.write(Write::put(key, value)).await?;
        Ok(written.expect("a put always writes"))
    }

    /// Leaves a tombstone at `key`; otherwise like `put`. Returns `None` if the key has no value: then
    /// nothing was written.
    ///
    /// # Errors
    /// Like `put`.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Option<Written>, WriteError> {
        self.write(Write::delete(key)).await
    }

    /// Applies `ops` as one entry: all of them or none. Watches deliver it whole. Deletes of keys that
    /// have no value are left out; `None` if nothing is left, and nothing was written.
    ///
    /// # Errors
    /// Like `put`; also `TooManyOps`, `OpsTooLong`, `TooManyParents` and `KeyTwice`.
    pub async fn batch(&self, ops: Vec<Op>) -> Result<Option<Written>, WriteError> {
        self.write(Write {
            ops,
            atomic: true,
            condition: None,
            cause: None,
        })
        .await
    }

    /// Applies one write; the general form of `put`, `delete` and `batch`. Returns `None` if its
    /// condition holds, and all that it does is delete keys that have no value.
    ///
    /// # Errors
    /// Like `put`; also `PreconditionFailed` and `AlreadyCaused`.
    pub async fn write(&self, write: Write) -> Result<Option<Written>, WriteError> {
        write.check(self.shared.reserves_keys.load(Ordering::Relaxed))?;
        self.shared.until_may_write().await?;
        let (reply, answer) = oneshot::channel();
        self.queue.write(Writes::One(write, reply)).await?;
        answer.await.map_err(|_gone| WriteError::Closed)?
    }

    /// Applies independent writes in order. They share fsyncs, and a write that fails does not stop the
    /// writes after it. Returns one outcome for each, like `write`, when all are durable. Cancel-safe
    /// like `put`.
    pub async fn write_many(&self, writes: Vec<Write>) -> Vec<Result<Option<Written>, WriteError>> {
        self.begin_many(writes).await.await
    }

    /// Hands `writes` to the writer. The future that it returns resolves like `write_many`.
    pub(crate) async fn begin_many(
        &self,
        writes: Vec<Write>,
    ) -> impl Future<Output = Vec<Result<Option<Written>, WriteError>>> + Send + use<> {
        let may_write = self.shared.until_may_write().await;
        let count = writes.len();
        let (reply, answer) = oneshot::channel();
        if may_write.is_ok() {
            // If the store is closed, `reply` is dropped, and `answer` fails.
            drop(self.queue.write(Writes::Many(writes, reply)).await);
        }
        async move {
            if let Err(error) = may_write {
                return (0..count).map(|_| Err(error.clone())).collect();
            }
            let closed = |_gone| (0..count).map(|_| Err(WriteError::Closed)).collect();
            answer.await.unwrap_or_else(closed)
        }
    }

    /// Writes under the node's own prefixes, which `write` refuses in the root store.
    /// A delete there writes a tombstone even if the key has no value.
    pub(crate) async fn write_own(&self, write: Write) -> Result<(), WriteError> {
        self.shared.until_may_write().await?;
        let (reply, answer) = oneshot::channel();
        self.queue.write(Writes::Own(write, reply)).await?;
        let outcome = answer.await.map_err(|_gone| WriteError::Closed)?;
        outcome.map(drop)
    }

    /// Watches keys that begin with `prefix`: the state first, then every change.
    pub fn watch(&self, prefix: impl Into<Bytes>) -> Watch {
        self.watch_with(WatchOptions {
            prefixes: vec![prefix.into()],
            ..WatchOptions::default()
        })
    }

    /// Watches as `options` ask for. If they are invalid, the first item is the error.
    pub fn watch_with(&self, options: WatchOptions) -> Watch {
        Watch::new(Arc::clone(&self.shared), options)
    }

    /// Returns a handle on the consumer `name`, which need not exist yet.
    pub fn consumer(&self, name: &str) -> Consumer {
        self.consumers.consumer(name)
    }

    /// Returns the status of all consumers of this store, by name.
    ///
    /// # Errors
    /// `Damaged`, `Io`, `Closed`.
    pub async fn consumers(&self) -> Result<Vec<ConsumerStatus>, ConsumerError> {
        self.consumers.list().await
    }

    /// Returns the history that consumers of this store may still need, by name: those that hold
    /// anything. `points`: places through which entries may be removed, the first one first; see
    /// [`HeldHistory::done`].
    ///
    /// # Errors
    /// `Read` when a log cannot be read; `Damaged`, `Io`, `Closed`.
    pub async fn held_history(
        &self,
        points: Vec<Frontier>,
    ) -> Result<Vec<HeldHistory>, ConsumerError> {
        self.consumers.held_history(points).await
    }

    /// Writes everything in memory to the state file, seals the logs, and ends consumers and writer.
    /// From then on writes fail with `Closed`, and watches end.
    ///
    /// # Errors
    /// `WriteError` when a file cannot be written. Nothing acknowledged is lost; the next opening
    /// takes longer.
    pub async fn close(&self) -> Result<(), WriteError> {
        self.consumers.close().await;
        // A base that is being made is in place, or gone, before another opening looks at its files.
        let _turn = self.shared.folding.lock().await;
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Command::Close(reply)).await.is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }
}
