//! The calls about keys: put, delete, batch, get, list, diff, heads, history.

use crate::{
    api::{
        convert,
        error::{
            ApiError, EXIT_DAMAGED, EXIT_FAILED, EXIT_PRECONDITION, HINT_REMOVED, closed, text,
        },
        paging::{self, Answers},
        past,
    },
    clock::time_text,
    limits::HISTORY_ENTRIES_MAX,
    node::Node,
    protocol::entry::Op,
    store::{Condition, List, ReadError, StampedBy, Store, WriteError, Written},
    wire::api,
};

/// Answers `Put`.
pub(super) async fn put(node: &Node, request: api::PutRequest) -> Result<api::Written, ApiError> {
    let api::PutRequest {
        store,
        key,
        value,
        ttl_ms,
        if_absent,
        if_head,
    } = request;
    let op = api::Op {
        key,
        delete: false,
        value,
        ttl_ms,
        ..api::Op::default()
    };
    let condition = convert::condition(if_absent, &if_head)?;
    let written = write(&node.store(&store)?, op, condition).await?;
    Ok(convert::written(written.as_ref()))
}

/// Answers `Delete`.
pub(super) async fn delete(
    node: &Node,
    request: api::DeleteRequest,
) -> Result<api::Written, ApiError> {
    let api::DeleteRequest {
        store,
        key,
        if_head,
    } = request;
    let op = api::Op {
        key,
        delete: true,
        ..api::Op::default()
    };
    let condition = convert::condition(false, &if_head)?;
    let written = write(&node.store(&store)?, op, condition).await?;
    Ok(convert::written(written.as_ref()))
}

/// Answers `Batch`.
pub(super) async fn batch(
    node: &Node,
    request: api::BatchRequest,
) -> Result<api::Written, ApiError> {
    let store = node.store(&request.store)?;
    for op in &request.ops {
        if convert::condition_of_op(op)?.is_none() {
            continue;
        }
        return Err(ApiError::usage(
            "condition_in_batch",
            "an op of a batch has no condition",
        ));
    }
    let now_ms = store.now_ms();
    let ops = request.ops.into_iter();
    let ops: Vec<Op> = ops.map(|op| convert::op(op, now_ms)).collect();
    let written = store.batch(ops).await?;
    Ok(convert::written(written.as_ref()))
}

/// Answers `Get`.
pub(super) async fn get(node: &Node, request: api::GetRequest) -> Result<api::GetReply, ApiError> {
    let api::GetRequest { store, key, at_ms } = request;
    let store = node.store_of_keys(&store, [&key])?;
    let item = match at_ms {
        None => store.get(&key).await?,
        Some(ms) => store.get_at(&key, ms).await?,
    };
    Ok(api::GetReply {
        item: item.map(convert::item),
    })
}

/// Answers `List`.
pub(super) fn list(
    node: &Node,
    request: api::ListRequest,
) -> Result<Answers<api::Items>, ApiError> {
    let api::ListRequest {
        store,
        prefix,
        keys_only,
        limit,
        at_ms,
        after_key,
        delimiter,
    } = request;
    if at_ms.is_some() && !delimiter.is_empty() {
        return Err(ApiError::usage(
            "delimiter_at",
            "a list of a past time takes no delimiter",
        ));
    }
    let options = List {
        prefix,
        limit: bound(limit),
        keys_only,
    };
    let store = node.store_of_keys(&store, [&options.prefix])?;
    Ok(match at_ms {
        None => paging::list(&store, options, after_key, delimiter),
        Some(ms) => past::list(&store, options, after_key, ms),
    })
}

/// Answers `Diff`.
pub(super) fn diff(
    node: &Node,
    request: api::DiffRequest,
) -> Result<Answers<api::Differences>, ApiError> {
    let api::DiffRequest {
        store,
        prefix,
        keys_only,
        from_ms,
        to_ms,
    } = request;
    let store = node.store_of_keys(&store, [&prefix])?;
    let options = List {
        prefix,
        limit: None,
        keys_only,
    };
    let to_ms = to_ms.unwrap_or_else(|| store.now_ms());
    Ok(past::diff(&store, options, from_ms, to_ms))
}

/// Answers `Heads`.
pub(super) async fn heads(
    node: &Node,
    request: api::HeadsRequest,
) -> Result<Answers<api::HeadsReply>, ApiError> {
    let store = node.store_of_keys(&request.store, [&request.key])?;
    let heads = store.heads(&request.key).await?;
    let heads = heads.into_iter().map(convert::head).collect();
    Ok(paging::parts(heads, |heads, _last| api::HeadsReply {
        heads,
    }))
}

/// Answers `History`.
pub(super) async fn history(
    node: &Node,
    request: api::HistoryRequest,
) -> Result<Answers<api::HistoryReply>, ApiError> {
    let api::HistoryRequest { store, key, limit } = request;
    let limit = bound(limit).unwrap_or(HISTORY_ENTRIES_MAX);
    let store = node.store_of_keys(&store, [&key])?;
    let history = store.history(&key, limit).await?;
    let reach_ms = history.pruned.map(|pruned| pruned.reach_ms);
    let (entries, truncated) = convert::history(history);
    let part = move |entries, is_last| api::HistoryReply {
        entries,
        truncated: truncated && is_last,
        reach_ms: reach_ms.filter(|_| is_last),
    };
    Ok(paging::parts(entries, part))
}

