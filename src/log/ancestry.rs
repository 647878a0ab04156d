//! Ancestry: which branch has an entry, and what a tip leads back to. One answer for all who ask.
//!
//! Only frame headers are read, so a record whose payload is damaged still answers. A header that
//! cannot be read is `LogError::Damaged`, never "no": the caller decides what it does without an
//! answer. There are two exceptions, where the record can be nothing else:
//!
//! - A branch names the entry that it left (`Branch::forked_from`), and that entry was here. If one
//!   branch alone could have it and its record there is unreadable, it is that record.
//! - `Lineage::covered` and `merge::spans` get frontiers that this log, or a replica that had the
//!   same entries, gave out. An author with one branch has all of them on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::{Author, EntryId, Seq},
    log::{
        Branch, LogDamage, LogError, LogReader,
        lineage::{Lineage, Parents, Places},
    },
    protocol::{
        entry::Entry, finality::Finality, frontier::FrontierTip, heads::Head, membership::Standing,
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
        let record = self.header(seq)?;
        Ok(record.is_some_and(|record| record.header.id == *id))
    }
}

impl Lineage {
    // Returns what the entry at `tip` leads back to, its own branch first.
    fn descent(
        &self,
        tip: FrontierTip,
        places: &Places,
        parents: &Parents<'_>,
    ) -> Result<Vec<Stretch>, LogError> {
        let (mut stretches, mut through) = (Vec::new(), tip.seq);
        let mut next = places.get(tip)?;
        while let Some(index) = next {
            let branch = Arc::clone(&self.branches[index]);
            let before = branch.first.saturating_sub(1);
            stretches.push(Stretch { branch, through });
            next = parents.of(index)?;
            through = before;
        }
        Ok(stretches)
    }

    /// Returns the highest place of each branch that one of `tips` leads back to; one before the
    /// first that is here when there is none. Each branch is left once, however many tips lead through it.
    ///
    /// # Errors
    /// `Damaged` as `descent`; `Io`.
    pub(super) fn covered(
        &self,
        tips: &[FrontierTip],
        places: &Places,
    ) -> Result<Vec<Seq>, LogError> {
        let none = |branch: &Arc<Branch>| branch.first_here().saturating_sub(1);
        let mut covered: Vec<Seq> = self.branches.iter().map(none).collect();
        if let [only] = self.branches.as_slice() {
            let newest = only.tip().map_or(none(only), |tip| tip.seq);
            let last = tips.last().map_or(0, |tip| tip.seq.min(newest));
            return Ok(vec![last.max(none(only))]);
        }
        if tips.is_empty() {
            return Ok(covered);
        }
        let parents = self.parents()?;
        let mut is_left = vec![false; self.branches.len()];
        for tip in tips {
            let (mut next, mut through) = (places.get(*tip)?, tip.seq);
            while let Some(index) = next {
                covered[index] = covered[index].max(through);
                if std::mem::replace(&mut is_left[index], true) {
                    break;
                }
                next = parents.of(index)?;
                through = self.branches[index].first.saturating_sub(1);
            }
        }
        Ok(covered)
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
        let lineage = self.lineage(author);
        let index = lineage.find([place])?.get(place)?;
        Ok(index.map(|index| Arc::clone(&lineage.branches[index])))
    }

