//! Pruning: entries at and before an anchor are removed from the logs, in whole files.
//!
//! The order makes each step safe to lose power after: the file `begins` is replaced (the commit
//! point); then readers are shown logs that begin later; then files are removed, lowest first. What an
//! interrupted run leaves is removed when the logs are opened.
//!
//! Branches that left a log before the anchor are void. They are listed before the commit point
//! ([`void`](super::void)) and set aside after it. The state file knows their ends, so it is built again
//! before the list is removed.

use std::sync::Arc;

use crate::{
    id::Author,
    log::{
        Begin, Begins, CannotPrune, LogError, Logs, Pruning, begin::BeginRow, error::file_error,
        void::Voids, writer::Writer,
    },
    protocol::{
        anchor::Anchor,
        frontier::{Frontier, FrontierTip},
    },
};

/// The new beginnings of logs, and the void branches that are set aside.
#[derive(Debug)]
pub struct PrunePlan {
    pub(super) begins: Begins,
    pub(super) voids: Voids,
}

impl PrunePlan {
    /// Returns the anchors at which logs begin.
    pub fn anchors(&self) -> Frontier {
        self.begins.anchors()
    }

    /// Returns whether branches are set aside.
    pub fn has_voids(&self) -> bool {
        !self.voids.0.is_empty()
    }
}

impl Logs {
    /// Returns where logs would begin without the entries at and before `anchors`. An anchor that is
    /// before the beginning of its log already changes nothing. `is_void` returns whether the newest entry
    /// of a branch, which left before an anchor, is void.
    ///
    /// The inner error says why this is not possible. Of what would be removed, only the anchors are read:
    /// the caller has their rows in a base.
    ///
    /// # Errors
    /// `Io`, `NoDescriptor`; those of `is_void`.
    pub fn plan_prune(
        &self,
        anchors: &Frontier,
        is_void: impl Fn(&Author, FrontierTip) -> Result<bool, LogError>,
    ) -> Result<Result<PrunePlan, CannotPrune>, LogError> {
        let (mut begins, mut voids) = (self.begins.clone(), Vec::new());
        for (author, tips) in anchors.by_author() {
            let Some(anchor) = tips.last().copied() else {
                continue;
            };
            if tips.len() > 1 {
                let seq = anchor.seq;
                return Ok(Err(CannotPrune::Forked { author, seq }));
            }
            if self.reader().is_final(&author, anchor.seq) {
                continue;
            }
            match self.row(author, anchor) {
                Ok(Ok((number, row))) => {
                    let left = self.voids(&author, anchor.seq, Some(number), true)?;
                    for (_author, number) in &left {
                        let branches = self.reader().of(&author).into_iter();
                        let mut branches = branches.filter(|branch| branch.number == *number);
                        let tip = branches.next().and_then(|branch| branch.tip());
                        if !tip.map_or(Ok(true), |tip| is_void(&author, tip.into()))? {
                            let seq = anchor.seq;
                            return Ok(Err(CannotPrune::Forked { author, seq }));
                        }
                    }
                    voids.extend(left);
                    begins.0.retain(|(other, _number), _row| *other != author);
                    begins.0.insert((author, number), row);
                }
                Ok(Err(cannot)) => return Ok(Err(cannot)),
                Err(LogError::Damaged(found)) => return Ok(Err(CannotPrune::Damaged(found))),
                Err(error) => return Err(error),
            }
        }
        let voids = Voids(voids);
        Ok(Ok(PrunePlan { begins, voids }))
    }

