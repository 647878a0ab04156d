//! A view of the state: all heads as of one frontier. Cheap to clone, never changes.
//!
//! Three layers, the newest first: rows changed since the last flush, rows being flushed, and
//! rows in the file as of its last commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use imbl::OrdMap;
use redb::ReadOnlyTable;

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        entry::{Op, cause::CauseId},
        frontier::Frontier,
        heads::Heads,
        membership::role::role_key_node,
    },
    state::{
        StateError, row,
        tables::{CAUSES, HEADS},
    },
};

/// All heads as of one frontier.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) recent: Layer,
    pub(super) flushing: Layer,
    pub(super) flushed: Arc<Flushed>,
    /// Every entry that is in it, and no other; but see `lacks`.
    pub frontier: Arc<Frontier>,
    /// True where some of what the frontier leads back to could not be read when the state was
    /// built: it lacks that.
    pub lacks: bool,
    /// Counts the groups applied since the store was opened.
    pub version: u64,
    /// Keys ever written, tombstones included.
    pub keys: u64,
    /// Entries applied.
    pub entries: u64,
    /// Expiries through this time were told, ms since 1970. Never goes back.
    pub expired_through_ms: u64,
    /// Where members are kept, the acts that are in it: those of its entries that count. `None`
    /// elsewhere: nothing is an act there.
    pub acts: Option<Arc<ActsInPlace>>,
}

/// Acts: the entry, and the node that it is about.
pub type ActsInPlace = BTreeSet<(EntryId, Author)>;

/// Rows that are not in the file, or not yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub(super) heads: OrdMap<Bytes, Heads>,
    // false: the row is to be removed.
    pub(super) expiry: OrdMap<(u64, Bytes), bool>,
    pub(super) causes: OrdMap<CauseId, (Seq, EntryId)>,
    pub(super) bytes: usize,
}

/// The tables of the file as of one commit.
pub(super) struct Flushed {
    pub(super) heads: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) expiry: ReadOnlyTable<(u64, &'static [u8]), ()>,
    pub(super) causes: ReadOnlyTable<&'static [u8], &'static [u8]>,
    // True while the file has no heads: look-ups need not ask it.
    pub(super) empty: bool,
}

impl std::fmt::Debug for Flushed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flushed").finish_non_exhaustive()
    }
}

impl View {
    /// True when `op` of the entry keeps no place: its key says what a node is, and it is no act
    /// that counts.
    pub fn is_void(&self, entry: &EntryId, op: &Op) -> bool {
        self.acts.as_ref().is_some_and(|acts| {
            role_key_node(op.key()).is_some_and(|node| !acts.contains(&(*entry, node)))
        })
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

    /// Returns the entry that its author has written because of `cause`.
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

    /// Returns up to `limit` rows whose keys begin with `prefix` and follow `after`, by key.
    /// Tombstones are among them.
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

    /// Returns up to `limit` (time, key) of winners that expire after `after_ms` and at or before
    /// `through_ms`, by time.
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

impl View {
    /// Returns what `expiring` does, about `limit` of it, and the time it reaches: whatever expires
    /// through that time is in it. Of one millisecond all or none is returned.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn expiring_whole(
        &self,
        after_ms: u64,
        through_ms: u64,
        mut limit: usize,
    ) -> Result<(Vec<(u64, Bytes)>, u64), StateError> {
        loop {
            let mut due = self.expiring(after_ms, through_ms, limit)?;
            let (Some((first, _)), Some((last, _))) = (due.first(), due.last()) else {
                return Ok((due, through_ms));
            };
            let (first, last) = (*first, *last);
            if due.len() < limit {
                return Ok((due, through_ms));
            }
            if first < last {
                due.retain(|(ms, _)| *ms < last);
                return Ok((due, last - 1));
            }
            // More of one millisecond than fit.
            limit = limit.saturating_mul(2);
        }
    }
}

fn decode(key: &[u8], row: &[u8]) -> Result<Heads, StateError> {
    row::unseal(HEADS, key, row)
        .and_then(row::decode_heads)
        .ok_or_else(|| StateError::Damaged {
            what: format!(
                "the row of key {:?} fails its check",
                Bytes::copy_from_slice(key)
            ),
        })
}

// redb panics on some damage.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_panic| {
        Err(StateError::Damaged {
            what: "the state file is not readable".to_owned(),
        })
    })
}
