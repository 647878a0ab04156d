//! A change of a key, as a watch delivers it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        entry::{Entry, Order},
        heads::{Head, Heads},
        hlc::Hlc,
    },
};

/// Kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It was set.
    Put,
    /// It was deleted.
    Delete,
    /// The winner's time was over.
    Expire,
    /// Its heads changed because entries were excluded.
    Retract,
}

impl Kind {
    /// Returns its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Expire => "expire",
            Self::Retract => "retract",
        }
    }
}

/// Where a change came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Written on this node, seen as it happened.
    Local,
    /// Came from another node, seen as it happened.
    Remote,
    /// Read again from the log.
    Replay,
    /// Part of the state at the start of the watch.
    Initial,
}

impl Origin {
    /// Returns its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Replay => "replay",
            Self::Initial => "initial",
        }
    }
}

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryRef {
    /// Its id.
    pub id: EntryId,
    /// Author of the entry.
    pub author: Author,
    /// Its place in the author's log.
    pub seq: Seq,
    /// When it was written.
    pub hlc: Hlc,
}

impl EntryRef {
    /// Returns its place in the order that all nodes share.
    pub fn order(&self) -> Order {
        Order {
            hlc: self.hlc,
            author: self.author,
            id: self.id,
        }
    }
}

impl From<&Head> for EntryRef {
    fn from(head: &Head) -> Self {
        Self {
            id: head.id,
            author: head.author,
            seq: head.seq,
            hlc: head.hlc,
        }
    }
}

impl From<&Entry> for EntryRef {
    fn from(entry: &Entry) -> Self {
        Self {
            id: entry.id,
            author: entry.author(),
            seq: entry.header.seq,
            hlc: entry.header.hlc,
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// Kind of the change.
    pub kind: Kind,
    /// The value put; `None` for every other kind, and where only keys were asked for.
    pub value: Option<Bytes>,
    /// When the value put expires, ms since 1970; `None`: never. For `Expire`: when it did.
    pub expires_ms: Option<u64>,
    /// The entry that made the change; for `Expire`, the winner that expired.
    pub entry: EntryRef,
    /// The author's entry before; `None` for the first one.
    pub prev: Option<EntryId>,
    /// Index of the op in its entry.
    pub op_index: u32,
    /// Ops of the entry.
    pub op_count: u32,
    /// True when the entry is an explicit batch, delivered whole.
    pub atomic: bool,
    /// Hooks between this and an entry that a person wrote: 0 where a person wrote it, and for
    /// what comes of no entry or of the state.
    pub depth: u32,
    /// The heads of the key on this node as of emission.
    pub heads: Heads,
    /// The winner before this change; `None` when there was none, and when replayed.
    pub previous: Option<EntryRef>,
    /// Where it came from.
    pub origin: Origin,
    /// When the entry arrived in this node's log, ms since 1970.
    pub arrived_ms: u64,
    /// True when the entry did not become the winner: something newer was known already.
    pub late: bool,
}

impl Change {
    /// Returns the change of a key whose heads changed because entries count no more, or again.
    /// `None` where there was and is nothing.
    pub fn retract(key: Bytes, before: &Heads, after: Heads, arrived_ms: u64) -> Option<Self> {
        let previous = before.winner().map(EntryRef::from);
        let entry = after.winner().map(EntryRef::from).or(previous)?;
        Some(Self {
            key,
            kind: Kind::Retract,
            value: None,
            expires_ms: None,
            entry,
            prev: None,
            op_index: 0,
            op_count: 1,
            atomic: false,
            depth: 0,
            heads: after,
            previous,
            origin: Origin::Local,
            arrived_ms,
            late: false,
        })
    }

    /// Returns the expiry at `ms` of a key that has `heads`; `None` where its winner does not expire
    /// by then: it was superseded meanwhile.
    pub fn expiry(
        key: Bytes,
        ms: u64,
        heads: Heads,
        origin: Origin,
        arrived_ms: u64,
    ) -> Option<Self> {
        let winner = heads.winner()?;
        winner.expires_ms().filter(|expires_ms| *expires_ms <= ms)?;
        let entry = EntryRef::from(winner);
        Some(Self {
            key,
            kind: Kind::Expire,
            value: None,
            expires_ms: Some(ms),
            entry,
            prev: None,
            op_index: 0,
            op_count: 1,
            atomic: false,
            depth: 0,
            heads,
            previous: Some(entry),
            origin,
            arrived_ms,
            late: false,
        })
    }

    /// True when the key has several heads.
    pub fn is_conflict(&self) -> bool {
        self.heads.is_conflict()
    }

    /// True when this is the last op of its entry.
    pub fn is_last_op(&self) -> bool {
        self.op_index.saturating_add(1) == self.op_count
    }
}

/// Changes that one commit made visible, in order. Shared by all watches that deliver them.
pub type Changes = Arc<[Arc<Change>]>;
