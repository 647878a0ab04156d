//! The value of a key: of a winner, wherever it is stored.

use bytes::Bytes;

use crate::{
    id::EntryId,
    protocol::{
        change::EntryRef,
        entry::{Entry, Op},
        heads::{Content, Head, Heads, Value},
    },
    store::{Item, ReadError, Shared},
};

impl Item {
    /// Returns the ids of the heads other than the winner, the greatest first.
    pub(super) fn other_heads(heads: &Heads) -> Vec<EntryId> {
        let others = heads.as_slice().iter().rev().skip(1);
        others.map(|head| head.id).collect()
    }
}

impl Shared {
    /// Returns the item that a read of `key` finds at `now_ms`: `None` when the winner of `heads` is a
    /// tombstone or has expired by then.
    pub(super) fn item(
        &self,
        key: &Bytes,
        heads: &Heads,
        now_ms: u64,
        keys_only: bool,
    ) -> Result<Option<Item>, ReadError> {
        let Some(winner) = heads.winner().filter(|winner| winner.is_live(now_ms)) else {
            return Ok(None);
        };
        let value = if keys_only {
            None
        } else {
            self.value(key, winner)?
        };
        Ok(Some(Item {
            key: key.clone(),
            value: value.unwrap_or_default(),
            entry: EntryRef::from(winner),
            expires_ms: winner.expires_ms(),
            heads: u32::try_from(heads.as_slice().len()).unwrap_or(u32::MAX),
            other_heads: Item::other_heads(heads),
        }))
    }

    /// Returns the value that `head` puts at `key`, from the row, from the entry in the log, or from the
    /// base; `None` for a tombstone.
    pub(super) fn value(&self, key: &[u8], head: &Head) -> Result<Option<Bytes>, ReadError> {
        match &head.content {
            Content::Tombstone => Ok(None),
            Content::Value {
                value: Value::Inline(value),
                ..
            } => Ok(Some(value.clone())),
            Content::Value {
                value: Value::InLog { .. },
                ..
            } => {
                let entry = self.log.entry(&head.author, head.seq, &head.id)?;
                let value = entry.and_then(|(entry, _)| op_of(&entry, key).map(value_of));
                if value.is_none() {
                    let bases = self.base.all();
                    // A head of the past may be in the older one only.
                    for base in bases.newest.iter().chain(&bases.beginning) {
                        if let Some(value) = base.value(key, &head.id)? {
                            return Ok(Some(value));
                        }
                    }
                }
                value.ok_or_else(|| match self.log.pruned_at(&head.author, head.seq) {
                    // The view is older than a base of a peer that has no such head any more.
                    Some(pruned) => ReadError::Pruned(pruned),
                    None => ReadError::Damaged {
                        what: format!(
                            "entry {} of {} is not in the log",
                            head.seq,
                            head.author.short()
                        ),
                    },
                })
            }
        }
    }
}

/// Returns the op of `entry` on `key`, if there is one.
pub(super) fn op_of<'a>(entry: &'a Entry, key: &[u8]) -> Option<&'a Op> {
    entry.ops.iter().find(|op| op.key() == key)
}

/// Returns the value that an op puts; `None` for a delete.
pub(super) fn value_of(op: &Op) -> Option<Bytes> {
    match op {
        Op::Put { value, .. } => Some(value.clone()),
        Op::Delete { .. } => None,
    }
}
