//! A tree whose lower levels are read from the rows, and whose blocks are kept in memory.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::protocol::merkle::{
    FreshTree, Levels, Rows, TreeRoot,
    blocks::{Blocks, Made},
};

/// Hashes of the blocks of a changing state. [`Tree::touch`] costs a look-up in memory, and
/// [`Tree::refresh`] reads the blocks that were touched.
#[derive(Debug, Clone)]
pub struct Tree {
    blocks: Blocks,
    // First keys of the blocks whose rows have to be read. Each of them is a block.
    touched: BTreeSet<Bytes>,
    // `None` when a block has changed since.
    root: Option<TreeRoot>,
}

impl Tree {
    /// Makes a tree of rows that were not read yet: the first refresh reads all of them.
    pub fn new(levels: Levels) -> Self {
        Self::with_room(levels, TREE_BYTES_MAX)
    }

    /// Like `new`, with at most about `bytes_max` bytes of memory.
    pub fn with_room(levels: Levels, bytes_max: usize) -> Self {
        Self {
            blocks: Blocks::new(levels, BLOCK_LEVEL, bytes_max),
            touched: BTreeSet::from([Bytes::new()]),
            root: None,
        }
    }

    /// Notes that the row of `key` has changed, was added or removed, or may have been.
    pub fn touch(&mut self, key: &[u8]) {
        self.touch_each([key]);
    }

    /// Like `touch`, for several keys. Keys of one block that follow each other cost a comparison, and
    /// nothing costs anything once all blocks are touched.
    pub fn touch_each<'a>(&mut self, keys: impl IntoIterator<Item = &'a [u8]>) {
        if self.touched.len() >= self.blocks.len() {
            return;
        }
        // First key and end of the block that was touched last.
        let mut block: Option<(Bytes, Option<Bytes>)> = None;
        for key in keys {
            let is_in = |(first, end): &(Bytes, Option<Bytes>)| {
                *first <= *key && end.as_ref().is_none_or(|end| key < *end)
            };
            if block.as_ref().is_some_and(is_in) {
                continue;
            }
            let first = self.blocks.first_of(key);
            let end = self.blocks.next(&first).cloned();
            self.touched.insert(first.clone());
            self.root = None;
            block = Some((first, end));
        }
    }

    /// Returns whether no row was touched since the last refresh: the next one reads nothing.
    pub fn is_fresh(&self) -> bool {
        self.touched.is_empty()
    }

    /// Returns the number of blocks in memory.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Reads the blocks that were touched, and returns the tree of `rows`.
    ///
    /// Every key whose row in `rows` is not as it was in the refresh before must have been touched.
    ///
    /// # Errors
    /// A block cannot be read. It stays touched.
    pub fn refresh<'a, R: Rows>(&'a mut self, rows: &'a R) -> Result<FreshTree<'a, R>, R::Error> {
        // The last one first: a block without a first row adds its rows to the block before, which
        // is then read once.
        while let Some(first) = self.touched.last().cloned() {
            match self.blocks.read(rows, &first)? {
                Made::Blocks(made) => {
                    self.blocks.replace(made);
                    self.touched.remove(&first);
                }
                Made::NoFirst => {
                    self.touched.remove(&first);
                    self.touched.insert(self.blocks.remove(&first));
                }
                Made::TooMany => self.touched = self.blocks.coarsen().into_iter().collect(),
            }
        }
        let blocks = &self.blocks;
        let root = *self.root.get_or_insert_with(|| blocks.root());
        Ok(FreshTree::new(blocks, rows, root))
    }
}

// Level of the blocks of a new tree: of 256 rows on average. Reading a block takes a fraction of a
// millisecond, and the blocks of a million rows take 0.8 MiB.
const BLOCK_LEVEL: u8 = 2;
/// Bytes of memory of the blocks of a store, about. With more, the blocks get one level higher:
/// beyond 16 million rows, or when keys are chosen for their level or are long.
const TREE_BYTES_MAX: usize = 16 << 20;
