//! A view of the state: all heads as of one frontier. Cheap to clone, never changes.
//!
//! A view has three layers: rows that changed since the last flush, rows that are being flushed,
//! and rows in the file as of its last commit. The first layer that has a row for a key is the one
//! that is read.

use std::{
    collections::BTreeMap,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use redb::ReadOnlyTable;

use crate::{
    id::{EntryId, Seq},
    limits::EXPIRIES_MS_MAX,
    protocol::{
        entry::{Entry, Op, cause::CauseId},
        frontier::Frontier,
        heads::Heads,
        heads_row::decode_heads,
        membership::reserved::Counting,
    },
    state::{
        StateError, row,
        shared_tree::SharedTree,
        tables::{CAUSES, HEADS},
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
    /// Number of keys ever written, including keys with a tombstone.
    pub keys: u64,
    /// Number of entries applied.
    pub entries: u64,
    /// Expiries through this time (inclusive, ms since 1970) were reported. Never goes back.
    pub expired_through_ms: u64,
    /// The reserved ops that count; all others are void. `None` in a store that keeps no members:
    /// no key is reserved there.
    pub counting: Option<Arc<Counting>>,
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

/// The tables of the file as of one commit.
pub(super) struct Flushed {
    pub(super) heads: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) expiry: ReadOnlyTable<(u64, &'static [u8]), ()>,
    pub(super) causes: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) facts: ReadOnlyTable<&'static [u8], &'static [u8]>,
    // True while the file has no heads, so that look-ups need not read it.
    pub(super) empty: bool,
}

impl std::fmt::Debug for Flushed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flushed").finish_non_exhaustive()
    }
}

impl View {
    /// Returns true when `op` of `entry` is void, as `Counting::is_void`. A void op changes no heads.
    pub fn is_void(&self, entry: &Entry, op: &Op) -> bool {
        let counting = self.counting.as_ref();
        counting.is_some_and(|counting| counting.is_void(entry, op))
    }

    /// Returns the heads of `key`; none when it was never written.
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
        if self.flushed.empty {
            return Ok(Heads::default());
        }
        guarded(|| match self.flushed.heads.get(key)? {
            Some(row) => decode(key, row.value()),
            None => Ok(Heads::default()),
        })
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
        guarded(|| {
            let Some(row) = self.flushed.causes.get(cause.0.as_slice())? else {
                return Ok(None);
            };
            let body = row::unseal(CAUSES, &cause.0, row.value()).and_then(row::decode_cause);
            body.map(Some)
                .ok_or_else(|| StateError::damaged("the row of a cause fails its check"))
        })
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
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _before => Bound::Included(prefix),
        };
        let mut rows = BTreeMap::new();
        if !self.flushed.empty {
            guarded(|| {
                for row in self
                    .flushed
                    .heads
                    .range::<&[u8]>((start, Bound::Unbounded))?
                    .take(limit)
                {
                    let (key, row) = row?;
                    if !key.value().starts_with(prefix) {
                        break;
                    }
                    let heads = decode(key.value(), row.value())?;
                    rows.insert(Bytes::copy_from_slice(key.value()), heads);
                }
                Ok(())
            })?;
        }
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
        let empty: &[u8] = &[];
        guarded(|| {
            for row in self
                .flushed
                .expiry
                .range((from_ms, empty)..(to_ms, empty))?
            {
                let (at, _) = row?;
                let (ms, key) = at.value();
                let at = (ms, Bytes::copy_from_slice(key));
                if !removed(&at) {
                    due.insert(at, ());
                    if due.len() == limit {
                        break;
                    }
                }
            }
            Ok(())
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

fn decode(key: &[u8], row: &[u8]) -> Result<Heads, StateError> {
    row::unseal(HEADS, key, row)
        .and_then(decode_heads)
        .ok_or_else(|| damaged_row(key))
}

pub(super) fn damaged_row(key: &[u8]) -> StateError {
    StateError::Damaged {
        what: format!("the row of key {} fails its check", key.escape_ascii()),
    }
}

// Runs `work`, which reads or writes the file: redb panics on some kinds of damage.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_panic| {
        Err(StateError::Damaged {
            what: "it cannot be read".to_owned(),
        })
    })
}
