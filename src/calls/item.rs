//! The value of a key, as reads return it.

use bytes::Bytes;

use crate::{id::EntryId, protocol::change::EntryRef};

/// The value of a key, from its winner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
    /// The entry that put the value: the winner.
    pub entry: EntryRef,
    /// When it expires, ms since 1970; `None`: never.
    pub expires_ms: Option<u64>,
    /// Number of heads of the key: more than 1 in a conflict.
    pub heads: u32,
    /// Ids of the heads other than the winner, the greatest first.
    pub other_heads: Vec<EntryId>,
}
