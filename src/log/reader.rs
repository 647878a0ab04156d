//! The reading end of a store's logs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use crate::{
    id::{Author, EntryId, Seq},
    log::{
        AtWork, Begin, Branch, LogDamage, LogError, Pruned, SharedWalk, SyncTimes, chunk::Chunks,
        lineage::Lineage, record, sync_times::Timing,
    },
    protocol::{
        chain::Tip,
        entry::VerifiedEntry,
        frontier::{Frontier, FrontierTip},
    },
};

/// All branches of a store, by author, then number. Shared by the writer and all readers; a clone
/// shows the same logs.
#[derive(Debug, Clone, Default)]
pub struct LogReader {
    branches: Arc<RwLock<Branches>>,
    timing: Timing,
    chunks: Chunks,
    // By id: whether an entry verifies by itself, and the entry before it. Locked for a look-up, never
    // while a file is read.
    verified: Arc<Mutex<Verified>>,
}

// Written by the store's writer only, when a branch appears or is removed. Held for a look-up or a
// copy of the list; no file is read, no other lock taken and nothing awaited under it.
type Branches = BTreeMap<Author, Arc<Lineage>>;

type Verified = BTreeMap<EntryId, (bool, Option<FrontierTip>)>;

impl LogReader {
    /// Returns the branches of `author`, by number.
    pub fn of(&self, author: &Author) -> Vec<Arc<Branch>> {
        let lineage = self.branches().get(author).map(Arc::clone);
        lineage.map_or_else(Vec::new, |lineage| lineage.branches.clone())
    }

    /// Returns where the logs of `author` begin; `None` when they are whole.
    pub fn begin(&self, author: &Author) -> Option<Begin> {
        self.branches().get(author)?.begin()
    }

    /// Returns whether the logs of `author` begin after the place: its entry was applied, and removed.
    pub fn is_final(&self, author: &Author, seq: Seq) -> bool {
        let begin = self.begin(author);
        begin.is_some_and(|begin| begin.anchor.is_final(seq))
    }

    /// Returns where logs begin, by author; none for those that are whole.
    pub fn begins(&self) -> Vec<(Author, Begin)> {
        let branches = self.branches();
        let begins = branches.iter();
        begins
            .filter_map(|(author, lineage)| Some((*author, lineage.begin()?)))
            .collect()
    }

    /// Returns the entries that were removed; `None` when all logs are whole.
    pub fn pruned(&self) -> Option<Pruned> {
        Pruned::of(self.begins())
    }

    /// Returns the entries of `author` that were removed, if the one at `seq` is among them.
    pub fn pruned_at(&self, author: &Author, seq: Seq) -> Option<Pruned> {
        let begin = self.begin(author)?;
        Pruned::of([(*author, begin)]).filter(|_| begin.anchor.is_final(seq))
    }

    pub(super) fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all branches, by author and number.
    pub fn all(&self) -> Vec<Arc<Branch>> {
        let lineages = self.lineages().into_iter();
        lineages
            .flat_map(|(_, lineage)| lineage.branches.clone())
            .collect()
    }

    pub(super) fn lineage(&self, author: &Author) -> Arc<Lineage> {
        self.branches().get(author).cloned().unwrap_or_default()
    }

    pub(super) fn lineages(&self) -> Vec<(Author, Arc<Lineage>)> {
        let branches = self.branches();
        let lineages = branches.iter();
        lineages
            .map(|(author, it)| (*author, Arc::clone(it)))
            .collect()
    }

