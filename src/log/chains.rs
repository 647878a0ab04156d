//! Chains: the logs, as the rules of finality ask for them.

use std::cell::RefCell;

use crate::{
    id::{Author, Seq},
    log::{LogDamage, LogError, LogReader, Stretch},
    protocol::{chain::Tip, finality::Chains, frontier::FrontierTip},
};

/// `Damaged` when an unreadable frame hides an answer; `Io`.
impl Chains for LogReader {
    type Error = LogError;

    fn has(&self, author: &Author, place: FrontierTip) -> Result<bool, LogError> {
        Ok(self.branch_of(author, place)?.is_some())
    }

    fn is_joined(&self, author: &Author, place: FrontierTip) -> Result<bool, LogError> {
        let descent = self.descent(author, place)?;
        // Its file may have lost its end, and the entry that this branch left was in it.
        let is_whole =
            |last: &Stretch| last.branch.forked_from.is_none() || last.branch.begin.is_some();
        Ok(descent.last().is_some_and(is_whole))
    }

    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        self.leads(author, entry, tip)
    }

    fn keeps(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        self.keeps(author, entry, tip)
    }

    fn meet(
        &self,
        author: &Author,
        one: FrontierTip,
        other: FrontierTip,
    ) -> Result<Option<FrontierTip>, LogError> {
        if one == other {
            return Ok(self.branch_of(author, one)?.map(|_branch| one));
        }
        let (ours, theirs) = (self.descent(author, one)?, self.descent(author, other)?);
        // Both are newest first, so the first branch in common has the place where they part.
        for stretch in &ours {
            let same = |it: &&Stretch| it.branch.number == stretch.branch.number;
            let Some(common) = theirs.iter().find(same) else {
                continue;
            };
            let seq = stretch.through.min(common.through);
            for place in [one, other] {
                if place.seq == seq {
                    return Ok(Some(place));
                }
            }
            return tip_on(stretch, seq).map(|tip| tip.map(FrontierTip::from));
        }
        Ok(None)
    }

    fn at(&self, author: &Author, tip: FrontierTip, seq: Seq) -> Result<Option<Tip>, LogError> {
        let mut through = seq;
        for stretch in self.descent(author, tip)? {
            let first = stretch.branch.first_here();
            let mut next = through.min(stretch.through);
            while next >= first {
                match stretch.branch.entry(next)? {
                    Some((entry, _record)) if entry.verifies() => {
                        return Ok(Some(Tip {
                            seq: next,
                            id: entry.id,
                            hlc: entry.header.hlc,
                        }));
                    }
                    _odd_or_none => next = next.saturating_sub(1),
                }
            }
            if let Some(begin) = stretch.branch.begin {
                let anchor = begin.anchor;
                return Ok((anchor.seq <= through).then(|| anchor.into()));
            }
            through = through.min(first.saturating_sub(1));
        }
        Ok(None)
    }
}

