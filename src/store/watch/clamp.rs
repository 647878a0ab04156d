//! Clamping: after a change of the members, a position is moved back to the entries that count.
//!
//! A removal names the last entry of each branch that counts. A position past it is clamped to that
//! entry, and the keys of the entries between are retracted.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    id::Author,
    log::merge::{Merge, Merged, NotHere, spans},
    protocol::{
        change::Change,
        cursor::Partial,
        frontier::{Frontier, FrontierTip},
        heads::{Head, Heads},
        membership::Standing,
    },
    state::View,
    store::{ReadError, Shared, watch::position::Position},
};

/// A position that covers only entries that count.
pub(super) struct Clamped {
    pub(super) frontier: Frontier,
    pub(super) partial: Option<Partial>,
    /// One change for each key that a retracted entry wrote. All of them are delivered together.
    pub(super) retractions: Vec<Arc<Change>>,
}

impl Shared {
    /// Returns the position from which a watch at `from` continues: the last entries that count.
    ///
    /// # Errors
    /// `Damaged` when an entry that no longer counts is missing or unreadable, so that the keys to
    /// retract are not known; `Pruned` when it was removed here.
    pub(super) fn clamp(&self, from: &Position, view: &View) -> Result<Clamped, ReadError> {
        let mut clamped = Clamped {
            frontier: Frontier::default(),
            partial: from.partial,
            retractions: Vec::new(),
        };
        let mut written = BTreeMap::new();
        for (author, tip) in from.frontier.iter() {
            if !self.is_retracted(&author, tip, view)? {
                clamped.frontier.insert(author, tip);
                continue;
            }
            for tip in view.frontier.tips(&author) {
                clamped.frontier.insert(author, *tip);
            }
            self.add_written(author, tip, view, &mut written)?;
        }
        if let Some(Partial { author, tip, .. }) = from.partial
            && self.is_retracted(&author, tip, view)?
        {
            clamped.partial = None;
            self.add_written(author, tip, view, &mut written)?;
        }
        let arrived_ms = self.clock.now_ms();
        for (key, head) in written {
            let heads = view.heads(&key)?;
            let retraction = Change::retract(key, &Heads::new(vec![head]), heads, arrived_ms);
            clamped.retractions.extend(retraction.map(Arc::new));
        }
        Ok(clamped)
    }

    // True when the entry at `tip` counted before and does not count now.
    fn is_retracted(
        &self,
        author: &Author,
        tip: FrontierTip,
        view: &View,
    ) -> Result<bool, ReadError> {
        let counts = || -> Result<bool, ReadError> {
            let standing = self.standing(author)?;
            let finality = Arc::clone(&self.finality.borrow());
            Ok(self.log.counts(&finality, &standing, author, tip)?)
        };
        if self.anyone || tip.seq <= view.frontier.seq(author) || counts()? {
            return Ok(false);
        }
        if self.log.entry(author, tip.seq, &tip.id)?.is_some() {
            return Ok(true);
        }
        let standing = self.standing(author)?;
        if !matches!(standing, Standing::Through(_) | Standing::Spent) {
            // The author may still be admitted, and the entry may still arrive.
            return Ok(false);
        }
        Err(ReadError::Damaged {
            what: format!(
                "entry {} of removed node {} no longer counts, and the log does not have it",
                tip.seq,
                author.short()
            ),
        })
    }

    // Adds, by key, the newest write of `author` after all entries in `view` and through `tip`.
    fn add_written(
        &self,
        author: Author,
        tip: FrontierTip,
        view: &View,
        written: &mut BTreeMap<Bytes, Head>,
    ) -> Result<(), ReadError> {
        let counting = view.frontier.tips(&author).iter().map(|tip| (author, *tip));
        let counting: Frontier = counting.collect();
        let mut reached = counting.clone();
        reached.insert(author, tip);
        let spans = match spans(&self.log, &counting, &reached)? {
            Ok(spans) => spans,
            Err(NotHere::Ahead(_)) => Vec::new(),
            Err(NotHere::Pruned(pruned)) => return Err(ReadError::Pruned(pruned)),
        };
        let mut merge = Merge::new(spans)?;
        while let Some(next) = merge.next()? {
            match next {
                Merged::Entry { entry, .. } => {
                    let heads = entry.ops.iter().map(|op| (op, Head::of(&entry, op)));
                    written.extend(heads.map(|(op, head)| (op.key().clone(), head)));
                }
                Merged::Damage(damage) => {
                    let what = damage.to_string();
                    return Err(ReadError::Damaged { what });
                }
            }
        }
        Ok(())
    }
}