    /// Returns what the entry at `tip` leads back to, its own branch first; nothing when it is not
    /// here.
    ///
    /// # Errors
    /// `Damaged` when an unreadable frame hides which branch it is on, or which branch one of those
    /// left; `Io`.
    pub fn descent(&self, author: &Author, tip: FrontierTip) -> Result<Vec<Stretch>, LogError> {
        let lineage = self.lineage(author);
        let places = lineage.find([tip])?;
        lineage.descent(tip, &places, &lineage.parents()?)
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
        if let Some(begin) = self.begin(author)
            && begin.anchor.is_final(entry.seq)
        {
            // Its record is gone, so places decide: all entries that are here come after it.
            if begin.anchor.is_final(tip.seq) {
                return Ok(Some(entry.seq <= tip.seq));
            }
            return Ok(self.branch_of(author, tip)?.map(|_branch| true));
        }
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

    /// Returns those of `entries`, all by `author`, that are on the branch that ends in `tip`, and the
    /// damage that hides the answer for others. Each branch is read at most once, and what was found is
    /// remembered.
    ///
    /// # Errors
    /// `Io`.
    pub fn leading(
        &self,
        author: &Author,
        entries: &BTreeSet<FrontierTip>,
        tip: FrontierTip,
    ) -> Result<(BTreeSet<FrontierTip>, Vec<LogDamage>), LogError> {
        let (mut leading, mut damage) = (BTreeSet::new(), Vec::new());
        let lineage = self.lineage(author);
        let places = lineage.find(entries.iter().copied().chain([tip]))?;
        let parents = lineage.parents()?;
        let descent = match lineage.descent(tip, &places, &parents) {
            Err(LogError::Damaged(found)) => return Ok((leading, vec![found])),
            descent => descent?,
        };
        let through = descent.iter().map(|it| (it.branch.number, it.through));
        let through: BTreeMap<u32, Seq> = through.collect();
        for entry in entries {
            // The places of removed records decide, like in `leads`.
            let is_final = self.is_final(author, entry.seq);
            if is_final && self.is_final(author, tip.seq) {
                leading.extend((entry.seq <= tip.seq).then_some(*entry));
                continue;
            }
            match places.get(*entry) {
                _any if is_final => leading.extend((!descent.is_empty()).then_some(*entry)),
                Ok(Some(index)) => {
                    let through = through.get(&lineage.branches[index].number);
                    let is_on = through.is_some_and(|through| entry.seq <= *through);
                    leading.extend(is_on.then_some(*entry));
                }
                Ok(None) => {}
                Err(LogError::Damaged(found)) => damage.push(found),
                Err(error) => return Err(error),
            }
        }
        Ok((leading, damage))
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
        if self.is_final(author, entry.seq) {
            return Ok(Some(true));
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

    /// Returns whether the entry at `at` verifies by itself, and the one before it; `None` when it is not
    /// here.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn verifies(
        &self,
        author: &Author,
        at: FrontierTip,
    ) -> Result<Option<(bool, Option<FrontierTip>)>, LogError> {
        // A log is made to begin only after an entry that verifies by itself.
        if self.is_final(author, at.seq) {
            return Ok(Some((true, None)));
        }
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

    /// Returns whether the entry of `author` at `at` counts, if it is there. `finality` has the anchors
    /// of the store of these logs, `standing` is that of the author there.
    ///
    /// # Errors
    /// `Damaged` when the author was removed, or has forked, and an unreadable frame hides the answer;
    /// `Io`.
    pub fn counts(
        &self,
        finality: &Finality,
        standing: &Standing,
        author: &Author,
        at: FrontierTip,
    ) -> Result<bool, LogError> {
        // No removal takes back entries that are gone.
        if self.is_final(author, at.seq) {
            return Ok(true);
        }
        let is_one_branch = || self.lineage(author).branches.len() < 2;
        if *standing == Standing::Counts && (!finality.has_anchors(author) || is_one_branch()) {
            return Ok(true);
        }
        finality.counts(standing, author, at, Some(at), self)
    }
}

// Tips of removals of which it is remembered whether they verify by themselves.
const VERIFIED_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        disk::{Disk, RealDisk},
        log::{LogFiles, Logs},
        protocol::{
            entry::{
                Entry, VerifiedEntry,
                tests::{AUTHOR_A, entry},
            },
            frontier::Frontier,
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
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let (mut logs, _) = Logs::open(&disk, &LogFiles::default(), dir.path(), &[]).unwrap();
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
            // Not asked by place: the answer would be remembered.
            let branches = log.of(&entry.author()).into_iter();
            let found = branches.filter_map(|branch| {
                // Another branch may be damaged there.
                let record = branch.header(entry.header.seq).ok()??;
                (record.header.id == entry.id).then_some((branch, record))
            });
            let [(branch, record)] = &*found.collect::<Vec<_>>() else {
                panic!("one branch has it")
            };
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
            // Asked about all at once.
            let all = it.main.iter().chain(&it.fork).map(|entry| place(entry));
            let (leading, damage) = log.leading(&author, &all.collect(), place(tip)).unwrap();
            assert_eq!(leading.contains(&place(entry)), expected == Some(true));
            assert!(damage.is_empty());
        }
    }

    #[test]
    fn a_frontier_covers_what_its_tips_lead_back_to() {
        let it = forked();
        let log = it.logs.reader();
        let author = it.main[0].author();
        let covered = |tips: &[&VerifiedEntry]| {
            let frontier: Frontier = tips.iter().map(|tip| (author, place(tip))).collect();
            let lineage = log.lineage(&author);
            let places = lineage.find(frontier.tips(&author).iter().copied());
            lineage
                .covered(frontier.tips(&author), &places.unwrap())
                .unwrap()
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
        let log = it.logs.reader();
        let author = it.main[0].author();
        let asked = [&it.main[1], &it.main[2]].map(|entry| place(entry));
        let leading = |tip| log.leading(&author, &BTreeSet::from(asked), place(tip));
        let (found, damage) = leading(&it.main[3]).unwrap();
        assert_eq!((found, damage.len()), (BTreeSet::from([asked[0]]), 1));
        let (found, damage) = leading(&it.main[2]).unwrap();
        assert_eq!((found, damage.len()), (BTreeSet::new(), 1));
    }

    // An entry may cite a thousand places with ids that nobody wrote. They were read again each time.
    #[test]
    fn places_that_no_branch_has_are_read_once() {
        let it = forked();
        let author = it.main[0].author();
        let find = |id| {
            let place = FrontierTip { seq: 3, id };
            it.logs.reader().find(&author, &[place]).unwrap()
        };
        assert_eq!(find(EntryId([1; 32])), (vec![false], vec![]));
        // Places that were read once need no file.
        it.damage(&it.main[2]);
        it.damage(&it.fork[0]);
        assert_eq!(find(EntryId([2; 32])), (vec![false], vec![]));
        assert_eq!(find(it.fork[0].id), (vec![true], vec![]));
    }

    #[test]
    fn the_entry_that_a_fork_left_is_where_alone_it_can_be() {
        let it = forked();
        it.damage(&it.main[1]);
        assert_eq!(it.leads(&it.main[0], &it.fork[1]).unwrap(), Some(true));
        let log = it.logs.reader();
        let author = it.main[0].author();
        let lineage = log.lineage(&author);
        let tip = place(&it.fork[1]);
        let places = lineage.find([tip]).unwrap();
        assert_eq!(lineage.covered(&[tip], &places).unwrap(), [2, 4]);
    }

    // A removal that reaches this node later than the pruning.
    #[test]
    fn removed_entries_count_whatever_a_removal_names() {
        let mut it = forked();
        let author = it.main[0].author();
        let anchor = Frontier::from_iter([(author, place(&it.main[1]))]);
        let plan = it.logs.plan_prune(&anchor, |_, _| Ok(false));
        let (_pruning, removed) = it.logs.prune(&plan.unwrap().unwrap()).unwrap();
        removed.unwrap();
        let log = it.logs.reader();
        let keeps = |entry, tip| log.keeps(&author, place(entry), place(tip)).unwrap();
        let counts = |standing: &Standing, entry: &Entry| {
            let none_final = Finality::default();
            let counts = log.counts(&none_final, standing, &author, place(entry));
            counts.unwrap()
        };
        for entry in &it.main[..2] {
            for tip in it.main.iter().chain(&it.fork) {
                assert_eq!(keeps(entry, tip), Some(true));
            }
            for standing in [Standing::Reader, Standing::Unknown, Standing::Spent] {
                assert!(counts(&standing, entry));
                assert!(!counts(&standing, &it.main[2]));
            }
        }
        // Later entries as before.
        assert_eq!(keeps(&it.main[2], &it.main[3]), Some(true));
        assert_eq!(keeps(&it.main[2], &it.fork[1]), Some(false));
        assert_eq!(keeps(&it.main[2], &after(&it.main[3], "/elsewhere")), None);
        let head = Head::of(&it.main[0], &it.main[0].ops[0]);
        assert!(log.is_ancestor(&it.fork[0], &head).unwrap());
        let removed: BTreeSet<_> = it.main[..2].iter().map(|entry| place(entry)).collect();
        for (tip, expected) in [(&it.fork[1], removed.len()), (&it.main[0], 1)] {
            let (leading, damage) = log.leading(&author, &removed, place(tip)).unwrap();
            assert_eq!((leading.len(), damage.len()), (expected, 0));
        }
    }
}
