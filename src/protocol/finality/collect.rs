//! Collection of tombstones: which heads an anchors act takes from the state.
//!
//! A tombstone may go once every entry that was written without knowing it is at or below the anchors
//! of an act. An admin shows this by two acts: all writers have acknowledged the anchors of the
//! *earlier* one, and what each had written by then is at or below those of the *later* one
//! ([`Stability`](super::Stability)). This is causal stability (Baquero, Almeida and
//! Shoker, "Pure operation-based replicated data types", 2017), by two acts.
//!
//! The rule is about the heads of a key that are at or below the anchors of the later act, by place: if all
//! of them are tombstones, or expired, and at or below the anchors of the earlier act, they go. Heads above
//! the later anchors have no part in it. So it does not matter when a node follows the rule, once all
//! entries at or below the later anchors are here: none comes any more, the heads of a key below them only
//! become fewer, and heads that were taken would be taken again. A base has the effect of its own act and of
//! those that its admin knew; a state has that of all acts that count.
//!
//! Tombstones go with the history that has them: an admin orders a collection of an act through which its
//! own logs were removed. Where logs have more, the tombstones of these entries are gone all the same. So
//! there, too, the past is read from [`Ended::reach_ms`](super::Ended::reach_ms) on, and a watch that has seen less than
//! [`Collections::is_seen`](super::Collections::is_seen) asks for goes on from the state.

use std::collections::BTreeMap;

use crate::{
    id::{Author, Seq},
    limits::DRIFT_MS_MAX,
    protocol::{
        anchors_act::AnchorsAct,
        frontier::{Frontier, FrontierTip},
        heads::{Content, Head},
    },
};

/// A collection: the heads that one counting act takes, as its `collect` line orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    pub(super) authors: BTreeMap<Author, Through>,
    // The clock of the earlier act's admin, in ms since 1970.
    earlier_ms: u64,
}

// Seqs of the anchors of an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Through {
    // 0 without one.
    pub(super) earlier: Seq,
    later: Seq,
}

impl Collection {
    /// Returns the collection of two acts; `None` if one of them names several branches of an author: there
    /// places do not say what an anchor leads back to.
    pub fn new(earlier: &AnchorsAct, later: &AnchorsAct) -> Option<Self> {
        let seqs = |anchors: &Frontier| -> Option<BTreeMap<Author, Seq>> {
            let authors = anchors.by_author();
            let one = |(author, tips): (Author, &[FrontierTip])| match tips {
                [only] => Some((author, only.seq)),
                _branches => None,
            };
            authors.map(one).collect()
        };
        let earlier_ms = earlier.through_ms();
        let earlier = seqs(earlier.anchors())?;
        let authors = seqs(later.anchors())?.into_iter();
        let through = |(author, later): (Author, Seq)| {
            let earlier = earlier.get(&author).copied().unwrap_or(0);
            (author, Through { earlier, later })
        };
        Some(Self {
            authors: authors.map(through).collect(),
            earlier_ms,
        })
    }

    /// Returns the time through which expired values are like tombstones, in ms since 1970. The admin's clock
    /// may have been ahead of true time by as much.
    pub fn expired_ms(&self) -> u64 {
        self.earlier_ms.saturating_sub(DRIFT_MS_MAX)
    }

    // No entry that the earlier act made final is stamped later, in ms since 1970: it would be held.
    pub(super) fn reach_ms(&self) -> u64 {
        self.earlier_ms.saturating_add(DRIFT_MS_MAX)
    }

    // Hashes all that decides which heads are taken.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.earlier_ms.to_le_bytes());
        for (author, through) in &self.authors {
            hasher.update(&author.0);
            hasher.update(&through.earlier.to_le_bytes());
            hasher.update(&through.later.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    // Returns whether this head is at or below the later anchors.
    fn is_below(&self, head: &Head) -> bool {
        let through = self.authors.get(&head.author);
        through.is_some_and(|through| head.seq <= through.later)
    }

    fn is_over(&self, head: &Head) -> bool {
        let is_dead = match head.content {
            Content::Tombstone => true,
            Content::Value { expires_ms, .. } => {
                expires_ms.is_some_and(|expires_ms| expires_ms <= self.expired_ms())
            }
        };
        let through = self.authors.get(&head.author);
        is_dead && through.is_some_and(|through| head.seq <= through.earlier)
    }

    // Takes heads out of `heads`. A row with a value beside a tombstone stays: without the tombstone the
    // value would be back.
    pub(super) fn take(&self, heads: &mut Vec<Head>) {
        let mut below = heads.iter().filter(|head| self.is_below(head));
        if below.all(|head| self.is_over(head)) {
            heads.retain(|head| !self.is_below(head));
        }
    }
}
