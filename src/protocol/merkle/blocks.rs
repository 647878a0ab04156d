//! Blocks: the nodes of one level of a tree, which are kept in memory.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::protocol::merkle::{
    Levels, RowHash, Rows, TreeHash, TreeRoot,
    fold::Fold,
    hash::{LEVEL_MAX, TOP},
};

/// The nodes of one level, by first key.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    pub(super) levels: Levels,
    /// The level of the blocks.
    pub(super) base: u8,
    // Never empty: the leftmost block begins at the empty key.
    by_key: BTreeMap<Bytes, Block>,
    // Rough number of bytes of memory that they take.
    bytes: usize,
    bytes_max: usize,
}

/// One node, with all rows from its first key up to the next block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Level of the first key.
    pub(super) level: u8,
    /// Number of rows.
    pub(super) rows: u64,
    /// Hash of the node. Not the right one while the block is marked in [`Tree`](super::Tree).
    pub(super) hash: TreeHash,
}

/// The blocks that a range of rows makes.
#[derive(Debug)]
pub(super) enum Made {
    /// Blocks, in key order; the first one begins where the range does.
    Blocks(Vec<(Bytes, Block)>),
    /// The range does not begin with a row: its rows belong to the block before.
    NoFirst,
    /// They do not fit.
    TooMany,
}

impl Blocks {
    /// Makes the blocks of a tree without rows, of the level `base`.
    pub(super) fn new(levels: Levels, base: u8, bytes_max: usize) -> Self {
        let empty = Block {
            level: TOP,
            rows: 0,
            hash: TreeHash::leaf(&[], &RowHash::EMPTY_KEY),
        };
        Self {
            levels,
            base,
            by_key: BTreeMap::from([(Bytes::new(), empty)]),
            bytes: BLOCK_BYTES,
            bytes_max,
        }
    }

    /// Returns the block that begins at `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Block> {
        self.by_key.get(key)
    }

    /// Returns the blocks that begin from `from` (inclusive) to `to` (exclusive).
    pub(super) fn range<'a>(
        &'a self,
        from: &'a [u8],
        to: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Block)> {
        let end = to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.max(from)));
        self.by_key.range::<[u8], _>((Bound::Included(from), end))
    }

    /// Returns the first key of the block that `key` belongs to.
    pub(super) fn first_of(&self, key: &[u8]) -> Bytes {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let block = self.by_key.range::<[u8], _>(up_to).next_back();
        block.map(|(first, _)| first.clone()).unwrap_or_default()
    }

    /// Returns the first key of the last block that begins before `key`; the empty key if none
    /// does.
    pub(super) fn last_before(&self, key: &[u8]) -> Bytes {
        let before = (Bound::Unbounded, Bound::Excluded(key));
        let block = self.by_key.range::<[u8], _>(before).next_back();
        block.map(|(first, _)| first.clone()).unwrap_or_default()
    }

    /// Returns the first key of the block after `key`.
    pub(super) fn next(&self, key: &[u8]) -> Option<&Bytes> {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        self.by_key
            .range::<[u8], _>(after)
            .next()
            .map(|next| next.0)
    }

    /// Returns the number of rows in all blocks.
    pub(super) fn rows(&self) -> u64 {
        self.by_key.values().map(|block| block.rows).sum()
    }

    /// Returns the number of blocks.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns the root of the tree.
    pub(super) fn root(&self) -> TreeRoot {
        let mut fold = Fold::new(self.base, TOP);
        for block in self.by_key.values() {
            fold.push(block.level, block.hash);
        }
        let top = fold.finish();
        self.levels.root(&top, &[])
    }

    /// Reads the rows of the block that begins at `first`, and returns the blocks that they make.
    pub(super) fn read<R: Rows>(&self, rows: &R, first: &Bytes) -> Result<Made, R::Error> {
        let mut making = Making::new(self, first.clone());
        let mut is_first = !first.is_empty();
        let mut no_first = is_first;
        rows.rows(
            first,
            self.next(first).map(Bytes::as_ref),
            &mut |key, row| {
                if is_first {
                    is_first = false;
                    no_first = key != first;
                }
                !no_first && making.push(key, row)
            },
        )?;
        match (no_first, making.too_many) {
            (true, _) => Ok(Made::NoFirst),
            (false, true) => Ok(Made::TooMany),
            (false, false) => Ok(Made::Blocks(making.finish())),
        }
    }

    /// Replaces the block that `made` begins with.
    pub(super) fn replace(&mut self, made: Vec<(Bytes, Block)>) {
        for (key, block) in made {
            let bytes = block_bytes(&key);
            if self.by_key.insert(key, block).is_none() {
                self.bytes = self.bytes.saturating_add(bytes);
            }
        }
    }

    /// Removes the block that begins at `first`: the one before has its rows now. Returns where
    /// that one begins.
    pub(super) fn remove(&mut self, first: &Bytes) -> Bytes {
        assert!(!first.is_empty(), "the leftmost block stays");
        if self.by_key.remove(first).is_some() {
            self.bytes = self.bytes.saturating_sub(block_bytes(first));
        }
        self.first_of(first)
    }

    /// Makes the blocks larger by one level, so that there are fewer. Returns where they begin;
    /// their hashes are not known.
    pub(super) fn coarsen(&mut self) -> Vec<Bytes> {
        assert!(self.base < LEVEL_MAX, "blocks of the highest level fit");
        self.base = self.base.saturating_add(1);
        let base = self.base;
        self.by_key.retain(|_, block| block.level >= base);
        let bytes = self.by_key.keys().map(|key| block_bytes(key));
        self.bytes = bytes.fold(0, usize::saturating_add);
        self.by_key.keys().cloned().collect()
    }
}

