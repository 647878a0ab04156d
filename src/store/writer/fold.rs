//! Folding: the entries through some anchors become the rows of a base, before they are removed from the
//! logs.
//!
//! A base follows from the entries alone, not from the state: so it is the same on every node, and an
//! error in the state is not carried into it. It runs beside the writer, which only takes its result.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;

use crate::{
    disk::Disk,
    id::{Author, StoreId},
    limits::SCAN_ROWS,
    log::{
        CannotPrune, LogDamage, LogError, LogReader,
        merge::{Merge, Merged, NotHere, spans},
    },
    pace::Pace,
    protocol::{
        anchor::Anchor,
        entry::Parent,
        finality::Taking,
        fork::{closed_by, takes_back},
        frontier::Frontier,
        heads::{Head, Heads},
    },
    state::{Base, Bases, Fold, StateError},
    store::{
        PruneError,
        item::{op_of, value_of},
        writer::apply::{NotApplied, apply},
    },
};

/// The sources of a base.
pub(in crate::store) struct Folding<'a> {
    pub(in crate::store) disk: &'a dyn Disk,
    /// The directory of the bases.
    pub(in crate::store) dir: &'a Path,
    pub(in crate::store) store: StoreId,
    pub(in crate::store) log: &'a LogReader,
    /// The base from which it begins: one of `bases`, or none.
    pub(in crate::store) base: Option<Arc<Base>>,
    /// The bases that are in place.
    pub(in crate::store) bases: Bases,
    /// The heads that go from the rows, by the act that names the base.
    pub(in crate::store) taking: Taking,
}

