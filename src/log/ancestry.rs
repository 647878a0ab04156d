//! Ancestry: which branch has an entry, and what a tip leads back to. One answer for all who ask.
//!
//! Only frame headers are read, so a record whose payload is damaged still answers. A header that
//! cannot be read is `LogError::Damaged`, never "no": the caller decides what it does without an
//! answer. There are two exceptions, where the record can be nothing else:
//!
//! - A branch names the entry that it left (`Branch::forked_from`), and that entry was here. If one
//!   branch alone could have it and its record there is unreadable, it is that record.
//! - `covered` and `spans` get frontiers that this log, or a replica that had the same entries, gave
//!   out. An author with one branch has all of them on it.

use std::sync::Arc;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    log::{Branch, LogError, LogReader},
    protocol::{
        entry::Entry,
        frontier::{Frontier, FrontierTip},
        heads::Head,
        membership::{Members, Standing},
    },
};

/// The part of a branch that a tip leads back to: its first record through `through`.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// The branch.
    pub branch: Arc<Branch>,
    /// The last place of it, inclusive.
    pub through: Seq,
}

impl Branch {
    /// Returns whether this branch has the entry `id` at `seq`. Of its ancestors, which are on other
    /// branches, it does not.
    ///
    /// # Errors
    /// `Damaged` when the record there has an unreadable frame; `Io`.
    pub fn has(self: &Arc<Self>, seq: Seq, id: &EntryId) -> Result<bool, LogError> {
        // The usual question; it needs no read.
        if self.tip().is_some_and(|newest| newest.id == *id) {
            return Ok(true);
        }
        let record = self.record(seq)?;
        Ok(record.is_some_and(|record| record.header.id == *id))
    }
}

impl LogReader {
    /// Returns the branch of `author` that has the entry at `place`; `None` when it is not here.
    ///
    /// # Errors
    /// `Damaged` when no branch has it and one has an unreadable frame there; `Io`.
    pub fn branch_of(
        &self,
        author: &Author,
        place: FrontierTip,
    ) -> Result<Option<Arc<Branch>>, LogError> {
        let mut damage = None;
        for branch in self.of(author) {
            match branch.has(place.seq, &place.id) {
                Ok(true) => return Ok(Some(branch)),
                Ok(false) => {}
                Err(LogError::Damaged(found)) => damage = Some(found),
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(None), |found| Err(LogError::Damaged(found)))
    }

    /// Returns what the entry at `tip` leads back to, its own branch first; nothing when it is not
    /// here.
    ///
    /// # Errors
    /// `Damaged` when an unreadable frame hides which branch it is on, or which branch one of those
    /// left; `Io`.
    pub fn descent(&self, author: &Author, tip: FrontierTip) -> Result<Vec<Stretch>, LogError> {
        let mut stretches = Vec::new();
        let Some(mut branch) = self.branch_of(author, tip)? else {
            return Ok(stretches);
        };
        let mut through = tip.seq;
        loop {
            let left = branch.forked_from;
            let before = branch.first.saturating_sub(1);
            stretches.push(Stretch { branch, through });
            let Some(id) = left else {
                return Ok(stretches);
            };
            let from = FrontierTip { seq: before, id };
            // Its file may have lost its end; then this is all there is.
            let Some(parent) = self.branch_left(author, from)? else {
                return Ok(stretches);
            };
            branch = parent;
            through = before;
        }
    }

    // Returns the branch that has the entry at `from`, which another one left.
    fn branch_left(
        &self,
        author: &Author,
        from: FrontierTip,
    ) -> Result<Option<Arc<Branch>>, LogError> {
        let damage = match self.branch_of(author, from) {
            Err(LogError::Damaged(damage)) => damage,
            found => return found,
        };
        let mut candidates = self.of(author);
        candidates.retain(|branch| {
            branch.first <= from.seq && branch.tip().is_some_and(|tip| tip.seq >= from.seq)
        });
        candidates
            .retain(|branch| matches!(branch.has(from.seq, &from.id), Err(LogError::Damaged(_))));
        match candidates.as_slice() {
            [only] => Ok(Some(Arc::clone(only))),
            _several => Err(LogError::Damaged(damage)),
        }
    }

    /// Returns whether the entry at `entry` is on the branch that ends in `tip`; `None` when `tip`,
    /// or what lies between the two, is not here.
    ///
    /// # Errors
    /// `Damaged` when an unreadable frame hides the answer; `Io`.
    pub fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        let descent = self.descent(author, tip)?;
        if descent.is_empty() {
            return Ok(None);
        }
        let on = |stretch: &&Stretch| (stretch.branch.first..=stretch.through).contains(&entry.seq);
        match descent.iter().find(on) {
            Some(stretch) => stretch.branch.has(entry.seq, &entry.id).map(Some),
            None if entry.seq > tip.seq => Ok(Some(false)),
            None => {
                let is_whole = |last: &Stretch| last.branch.forked_from.is_none();
                Ok(descent.last().is_some_and(is_whole).then_some(false))
            }
        }
    }

