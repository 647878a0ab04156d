//! Staging: an entry changes the rows of a view.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::{EntryId, Seq},
    protocol::{
        entry::{VerifiedEntry, cause::CauseId},
        finality::Collections,
        frontier::FrontierTip,
        heads::{Before, Content, Head, Heads, Value},
    },
    state::{StateError, view::View},
};

/// The heads of a key before and after an op.
#[derive(Debug, Clone)]
pub struct Staged {
    /// Heads without the op.
    pub before: Heads,
    /// Heads with the op.
    pub after: Heads,
}

impl View {
    /// Changes the heads of an entry's keys. `before`: what it finds at them.
    ///
    /// Returns the change of each op; `None` for an op that is void. On an error no op of the entry
    /// is staged.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    ///
    /// # Panics
    /// When `before` has another number of heads.
    pub(super) fn stage_over(
        &mut self,
        entry: &VerifiedEntry,
        before: Before,
    ) -> Result<Vec<Option<Staged>>, StateError> {
        let Before {
            heads,
            ancestors,
            absent,
        } = before;
        assert_eq!(heads.len(), entry.ops.len(), "(4) heads for each op");
        let mut changes = Vec::with_capacity(entry.ops.len());
        let cited = self.cited_ahead(entry)?;
        let is_taken_back = self.is_taken_back(entry)?;
        for ((op, before), cited) in entry.ops.iter().zip(heads).zip(cited) {
            changes.push((!self.is_void(entry, op)).then(|| {
                let mut after = before.apply(entry, op, &ancestors);
                if cited {
                    after = after.without(&entry.id);
                }
                if is_taken_back {
                    after = after.take_back(&entry.id).unwrap_or(after);
                }
                after = self.collected(after);
                Staged { before, after }
            }));
        }
        let mut caused = None;
        if let Some(cause) = &entry.header.cause {
            let cause = CauseId::of(&entry.author(), cause);
            // If both branches of a fork have an entry for this cause, the lower entry counts, in
            // whatever order the two are applied.
            let this = (entry.header.seq, entry.id);
            let first = self.caused(&cause)?.map_or(this, |before| before.min(this));
            caused = Some((cause, first));
        }
        for (op, change) in entry.ops.iter().zip(&changes) {
            let Some(change) = change else { continue };
            self.put(op.key(), change);
        }
        let counted = entry.ops.iter().zip(&changes);
        let counted = counted
            .filter(|(_op, change)| change.is_some())
            .map(|(op, _change)| op.key());
        // One without ops supersedes nothing. One of which all are void may count later.
        if !entry.ops.is_empty() {
            self.cite_ahead(&absent, counted);
        }
        if let Some((cause, caused)) = caused {
            self.recent.causes.insert(cause, caused);
            self.recent.bytes += ROW_OVERHEAD_BYTES;
        }
        let tip = FrontierTip {
            seq: entry.header.seq,
            id: entry.id,
        };
        Arc::make_mut(&mut self.frontier).advance(entry.author(), entry.header.prev, tip);
        self.entries += 1;
        Ok(changes)
    }

    /// Lowers the heads that `entry`, which was taken back, has at `keys`. Returns the heads of each
    /// key that this changes.
    ///
    /// # Errors
    /// `Damaged`, `Io`. Some of the keys may be changed then.
    pub(super) fn lower<'a>(
        &mut self,
        entry: &EntryId,
        keys: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Vec<(Bytes, Staged)>, StateError> {
        let mut lowered = Vec::new();
        for key in keys {
            let before = self.heads(key)?;
            if let Some(after) = before.take_back(entry) {
                let change = Staged { before, after };
                self.put(key, &change);
                lowered.push((key.clone(), change));
            }
        }
        Ok(lowered)
    }

    /// Removes the head `id` of `key`, which another entry has superseded before it came.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn supersede(&mut self, key: &Bytes, id: &EntryId) -> Result<(), StateError> {
        let before = self.heads(key)?;
        let after = before.clone().without(id);
        self.put(key, &Staged { before, after });
        Ok(())
    }

    /// Returns `heads` without those that acts take.
    pub fn collected(&self, heads: Heads) -> Heads {
        self.collections.take_from(&heads).unwrap_or(heads)
    }

    /// Returns which heads acts take.
    pub fn collections(&self) -> &Collections {
        &self.collections
    }

    /// Returns whether acts take any heads.
    pub fn has_collected(&self) -> bool {
        !self.collections.is_empty()
    }

    /// Replaces the heads of `key`, which are `before`.
    pub(super) fn replace(&mut self, key: &Bytes, before: Heads, after: Heads) {
        self.put(key, &Staged { before, after });
    }

    /// Adds the row of a key that has none.
    pub(super) fn load_heads(&mut self, key: Bytes, heads: Heads) {
        let (before, after) = (Heads::default(), heads);
        self.put(&key, &Staged { before, after });
    }

    /// Adds the entry that was written because of `cause`.
    pub(super) fn load_cause(&mut self, cause: CauseId, entry: (Seq, EntryId)) {
        self.recent.causes.insert(cause, entry);
        self.recent.bytes += ROW_OVERHEAD_BYTES;
    }

    fn put(&mut self, key: &Bytes, change: &Staged) {
        let key = Bytes::copy_from_slice(key);
        let due = |heads: &Heads| heads.winner().and_then(Head::expires_ms);
        let (old, new) = (due(&change.before), due(&change.after));
        if old != new {
            for (ms, there) in [(old, false), (new, true)] {
                if let Some(ms) = ms {
                    self.recent.expiry.insert((ms, key.clone()), there);
                    self.recent.bytes += key.len() + ROW_OVERHEAD_BYTES;
                }
            }
        }
        let is_there = |heads: &Heads| heads.winner().is_some();
        match (is_there(&change.before), is_there(&change.after)) {
            (false, true) => self.keys += 1,
            (true, false) => self.keys = self.keys.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        let (heads, key_bytes) = (change.after.clone(), key.len());
        let bytes: usize = heads.as_slice().iter().map(head_bytes).sum();
        self.recent.bytes += key.len() + bytes + ROW_OVERHEAD_BYTES;
        if let Some(replaced) = self.recent.heads.insert(key, heads) {
            let bytes: usize = replaced.as_slice().iter().map(head_bytes).sum();
            self.recent.bytes -= key_bytes + bytes + ROW_OVERHEAD_BYTES;
        }
    }
}

fn head_bytes(head: &Head) -> usize {
    let value = match &head.content {
        Content::Value {
            value: Value::Inline(value),
            ..
        } => value.len(),
        Content::Value {
            value: Value::InLog { .. },
            ..
        }
        | Content::Tombstone => 0,
    };
    size_of::<Head>() + value
}

// Rough number of bytes of memory that a row takes besides its key and value.
const ROW_OVERHEAD_BYTES: usize = 120;
