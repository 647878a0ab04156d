//! Heads of a key: the entries that no applied entry supersedes.
//!
//! When entry `e` applies with an op for key `k`, the heads of `k` become: the old heads without
//! those that `e` cites as parents, without those that are its ancestors by `prev`, and `e`. A
//! parent counts as cited only if its stamp, author, id and seq are all as `e` says. Parents and
//! predecessors are applied before the entries that cite them; then the heads are the same in
//! whatever order entries arrive. Where a parent does not come, the entry is applied without it; a
//! parent that comes later is superseded at once at the keys of the entries that cite it.
//!
//! So an author has at most one head of a key for each of its branches, however little it cites. (A
//! rule like "the author's newest by stamp" would not do: with two branches it depends on the
//! order.)
//!
//! The winner is the head that is highest by `(hlc, author, id)`; a read returns its value. A
//! delete makes a head, too: a tombstone. Several heads are a conflict: all stay readable until a
//! write cites them. A head that its author has taken back
//! ([`taken_back_by`](super::fork::taken_back_by)) stays a head and is lower than all others. Expiry
//! never changes heads. From its expiry time on (inclusive) a head reads as a tombstone.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    limits::VALUE_INLINE_BYTES_MAX,
    protocol::{
        entry::{Entry, Op, Order, Parent},
        hlc::Hlc,
    },
};

/// One head of a key: an entry, and the content that it gives the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Stamp of the entry.
    pub hlc: Hlc,
    /// Author of the entry.
    pub author: Author,
    /// Id of the entry.
    pub id: EntryId,
    /// Place of the entry in its author's log, from 1.
    pub seq: Seq,
    /// Content that the entry gives the key.
    pub content: Content,
    /// True when the author has taken the entry back.
    pub taken_back: bool,
}

/// Content that a head gives its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The entry deleted the key.
    Tombstone,
    /// The entry put a value.
    Value {
        /// The value, or its length if it is read from the log.
        value: Value,
        /// Time from which on the head reads as a tombstone, inclusive, in ms since 1970; `None` if
        /// it never expires.
        expires_ms: Option<u64>,
    },
}

/// A value that is short enough to be kept with the head, or the length and hash of a longer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Value of at most `VALUE_INLINE_BYTES_MAX` bytes.
    Inline(Bytes),
    /// Longer value, which is read from its entry in the log.
    InLog {
        /// Length of the value in bytes.
        bytes: u32,
        /// BLAKE3 hash of the value.
        hash: [u8; 32],
    },
}

impl Head {
    /// Returns the head that `op` of `entry` makes.
    ///
    /// An inline value is copied, so that the head does not keep the whole entry in memory. A longer
    /// value is hashed.
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
                        hash: *blake3::hash(value).as_bytes(),
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
            taken_back: false,
        }
    }

    /// Returns the place of the head among those of its key. The winner has the highest rank.
    pub(super) fn rank(&self) -> (bool, Order) {
        (!self.taken_back, self.order())
    }

    /// Returns the entry's place in the order that all nodes share.
    pub fn order(&self) -> Order {
        Order {
            hlc: self.hlc,
            author: self.author,
            id: self.id,
        }
    }

    /// Returns the reference by which the next write of the key cites this head.
    pub fn as_parent(&self) -> Parent {
        Parent {
            hlc: self.hlc,
            author: self.author,
            id: self.id,
            seq: self.seq,
        }
    }

    /// Returns the expiry time in ms since 1970; `None` for a tombstone and for a value that never
    /// expires.
    pub fn expires_ms(&self) -> Option<u64> {
        match self.content {
            Content::Tombstone => None,
            Content::Value { expires_ms, .. } => expires_ms,
        }
    }

    /// Returns whether the head has a value that is not expired at `now_ms`, in ms since 1970.
    pub fn is_live(&self, now_ms: u64) -> bool {
        match self.content {
            Content::Tombstone => false,
            Content::Value { expires_ms, .. } => expires_ms.is_none_or(|at| now_ms < at),
        }
    }
}