    /// Returns whether a removal that names `tip` keeps `entry`, by the logs: as `leads`, also for the
    /// tip itself, with one exception.
    ///
    /// An entry of which the own signature is wrong counts only while one counts that vouches for it.
    /// After a removal that names such an entry none does, so a node that comes later never gets it.
    /// Here, too, the removal is taken for one whose tip has not come (`None`), and the tip and what
    /// comes before it up to an entry that verifies by itself do not count.
    ///
    /// # Errors
    /// As `leads`.
    pub fn keeps(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        let descent = self.descent(author, tip)?;
        if descent.is_empty() {
            return Ok(None);
        }
        let mut last = Some(tip);
        while let Some(at) = last {
            match self.verifies(author, at)? {
                None => return Ok(None),
                Some((true, _prev)) => break,
                Some((false, _prev)) if at == entry => return Ok(Some(false)),
                Some((false, prev)) => last = prev,
            }
        }
        match (last == Some(tip), entry == tip) {
            (true, true) => Ok(Some(true)),
            (true, false) => self.leads(author, entry, tip),
            (false, _) => Ok(None),
        }
    }

    // Returns whether the entry at `at` verifies by itself, and the one before it; `None` when it is not
    // here.
    fn verifies(
        &self,
        author: &Author,
        at: FrontierTip,
    ) -> Result<Option<(bool, Option<FrontierTip>)>, LogError> {
        if let Some(known) = self.verified().get(&at.id) {
            return Ok(Some(*known));
        }
        let Some((entry, _record)) = self.entry(author, at.seq, &at.id)? else {
            return Ok(None);
        };
        let prev = entry.header.prev.map(|id| FrontierTip {
            seq: at.seq.saturating_sub(1),
            id,
        });
        let answer = (entry.verifies(), prev);
        let mut verified = self.verified();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(at.id, answer);
        Ok(Some(answer))
    }

    /// Returns whether `head`, which the author of `entry` wrote earlier, is one of its ancestors by
    /// `prev`. All entries before `entry` are in the log.
    ///
    /// # Errors
    /// `Damaged` as `leads`; `Io`.
    pub fn is_ancestor(&self, entry: &Entry, head: &Head) -> Result<bool, LogError> {
        let author = entry.author();
        if self.of(&author).len() < 2 {
            return Ok(true);
        }
        let Some(prev) = entry.header.prev else {
            return Ok(false);
        };
        let before = FrontierTip {
            seq: entry.header.seq.saturating_sub(1),
            id: prev,
        };
        let place = FrontierTip {
            seq: head.seq,
            id: head.id,
        };
        Ok(place == before
            || (place.seq < before.seq && self.leads(&author, place, before)? == Some(true)))
    }

    /// Returns whether the entry of `author` at `at` counts in `store`, if it is there.
    ///
    /// # Errors
    /// `Damaged` when the author was removed and an unreadable frame hides the answer; `Io`.
    pub fn counts(
        &self,
        members: &Members,
        store: &StoreId,
        author: &Author,
        at: FrontierTip,
    ) -> Result<bool, LogError> {
        match members.standing(store, author) {
            Standing::Counts => Ok(true),
            Standing::Unknown | Standing::Reader => Ok(false),
            Standing::Through(cut) => cut.covers(author, at, |author, entry, tip| {
                self.keeps(author, entry, tip)
            }),
        }
    }

    /// Returns the highest place of `branch` that `frontier` leads back to; one before its first when
    /// there is none.
    ///
    /// # Errors
    /// `Damaged` as `descent`; `Io`.
    pub fn covered(&self, branch: &Arc<Branch>, frontier: &Frontier) -> Result<Seq, LogError> {
        let none = branch.first.saturating_sub(1);
        let tips = frontier.tips(&branch.author);
        if let [only] = self.of(&branch.author).as_slice() {
            let newest = only.tip().map_or(none, |tip| tip.seq);
            return Ok(tips.last().map_or(none, |tip| tip.seq.min(newest)));
        }
        let mut covered = none;
        for tip in tips {
            let descent = self.descent(&branch.author, *tip)?;
            let on = descent
                .iter()
                .find(|stretch| stretch.branch.number == branch.number);
            covered = on.map_or(covered, |stretch| covered.max(stretch.through));
        }
        Ok(covered)
    }
}

