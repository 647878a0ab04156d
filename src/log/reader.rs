//! The reading end of a store's logs.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    id::{Author, EntryId, Seq},
    log::{
        AtWork, Branch, LogError, SharedWalk, SyncTimes, chunk::Chunks, record, sync_times::Timing,
    },
    protocol::{chain::Tip, entry::VerifiedEntry},
};

/// All branches of a store, by author, then number. Shared by the writer and all readers.
#[derive(Debug, Clone, Default)]
pub struct LogReader {
    // Only the writer inserts, when an author or a fork appears.
    branches: Arc<RwLock<BTreeMap<Author, Vec<Arc<Branch>>>>>,
    pub(super) timing: Timing,
    chunks: Chunks,
}

impl LogReader {
    /// Returns the branches of `author`, by number.
    pub fn of(&self, author: &Author) -> Vec<Arc<Branch>> {
        let branches = self.branches.read().unwrap_or_else(PoisonError::into_inner);
        branches.get(author).cloned().unwrap_or_default()
    }

    /// Returns all branches, by author and number.
    pub fn all(&self) -> Vec<Arc<Branch>> {
        let branches = self.branches.read().unwrap_or_else(PoisonError::into_inner);
        branches.values().flatten().cloned().collect()
    }

    /// Returns the entry that `author` has with `id` at `seq`, and where it stands.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn entry(
        &self,
        author: &Author,
        seq: Seq,
        id: &EntryId,
    ) -> Result<Option<(VerifiedEntry, record::Record)>, LogError> {
        let mut damage = None;
        for branch in self.of(author) {
            match branch.record(seq) {
                Ok(Some(record)) if record.header.id == *id => {
                    let entry = branch.read_entry(&record)?;
                    return Ok(Some((entry, record)));
                }
                Ok(_other_or_none) => {}
                // It may be on another branch.
                Err(LogError::Damaged(found)) => damage = Some(found),
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(None), |found| Err(LogError::Damaged(found)))
    }

    /// Returns the entry of `author` at `seq` on branch `place`, as a tip.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn tip_at(&self, author: &Author, place: usize, seq: Seq) -> Result<Option<Tip>, LogError> {
        let Some(branch) = self.of(author).get(place).cloned() else {
            return Ok(None);
        };
        let found = branch.entry(seq)?;
        Ok(found.map(|(entry, _record)| Tip {
            seq,
            id: entry.id,
            hlc: entry.header.hlc,
        }))
    }

    /// Walks the entries of `branch` from `from` through the newest, sharing what is read with others
    /// who do.
    pub fn walk_shared(&self, branch: &Arc<Branch>, from: Seq) -> SharedWalk {
        SharedWalk::new(self.chunks.clone(), Arc::clone(branch), from)
    }

    /// Says that somebody reads now, with `walk_shared`.
    pub fn at_work(&self) -> AtWork {
        self.chunks.at_work()
    }

    /// Returns how long the disk took to make entries durable, since the logs were opened.
    pub fn sync_times(&self) -> SyncTimes {
        self.timing.times()
    }

    /// Returns the bytes of all logs.
    pub fn bytes(&self) -> u64 {
        self.all().iter().map(|branch| branch.end()).sum()
    }
    pub(super) fn add(&self, branch: Arc<Branch>) {
        let mut branches = self
            .branches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let of_author = branches.entry(branch.author).or_default();
        of_author.push(branch);
        of_author.sort_by_key(|branch| branch.number);
    }

    pub(super) fn remove(&self, author: &Author, number: u32) {
        let mut branches = self
            .branches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(of_author) = branches.get_mut(author) {
            of_author.retain(|branch| branch.number != number);
        }
        branches.retain(|_, of_author| !of_author.is_empty());
    }
}
