//! The heads of a key: the entries that nothing known supersedes.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    limits::VALUE_INLINE_BYTES_MAX,
    protocol::{
        entry::{Entry, Op, Order, Parent},
        hlc::Hlc,
    },
};

/// One head of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// When its entry was written.
    pub hlc: Hlc,
    /// Who wrote it.
    pub author: Author,
    /// The entry.
    pub id: EntryId,
    /// The entry's place in its author's log.
    pub seq: Seq,
    /// What it says about the key.
    pub content: Content,
}

/// What a head says about its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The key was deleted.
    Tombstone,
    /// The key has a value.
    Value {
        /// The value, or where it is.
        value: Value,
        /// Milliseconds since 1970 from which on it reads like a tombstone; `None`: never.
        expires_ms: Option<u64>,
    },
}

/// A value, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// At most `VALUE_INLINE_BYTES_MAX` bytes.
    Inline(Bytes),
    /// Longer ones are read from their entry in the log.
    InLog {
        /// Its length.
        bytes: u32,
    },
}

impl Head {
    /// Returns the head that `op` of `entry` makes.
    pub fn of(entry: &Entry, op: &Op) -> Self {
        let content = match op {
            Op::Delete { .. } => Content::Tombstone,
            Op::Put {
                value, expires_ms, ..
            } => Content::Value {
                value: if value.len() <= VALUE_INLINE_BYTES_MAX {
                    Value::Inline(value.clone())
                } else {
                    Value::InLog {
                        bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
                    }
                },
                expires_ms: *expires_ms,
            },
        };
        Self {
            hlc: entry.header.hlc,
            author: entry.author(),
            id: entry.id,
            seq: entry.header.seq,
            content,
        }
    }

    /// Returns its place in the order that all nodes share.
    pub fn order(&self) -> Order {
        Order {
            hlc: self.hlc,
            author: self.author,
            id: self.id,
        }
    }

    /// Returns how the next write cites it.
    pub fn as_parent(&self) -> Parent {
        Parent {
            hlc: self.hlc,
            author: self.author,
            id: self.id,
            seq: self.seq,
        }
    }

    /// Returns when it expires, in ms since 1970; `None` for never and for tombstones.
    pub fn expires_ms(&self) -> Option<u64> {
        match self.content {
            Content::Tombstone => None,
            Content::Value { expires_ms, .. } => expires_ms,
        }
    }

    /// True when a read at `now_ms` finds a value here.
    pub fn is_live(&self, now_ms: u64) -> bool {
        match self.content {
            Content::Tombstone => false,
            Content::Value { expires_ms, .. } => expires_ms.is_none_or(|at| now_ms < at),
        }
    }
}

/// All heads of one key, in order; the last one wins. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads(Option<Arc<[Head]>>);

impl Heads {
    /// Takes heads in any order.
    pub fn new(mut heads: Vec<Head>) -> Self {
        heads.sort_by_key(Head::order);
        Self((!heads.is_empty()).then(|| heads.into()))
    }

    /// Returns the heads, least first.
    pub fn as_slice(&self) -> &[Head] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Returns the winner: the highest in order. `None` for a key never written.
    pub fn winner(&self) -> Option<&Head> {
        self.as_slice().last()
    }

    /// True when several entries, none of which knew the others, are heads.
    pub fn is_conflict(&self) -> bool {
        self.as_slice().len() > 1
    }

    /// Returns the heads after `entry` with its `op` for this key: those it does not cite, and it.
    ///
    /// Whatever causal order entries come in, the result is the same.
    #[must_use]
    pub fn apply(&self, entry: &Entry, op: &Op) -> Self {
        let parents = &entry.header.parents;
        let cited = |head: &Head| parents.binary_search(&head.as_parent()).is_ok();
        let new = Head::of(entry, op);
        if self.as_slice().iter().all(cited) {
            return Self(Some(Arc::new([new])));
        }
        let mut heads: Vec<Head> = self
            .as_slice()
            .iter()
            .filter(|head| !cited(head))
            .cloned()
            .collect();
        heads.push(new);
        Self::new(heads)
    }
}