    // Returns the number of the branch that has `anchor`, and its row.
    fn row(
        &self,
        author: Author,
        anchor: FrontierTip,
    ) -> Result<Result<(u32, BeginRow), CannotPrune>, LogError> {
        let (log, seq) = (self.reader(), anchor.seq);
        let Some(branch) = log.branch_of(&author, anchor)? else {
            return Ok(Err(CannotPrune::NoEntry { author, seq }));
        };
        let Some((entry, record)) = branch.entry(seq)? else {
            return Ok(Err(CannotPrune::NoEntry { author, seq }));
        };
        if !entry.verifies() {
            return Ok(Err(CannotPrune::Unvouched { author, seq }));
        }
        let next = branch.header(seq.saturating_add(1))?;
        let row = BeginRow {
            first: branch.first,
            forked_from: branch.forked_from,
            begin: Begin {
                anchor: Anchor {
                    seq,
                    id: entry.id,
                    hlc: entry.header.hlc,
                },
                arrived_ms: record.header.arrived_ms,
                offset: next.map_or(record.end(), |next| next.offset),
            },
        };
        Ok(Ok((branch.number, row)))
    }

    /// Makes the logs begin as `plan_prune` has found, and removes the files that hold nothing else.
    /// Durable on return. Readers that walk a log go on; their files stay open until then. Nothing may
    /// be staged. The inner error: a file could not be removed; the next opening does that.
    ///
    /// Void branches are no logs any more from then on. Their files are there until
    /// `set_voids_aside`.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`: the rows could not be written. The logs are as before, or begin later
    /// from the next opening on.
    ///
    /// # Panics
    /// When entries are staged.
    pub fn prune(&mut self, plan: &PrunePlan) -> Result<(Pruning, Result<(), LogError>), LogError> {
        let PrunePlan { begins, voids } = plan;
        if *begins == self.begins {
            return Ok((Pruning::default(), Ok(())));
        }
        voids.prepare_prune(self.disk.as_ref(), &self.dir, &begins.hash())?;
        begins.write(self.disk.as_ref(), &self.dir)?;
        let mut kept = Ok(());
        for key in &voids.0 {
            let writer = self.writers.remove(key);
            self.reader().remove(&key.0, key.1);
            let is_read = |writer: &Writer| Arc::strong_count(&writer.branch) > 1;
            if let Some(writer) = writer.filter(is_read) {
                let name = &writer.branch.name;
                let open = writer.segments.keep_open();
                kept = kept.and(open.map_err(|source| file_error(name, source)));
            }
        }
        let (mut pruning, removed) = self.switch(begins.clone());
        pruning.voids = voids.0.len();
        Ok((pruning, kept.and(removed)))
    }
}

#[cfg(test)]
pub(in crate::log) mod tests {
    use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

    use super::*;
    use crate::{
        disk::{Disk, RealDisk},
        id::Seq,
        log::{
            LogFiles, Mark, Pruned, Recovered,
            merge::{Merge, Merged, NotHere, spans},
            segments,
        },
        protocol::entry::{
            Entry, VerifiedEntry,
            tests::{AUTHOR_A, AUTHOR_B, entry},
        },
    };

    const SEGMENT_BYTES: u64 = 700;