// The entry that a branch has at `seq`, or the anchor at which it begins.
fn tip_on(stretch: &Stretch, seq: Seq) -> Result<Option<Tip>, LogError> {
    let anchor = stretch.branch.begin.map(|begin| begin.anchor);
    if let Some(anchor) = anchor.filter(|anchor| anchor.is_final(seq)) {
        return Ok((anchor.seq == seq).then(|| anchor.into()));
    }
    let found = stretch.branch.header(seq)?;
    Ok(found.map(|record| Tip {
        seq,
        id: record.header.id,
        hlc: record.header.hlc,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        disk::{Disk, RealDisk},
        log::{LogFiles, Logs},
        protocol::entry::{
            Entry, VerifiedEntry,
            tests::{AUTHOR_A, entry},
        },
    };

    fn after(prev: &Entry, key: &'static str) -> VerifiedEntry {
        let wall_ms = prev.header.hlc.wall_ms + 1;
        entry(AUTHOR_A, prev.header.seq + 1, Some(prev.id), wall_ms, key)
    }

    /// Entries 1 to 4 on a branch, and 3 to 5 on another one that left entry 2.
    fn forked(dir: &std::path::Path) -> (Logs, Vec<VerifiedEntry>, Vec<VerifiedEntry>) {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let (mut logs, _) = Logs::open(&disk, &LogFiles::default(), dir, &[]).unwrap();
        let mut main = vec![entry(AUTHOR_A, 1, None, 10, "/main")];
        for _ in 1..4 {
            main.push(after(main.last().unwrap(), "/main"));
        }
        let mut fork = vec![after(&main[1], "/fork")];
        for _ in 1..3 {
            fork.push(after(fork.last().unwrap(), "/fork"));
        }
        for (branch, entries) in [(0, &main), (1, &fork)] {
            logs.begin(&entries[0], 1).unwrap();
            for entry in &entries[1..] {
                logs.append(branch, entry, 1);
            }
            logs.sync().unwrap();
        }
        (logs, main, fork)
    }

    #[test]
    fn branches_meet_where_they_part() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, main, fork) = forked(dir.path());
        let (log, author) = (logs.reader(), main[0].author());
        let meet = |one: &Entry, other: &Entry| {
            let (one, other) = (FrontierTip::of(one), FrontierTip::of(other));
            let met = log.meet(&author, one, other).unwrap();
            assert_eq!(log.meet(&author, other, one).unwrap(), met);
            met.map(|place| place.id)
        };
        let absent = after(&fork[2], "/elsewhere");
        assert_eq!(meet(&main[3], &fork[2]), Some(main[1].id));
        assert_eq!(meet(&main[3], &main[1]), Some(main[1].id));
        assert_eq!(meet(&main[1], &fork[0]), Some(main[1].id));
        assert_eq!(meet(&main[0], &fork[2]), Some(main[0].id));
        assert_eq!(meet(&fork[0], &fork[2]), Some(fork[0].id));
        assert_eq!(meet(&fork[2], &fork[2]), Some(fork[2].id));
        assert_eq!(meet(&main[3], &absent), None);
        assert_eq!(meet(&absent, &absent), None);
        assert!(log.is_joined(&author, FrontierTip::of(&fork[2])).unwrap());
        assert!(!log.is_joined(&author, FrontierTip::of(&absent)).unwrap());
        assert!(log.has(&author, FrontierTip::of(&main[0])).unwrap());
        assert!(!log.has(&author, FrontierTip::of(&absent)).unwrap());
    }

    #[test]
    fn places_are_found_along_the_branch_of_a_tip() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, main, fork) = forked(dir.path());
        let (log, author) = (logs.reader(), main[0].author());
        let at = |tip: &Entry, seq| {
            let found = log.at(&author, FrontierTip::of(tip), seq).unwrap();
            found.map(|tip| tip.id)
        };
        for seq in 1..=4 {
            let index = usize::try_from(seq).unwrap() - 1;
            assert_eq!(at(&main[3], seq), Some(main[index].id));
        }
        assert_eq!(at(&main[2], 9), Some(main[2].id));
        assert_eq!(at(&fork[2], 9), Some(fork[2].id));
        assert_eq!(at(&fork[2], 3), Some(fork[0].id));
        assert_eq!(at(&fork[2], 2), Some(main[1].id));
        assert_eq!(at(&fork[2], 0), None);
        assert_eq!(at(&after(&fork[2], "/elsewhere"), 3), None);
    }
}

/// The logs of a store. Damage that hides an answer is added to a list, and the answer is that of a log
/// in which nothing was forked or lost.
#[derive(Debug)]
pub(crate) struct NotedChains<'a> {
    log: &'a LogReader,
    unreadable: &'a RefCell<Vec<LogDamage>>,
}

impl<'a> NotedChains<'a> {
    pub(crate) fn new(log: &'a LogReader, unreadable: &'a RefCell<Vec<LogDamage>>) -> Self {
        Self { log, unreadable }
    }

    fn or_note<T>(&self, answer: Result<T, LogError>, hidden: T) -> Result<T, LogError> {
        match answer {
            Err(LogError::Damaged(found)) => {
                self.unreadable.borrow_mut().push(found);
                Ok(hidden)
            }
            answer => answer,
        }
    }
}

impl Chains for NotedChains<'_> {
    type Error = LogError;

    fn has(&self, author: &Author, place: FrontierTip) -> Result<bool, LogError> {
        self.or_note(self.log.has(author, place), true)
    }

    fn is_joined(&self, author: &Author, place: FrontierTip) -> Result<bool, LogError> {
        self.or_note(self.log.is_joined(author, place), true)
    }

    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        self.or_note(self.log.leads(author, entry, tip), None)
    }

    fn keeps(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        self.or_note(self.log.keeps(author, entry, tip), None)
    }

    fn meet(
        &self,
        author: &Author,
        one: FrontierTip,
        other: FrontierTip,
    ) -> Result<Option<FrontierTip>, LogError> {
        self.or_note(self.log.meet(author, one, other), None)
    }

    fn at(&self, author: &Author, tip: FrontierTip, seq: Seq) -> Result<Option<Tip>, LogError> {
        self.or_note(self.log.at(author, tip, seq), None)
    }
}