/// The heads of an entry's keys before it, as far as they decide what it supersedes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Before {
    /// Heads of each op's key, in the order of the ops.
    pub heads: Vec<Heads>,
    /// Those of the heads that are ancestors of the entry by `prev`. A head that the entry cites need
    /// not be among them.
    pub ancestors: BTreeSet<EntryId>,
    /// Parents of the entry that are not in the log. One that comes later is superseded by the entry
    /// all the same, at the entry's keys.
    pub absent: Vec<Parent>,
}

impl Before {
    /// Returns what `entry` finds where its keys have `heads` and all its parents are here.
    /// `is_ancestor` is asked about each head that `entry` does not cite and that its author wrote
    /// before it.
    ///
    /// # Errors
    /// The error of `is_ancestor`.
    pub fn new<E>(
        entry: &Entry,
        heads: Vec<Heads>,
        mut is_ancestor: impl FnMut(&Head) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let (author, seq) = (entry.author(), entry.header.seq);
        let mut ancestors = BTreeSet::new();
        for head in heads.iter().flat_map(Heads::as_slice) {
            let may_be = head.author == author && head.seq < seq && !is_cited(entry, head);
            if may_be && is_ancestor(head)? {
                ancestors.insert(head.id);
            }
        }
        Ok(Self {
            heads,
            ancestors,
            absent: Vec::new(),
        })
    }
}

fn is_cited(entry: &Entry, head: &Head) -> bool {
    let parents = &entry.header.parents;
    parents.binary_search(&head.as_parent()).is_ok()
}

/// Returns a test whether a parent is one of `heads`, as it is cited.
pub fn among(heads: &[Heads]) -> impl Fn(&Parent) -> bool {
    let heads = heads.iter().flat_map(Heads::as_slice);
    let mut heads: Vec<Parent> = heads.map(Head::as_parent).collect();
    heads.sort_unstable();
    move |parent| heads.binary_search(parent).is_ok()
}

/// Returns a hash that names these entries, whatever their order.
pub fn hash_of(ids: impl IntoIterator<Item = EntryId>) -> [u8; 32] {
    let ids: BTreeSet<EntryId> = ids.into_iter().collect();
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(&id.0);
    }
    *hasher.finalize().as_bytes()
}

/// All heads of one key; the last one is the winner. They are sorted by order, after those that were
/// taken back. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads(Option<Arc<[Head]>>);

impl Heads {
    /// Creates heads from a list in any order.
    pub fn new(mut heads: Vec<Head>) -> Self {
        heads.sort_by_key(Head::rank);
        Self((!heads.is_empty()).then(|| heads.into()))
    }

    /// Creates heads from a single one.
    pub fn one(head: Head) -> Self {
        Self(Some(Arc::new([head])))
    }

    /// Creates heads from a list in order: the winner is the last one.
    pub fn in_order(heads: Vec<Head>) -> Self {
        Self((!heads.is_empty()).then(|| heads.into()))
    }

    /// Returns the heads; the winner is the last one.
    pub fn as_slice(&self) -> &[Head] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Returns the winner; `None` if no entry that counts wrote the key.
    pub fn winner(&self) -> Option<&Head> {
        self.as_slice().last()
    }

    /// Returns whether there are several heads; none of them cites another.
    pub fn is_conflict(&self) -> bool {
        self.as_slice().len() > 1
    }

    /// Returns whether a delete changes something: a value is read, or there is a conflict, which a
    /// delete ends. A single tombstone or a single value that has expired at `now_ms` (ms since 1970)
    /// stays as it is.
    pub fn is_deletable(&self, now_ms: u64) -> bool {
        self.is_conflict() || self.winner().is_some_and(|head| head.is_live(now_ms))
    }

