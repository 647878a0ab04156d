//! A store of a node in another process: the calls about keys.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    calls::{Item, List, WatchOptions, Write, Written},
    client::{
        consumer::Consumer, error::ApiError, messages, reads::Reads, rpc::Rpc, watch::Watch,
        writes::Writes,
    },
    protocol::entry::Op,
    wire::api,
};

/// A store of a node in another process. Cheap to clone.
///
/// The calls have the names, arguments and promises of those of a store in this process.
#[derive(Debug, Clone)]
pub struct Store(pub(super) Arc<Shared>);

/// The part that all handles on one store of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    rpc: Rpc,
    name: String,
    writes: Writes,
    reads: Reads,
}

impl Shared {
    pub(super) fn new(rpc: Rpc, name: &str) -> Self {
        Self {
            writes: Writes::new(rpc.clone(), name),
            reads: Reads::new(rpc.clone(), name),
            rpc,
            name: name.to_owned(),
        }
    }
}

impl Store {
    /// Returns the name of the store, as it was asked for; empty for the data store.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Sets `key` and waits until the entry is durable on the node, and applied.
    ///
    /// On return it survives power loss, reads see it, and watches get it. Puts that are in flight
    /// together share one stream, entries and fsyncs. Cancel-safe: a dropped call may still write.
    ///
    /// # Errors
    /// `Usage` beyond the limits, `Precondition`, `Failed`: nothing was written. `Unavailable`: the
    /// connection was lost, and the put may have been done; writing it again is safe.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, ApiError> {
        let written = self.write(Write::put(key, value)).await?;
        written.ok_or_else(|| messages::malformed("a put has no entry"))
    }

    /// Leaves a tombstone at `key`; otherwise like `put`. Returns `None` if the key has no value: then
    /// nothing was written.
    ///
    /// # Errors
    /// Like `put`.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Option<Written>, ApiError> {
        self.write(Write::delete(key)).await
    }

    /// Applies `ops` as one entry: all of them or none. Watches deliver it whole. Deletes of keys that
    /// have no value are left out; `None` if nothing is left, and nothing was written.
    ///
    /// # Errors
    /// Like `put`.
    pub async fn batch(&self, ops: Vec<Op>) -> Result<Option<Written>, ApiError> {
        let request = api::BatchRequest {
            store: self.0.name.clone(),
            ops: ops.into_iter().map(messages::op).collect(),
        };
        let written = self.0.rpc.clone().batch(request).await?.into_inner();
        messages::written(&written)
    }

    /// Applies one write; the general form of `put`, `delete` and `batch`. Returns `None` if its
    /// condition holds, and all that it does is delete keys that have no value.
    ///
    /// # Errors
    /// Like `put`. `Precondition` with code `precondition_failed` if the condition does not hold. `Usage`
    /// if the write has a cause, which only hooks have, or a condition on more than one op.
    pub async fn write(&self, write: Write) -> Result<Option<Written>, ApiError> {
        let Write {
            mut ops,
            atomic,
            condition,
            cause,
        } = write;
        if cause.is_some() {
            let message = "a write over the socket has no cause";
            return Err(ApiError::usage("cause", message).hint("only hooks write with a cause"));
        }
        let is_one = ops.len() == 1 && !atomic;
        if let Some(op) = ops.pop_if(|_op| is_one) {
            return self.0.writes.write(op, condition).await;
        }
        if condition.is_some() {
            let message = "a batch over the socket has no condition";
            return Err(ApiError::usage("condition_in_batch", message)
                .hint("write the key with the condition alone"));
        }
        self.batch(ops).await
    }

    /// Returns the value of `key`; `None` when it is missing, deleted or expired. Cancel-safe.
    ///
    /// The read sees every write that has returned. Gets that are in flight together share one stream.
    ///
    /// # Errors
    /// `Usage`, `Damaged`, `Unavailable`.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Item>, ApiError> {
        self.0.reads.get(key.into()).await
    }

    /// Returns the value that `key` had at `ms` since 1970, by the authors' clocks; otherwise like
    /// `get`.
    ///
    /// # Errors
    /// Like `get`; `Failed` with code `pruned` if that history was removed on this node.
    pub async fn get_at(&self, key: impl Into<Bytes>, ms: u64) -> Result<Option<Item>, ApiError> {
        let request = api::GetRequest {
            store: self.0.name.clone(),
            key: key.into(),
            at_ms: Some(ms),
        };
        let reply = self.0.rpc.clone().get(request).await?.into_inner();
        reply.item.map(messages::item).transpose()
    }

    /// Returns the keys with a live value, in order, from one view. Cancel-safe.
    ///
    /// # Errors
    /// Like `get`.
    pub async fn list(&self, options: List) -> Result<Vec<Item>, ApiError> {
        if options.limit == Some(0) {
            // On the wire, 0 means no limit.
            return Ok(Vec::new());
        }
        let request = api::ListRequest {
            store: self.0.name.clone(),
            prefix: options.prefix,
            keys_only: options.keys_only,
            limit: options.limit.map_or(0, |limit| limit as u64),
            ..api::ListRequest::default()
        };
        let mut pages = self.0.rpc.clone().list(request).await?.into_inner();
        let mut items = Vec::new();
        while let Some(page) = pages.message().await? {
            for item in page.items {
                items.push(messages::item(item)?);
            }
        }
        Ok(items)
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
        Watch::new(self.0.rpc.clone(), self.0.name.clone(), options)
    }

    /// Returns a handle on the consumer `name`, which need not exist yet.
    pub fn consumer(&self, name: &str) -> Consumer {
        Consumer::new(self.0.rpc.clone(), &self.0.name, name)
    }
}
