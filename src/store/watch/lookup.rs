//! Changes of ops in the log: each op with the heads that its key has in a view.

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

/// Ops whose changes are to be looked up, in shares that several threads can take.
#[derive(Debug)]
pub(super) struct Lookups {
    view: Arc<View>,
    ops: Vec<Lookup>,
    // One share for each `SHARE_OPS` ops. The first thread that asks for a share looks it up; other
    // threads that ask for it wait.
    shares: Vec<OnceLock<Result<Vec<Arc<Change>>, ReadError>>>,
}

/// An entry, the index of one of its ops, and the time (ms since 1970) when the entry arrived.
pub(super) type Lookup = (VerifiedEntry, u32, u64);

impl Lookups {
    /// Prepares the look-up of `ops`. Each index must name an op of its entry.
    pub(super) fn new(view: Arc<View>, ops: Vec<Lookup>) -> Self {
        let shares = ops.chunks(SHARE_OPS).map(|_ops| OnceLock::new()).collect();
        Self { view, ops, shares }
    }

    /// Returns the changes of all ops, in order. Reads files: not for the event loop.
    pub(super) fn changes(&self) -> Result<Vec<Arc<Change>>, ReadError> {
        let mut changes = Vec::with_capacity(self.ops.len());
        for share in 0..self.shares.len() {
            changes.extend_from_slice(self.share(share).as_ref().map_err(ReadError::clone)?);
        }
        Ok(changes)
    }

    /// Like `changes`, with the help of a second thread that begins with the last share.
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

/// Returns the change that op `index` of `entry` made, with the heads that its key has in `view`.
///
/// # Panics
/// If the entry has no op `index`.
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
        // An act may have taken the entry that has superseded it.
        late: heads.winner().is_none_or(|winner| winner.id != entry.id),
        heads,
        previous: None,
        origin: Origin::Replay,
        arrived_ms,
        gap: None,
        gap_number: 0,
    })
}

// Ops of one share. Small enough that two threads end at about the same time, large enough that the
// threads seldom wait for each other.
const SHARE_OPS: usize = 64;