async fn write(
    store: &Store,
    op: api::Op,
    condition: Option<Condition>,
) -> Result<Option<Written>, WriteError> {
    let op = convert::op(op, store.now_ms());
    store.write(convert::write(op, condition)).await
}

// On the wire, 0 means no limit.
fn bound(limit: u64) -> Option<usize> {
    (limit > 0).then(|| usize::try_from(limit).unwrap_or(usize::MAX))
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let message = text(&error);
        match error {
            WriteError::Entry(error) => error.into(),
            WriteError::Read(error) => error.into(),
            WriteError::Empty => Self::usage("empty_batch", message),
            WriteError::Reserved { .. } => Self::usage("reserved_key", message)
                .hint("only the node itself writes there; choose another prefix"),
            WriteError::PreconditionFailed { .. } => {
                Self::new("precondition_failed", EXIT_PRECONDITION, message)
                    .hint("read the key again and decide by its current value")
            }
            WriteError::Poisoned { .. } => Self::new("poisoned", EXIT_FAILED, message)
                .hint("repair the disk, then restart the node; acknowledged writes are safe"),
            WriteError::AlreadyCaused { .. } => {
                Self::new("already_caused", EXIT_PRECONDITION, message)
            }
            WriteError::DiskFull { .. } => Self::new("disk_full", EXIT_FAILED, message).hint(
                "free some space; reads still work, and writes work again when there is space",
            ),
            WriteError::NoDescriptor { .. } => Self::new(
                "too_many_open_files",
                EXIT_FAILED,
                message,
            )
            .hint(
                "raise the limit of open files (`ulimit -n`, or LimitNOFILE= of the service) and \
                    restart the node; writes work again when descriptors are free",
            ),
            WriteError::OwnFork { .. } => Self::new("own_fork", EXIT_FAILED, message).hint(
                "stop the other node that uses this data directory or a copy of it, then run \
                `lattice repair`; `lattice init --new-identity` makes a copy a node of its own",
            ),
            WriteError::OwnLogBehind { .. } => Self::new("own_log_behind", EXIT_PRECONDITION, message)
                .hint(
                    "`lattice up` fetches those entries from members that still have them; otherwise put \
                     the newest copy of the directory back, or join again with a new identity",
                ),
            WriteError::OwnLogVoid { .. } => Self::new("own_log_void", EXIT_FAILED, message).hint(
                "`lattice repair` writes those values again, where other members see them",
            ),
            WriteError::NotAdmitted => Self::new("not_admitted", EXIT_PRECONDITION, message).hint(
                "join with a token from `lattice invite` on a member; after a join, run `lattice up` \
                and wait for the first sync with that node",
            ),
            WriteError::Reader => Self::new("reader", EXIT_PRECONDITION, message)
                .hint("an admin can change that: `lattice peer role NODE writer`"),
            WriteError::Removed => Self::new("removed", EXIT_PRECONDITION, message)
                .hint(HINT_REMOVED),
            WriteError::KeySpent => Self::new("key_spent", EXIT_PRECONDITION, message).hint(
                "stop all copies of this node and give each a key of its own with `lattice init \
                --new-identity`; `lattice peer remove` of the old key on an admin makes what it wrote \
                count again",
            ),
            WriteError::OwnLogCut { .. } => Self::new("own_log_cut", EXIT_DAMAGED, message).hint(
                "`lattice up` fetches them from peers that have them; otherwise restore the newest \
                copy of the file, or give the entries up with `lattice repair`",
            ),
            WriteError::Restored => Self::new("restored", EXIT_PRECONDITION, message).hint(
                "start the node with `lattice up`: it fetches those entries from the first member that it \
                 meets, and then writes again; only if no other member is left, run `lattice repair`",
            ),
            WriteError::Closed => closed(message),
            WriteError::FarAhead { by, .. } => {
                let error = Self::new("far_ahead", EXIT_PRECONDITION, message);
                error.hint(match by {
                    StampedBy::Clock => {
                        "set the clock of this machine; if it is right and the others are wrong, \
                        start the node with --accept-clock"
                    }
                    StampedBy::OwnEntry => {
                        "the clock of this machine was ahead when it was written; run `lattice \
                        repair`, which writes the same values again with the right time"
                    }
                    StampedBy::Cited => {
                        "write it where the clock is right, or wait until the time has come"
                    }
                    StampedBy::Authority => {
                        "another admin can act, or wait until the time has come"
                    }
                })
            }
            WriteError::Clock(_) => Self::new("clock_exhausted", EXIT_FAILED, message),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let message = text(&error);
        match error {
            ReadError::Damaged { .. } | ReadError::State { .. } => {
                Self::new("damaged", EXIT_DAMAGED, message)
                    .hint("`lattice verify` lists what is damaged and where")
            }
            ReadError::Io { .. } => Self::new("io", EXIT_FAILED, message),
            ReadError::Pruned(pruned) => Self::new("pruned", EXIT_FAILED, message).hint(format!(
                "history is whole since {} here; another member may have more of it",
                time_text(pruned.reach_ms)
            )),
            ReadError::Key(error) => error.into(),
            ReadError::Closed => closed(message),
        }
    }
}
