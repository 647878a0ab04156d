//! A view of the state: all heads as of one frontier. Cheap to clone, never changes.
//!
//! A view has three layers: rows that changed since the last flush, rows that are being flushed,
//! and rows in the file as of its last commit. The first layer that has a row for a key is the one
//! that is read.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::{
    id::{EntryId, Seq},
    limits::EXPIRIES_MS_MAX,
    protocol::{
        entry::{Entry, Op, cause::CauseId},
        finality::Collections,
        frontier::Frontier,
        heads::Heads,
        membership::reserved::Counting,
    },
    state::{
        StateError,
        flushed::{Flushed, decode},
        shared_tree::SharedTree,
    },
};

/// All heads as of one frontier.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) recent: Layer,
    pub(super) flushing: Layer,
    pub(super) flushed: Arc<Flushed>,
    /// The entries from which the heads were computed, apart from the entries that `lacks`
    /// describes.
    pub frontier: Arc<Frontier>,
    /// True when some entries that the frontier leads back to are missing from the heads: they
    /// could not be read when the state was built.
    pub lacks: bool,
    /// Rises with every view that is shown, and does not go back until the store is closed.
    pub version: u64,
    /// Number of keys with a row, including keys with a tombstone.
    pub keys: u64,
    /// Number of entries applied.
    pub entries: u64,
    /// Expiries through this time (inclusive, ms since 1970) were reported. Never goes back.
    pub expired_through_ms: u64,
    /// The reserved ops that count; all others are void. `None` in a store that keeps no members:
    /// no key is reserved there.
    pub counting: Option<Arc<Counting>>,
    /// The heads that acts take. Those of entries that come are taken at once.
    pub(super) collections: Arc<Collections>,
    /// Whether they were taken from all rows. A state that is not swept has other rows than the same entries
    /// have elsewhere.
    pub is_swept: bool,
    // True once an entry was taken back.
    pub(super) has_taken_back: bool,
    // Number of entries that cite absent parents: the next one's number.
    pub(super) citers: u64,
    // Shared by all views of the file.
    pub(super) tree: Arc<SharedTree>,
}

/// Rows that are in memory only.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub(super) heads: OrdMap<Bytes, Heads>,
    // False for a row that the flush removes.
    pub(super) expiry: OrdMap<(u64, Bytes), bool>,
    pub(super) causes: OrdMap<CauseId, (Seq, EntryId)>,
    // As in `facts.rs`.
    pub(super) facts: OrdMap<Vec<u8>, Bytes>,
    // As in `cited.rs`.
    pub(super) references: OrdSet<Reference>,
    // Rough number of bytes of memory that the rows take.
    pub(super) bytes: usize,
}

/// The hash of a reference to an absent parent, and the number of an entry that has it.
pub(super) type Reference = ([u8; 32], u64);

impl View {
    /// Returns true when `op` of `entry` is void, as `Counting::is_void`. A void op changes no heads.
    pub fn is_void(&self, entry: &Entry, op: &Op) -> bool {
        let counting = self.counting.as_ref();
        counting.is_some_and(|counting| counting.is_void(entry, op))
    }

