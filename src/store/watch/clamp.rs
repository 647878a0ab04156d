//! What a change of the members does to a watch: its position is clamped to where what counts ends.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    id::Author,
    log::merge::{Merge, Merged, spans},
    protocol::{
        change::Change,
        cursor::Partial,
        frontier::{Frontier, FrontierTip},
        heads::{Head, Heads},
    },
    state::View,
    store::{ReadError, Shared, watch::position::Position},
};

/// A position of a watch, without what does not count any more.
pub(super) struct Clamped {
    pub(super) frontier: Frontier,
    pub(super) partial: Option<Partial>,
    /// What the watch was told of that, and is to be told of its keys. They stay together.
    pub(super) retractions: Vec<Arc<Change>>,
}

impl Shared {
    /// Returns where a watch at `from` goes on: where what counts ends.
    ///
    /// # Errors
    /// `Damaged` where what does not count is not here, or not readable: then nobody knows which
    /// keys are to be retracted.
    pub(super) fn clamp(&self, from: &Position, view: &View) -> Result<Clamped, ReadError> {
        let mut clamped = Clamped {
            frontier: Frontier::default(),
            partial: from.partial,
            retractions: Vec::new(),
        };
        let mut told = BTreeMap::new();
        for (author, tip) in from.frontier.iter() {
            if !self.is_retracted(&author, tip, view)? {
                clamped.frontier.insert(author, tip);
                continue;
            }
            for tip in view.frontier.tips(&author) {
                clamped.frontier.insert(author, *tip);
            }
            self.note_told(author, tip, view, &mut told)?;
        }
        if let Some(Partial { author, tip, .. }) = from.partial
            && self.is_retracted(&author, tip, view)?
        {
            clamped.partial = None;
            self.note_told(author, tip, view, &mut told)?;
        }
        let arrived_ms = self.clock.now_ms();
        for (key, head) in told {
            let heads = view.heads(&key)?;
            let retraction = Change::retract(key, &Heads::new(vec![head]), heads, arrived_ms);
            clamped.retractions.extend(retraction.map(Arc::new));
        }
        Ok(clamped)
    }

    // True when the entry at `tip` counted and does not.
    fn is_retracted(
        &self,
        author: &Author,
        tip: FrontierTip,
        view: &View,
    ) -> Result<bool, ReadError> {
        let counts = || {
            let members = self.members.borrow();
            self.log.counts(&members, &self.id, author, tip)
        };
        if self.anyone || tip.seq <= view.frontier.seq(author) || counts()? {
            return Ok(false);
        }
        if self.log.entry(author, tip.seq, &tip.id)?.is_some() {
            return Ok(true);
        }
        if !self.members.borrow().is_removed(author) {
            // It may be let in yet.
            return Ok(false);
        }
        Err(ReadError::Damaged {
            what: format!(
                "entry {} of {}, who was removed, counts no more and is not here",
                tip.seq,
                author.short()
            ),
        })
    }

    // By key, the newest of what comes after all that `view` has, and through `tip`.
    fn note_told(
        &self,
        author: Author,
        tip: FrontierTip,
        view: &View,
        told: &mut BTreeMap<Bytes, Head>,
    ) -> Result<(), ReadError> {
        let counting = view.frontier.tips(&author).iter().map(|tip| (author, *tip));
        let counting: Frontier = counting.collect();
        let mut reached = counting.clone();
        reached.insert(author, tip);
        let spans = spans(&self.log, &counting, &reached)?.unwrap_or_default();
        let mut merge = Merge::new(spans)?;
        while let Some(next) = merge.next()? {
            match next {
                Merged::Entry { entry, .. } => {
                    let heads = entry.ops.iter().map(|op| (op, Head::of(&entry, op)));
                    told.extend(heads.map(|(op, head)| (op.key().clone(), head)));
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
