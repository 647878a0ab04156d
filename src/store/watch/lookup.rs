//! The changes that ops of the log made, with the heads that a view has for their keys.

use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;

use crate::{
    protocol::{
        change::{Change, EntryRef, Kind, Origin},
        entry::{Entry, Op, VerifiedEntry},
    },
    state::View,
    store::ReadError,
};

/// Ops whose changes are wanted.
#[derive(Debug)]
pub(super) struct Lookups {
    view: Arc<View>,
    ops: Vec<Lookup>,
    // Of `SHARE_OPS` each: made by whoever comes to it first, while others who want it wait.
    shares: Vec<OnceLock<Result<Vec<Arc<Change>>, ReadError>>>,
}

/// One of them: an op of an entry, by its index, and when the entry arrived.
pub(super) type Lookup = (VerifiedEntry, u32, u64);

impl Lookups {
    /// Takes ops, of which each is there.
    pub(super) fn new(view: Arc<View>, ops: Vec<Lookup>) -> Self {
        let shares = ops.chunks(SHARE_OPS).map(|_ops| OnceLock::new()).collect();
        Self { view, ops, shares }
    }

    /// Returns all changes in order. Reads files: not for the event loop.
    pub(super) fn changes(&self) -> Result<Vec<Arc<Change>>, ReadError> {
        let mut changes = Vec::with_capacity(self.ops.len());
        for share in 0..self.shares.len() {
            changes.extend_from_slice(self.share(share).as_ref().map_err(ReadError::clone)?);
        }
        Ok(changes)
    }

    /// As `changes`, with a second thread that begins with the last ones.
    pub(super) fn changes_with(self, helper: &Handle) -> Result<Vec<Arc<Change>>, ReadError> {
        if self.shares.len() < 2 {
            return self.changes();
        }
        let all = Arc::new(self);
        let helped = Arc::clone(&all);
        drop(helper.spawn_blocking(move || {
            for share in (0..helped.shares.len()).rev() {
                if helped.share(share).is_err() {
                    break;
                }
            }
        }));
        all.changes()
    }

    fn share(&self, share: usize) -> &Result<Vec<Arc<Change>>, ReadError> {
        self.shares[share].get_or_init(|| {
            let ops = self.ops.chunks(SHARE_OPS).nth(share).unwrap_or_default();
            let change = |(entry, index, arrived_ms): &Lookup| {
                replayed(&self.view, entry, *index, *arrived_ms).map(Arc::new)
            };
            ops.iter().map(change).collect()
        })
    }
}

/// Returns the change that op `index` of `entry` made, with the heads of `view`.
///
/// # Panics
/// When the entry has no such op.
pub(in crate::store) fn replayed(
    view: &View,
    entry: &Entry,
    index: u32,
    arrived_ms: u64,
) -> Result<Change, ReadError> {
    let op = &entry.ops[index as usize];
    let heads = view.heads(op.key())?;
    let (kind, value, expires_ms) = match op {
        Op::Put {
            value, expires_ms, ..
        } => (Kind::Put, Some(value.clone()), *expires_ms),
        Op::Delete { .. } => (Kind::Delete, None, None),
    };
    Ok(Change {
        key: op.key().clone(),
        kind,
        value,
        expires_ms,
        entry: EntryRef::from(entry),
        prev: entry.header.prev,
        op_index: index,
        op_count: u32::try_from(entry.ops.len()).unwrap_or(u32::MAX),
        atomic: entry.header.atomic,
        depth: entry.header.depth(),
        late: heads.winner().is_some_and(|winner| winner.id != entry.id),
        heads,
        previous: None,
        origin: Origin::Replay,
        arrived_ms,
    })
}

// Few enough that two threads end at about the same time, many enough that neither waits for the other.
const SHARE_OPS: usize = 64;
