//! Change: one event of one key, as it is delivered to watchers and consumers.
//!
//! An entry that applies makes one change for each of its ops: a put or a delete. Changes of two
//! kinds are made by no op. When the local clock passes the expiry of a key's winner, the key
//! expires; its heads stay as they are. When entries stop or begin to count because memberships
//! changed, keys whose heads differ afterwards are retracted. Heads, conflict and previous winner
//! are those on this node when the change is made, so two nodes may report them differently.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        entry::{Entry, Order},
        gap::Gap,
        heads::{Head, Heads},
        hlc::Hlc,
    },
};

/// Kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An entry put a value.
    Put,
    /// An entry deleted the key.
    Delete,
    /// The expiry time of the winner has passed on the local clock.
    Expire,
    /// The heads changed because entries no longer count, or count again.
    Retract,
    /// History is missing, and the state follows: keys that are not in it no longer exist. Only
    /// consumers deliver it; a watch has an event of its own for it.
    Gap,
}

impl Kind {
    /// Returns the name used in JSON and in text: `put`, `delete`, `expire`, `retract`,
    /// `gap`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Expire => "expire",
            Self::Retract => "retract",
            Self::Gap => "gap",
        }
    }
}

/// Where a change came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Written on this node, delivered live.
    Local,
    /// Received from another node, delivered live.
    Remote,
    /// Read from the log, after a cursor, a time or a lag.
    Replay,
    /// Part of the state that a watch begins with, or that follows a gap.
    Initial,
}

impl Origin {
    /// Returns the name used in JSON and in text: `local`, `remote`, `replay`, `initial`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Replay => "replay",
            Self::Initial => "initial",
        }
    }
}

/// Reference to an entry: its id, its place in a log, and its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryRef {
    /// Id of the entry.
    pub id: EntryId,
    /// Author of the entry.
    pub author: Author,
    /// Place in the author's log, from 1.
    pub seq: Seq,
    /// Stamp of the entry.
    pub hlc: Hlc,
}

impl EntryRef {
    /// Returns the entry's place in the order that all nodes share.
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
///
/// One that came over the socket to a client has no `prev`, and its `depth` and `gap_number` are 0. Of its
/// heads, only that of its own entry has a content; the others look like values of 0 bytes in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Key that changed; empty for a `Gap`.
    pub key: Bytes,
    /// Kind of the change.
    pub kind: Kind,
    /// Value that was put; `None` for every other kind, and for a watch of keys only.
    pub value: Option<Bytes>,
    /// Time from which on the value reads as deleted, in ms since 1970; `None` if the value never
    /// expires. For `Expire`, the time at which the winner expired.
    pub expires_ms: Option<u64>,
    /// Entry that made the change. For `Expire`, the winner that expired; for `Retract`, the winner
    /// now, or the last winner if the key has no head left. For `Gap`, the newest entry that was
    /// removed; all zeros if none was.
    pub entry: EntryRef,
    /// The author's entry before `entry`; `None` for its first one, and for `Expire` and `Retract`.
    pub prev: Option<EntryId>,
    /// Index of the op in its entry, from 0; 0 for `Expire` and `Retract`.
    pub op_index: u32,
    /// Number of ops in the entry; 1 for `Expire` and `Retract`.
    pub op_count: u32,
    /// Whether the entry is an explicit batch, which is never split in delivery.
    pub atomic: bool,
    /// Number of hooks between this change and a write that no hook made. 0 for such a write, for
    /// `Expire` and `Retract`, and for a change that is part of the initial state.
    pub depth: u32,
    /// Heads of the key on this node when the change was made.
    pub heads: Heads,
    /// Winner before this change; `None` if the key had no winner, and for a put or delete that was
    /// read from the log or the state. For `Expire`, the winner that expired.
    pub previous: Option<EntryRef>,
    /// Where the change came from.
    pub origin: Origin,
    /// Time at which the entry arrived in this node's log, in ms since 1970; 0 in the initial
    /// state. For `Retract`, and for an `Expire` that comes from the state, the time at which the
    /// change was made; for `Gap`, the time at which the consumer came to it.
    pub arrived_ms: u64,
    /// Whether a higher entry was the winner already, so that this entry did not become the winner.
    pub late: bool,
    /// The missing history; set only for `Gap`.
    pub gap: Option<Arc<Gap>>,
    /// Number of a gap among those of its consumer, from 1: for a `Gap`, and for each live key of the
    /// state that a consumer delivers after it. 0 for all other changes.
    pub gap_number: u64,
}

impl Change {
    /// Returns the change of a key whose heads were `before` and are `after` because entries no
    /// longer count, or count again.
    ///
    /// `arrived_ms`: the time now, in ms since 1970. Returns `None` if both are empty.
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
            gap: None,
            gap_number: 0,
        })
    }

    /// Returns the expiry, at `ms` since 1970, of a key that has `heads`.
    ///
    /// Returns `None` if the winner does not expire at or before `ms`: the winner was superseded
    /// since the expiry was noted.
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
            gap: None,
            gap_number: 0,
        })
    }

    /// Returns the change that delivers `gap`, which a consumer came to at `arrived_ms`. `removed` is the
    /// newest entry that was removed.
    pub fn of_gap(gap: Arc<Gap>, gap_number: u64, removed: EntryRef, arrived_ms: u64) -> Self {
        Self {
            key: Bytes::new(),
            kind: Kind::Gap,
            value: None,
            expires_ms: None,
            entry: removed,
            prev: None,
            op_index: 0,
            op_count: 1,
            atomic: false,
            depth: 0,
            heads: Heads::default(),
            previous: None,
            origin: Origin::Replay,
            arrived_ms,
            late: false,
            gap: Some(gap),
            gap_number,
        }
    }

    /// Returns whether the key has several heads.
    pub fn is_conflict(&self) -> bool {
        self.heads.is_conflict()
    }

    /// Returns whether this is the last op of its entry; true for `Expire` and `Retract`.
    pub fn is_last_op(&self) -> bool {
        self.op_index.saturating_add(1) == self.op_count
    }
}

/// Changes that one commit made visible, in order; shared by all watchers.
pub type Changes = Arc<[Arc<Change>]>;
