//! A write: what a caller asks a store to change, and its outcome.

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        entry::{Op, cause::Cause},
        hlc::Hlc,
    },
};

/// A change of one key, or of several together.
///
/// A delete of a key that has no value, and is in no conflict, changes nothing: it is left out of the
/// entry. If nothing else is in the write, nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Puts and deletes, at least one. A key may be in it once.
    pub ops: Vec<Op>,
    /// True for an entry of its own that watches deliver whole. More than one op always are one.
    pub atomic: bool,
    /// Condition that must hold for every key when the writer comes to this write.
    pub condition: Option<Condition>,
    /// Why it is written. This node writes at most once for a cause.
    pub cause: Option<Cause>,
}

/// A condition on a key; if it does not hold, nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The key has no live value.
    Absent,
    /// The key's winner is this entry.
    Head(EntryId),
    /// The heads of the key, deletes too, are those with this hash
    /// ([`hash_of`](crate::protocol::heads::hash_of)).
    Heads([u8; 32]),
}

/// Place of a write in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Entry that carries the write; it may carry others, too.
    pub entry: EntryId,
    /// This node.
    pub author: Author,
    /// The entry's place in this node's log.
    pub seq: Seq,
    /// The entry's stamp.
    pub hlc: Hlc,
    /// Index of the write's first op in the entry.
    pub op_index: u32,
    /// Number of the write's ops in the entry: all but deletes that change nothing.
    pub op_count: u32,
}

impl Write {
    /// Makes a put of one key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let op = Op::Put {
            key: key.into(),
            value: value.into(),
            expires_ms: None,
        };
        Self {
            ops: vec![op],
            atomic: false,
            condition: None,
            cause: None,
        }
    }

    /// Makes a delete of one key: it leaves a tombstone if the key has a value.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self {
            ops: vec![Op::Delete { key: key.into() }],
            atomic: false,
            condition: None,
            cause: None,
        }
    }

    /// Makes the values that are put expire at `ms` since 1970.
    #[must_use]
    pub fn expires_ms(mut self, ms: u64) -> Self {
        for op in &mut self.ops {
            if let Op::Put { expires_ms, .. } = op {
                *expires_ms = Some(ms);
            }
        }
        self
    }

    /// Writes only if `condition` holds for every key.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = Some(condition);
        self
    }

    /// Writes only if this node has written nothing for `cause` yet. The write is an entry of its own.
    #[must_use]
    pub fn caused_by(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }
}