// Blocks that are being made of rows in key order.
struct Making<'a> {
    blocks: &'a Blocks,
    made: Vec<(Bytes, Block)>,
    bytes: usize,
    first: Bytes,
    level: u8,
    rows: u64,
    fold: Fold<TreeHash>,
    too_many: bool,
}

impl<'a> Making<'a> {
    fn new(blocks: &'a Blocks, first: Bytes) -> Self {
        let mut fold = Fold::new(0, blocks.base);
        if first.is_empty() {
            fold.push(TOP, TreeHash::leaf(&[], &RowHash::EMPTY_KEY));
        }
        Self {
            blocks,
            made: Vec::new(),
            bytes: blocks.bytes,
            level: blocks.levels.of(&first),
            first,
            rows: 0,
            fold,
            too_many: false,
        }
    }

    // Returns false when the blocks do not fit.
    fn push(&mut self, key: &[u8], row: &RowHash) -> bool {
        let level = self.blocks.levels.of(key);
        if level >= self.blocks.base && self.first != key {
            self.bytes = self.bytes.saturating_add(block_bytes(key));
            let may_coarsen = self.blocks.base < LEVEL_MAX;
            if self.bytes > self.blocks.bytes_max && may_coarsen {
                self.too_many = true;
                return false;
            }
            self.close();
            (self.first, self.level) = (Bytes::copy_from_slice(key), level);
        }
        self.rows = self.rows.saturating_add(1);
        self.fold.push(level, TreeHash::leaf(key, row));
        true
    }

    fn close(&mut self) {
        let fold = std::mem::replace(&mut self.fold, Fold::new(0, self.blocks.base));
        let block = Block {
            level: self.level,
            rows: self.rows,
            hash: fold.finish(),
        };
        self.made.push((std::mem::take(&mut self.first), block));
        self.rows = 0;
    }

    fn finish(mut self) -> Vec<(Bytes, Block)> {
        self.close();
        self.made
    }
}

fn block_bytes(first: &[u8]) -> usize {
    BLOCK_BYTES.saturating_add(first.len())
}

// Rough number of bytes of memory that a block takes besides its first key, with its place in the
// map and in the set of marked blocks.
const BLOCK_BYTES: usize = 160;
