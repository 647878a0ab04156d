//! Records: the rows of a base, in one order.
//!
//! | kind | key | body |
//! |---|---|---|
//! | `c` cause | id of the cause 16 | entry 32, seq u64 |
//! | `f` fact | as in `facts.rs`; of entries that are cited ahead, as in `ahead.rs` | as there |
//! | `h` heads | the key | as in `protocol::heads_row` |
//! | `v` value of a head that is not in its row | the key, id of the entry 32 | the value |

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::id::EntryId;

/// Kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// The entry that was written for a cause.
    Cause,
    /// A fact of the state.
    Fact,
    /// The heads of a key.
    Heads,
    /// A value that is too long for the row of its head.
    Value,
}

impl RecordKind {
    fn byte(self) -> u8 {
        match self {
            Self::Cause => b'c',
            Self::Fact => b'f',
            Self::Heads => b'h',
            Self::Value => b'v',
        }
    }
}

/// Kind and key of a record; records are sorted by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordKey(pub(super) Bytes);

impl RecordKey {
    /// Returns a key before all others.
    pub(crate) fn first() -> Self {
        Self(Bytes::new())
    }

    /// Returns the key of the record of `kind` at `key`.
    pub(crate) fn new(kind: RecordKind, key: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(key.len() + 1);
        bytes.put_u8(kind.byte());
        bytes.put_slice(key);
        Self(bytes.freeze())
    }

    /// Returns the key of the record with the value that `entry` puts at `key`.
    pub(crate) fn value(key: &[u8], entry: &EntryId) -> Self {
        Self::new(RecordKind::Value, &[key, entry.0.as_slice()].concat())
    }

    /// Returns the key if the record is of `kind`.
    pub(crate) fn of(&self, kind: RecordKind) -> Option<Bytes> {
        let is_of = self.0.first() == Some(&kind.byte());
        is_of.then(|| self.0.slice(1..))
    }

    /// Returns whether `other` is of the same kind.
    pub(super) fn is_kind_of(&self, other: &Self) -> bool {
        self.0.first() == other.0.first()
    }
}
