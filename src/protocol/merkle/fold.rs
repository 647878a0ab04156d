//! Fold: makes nodes of a stream of their children, with few hashes in memory.

use bytes::Bytes;

use crate::protocol::merkle::{Levels, RowHash, TreeHash, TreeRoot, hash::TOP};

/// A value that is made of the same values of the children: a hash, or a part of a proof.
pub(super) trait Part {
    /// Joins two neighbours of one level.
    fn pair(left: Self, right: Self) -> Self;
    /// Makes a node of the parts of all its children, joined.
    fn node(level: u8, inner: Self) -> Self;
}

impl Part for TreeHash {
    fn pair(left: Self, right: Self) -> Self {
        Self::pair(&left, &right)
    }

    fn node(level: u8, inner: Self) -> Self {
        Self::node(level, &inner)
    }
}

/// Makes one node of `top` of its descendants of level `base`, in key order.
#[derive(Debug)]
pub(super) struct Fold<P> {
    base: u8,
    // The open node of each level above `base` up to the top.
    open: Vec<Peaks<P>>,
}

/// The children that an open node has so far, joined to one part for each binary digit 1 of their
/// number.
#[derive(Debug)]
struct Peaks<P> {
    count: u64,
    parts: Vec<P>,
}

impl<P: Part> Fold<P> {
    /// Makes a fold without a child. `base` is below `top`.
    pub(super) fn new(base: u8, top: u8) -> Self {
        assert!(base < top, "a node is above its children");
        let open = (base..top).map(|_level| Peaks {
            count: 0,
            parts: Vec::new(),
        });
        Self {
            base,
            open: open.collect(),
        }
    }

    /// Adds the next descendant. `level` is that of its key: it begins a node of each level up to
    /// it.
    ///
    /// # Panics
    /// When it begins a second node of the top level.
    pub(super) fn push(&mut self, level: u8, child: P) {
        let begins = usize::from(level.saturating_sub(self.base));
        let mut closed = None;
        for (peaks, level) in self.open.iter_mut().zip(self.base..).take(begins) {
            peaks.extend(closed.take());
            closed = peaks.close(level.saturating_add(1));
        }
        if let Some(peaks) = self.open.get_mut(begins) {
            peaks.extend(closed.take());
        }
        assert!(closed.is_none(), "one node of the top level is made");
        if let Some(peaks) = self.open.first_mut() {
            peaks.extend(Some(child));
        }
    }

    /// Returns the node.
    ///
    /// # Panics
    /// Without a child.
    pub(super) fn finish(mut self) -> P {
        let mut closed = None;
        for (peaks, level) in self.open.iter_mut().zip(self.base..) {
            peaks.extend(closed.take());
            closed = peaks.close(level.saturating_add(1));
        }
        closed.expect("a node has a child")
    }
}

impl<P: Part> Peaks<P> {
    fn extend(&mut self, child: Option<P>) {
        let Some(child) = child else { return };
        self.parts.push(child);
        self.count = self.count.saturating_add(1);
        for _ in 0..self.count.trailing_zeros() {
            self.join();
        }
    }

    fn join(&mut self) {
        if let (Some(right), Some(left)) = (self.parts.pop(), self.parts.pop()) {
            self.parts.push(P::pair(left, right));
        }
    }

    // Returns the node, and begins the next one; `None` without a child.
    fn close(&mut self, level: u8) -> Option<P> {
        while self.parts.len() > 1 {
            self.join();
        }
        self.count = 0;
        Some(P::node(level, self.parts.pop()?))
    }
}

/// Computes a root of rows that come in key order, in one pass and with little memory.
#[derive(Debug)]
pub struct StreamRoot {
    levels: Levels,
    prefix: Bytes,
    fold: Fold<TreeHash>,
    last: Vec<u8>,
}

impl StreamRoot {
    /// Makes the tree without rows.
    pub fn new(levels: Levels) -> Self {
        Self::of_prefix(levels, Bytes::new())
    }

    /// Makes the tree of the keys that begin with `prefix`, without rows.
    pub fn of_prefix(levels: Levels, prefix: Bytes) -> Self {
        let mut fold = Fold::new(0, TOP);
        fold.push(TOP, TreeHash::leaf(&[], &RowHash::EMPTY_KEY));
        Self {
            levels,
            prefix,
            fold,
            last: Vec::new(),
        }
    }

    /// Adds the row of `key`.
    ///
    /// # Panics
    /// When `key` is not greater than the one before, is empty, or does not begin with the prefix.
    pub fn push(&mut self, key: &[u8], row: &RowHash) {
        assert!(self.last.as_slice() < key, "rows come in key order");
        assert!(key.starts_with(&self.prefix), "rows have the prefix");
        self.last.clear();
        self.last.extend_from_slice(key);
        self.fold
            .push(self.levels.of(key), TreeHash::leaf(key, row));
    }

    /// Returns the root of the rows.
    pub fn finish(self) -> TreeRoot {
        let top = self.fold.finish();
        self.levels.root(&top, &self.prefix)
    }
}