    /// Returns the heads of `key`; none when it was never written, or an act took them.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn heads(&self, key: &[u8]) -> Result<Heads, StateError> {
        if let Some(heads) = self
            .recent
            .heads
            .get(key)
            .or_else(|| self.flushing.heads.get(key))
        {
            return Ok(heads.clone());
        }
        self.flushed.heads(key)
    }

    /// Returns the entry that was written because of `cause`; `None` when there is none.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn caused(&self, cause: &CauseId) -> Result<Option<(Seq, EntryId)>, StateError> {
        for layer in [&self.recent, &self.flushing] {
            if let Some(entry) = layer.causes.get(cause) {
                return Ok(Some(*entry));
            }
        }
        self.flushed.caused(cause)
    }

    /// Returns up to `limit` keys that begin with `prefix` and are greater than `after`, by key,
    /// with their heads. Keys whose winner is a tombstone are included.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Heads)>, StateError> {
        let mut after = after.map(Bytes::copy_from_slice);
        let mut found: Vec<(Bytes, Heads)> = Vec::new();
        while found.len() < limit {
            let page = limit - found.len();
            let rows = self.scan_layers(prefix, after.as_deref(), page)?;
            let Some((last, _)) = rows.last() else {
                break;
            };
            after = Some(last.clone());
            let is_last = rows.len() < page;
            // Rows without heads were removed since the last flush.
            found.extend(
                rows.into_iter()
                    .filter(|(_, heads)| heads.winner().is_some()),
            );
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    // Like `scan`, with rows without heads.
    fn scan_layers(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Heads)>, StateError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _before => Bound::Included(prefix),
        };
        let mut rows = BTreeMap::new();
        self.flushed.rows((start, Bound::Unbounded), |key, row| {
            if rows.len() == limit || !key.starts_with(prefix) {
                return Ok(ControlFlow::Break(()));
            }
            rows.insert(Bytes::copy_from_slice(key), decode(key, row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        for layer in [&self.flushing, &self.recent] {
            let in_range = layer.heads.range::<_, [u8]>((start, Bound::Unbounded));
            for (key, heads) in in_range
                .take_while(|row| row.0.starts_with(prefix))
                .take(limit)
            {
                rows.insert(key.clone(), heads.clone());
            }
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    /// Returns up to `limit` winners, as (time, key), that expire after `after_ms` and at or before
    /// `through_ms`, by time, then key.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn expiring(
        &self,
        after_ms: u64,
        through_ms: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Bytes)>, StateError> {
        let (Some(from_ms), Some(to_ms)) = (after_ms.checked_add(1), through_ms.checked_add(1))
        else {
            return Ok(Vec::new());
        };
        if from_ms >= to_ms {
            return Ok(Vec::new());
        }
        let removed = |at: &(u64, Bytes)| match self
            .recent
            .expiry
            .get(at)
            .or_else(|| self.flushing.expiry.get(at))
        {
            Some(there) => !there,
            None => false,
        };
        let mut due: BTreeMap<(u64, Bytes), ()> = BTreeMap::new();
        self.flushed.expiring(from_ms, to_ms, |ms, key| {
            let at = (ms, Bytes::copy_from_slice(key));
            if !removed(&at) {
                due.insert(at, ());
            }
            match due.len() == limit {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        for layer in [&self.flushing, &self.recent] {
            let range = (from_ms, Bytes::new())..(to_ms, Bytes::new());
            let there = layer
                .expiry
                .range(range)
                .filter(|(at, there)| **there && !removed(at));
            due.extend(there.take(limit).map(|(at, _)| (at.clone(), ())));
        }
        Ok(due.into_keys().take(limit).collect())
    }
}

/// Winners that expire in a time.
#[derive(Debug, Default)]
pub struct Expiring {
    /// The winners, as (time, key), by time, then key.
    pub due: Vec<(u64, Bytes)>,
    /// The end of that time, inclusive, ms since 1970.
    pub through_ms: u64,
    /// True when they are more than `EXPIRIES_MS_MAX` of one millisecond: `due` is empty then.
    pub too_many: bool,
}

impl Expiring {
    /// The reason of the gap that watches get in place of too many expiries.
    pub const TOO_MANY: &str =
        "more values expired in one millisecond than are delivered one by one";
}

impl View {
    /// Returns about `limit` of the winners that `expiring` returns: all that expire through the time
    /// that comes with them. So the winners of one millisecond are returned together.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn expiring_whole(
        &self,
        after_ms: u64,
        through_ms: u64,
        mut limit: usize,
    ) -> Result<Expiring, StateError> {
        loop {
            let mut due = self.expiring(after_ms, through_ms, limit)?;
            let is_all = due.len() < limit;
            let first = due.first().map(|(ms, _)| *ms);
            let last = due.last().map(|(ms, _)| *ms);
            let (Some(first), Some(last), false) = (first, last, is_all) else {
                return Ok(Expiring {
                    due,
                    through_ms,
                    too_many: false,
                });
            };
            if first < last {
                due.retain(|(ms, _)| *ms < last);
                return Ok(Expiring {
                    due,
                    through_ms: last - 1,
                    too_many: false,
                });
            }
            // One millisecond has more winners than `limit`.
            if due.len() > EXPIRIES_MS_MAX {
                return Ok(Expiring {
                    due: Vec::new(),
                    through_ms: first,
                    too_many: true,
                });
            }
            limit = limit.saturating_mul(2).min(EXPIRIES_MS_MAX + 1);
        }
    }
}