// Tips of removals of which it is remembered whether they verify by themselves.
const VERIFIED_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        disk::RealDisk,
        log::Logs,
        protocol::entry::{
            Entry, VerifiedEntry,
            tests::{AUTHOR_A, entry},
        },
    };

    /// One author's log: entries 1 to 4 on branch 0, and a fork that left entry 2.
    ///
    /// ```text
    /// branch 0:  1 - 2 - 3 - 4
    /// branch 1:        \ 3'- 4'
    /// ```
    struct Forked {
        dir: tempfile::TempDir,
        logs: Logs,
        main: Vec<VerifiedEntry>,
        fork: Vec<VerifiedEntry>,
    }

    fn after(prev: &Entry, key: &'static str) -> VerifiedEntry {
        let wall_ms = prev.header.hlc.wall_ms + 1;
        entry(AUTHOR_A, prev.header.seq + 1, Some(prev.id), wall_ms, key)
    }

    fn forked() -> Forked {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, _) = Logs::open(Arc::new(RealDisk), dir.path(), &[]).unwrap();
        let mut main = vec![entry(AUTHOR_A, 1, None, 10, "/main")];
        for _ in 1..4 {
            main.push(after(main.last().unwrap(), "/main"));
        }
        let mut fork = vec![after(&main[1], "/fork")];
        fork.push(after(&fork[0], "/fork"));
        for (branch, entries) in [(0, &main), (1, &fork)] {
            logs.begin(&entries[0], 1).unwrap();
            for entry in &entries[1..] {
                logs.append(branch, entry, 1);
            }
            logs.sync().unwrap();
        }
        Forked {
            dir,
            logs,
            main,
            fork,
        }
    }

    fn place(entry: &Entry) -> FrontierTip {
        FrontierTip::of(entry)
    }

    impl Forked {
        fn leads(&self, entry: &Entry, tip: &Entry) -> Result<Option<bool>, LogError> {
            let log = self.logs.reader();
            log.leads(&entry.author(), place(entry), place(tip))
        }

        /// Makes the frame of `entry` unreadable.
        fn damage(&self, entry: &Entry) {
            let log = self.logs.reader();
            let branch = log.branch_of(&entry.author(), place(entry)).unwrap();
            let branch = branch.unwrap();
            let record = branch.record(entry.header.seq).unwrap().unwrap();
            let file: &Path = &self.dir.path().join(&branch.name);
            let mut bytes = fs::read(file).unwrap();
            let offset = usize::try_from(record.offset).unwrap();
            bytes[offset..offset + 8].fill(0xff);
            fs::write(file, bytes).unwrap();
        }
    }

    #[test]
    fn a_tip_leads_back_to_its_branch_and_what_that_left() {
        let it = forked();
        let log = it.logs.reader();
        let author = it.main[0].author();
        let descent = |tip| {
            let descent = log.descent(&author, place(tip)).unwrap();
            let stretch = |stretch: &Stretch| (stretch.branch.number, stretch.through);
            descent.iter().map(stretch).collect::<Vec<_>>()
        };
        assert_eq!(descent(&it.main[3]), [(0, 4)]);
        assert_eq!(descent(&it.main[2]), [(0, 3)]);
        assert_eq!(descent(&it.fork[1]), [(1, 4), (0, 2)]);
        assert_eq!(descent(&after(&it.fork[1], "/elsewhere")), []);
        for (entry, tip, expected) in [
            (&it.main[0], &it.main[3], Some(true)),
            (&it.main[3], &it.main[3], Some(true)),
            (&it.main[3], &it.main[2], Some(false)),
            (&it.main[1], &it.fork[1], Some(true)),
            (&it.main[2], &it.fork[1], Some(false)),
            (&it.fork[0], &it.main[3], Some(false)),
            (&it.fork[0], &it.fork[1], Some(true)),
            (&it.main[0], &after(&it.fork[1], "/elsewhere"), None),
        ] {
            assert_eq!(it.leads(entry, tip).unwrap(), expected);
        }
    }

    #[test]
    fn a_frontier_covers_what_its_tips_lead_back_to() {
        let it = forked();
        let log = it.logs.reader();
        let author = it.main[0].author();
        let covered = |tips: &[&VerifiedEntry]| {
            let frontier: Frontier = tips.iter().map(|tip| (author, place(tip))).collect();
            let branches = log.of(&author);
            let covered = branches.iter().map(|branch| log.covered(branch, &frontier));
            covered.collect::<Result<Vec<_>, _>>().unwrap()
        };
        assert_eq!(covered(&[]), [0, 2]);
        assert_eq!(covered(&[&it.main[2]]), [3, 2]);
        assert_eq!(covered(&[&it.fork[0]]), [2, 3]);
        assert_eq!(covered(&[&it.main[3], &it.fork[1]]), [4, 4]);
    }

    // It read as "not on this branch", and so as "removed".
    #[test]
    fn an_unreadable_frame_is_no_answer() {
        let it = forked();
        it.damage(&it.main[2]);
        let damaged = |answer| matches!(answer, Err(LogError::Damaged(_)));
        assert!(damaged(it.leads(&it.main[2], &it.main[3])));
        assert!(
            damaged(it.leads(&it.main[0], &it.main[2])),
            "which branch is it on?"
        );
        // Other places answer.
        assert_eq!(it.leads(&it.main[1], &it.main[3]).unwrap(), Some(true));
        assert_eq!(it.leads(&it.fork[0], &it.fork[1]).unwrap(), Some(true));
    }

    #[test]
    fn the_entry_that_a_fork_left_is_where_alone_it_can_be() {
        let it = forked();
        it.damage(&it.main[1]);
        assert_eq!(it.leads(&it.main[0], &it.fork[1]).unwrap(), Some(true));
        let log = it.logs.reader();
        let author = it.main[0].author();
        let frontier: Frontier = [(author, place(&it.fork[1]))].into_iter().collect();
        assert_eq!(log.covered(&log.of(&author)[0], &frontier).unwrap(), 2);
    }
}