impl Folding<'_> {
    /// Makes a base with the rows of all entries at and before `anchors`, one tip for each author, and of
    /// those of the base before. Its files are durable on return; it is the newest one after
    /// `Base::commit`. Files that are left by an error are removed when the store is opened.
    ///
    /// # Errors
    /// `Lacks`: an entry cannot be read. `Cannot`: an anchor is not in the logs. `State`, `Log`.
    pub(in crate::store) fn fold(self, anchors: &Frontier) -> Result<Base, PruneError> {
        let before = self.base.as_ref().map(|base| base.manifest());
        let bases = self.bases.newest.iter().chain(&self.bases.beginning);
        let last = bases.map(|base| base.manifest().number).max();
        let number = last.map_or(1, |last| last.saturating_add(1));
        let from = before.map_or_else(Frontier::default, |before| before.frontier());
        let anchors = self.join(anchors)?;
        let to: Frontier = anchors
            .iter()
            .map(|(author, it)| (*author, it.tip()))
            .collect();
        let spans = match spans(self.log, &from, &to)? {
            Ok(spans) => spans,
            Err(NotHere::Pruned(pruned)) => {
                let what = format!("the base lacks them: {pruned}");
                return Err(PruneError::Lacks { what });
            }
            Err(NotHere::Ahead(_)) => {
                let what = "the base has entries that the logs do not have".to_owned();
                return Err(PruneError::Lacks { what });
            }
        };
        let mut merge = Merge::new(spans)?;
        let mut fold = Fold::new(self.store, self.base.clone());
        let mut pace = Pace::start();
        while let Some(next) = merge.next()? {
            pace.step();
            let entry = match next {
                Merged::Entry { entry, .. } => entry,
                Merged::Damage(found) => return Err(lacks(&found)),
            };
            for tip in closed_by(&entry) {
                fold.close_tip(&entry.author(), &tip);
            }
            let mut unreadable = None;
            let note = &mut |found| unreadable = Some(found);
            // A parent at or below an anchor is present, whatever the entry says of it: where those
            // entries were removed, nobody can check that. All others come later, whether they are in the
            // log or not.
            let absent = |parent: &&Parent| {
                parent.seq > to.seq(&parent.author) && !takes_back(&entry, parent)
            };
            let absent = |_heads: &[Heads]| {
                let parents = entry.header.parents.iter();
                Ok(parents.filter(absent).copied().collect())
            };
            match apply(&mut fold, &entry, self.log, absent, note) {
                Ok(()) => {}
                Err(NotApplied::State(error)) => return Err(error.into()),
                Err(NotApplied::Log(LogError::Damaged(found))) => return Err(lacks(&found)),
                Err(NotApplied::Log(error)) => return Err(error.into()),
            }
            if let Some(found) = unreadable {
                return Err(lacks(&found));
            }
            if fold.bytes() >= FOLD_BYTES_MAX {
                fold = self.go_on(fold, number, &anchors)?;
            }
        }
        let fold = self.sweep(fold, number, &anchors)?;
        Ok(self.build(fold, number, anchors, true)?)
    }

    // Takes heads from the rows.
    fn sweep(
        &self,
        mut fold: Fold,
        number: u64,
        anchors: &[(Author, Anchor)],
    ) -> Result<Fold, PruneError> {
        let collections = self.taking.collections();
        if collections.is_empty() {
            return Ok(fold);
        }
        let (mut after, mut pace) = (None, Pace::start());
        loop {
            pace.step();
            after = fold.sweep(collections, after.as_deref(), SCAN_ROWS)?;
            if after.is_none() {
                return Ok(fold);
            }
            if fold.bytes() >= FOLD_BYTES_MAX {
                fold = self.go_on(fold, number, anchors)?;
            }
        }
    }

    // Writes the rows so far, and begins with them.
    fn go_on(
        &self,
        fold: Fold,
        number: u64,
        anchors: &[(Author, Anchor)],
    ) -> Result<Fold, PruneError> {
        let base = self.build(fold, number, anchors.to_vec(), false)?;
        // The parts of the one before this are in the way.
        self.bases
            .discard_others(self.disk, self.dir, Some(&base))?;
        Ok(Fold::new(self.store, Some(Arc::new(base))))
    }

    // The anchors of the base before, and later ones.
    fn join(&self, anchors: &Frontier) -> Result<Vec<(Author, Anchor)>, PruneError> {
        let before = self.base.as_ref().map(|base| base.manifest());
        let mut joined: BTreeMap<Author, Anchor> = before
            .map(|before| before.anchors.iter().copied().collect())
            .unwrap_or_default();
        for (author, tip) in anchors.iter() {
            if joined.get(&author).is_some_and(|it| it.is_final(tip.seq)) {
                continue;
            }
            let found = self.log.entry(&author, tip.seq, &tip.id);
            let entry = match found {
                Ok(Some((entry, _record))) => entry,
                Ok(None) => {
                    let seq = tip.seq;
                    return Err(CannotPrune::NoEntry { author, seq }.into());
                }
                Err(LogError::Damaged(found)) => return Err(lacks(&found)),
                Err(error) => return Err(error.into()),
            };
            joined.insert(
                author,
                Anchor {
                    seq: tip.seq,
                    id: tip.id,
                    hlc: entry.header.hlc,
                },
            );
        }
        Ok(joined.into_iter().collect())
    }

    fn build(
        &self,
        fold: Fold,
        number: u64,
        anchors: Vec<(Author, Anchor)>,
        is_last: bool,
    ) -> Result<Base, StateError> {
        let value = |key: &[u8], head: &Head| self.value(key, head);
        fold.build(self.disk, self.dir, number, anchors, is_last, &value)
    }

    // The value of a head that is new: its entry is in the log.
    fn value(&self, key: &[u8], head: &Head) -> Result<Bytes, StateError> {
        let entry = self.log.entry(&head.author, head.seq, &head.id);
        let damaged = |what: String| StateError::Damaged { what };
        let entry = match entry {
            Err(LogError::Damaged(found)) => return Err(damaged(found.to_string())),
            Err(error) => return Err(damaged(error.to_string())),
            Ok(entry) => entry,
        };
        let value = entry.and_then(|(entry, _record)| op_of(&entry, key).and_then(value_of));
        value.ok_or_else(|| damaged("an entry has gone from the log meanwhile".to_owned()))
    }
}

fn lacks(found: &LogDamage) -> PruneError {
    let what = found.to_string();
    PruneError::Lacks { what }
}

// Bytes of changed rows in memory at which they are written. The next ones are then applied to those.
const FOLD_BYTES_MAX: usize = 64 << 20;
