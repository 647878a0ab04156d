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
    /// Author of the entry.
    pub author: Author,
    /// The entry.
    pub id: EntryId,
    /// The entry's place in its author's log.
    pub seq: Seq,
    /// Value or tombstone of the key.
    pub content: Content,
}

/// Value or tombstone that a head gives its key.
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
    /// Returns the head that `op` of `entry` makes. It copies an inline value, so that it does not
    /// keep the whole entry in memory.
    pub fn of(entry: &Entry, op: &Op) -> Self {
        let content = match op {
            Op::Delete { .. } => Content::Tombstone,
            Op::Put {
                value, expires_ms, ..
            } => Content::Value {
                value: if value.len() <= VALUE_INLINE_BYTES_MAX {
                    Value::Inline(Bytes::copy_from_slice(value))
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

    /// Takes the only one.
    pub fn one(head: Head) -> Self {
        Self(Some(Arc::new([head])))
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
    /// In any causal order of entries the result is the same.
    #[must_use]
    pub fn apply(&self, entry: &Entry, op: &Op) -> Self {
        let parents = &entry.header.parents;
        let cited = |head: &Head| parents.binary_search(&head.as_parent()).is_ok();
        let new = Head::of(entry, op);
        if self.as_slice().iter().all(cited) {
            return Self::one(new);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::entry::{
        VerifiedEntry, sign,
        tests::{AUTHOR_A, AUTHOR_B, entry},
    };

    fn write(secret: [u8; 32], wall_ms: u64, op: Op, parents: &[&VerifiedEntry]) -> VerifiedEntry {
        let mut header = entry(secret, 1, None, wall_ms, "/k").header.clone();
        header.parents = parents.iter().map(|parent| parent.as_parent()).collect();
        sign(
            &ed25519_dalek::SigningKey::from_bytes(&secret),
            header,
            vec![op],
        )
        .unwrap()
    }

    fn put(value: Vec<u8>, expires_ms: Option<u64>) -> Op {
        Op::Put {
            key: "/k".into(),
            value: value.into(),
            expires_ms,
        }
    }

    fn delete() -> Op {
        Op::Delete { key: "/k".into() }
    }

    fn apply(heads: &Heads, entry: &VerifiedEntry) -> Heads {
        heads.apply(entry, &entry.ops[0])
    }

    #[test]
    fn a_key_never_written_has_no_heads() {
        let heads = Heads::default();
        assert_eq!(
            (heads.winner(), heads.is_conflict(), heads.as_slice()),
            (None, false, &[][..])
        );
        assert_eq!(heads, Heads::new(Vec::new()));
    }

    #[test]
    fn a_write_supersedes_what_it_cites_and_nothing_else() {
        let a = write(AUTHOR_A, 10, put(vec![1], None), &[]);
        let b = write(AUTHOR_B, 20, put(vec![2], None), &[]);
        let both = apply(&apply(&Heads::default(), &b), &a);
        assert!(both.is_conflict());
        assert_eq!(both.winner().unwrap().id, b.id);
        let after_a = write(AUTHOR_A, 30, delete(), &[&a]);
        let heads = apply(&both, &after_a);
        assert_eq!(
            heads
                .as_slice()
                .iter()
                .map(|head| head.id)
                .collect::<Vec<_>>(),
            [b.id, after_a.id]
        );
        let merge = write(AUTHOR_B, 40, put(vec![3], None), &[&b, &after_a]);
        let heads = apply(&heads, &merge);
        assert_eq!(heads, Heads::new(vec![Head::of(&merge, &merge.ops[0])]));
    }

    #[test]
    fn a_parent_that_is_not_told_as_it_is_supersedes_nothing() {
        let a = write(AUTHOR_A, 10, put(vec![1], None), &[]);
        let mut header = write(AUTHOR_B, 20, delete(), &[]).header.clone();
        let other_seq = Parent {
            seq: 2,
            ..a.as_parent()
        };
        let other_time = Parent {
            hlc: Hlc {
                wall_ms: 9,
                counter: 0,
            },
            ..a.as_parent()
        };
        for parent in [other_seq, other_time] {
            header.parents = vec![parent];
            let key = ed25519_dalek::SigningKey::from_bytes(&AUTHOR_B);
            let lying = sign(&key, header.clone(), vec![delete()]).unwrap();
            assert!(apply(&apply(&Heads::default(), &a), &lying).is_conflict());
        }
    }

    #[test]
    fn a_delete_is_a_head_that_reads_as_nothing() {
        let heads = apply(&Heads::default(), &write(AUTHOR_A, 10, delete(), &[]));
        let winner = heads.winner().unwrap();
        assert_eq!(
            (&winner.content, winner.expires_ms()),
            (&Content::Tombstone, None)
        );
        assert!(!winner.is_live(0));
    }

    #[test]
    fn expiry_is_a_view_and_the_last_live_moment_is_the_one_before() {
        let entry = write(AUTHOR_A, 10, put(vec![1], Some(100)), &[]);
        let head = Head::of(&entry, &entry.ops[0]);
        assert_eq!(head.expires_ms(), Some(100));
        assert!(head.is_live(99) && !head.is_live(100) && !head.is_live(u64::MAX));
    }

    #[test]
    fn values_are_inline_up_to_the_limit() {
        for (bytes, inline) in [
            (0, true),
            (VALUE_INLINE_BYTES_MAX, true),
            (VALUE_INLINE_BYTES_MAX + 1, false),
        ] {
            let entry = write(AUTHOR_A, 10, put(vec![7; bytes], None), &[]);
            let Content::Value { value, .. } = Head::of(&entry, &entry.ops[0]).content else {
                panic!("a put has a value")
            };
            assert_eq!(
                value,
                if inline {
                    Value::Inline(vec![7; bytes].into())
                } else {
                    Value::InLog {
                        bytes: u32::try_from(bytes).unwrap(),
                    }
                }
            );
        }
    }
}