    /// Returns the entry of `author` that has `id` and `seq`, and its record; `None` when no branch
    /// has it.
    ///
    /// # Errors
    /// `Damaged` when it is on no readable place and a branch is damaged at `seq`; `Io`.
    pub fn entry(
        &self,
        author: &Author,
        seq: Seq,
        id: &EntryId,
    ) -> Result<Option<(VerifiedEntry, record::Record)>, LogError> {
        let branches = self.of(author);
        if let [only] = branches.as_slice() {
            let record = only.record(seq)?.filter(|record| record.header.id == *id);
            let entry = |record| Ok((only.read_entry(&record)?, record));
            return record.map(entry).transpose();
        }
        let mut damage = None;
        for branch in branches {
            // Values are long: only those of the branch that has the entry are read.
            match branch.header(seq) {
                Ok(Some(record)) if record.header.id == *id => return branch.entry(seq),
                Ok(_other_or_none) => {}
                // The entry may be on another branch.
                Err(LogError::Damaged(found)) => damage = Some(found),
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(None), |found| Err(LogError::Damaged(found)))
    }

    /// Returns for each place whether a branch of `author` has that entry, and the damage that hides
    /// some of the answers: those are `false`. A place before the beginning of the logs counts as one
    /// that they have, unchecked. Each branch is read once, in order.
    ///
    /// # Errors
    /// `Io`.
    pub fn find(
        &self,
        author: &Author,
        places: &[FrontierTip],
    ) -> Result<(Vec<bool>, Vec<LogDamage>), LogError> {
        let lineage = self.lineage(author);
        if lineage.branches.is_empty() {
            return Ok((vec![false; places.len()], Vec::new()));
        }
        if lineage.are_kept(places) {
            return Ok((vec![true; places.len()], Vec::new()));
        }
        let found = lineage.find(places.iter().copied())?;
        let (mut has, mut damage) = (Vec::with_capacity(places.len()), Vec::new());
        for place in places {
            if self.is_final(author, place.seq) {
                has.push(true);
                continue;
            }
            has.push(match found.get(*place) {
                Ok(on) => on.is_some(),
                Err(LogError::Damaged(found)) => {
                    damage.push(found);
                    false
                }
                Err(error) => return Err(error),
            });
        }
        Ok((has, damage))
    }

    /// Returns the entry of `author` at `seq` on branch `place`, as a tip. `place` is an index into
    /// `of`. `None` when there is no such branch or the branch has no entry at `seq`. The
    /// anchor at which the branch begins is found, too. Its values are not read.
    ///
    /// # Errors
    /// `Damaged` when its frame cannot be read, `Io`.
    pub fn tip_at(&self, author: &Author, place: usize, seq: Seq) -> Result<Option<Tip>, LogError> {
        let lineage = self.lineage(author);
        let Some(branch) = lineage.branches.get(place) else {
            return Ok(None);
        };
        let anchor = branch.begin.map(|begin| begin.anchor);
        if let Some(anchor) = anchor.filter(|anchor| anchor.seq == seq) {
            return Ok(Some(anchor.into()));
        }
        let found = branch.header(seq)?;
        Ok(found.map(|record| Tip {
            seq,
            id: record.header.id,
            hlc: record.header.hlc,
        }))
    }

    /// Returns when the entry of `author` at `place` arrived here, in ms since 1970; `None` when no branch
    /// has it. Its values are not read.
    ///
    /// # Errors
    /// `Damaged` when its frame cannot be read, `Io`.
    pub fn arrived_ms(&self, author: &Author, place: FrontierTip) -> Result<Option<u64>, LogError> {
        let Some(branch) = self.branch_of(author, place)? else {
            return Ok(None);
        };
        if let Some(begin) = branch.begin.filter(|begin| begin.anchor.tip() == place) {
            return Ok(Some(begin.arrived_ms));
        }
        let record = branch.header(place.seq)?;
        Ok(record.map(|record| record.header.arrived_ms))
    }

    /// Walks the entries of `branch` from `from` through the newest. Walks that read the same part
    /// at about the same time read and check it once.
    pub fn walk_shared(&self, branch: &Arc<Branch>, from: Seq) -> SharedWalk {
        SharedWalk::new(self.chunks.clone(), Arc::clone(branch), from)
    }

    /// Counts the caller as a reader with `walk_shared` until the returned guard is dropped.
    pub fn at_work(&self) -> AtWork {
        self.chunks.at_work()
    }

    /// Returns how long the disk took to make entries durable, since the logs were opened.
    pub fn sync_times(&self) -> SyncTimes {
        self.timing.times()
    }

    /// Returns the bytes of whole, durable records by author.
    pub fn bytes_by_author(&self) -> BTreeMap<Author, u64> {
        let mut bytes = BTreeMap::new();
        for branch in self.all() {
            let sum: &mut u64 = bytes.entry(branch.author).or_default();
            *sum = sum.saturating_add(branch.bytes());
        }
        bytes
    }

    /// Returns the bytes of whole, durable records in all logs.
    pub fn bytes(&self) -> u64 {
        self.all().iter().map(|branch| branch.bytes()).sum()
    }

    /// Returns about how many bytes of records come after `places`, by seq alone; those of other authors are
    /// counted whole.
    pub fn bytes_after(&self, places: &Frontier) -> u64 {
        let branches = self.all();
        let after = branches
            .iter()
            .map(|branch| branch.bytes_after(places.seq(&branch.author)));
        after.sum()
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    pub(super) fn add(&self, branch: Arc<Branch>) {
        self.change(branch.author, |branches| {
            let place = branches.binary_search_by_key(&branch.number, |known| known.number);
            let place = place.expect_err("two branches with one number share a file");
            branches.insert(place, branch);
        });
    }

    pub(super) fn remove(&self, author: &Author, number: u32) {
        self.change(*author, |branches| {
            branches.retain(|branch| branch.number != number);
        });
    }

    /// Shows `branch` in place of the one with its number. Who reads that one goes on.
    pub(super) fn replace(&self, branch: Arc<Branch>) {
        self.change(branch.author, |branches| {
            let same = branches.iter_mut().find(|it| it.number == branch.number);
            *same.expect("a branch is replaced by itself") = branch;
        });
    }

    /// Forgets which branch has an entry of `author`: one of them was cut.
    pub(super) fn forget_places(&self, author: &Author) {
        self.change(*author, |_same_branches| {});
    }

    fn change(&self, author: Author, change: impl FnOnce(&mut Vec<Arc<Branch>>)) {
        let mut all = self
            .branches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let known = all.remove(&author).unwrap_or_default();
        let mut branches = match Arc::try_unwrap(known) {
            Ok(lineage) => lineage.branches,
            Err(shared) => shared.branches.clone(),
        };
        change(&mut branches);
        if !branches.is_empty() {
            all.insert(author, Arc::new(Lineage::new(branches)));
        }
    }

    fn branches(&self) -> RwLockReadGuard<'_, Branches> {
        self.branches.read().unwrap_or_else(PoisonError::into_inner)
    }
}