    fn try_open(dir: &Path, marks: &[Mark]) -> Result<(Logs, Recovered), LogError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        // Fewer than there are files, so that they are closed and opened again.
        let files = LogFiles::new(3).with_segments_of(SEGMENT_BYTES);
        Logs::open(&disk, &files, dir, marks)
    }

    pub(in crate::log) fn open(dir: &Path) -> Logs {
        let (logs, found) = try_open(dir, &[]).unwrap();
        assert!(found.damage.is_empty() && found.lost_tails.is_empty() && found.torn.is_empty());
        logs
    }

    fn chain(key: [u8; 32], count: u64) -> Vec<VerifiedEntry> {
        let mut entries = vec![entry(key, 1, None, 10, "/1")];
        for seq in 2..=count {
            let before = entries.last().unwrap();
            entries.push(entry(key, seq, Some(before.id), 10 * seq, "/n"));
        }
        entries
    }

    pub(in crate::log) fn write(logs: &mut Logs, entries: &[VerifiedEntry]) {
        for entry in entries {
            let tips = logs.tips(&entry.author());
            let on = tips
                .iter()
                .position(|tip| Some(tip.id) == entry.header.prev);
            // Arrived a while after it was stamped.
            let arrived_ms = entry.header.hlc.wall_ms + 5;
            match on {
                Some(branch) => logs.append(u32::try_from(branch).unwrap(), entry, arrived_ms),
                None => logs.begin(entry, arrived_ms).unwrap(),
            }
            logs.sync().unwrap();
        }
    }

    // A log of 30 entries of A, and one of five of B.
    pub(in crate::log) fn two_logs(dir: &Path) -> (Logs, Vec<VerifiedEntry>, Vec<VerifiedEntry>) {
        let (a, b) = (chain(AUTHOR_A, 30), chain(AUTHOR_B, 5));
        let mut logs = open(dir);
        write(&mut logs, &a);
        write(&mut logs, &b);
        (logs, a, b)
    }

    pub(in crate::log) fn place(entry: &Entry) -> FrontierTip {
        FrontierTip::of(entry)
    }

    pub(in crate::log) fn frontier(tips: &[&VerifiedEntry]) -> Frontier {
        tips.iter().map(|tip| (tip.author(), place(tip))).collect()
    }

    fn prune(logs: &mut Logs, anchors: &[&VerifiedEntry]) -> Pruning {
        let plan = logs.plan_prune(&frontier(anchors), |_, _| Ok(false));
        let (pruning, removed) = logs.prune(&plan.unwrap().unwrap()).unwrap();
        removed.unwrap();
        pruning
    }

    fn files_of(dir: &Path, author: Author) -> BTreeSet<u64> {
        let names = RealDisk.list(dir).unwrap().into_iter();
        let names = names.filter_map(|name| segments::parse_name(name.to_str()?));
        let of_author = names.filter(|(by, _, _)| *by == author);
        of_author.map(|(_, _, from)| from).collect()
    }

    fn seqs(merge: &mut Merge) -> Vec<Seq> {
        let mut seqs = Vec::new();
        while let Some(next) = merge.next().unwrap() {
            match next {
                Merged::Entry { entry, .. } => seqs.push(entry.header.seq),
                Merged::Damage(found) => panic!("{found}"),
            }
        }
        seqs
    }

    // Returns the seqs that are read after `from`.
    pub(in crate::log) fn after(
        logs: &Logs,
        from: &Frontier,
        to: &Frontier,
    ) -> Result<Vec<Seq>, NotHere> {
        let spans = spans(logs.reader(), from, to).unwrap()?;
        Ok(seqs(&mut Merge::new(spans).unwrap()))
    }

    /// `covered` answered that a position that does not name an author has all of its entries before
    /// the first one here. So a reader got the ones from there on, and never heard of the others.
    #[test]
    fn position_before_the_anchor_is_never_read_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, a, b) = two_logs(dir.path());
        let all = frontier(&[&a[29], &b[4]]);
        prune(&mut logs, &[&a[11]]);
        let pruned = Pruned {
            author: a[0].author(),
            through: 12,
            authors: 1,
            reach_ms: 120,
            only_state: false,
        };
        let behind = Err(NotHere::Pruned(pruned));
        let other_12 = entry(AUTHOR_A, 12, Some(a[10].id), 120, "/other");
        for logs in [&logs, &open(dir.path())] {
            for from in [
                frontier(&[]),
                frontier(&[&b[4]]),
                frontier(&[&a[0]]),
                frontier(&[&a[10], &b[4]]),
                frontier(&[&other_12]),
                // A fork that is not here, before the anchor.
                frontier(&[&other_12, &a[20]]),
            ] {
                assert_eq!(after(logs, &from, &all), behind, "{from:?}");
            }
            for (from, first) in [(&a[11], 13), (&a[12], 14), (&a[29], 31)] {
                let rest: Vec<_> = (first..=30).collect();
                assert_eq!(after(logs, &frontier(&[from, &b[4]]), &all), Ok(rest));
            }
            let all_of_b = after(logs, &frontier(&[&a[29]]), &all);
            assert_eq!(all_of_b, Ok(vec![1, 2, 3, 4, 5]), "a whole log is read");
            // A position that is ahead waits, also one that is behind elsewhere.
            let ahead = entry(AUTHOR_B, 6, Some(b[4].id), 60, "/ahead");
            for from in [frontier(&[&ahead]), frontier(&[&a[0], &ahead])] {
                let NotHere::Ahead(unknown) = after(logs, &from, &all).unwrap_err() else {
                    panic!("{from:?}")
                };
                assert_eq!((unknown.len(), unknown[0].tip), (1, place(&ahead)));
            }
            // Nothing of A counts: neither is it read, nor does anybody lack it.
            assert_eq!(
                after(logs, &frontier(&[&b[3]]), &frontier(&[&b[4]])),
                Ok(vec![5])
            );
        }
    }

    #[test]
    fn files_before_the_anchor_go_and_the_rest_is_read_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, a, b) = two_logs(dir.path());
        let (author, all) = (a[0].author(), frontier(&[&a[29], &b[4]]));
        let files = files_of(dir.path(), author);
        assert!(files.len() > 6, "{files:?}");
        let mut before = files.len();
        let bytes = logs.reader().bytes();
        for anchor in [0, 7, 7, 20, 29] {
            let pruning = prune(&mut logs, &[&a[anchor]]);
            let begin = logs.reader().begin(&author).unwrap();
            assert_eq!(begin.anchor.tip(), place(&a[anchor]));
            assert_eq!(begin.arrived_ms, a[anchor].header.hlc.wall_ms + 5);
            let rest: Vec<_> = (anchor as u64 + 2..=30).collect();
            let left = files_of(dir.path(), author);
            let first = *files.range(..=begin.offset).next_back().unwrap();
            assert_eq!(left, files.range(first..).copied().collect(), "{anchor}");
            assert_eq!(pruning.files, before - left.len());
            before = left.len();
            let marks: Vec<Mark> = logs.marks();
            let again = open(dir.path());
            let (marked, found) = try_open(dir.path(), &marks).unwrap();
            assert!(found.damage.is_empty() && found.lost_tails.is_empty());
            for logs in [&logs, &again, &marked] {
                let from = frontier(&[&a[anchor], &b[4]]);
                assert_eq!(after(logs, &from, &all), Ok(rest.clone()), "{anchor}");
                let [branch] = &logs.reader().of(&author)[..] else {
                    panic!("one branch")
                };
                assert_eq!(branch.tip().unwrap().id, a[29].id);
                assert_eq!(branch.first_here(), anchor as u64 + 2);
                for entry in &a {
                    let found = branch.entry(entry.header.seq).unwrap();
                    let is_here = entry.header.seq > anchor as u64 + 1;
                    assert_eq!(found.is_some(), is_here, "{}", entry.header.seq);
                    let leads = logs.reader().leads(&author, place(entry), place(&a[29]));
                    assert_eq!(leads.unwrap(), Some(true));
                }
                assert_eq!(
                    logs.reader().pruned_at(&author, 1).unwrap().through,
                    anchor as u64 + 1
                );
            }
        }
        assert!(logs.reader().bytes() < bytes / 3);
        // It goes on at the anchor, and B's log is as it was.
        let next = entry(AUTHOR_A, 31, Some(a[29].id), 310, "/next");
        write(&mut logs, std::slice::from_ref(&next));
        logs.seal().unwrap();
        let logs = open(dir.path());
        let to = frontier(&[&next, &b[4]]);
        assert_eq!(after(&logs, &all, &to), Ok(vec![31]));
        assert_eq!(logs.reader().begin(&b[0].author()), None);
    }

    #[test]
    fn readers_on_their_way_get_everything() {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, a, _b) = two_logs(dir.path());
        let author = a[0].author();
        // They read a few records at a time, and close files that others need.
        let mut readers: Vec<_> = (0..3)
            .map(|reader| {
                let [branch] = &logs.reader().of(&author)[..] else {
                    panic!("one branch")
                };
                let walk = branch.walk_in_chunks(1 + reader, 300);
                Merge::over(vec![(walk, 30)]).unwrap()
            })
            .collect();
        assert!(readers[0].next().unwrap().is_some());
        let pruning = prune(&mut logs, &[&a[29]]);
        assert!(pruning.files > 6, "{pruning:?}");
        let next = entry(AUTHOR_A, 31, Some(a[29].id), 310, "/next");
        write(&mut logs, std::slice::from_ref(&next));
        for (reader, from) in readers.iter_mut().zip([2, 2, 3]) {
            assert_eq!(seqs(reader), (from..=30).collect::<Vec<_>>());
        }
    }

    #[test]
    fn fork_before_the_anchor_is_refused_and_one_at_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, a, _b) = two_logs(dir.path());
        let author = a[0].author();
        let fork = entry(AUTHOR_A, 11, Some(a[9].id), 101, "/fork");
        let next = entry(AUTHOR_A, 12, Some(fork.id), 111, "/fork");
        write(&mut logs, &[fork.clone(), next.clone()]);
        let forked = |seq| Ok::<_, ()>(Err(CannotPrune::Forked { author, seq }));
        let plan = |logs: &Logs, anchors: &[&VerifiedEntry]| {
            let planned = logs.plan_prune(&frontier(anchors), |_, _| Ok(false));
            Ok(planned.unwrap().map(|plan| plan.anchors()))
        };
        assert_eq!(plan(&logs, &[&a[10]]), forked(11));
        assert_eq!(plan(&logs, &[&next]), forked(12));
        assert_eq!(plan(&logs, &[&a[5], &fork]), forked(11));
        let gone = entry(AUTHOR_A, 31, Some(a[29].id), 310, "/not here");
        let seq = 31;
        assert_eq!(
            plan(&logs, &[&gone]),
            Ok(Err(CannotPrune::NoEntry { author, seq }))
        );
        // Both branches come after it.
        prune(&mut logs, &[&a[9]]);
        let all = frontier(&[&a[29], &next]);
        for logs in [&logs, &open(dir.path())] {
            let mut both: Vec<Seq> = (11..=30).chain([11, 12]).collect();
            both.sort_unstable();
            let mut read = after(logs, &frontier(&[&a[9]]), &all).unwrap();
            read.sort_unstable();
            assert_eq!(read, both);
            assert_eq!(after(logs, &frontier(&[&a[29]]), &all), Ok(vec![11, 12]));
            let main = after(logs, &frontier(&[&next]), &all);
            assert_eq!(main, Ok((11..=30).collect()));
            let behind = after(logs, &frontier(&[&a[8]]), &all);
            assert!(matches!(behind, Err(NotHere::Pruned(_))), "{behind:?}");
            let log = logs.reader();
            for (entry, tip, leads) in [
                (&a[0], &next, Some(true)),
                (&a[9], &next, Some(true)),
                (&a[10], &next, Some(false)),
                (&a[3], &a[2], Some(false)),
                (&a[2], &a[9], Some(true)),
                (&a[2], &gone, None),
            ] {
                assert_eq!(log.leads(&author, place(entry), place(tip)).unwrap(), leads);
            }
        }
    }

    #[test]
    fn leftovers_are_removed_and_a_missing_file_behind_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, a, _b) = two_logs(dir.path());
        let author = a[0].author();
        let path = |from| dir.path().join(segments::name(&author, 0, from));
        let files = files_of(dir.path(), author);
        let first = fs::read(path(0)).unwrap();
        prune(&mut logs, &[&a[19]]);
        let marks = logs.marks();
        logs.seal().unwrap();
        drop(logs);
        let left = files_of(dir.path(), author);
        // The files come back after a power cut, and something that was being written.
        fs::write(path(0), first).unwrap();
        fs::write(dir.path().join("begins.new"), "x").unwrap();
        drop(open(dir.path()));
        assert_eq!(files_of(dir.path(), author), left);
        // The file with the first record is gone; so is a later one.
        let rest: Vec<u64> = left.iter().copied().collect();
        for lost in &rest[..rest.len() - 1] {
            let bytes = fs::read(path(*lost)).unwrap();
            fs::remove_file(path(*lost)).unwrap();
            let (logs, found) = try_open(dir.path(), &marks).unwrap();
            assert!(!found.damage.is_empty(), "{lost}: nobody noticed");
            let begin = logs.reader().begin(&author).unwrap();
            assert!(found.damage.iter().all(|it| it.offset >= begin.offset));
            let holes = logs.reader().holes(&found.damage[0]).unwrap();
            assert_eq!(holes.len(), 1);
            assert!(holes[0].first > 20 && holes[0].last < 31, "{holes:?}");
            drop(logs);
            for made in files_of(dir.path(), author).difference(&files) {
                fs::remove_file(path(*made)).unwrap();
            }
            fs::write(path(*lost), bytes).unwrap();
        }
        assert!(try_open(dir.path(), &marks).unwrap().1.damage.is_empty());
        // Without the row they are all damage, and without a sound file nothing is known.
        let begins = dir.path().join("begins");
        let bytes = fs::read(&begins).unwrap();
        fs::remove_file(&begins).unwrap();
        assert!(!try_open(dir.path(), &marks).unwrap().1.damage.is_empty());
        fs::remove_file(path(0)).unwrap();
        fs::write(&begins, &bytes[..40]).unwrap();
        let error = try_open(dir.path(), &marks).unwrap_err();
        assert!(matches!(error, LogError::Begins { .. }), "{error}");
        fs::write(&begins, bytes).unwrap();
        drop(open(dir.path()));
    }

    #[test]
    fn log_without_a_record_after_its_anchor_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, a, _b) = two_logs(dir.path());
        let author = a[0].author();
        prune(&mut logs, &[&a[29]]);
        drop(logs);
        for file in files_of(dir.path(), author) {
            fs::remove_file(dir.path().join(segments::name(&author, 0, file))).unwrap();
        }
        let mut logs = open(dir.path());
        assert_eq!(logs.tips(&author)[0].id, a[29].id);
        let next = entry(AUTHOR_A, 31, Some(a[29].id), 310, "/next");
        write(&mut logs, std::slice::from_ref(&next));
        let logs = open(dir.path());
        assert_eq!(logs.tips(&author)[0].id, next.id);
    }

    #[test]
    fn lost_end_is_lost_back_to_the_anchor_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let (mut logs, a, _b) = two_logs(dir.path());
        let author = a[0].author();
        prune(&mut logs, &[&a[19]]);
        let (marks, begin) = (logs.marks(), logs.reader().begin(&author).unwrap());
        drop(logs);
        let path = |from| dir.path().join(segments::name(&author, 0, from));
        let files = files_of(dir.path(), author);
        let first = *files.first().unwrap();
        let whole: Vec<_> = files
            .iter()
            .map(|from| (*from, fs::read(path(*from)).unwrap()))
            .collect();
        for cut_to in [
            None,
            Some(0),
            Some(10),
            Some(begin.offset - first),
            Some(begin.offset - first + 50),
        ] {
            for (from, bytes) in &whole {
                fs::remove_file(path(*from)).unwrap_or_default();
                if let Some(len) = cut_to.filter(|_| *from == first) {
                    fs::write(path(*from), &bytes[..usize::try_from(len).unwrap()]).unwrap();
                }
            }
            // Without a mark nobody knows that there was more.
            let (mut logs, found) = try_open(dir.path(), &marks).unwrap();
            let [lost] = &found.lost_tails[..] else {
                panic!("{cut_to:?}: {:?}", found.lost_tails)
            };
            assert_eq!(
                (lost.first(), lost.through, lost.end),
                (21, 30, begin.offset)
            );
            assert!(!found.damage.is_empty());
            logs.give_up(lost).unwrap();
            assert_eq!(logs.tips(&author)[0].id, a[19].id);
            let next = entry(AUTHOR_A, 21, Some(a[19].id), 999, "/next");
            write(&mut logs, std::slice::from_ref(&next));
            logs.seal().unwrap();
            let (again, found) = try_open(dir.path(), &[]).unwrap();
            assert!(
                found.damage.is_empty() && found.torn.is_empty(),
                "{cut_to:?}"
            );
            assert_eq!(again.tips(&author)[0].id, next.id);
            for made in files_of(dir.path(), author) {
                fs::remove_file(path(made)).unwrap();
            }
        }
    }
}
