//! A store: the handle in front of its single writer.
//!
//! Writes go through a bounded queue to one thread, which makes whole groups of them durable with
//! one fsync; reads take the newest view of the state and do not wait for it. What is applied goes
//! onto the bus and from there to watchers.

use std::{any::Any, path::PathBuf, sync::Arc};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use tokio::sync::oneshot;

use crate::{
    clock::Clock,
    disk::Disk,
    id::{Author, StoreId},
    protocol::{entry::Op, frontier::Frontier},
    store::{
        Authority, IngestError, Ingested, OpenError, Shared, Watch, WatchOptions, Write,
        WriteError, Written,
        consumers::{Consumer, ConsumerError, ConsumerStatus, Consumers},
        writer::{actor::Command, group::Writes, intake, open, queue::Queue},
    },
};

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The store.
    pub id: StoreId,
    /// Its directory, made where it is missing.
    pub dir: PathBuf,
    /// Signs this node's entries.
    pub key: Arc<SigningKey>,
    /// The wall clock.
    pub clock: Clock,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Batches a bus channel holds; see `BUS_BATCHES_MAX`.
    pub bus_batches: usize,
    /// Kept until the writer thread has ended: whatever keeps others off the directory.
    pub lease: Option<Arc<dyn Any + Send + Sync>>,
    /// True for the root store: clients may not write under the node's own prefixes, and entries
    /// are never held.
    pub root: bool,
    /// Where it learns who may write.
    pub authority: Authority,
}

/// A handle on an open store. Cheap to clone. The store closes with `close`, or, on its own thread,
/// when the last handle is gone; its watches end then.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
    // Dropped with the last handle, before the queue: they end before the writer does.
    pub(super) consumers: Arc<Consumers>,
    // Dropped with the last handle: the writer closes the store then.
    pub(super) queue: Queue,
}

impl Store {
    /// Opens a store and starts its writer thread. Must be called within a tokio runtime.
    ///
    /// Tails that were never acknowledged are cut, a damaged or missing state is built again from
    /// the log. What was mended is in `status`.
    ///
    /// # Errors
    /// `OpenError`: the file system refused.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Handle::current();
        let (disk, lease) = (Arc::clone(&config.disk), config.lease.clone());
        let opening = tokio::task::spawn_blocking(move || open::open(config, runtime));
        let (shared, actor) = opening.await.map_err(|_panic| OpenError::Panicked)??;
        let shared = Arc::new(shared);
        Ok(Self {
            consumers: Arc::new(Consumers::new(Arc::clone(&shared), disk, lease)),
            shared,
            queue: actor.start(),
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
    /// On return it survives power loss, reads see it, and watchers are told. Puts that wait at
    /// the same time share one entry and one fsync. Cancel-safe: a dropped call may still have
    /// written.
    ///
    /// # Errors
    /// `WriteError`; nothing was written then, but for `Poisoned`, which leaves it open.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, WriteError> {
        self.write(Write::put(key, value)).await
    }

    /// Leaves a tombstone at `key`; otherwise as `put`. Deleting what is not there is no error.
    ///
    /// # Errors
    /// As `put`.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Written, WriteError> {
        self.write(Write::delete(key)).await
    }

    /// Applies `ops` as one entry, all or none, delivered to watchers whole.
    ///
    /// # Errors
    /// As `put`; also `TooManyOps`, `OpsTooLong`, `TooManyParents` and `KeyTwice`.
    pub async fn batch(&self, ops: Vec<Op>) -> Result<Written, WriteError> {
        self.write(Write {
            ops,
            atomic: true,
            condition: None,
            cause: None,
        })
        .await
    }

    /// Applies one write; the general form of `put`, `delete` and `batch`.
    ///
    /// # Errors
    /// As `put`; also `PreconditionFailed`.
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        write.check(self.shared.root)?;
        self.may_write().await;
        let (reply, answer) = oneshot::channel();
        self.queue.write(Writes::One(write, reply)).await?;
        answer.await.map_err(|_gone| WriteError::Closed)?
    }

    /// Applies independent writes in order; they share fsyncs, and one that fails does not stop
    /// those after it. Returns when all are durable. Cancel-safe as `put`.
    pub async fn write_many(&self, writes: Vec<Write>) -> Vec<Result<Written, WriteError>> {
        self.begin_many(writes).await.await
    }

    /// Hands `writes` to the writer. What it returns resolves as `write_many` does.
    pub(crate) async fn begin_many(
        &self,
        writes: Vec<Write>,
    ) -> impl Future<Output = Vec<Result<Written, WriteError>>> + Send + use<> {
        self.may_write().await;
        let count = writes.len();
        let (reply, answer) = oneshot::channel();
        // Where it is closed, `reply` is gone.
        drop(self.queue.write(Writes::Many(writes, reply)).await);
        async move {
            let closed = |_gone| (0..count).map(|_| Err(WriteError::Closed)).collect();
            answer.await.unwrap_or_else(closed)
        }
    }

    /// Writes under the node's own prefixes, which `write` refuses in the root store.
    pub(crate) async fn write_own(&self, write: Write) -> Result<Written, WriteError> {
        self.may_write().await;
        let (reply, answer) = oneshot::channel();
        self.queue.write(Writes::Own(write, reply)).await?;
        answer.await.map_err(|_gone| WriteError::Closed)?
    }

    /// Takes in encoded entries that came from elsewhere, in any order.
    ///
    /// Each is checked, then applied, or kept until what it needs has come. On return those
    /// `Applied` are durable. Who calls this vouches that the authors may write here.
    ///
    /// # Errors
    /// `Write` when the store takes no writes, at first or any more: entries may have been applied
    /// then. One bad entry is an outcome, not an error.
    pub async fn ingest(&self, entries: Vec<Bytes>) -> Result<Vec<Ingested>, IngestError> {
        let bytes = entries.iter().map(Bytes::len).sum();
        let id = self.shared.id;
        let checking = tokio::task::spawn_blocking(move || intake::check(entries, &id));
        let entries = checking.await.map_err(|_panic| WriteError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Ingest(entries, reply);
        self.queue.send_bytes(command, bytes).await?;
        answer.await.map_err(|_gone| WriteError::Closed)?
    }

    /// Watches keys that begin with `prefix`: the state first, then every change.
    pub fn watch(&self, prefix: impl Into<Bytes>) -> Watch {
        self.watch_with(WatchOptions {
            prefixes: vec![prefix.into()],
            ..WatchOptions::default()
        })
    }

    /// Watches as `options` say. What is wrong with them comes as the first item.
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

    /// Writes what is in memory to the state file, seals the logs, and ends consumers and writer.
    /// Writes fail with `Closed` from then on, watches end.
    ///
    /// # Errors
    /// `WriteError` when that fails: nothing acknowledged is lost, opening takes longer.
    pub async fn close(&self) -> Result<(), WriteError> {
        self.consumers.close().await;
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Command::Close(reply)).await.is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }
}
