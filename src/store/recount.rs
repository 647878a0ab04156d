//! What a change of the members does to the state: entries that do not count any more supersede
//! nothing, and those that count again do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    id::Author,
    log::LogError,
    protocol::{
        change::Change,
        cursor::Partial,
        entry::Op,
        frontier::{Frontier, FrontierTip},
        heads::{Head, Heads},
        membership::Members,
        role::role_key,
    },
    state::View,
    store::{
        ReadError, Shared,
        actor::Actor,
        members::counts,
        merge::{Merge, Merged, spans},
        position::Position,
    },
};

impl Actor {
    /// Brings the state in step with who is a member now, and tells what that retracted.
    ///
    /// It is built again from the log when entries that are in the log count otherwise than
    /// before, or acts do; that happens when a node is removed, which is rare.
    pub(super) fn recount(&mut self) {
        let now = self.membership.members();
        let before = std::mem::replace(&mut self.counted_by, Arc::clone(&now));
        let in_step = self
            .state
            .as_ref()
            .map(|state| self.membership.is_in_step(state.staged()));
        if self.membership.is_anyone() || (Arc::ptr_eq(&before, &now) && in_step != Some(false)) {
            return;
        }
        let keys = match self.keys_that_changed(&before, &now) {
            Ok(keys) if keys.is_empty() => return,
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(store = %self.config.id, %error, "what counts is not known");
                return;
            }
        };
        self.count_again(keys);
    }

    /// Builds the state again, of which some `keys` may not be as they should be, and tells how they
    /// were wrong.
    pub(super) fn count_again(&mut self, keys: BTreeSet<Bytes>) {
        let heads_before = self.heads_of_keys(&keys);
        tracing::info!(store = %self.config.id, keys = keys.len(), "what counts has changed: counting again");
        self.rebuild();
        let heads_after = self.heads_of_keys(&keys);
        let arrived_ms = self.clock.now_ms();
        let differ = keys
            .into_iter()
            .zip(heads_before.into_iter().zip(heads_after));
        let changes: Vec<_> = differ
            .filter(|(_, (before, after))| before != after)
            .filter_map(|(key, (before, after))| Change::retract(key, &before, after, arrived_ms))
            .map(Arc::new)
            .collect();
        self.publish(&changes);
    }

    // Keys of entries, and of acts, that counted and do not, or the other way round.
    fn keys_that_changed(
        &self,
        before: &Members,
        now: &Members,
    ) -> Result<BTreeSet<Bytes>, LogError> {
        let mut keys = BTreeSet::new();
        let store = self.config.id;
        let log = self.logs.reader();
        let authors: BTreeSet<Author> = log.all().iter().map(|branch| branch.author).collect();
        let changed =
            |author: &&Author| before.standing(&store, author) != now.standing(&store, author);
        for author in authors.iter().filter(changed) {
            for branch in log.of(author) {
                let mut walk = branch.walk(branch.first);
                loop {
                    let record = match walk.next_record() {
                        Ok(Some(record)) => record,
                        Ok(None) => break,
                        Err(LogError::Damaged(_)) => continue,
                        Err(error) => return Err(error),
                    };
                    let at = FrontierTip {
                        seq: record.header.seq,
                        id: record.header.id,
                    };
                    let counted = counts(before, &store, log, author, at);
                    if counted != counts(now, &store, log, author, at)
                        && let Ok(entry) = branch.read_entry(&record)
                    {
                        keys.extend(entry.ops.iter().map(Op::key).cloned());
                    }
                }
            }
        }
        if let Some(acts) = self
            .state
            .as_ref()
            .and_then(|state| state.staged().acts.as_ref())
        {
            let changed = acts.symmetric_difference(now.counting());
            keys.extend(changed.map(|(_entry, node)| role_key(node)));
        }
        Ok(keys)
    }

    fn heads_of_keys(&self, keys: &BTreeSet<Bytes>) -> Vec<Heads> {
        let heads = |key: &Bytes| {
            let state = self.state.as_ref()?;
            state.heads(key).ok()
        };
        keys.iter()
            .map(|key| heads(key).unwrap_or_default())
            .collect()
    }
}

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
            counts(&members, &self.id, &self.log, author, tip)
        };
        if self.anyone || tip.seq <= view.frontier.seq(author) || counts() {
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