    /// Returns the heads after `entry` with its `op` for this key: the heads that it does not cite
    /// and that are not its ancestors, and `entry`. `ancestors`: as in [`Before`].
    ///
    /// The result of several entries is the same in every order in which parents and predecessors
    /// come first.
    #[must_use]
    pub fn apply(&self, entry: &Entry, op: &Op, ancestors: &BTreeSet<EntryId>) -> Self {
        let superseded = |head: &Head| is_cited(entry, head) || ancestors.contains(&head.id);
        let new = Head::of(entry, op);
        if self.as_slice().iter().all(superseded) {
            return Self::one(new);
        }
        let mut heads: Vec<Head> = self
            .as_slice()
            .iter()
            .filter(|head| !superseded(head))
            .cloned()
            .collect();
        heads.push(new);
        Self::new(heads)
    }

    /// Returns a hash that names the entries of the heads, as [`hash_of`] does.
    pub fn hash(&self) -> [u8; 32] {
        hash_of(self.as_slice().iter().map(|head| head.id))
    }

    /// Returns the heads without the entry `id`, which another one has superseded before it came.
    /// None are left if an act took that other one.
    #[must_use]
    pub fn without(self, id: &EntryId) -> Self {
        let rest = self.as_slice().iter().filter(|head| head.id != *id);
        Self::new(rest.cloned().collect())
    }

    /// Returns the heads after the author of the entry `id` has taken it back; `None` if the entry is
    /// not a head, or was taken back before.
    #[must_use]
    pub fn take_back(&self, id: &EntryId) -> Option<Self> {
        let heads = self.as_slice();
        let at = heads
            .iter()
            .position(|head| head.id == *id && !head.taken_back)?;
        let mut heads = heads.to_vec();
        heads.get_mut(at)?.taken_back = true;
        Some(Self::new(heads))
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
        heads.apply(entry, &entry.ops[0], &BTreeSet::new())
    }

    #[test]
    fn value_or_conflict_is_deletable() {
        let brief = put(b"brief".to_vec(), Some(5000));
        let value = write(AUTHOR_A, 1000, put(b"a".to_vec(), None), &[]);
        let expiring = write(AUTHOR_A, 1001, brief, &[]);
        let gone = write(AUTHOR_A, 2000, delete(), &[]);
        let also_gone = write(AUTHOR_B, 2001, delete(), &[]);
        let heads = |entries: &[&VerifiedEntry]| {
            let apply = |heads: Heads, entry: &&VerifiedEntry| apply(&heads, entry);
            entries.iter().fold(Heads::default(), apply)
        };
        for (entries, is_deletable) in [
            (&[][..], false),
            (&[&value], true),
            (&[&gone], false),
            (&[&expiring], false),
            // Each of two heads is read again when the other one is superseded.
            (&[&value, &also_gone], true),
            (&[&gone, &also_gone], true),
            (&[&expiring, &also_gone], true),
        ] {
            assert_eq!(heads(entries).is_deletable(5000), is_deletable);
        }
        assert!(heads(&[&expiring]).is_deletable(4999));
    }

    #[test]
    fn unwritten_key_has_no_heads() {
        let heads = Heads::default();
        assert_eq!(
            (heads.winner(), heads.is_conflict(), heads.as_slice()),
            (None, false, &[][..])
        );
        assert_eq!(heads, Heads::new(Vec::new()));
    }

    #[test]
    fn write_supersedes_exactly_the_cited_heads() {
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
    fn inexact_parent_supersedes_nothing() {
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
    fn delete_is_a_head_without_a_value() {
        let heads = apply(&Heads::default(), &write(AUTHOR_A, 10, delete(), &[]));
        let winner = heads.winner().unwrap();
        assert_eq!(
            (&winner.content, winner.expires_ms()),
            (&Content::Tombstone, None)
        );
        assert!(!winner.is_live(0));
    }

    #[test]
    fn head_is_live_until_just_before_expiry() {
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
                        hash: *blake3::hash(&vec![7; bytes]).as_bytes(),
                    }
                }
            );
        }
    }
}
