//! A tree together with the rows that it was computed of.

use bytes::Bytes;

use crate::protocol::merkle::{
    Levels, RowHash, RowProof, Rows, TreeHash, TreeRoot, blocks::Blocks, fold::Fold, hash::TOP,
    row_proof::Pruned,
};

/// The tree of some rows: made by [`Tree::refresh`](super::Tree::refresh).
#[derive(Debug)]
pub struct FreshTree<'a, R> {
    blocks: &'a Blocks,
    rows: &'a R,
    root: TreeRoot,
}

impl<'a, R: Rows> FreshTree<'a, R> {
    pub(super) fn new(blocks: &'a Blocks, rows: &'a R, root: TreeRoot) -> Self {
        Self { blocks, rows, root }
    }

    /// Returns the root.
    pub fn root(&self) -> TreeRoot {
        self.root
    }

    /// Returns the number of rows.
    pub fn row_count(&self) -> u64 {
        self.blocks.rows()
    }

    /// Returns a proof of the row of `key`, or that it has none.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn prove(&self, key: &[u8]) -> Result<RowProof, R::Error> {
        self.prove_with(&self.shown_for(key)?)
    }

    // Returns a proof with these leaves.
    pub(super) fn prove_with(&self, shown: &[Bytes]) -> Result<RowProof, R::Error> {
        let read: Vec<Bytes> = shown.iter().map(|key| self.blocks.first_of(key)).collect();
        let is_shown = |key: &[u8]| shown.iter().any(|shown| shown == key);
        self.prove_where(|first| read.contains(first), is_shown)
    }

    /// Returns a proof of all rows from `from` (inclusive) to `to` (exclusive; `None` for all that
    /// follow). It has 33 bytes for each row besides its key: the caller bounds the range.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn prove_range(&self, from: &[u8], to: Option<&[u8]>) -> Result<RowProof, R::Error> {
        let mut before = self.blocks.last_before(from);
        self.rows
            .rows(&before.clone(), Some(from), &mut |key, _row| {
                before = Bytes::copy_from_slice(key);
                true
            })?;
        let mut after = None;
        if let Some(to) = to {
            self.rows.rows(to.max(from), None, &mut |key, _row| {
                after = Some(Bytes::copy_from_slice(key));
                false
            })?;
        }
        let is_up_to = |key: &[u8]| after.as_ref().is_none_or(|after| key <= after);
        let is_read = |first: &Bytes| {
            let next = self.blocks.next(first);
            is_up_to(first) && next.is_none_or(|next| before < *next)
        };
        self.prove_where(is_read, |key| before <= *key && is_up_to(key))
    }

    // Returns a proof with the leaves that `is_shown` chooses, of the blocks that `is_read`
    // chooses.
    fn prove_where(
        &self,
        is_read: impl Fn(&Bytes) -> bool,
        is_shown: impl Fn(&[u8]) -> bool,
    ) -> Result<RowProof, R::Error> {
        let mut fold = Fold::new(self.blocks.base, TOP);
        for (first, block) in self.blocks.range(&[], None) {
            let part = if is_read(first) {
                self.prune(first, &is_shown)?
            } else {
                Pruned::cut(block.hash)
            };
            fold.push(block.level, part);
        }
        let top: Pruned = fold.finish();
        Ok(top.proof())
    }

    /// Returns the root of the tree that has only the keys that begin with `prefix`. Reads the rows
    /// of the two blocks in which the prefix begins and ends.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn prefix_root(&self, prefix: &[u8]) -> Result<TreeRoot, R::Error> {
        let end = prefix_end(prefix);
        let end = end.as_deref();
        let mut fold = Fold::new(self.blocks.base, TOP);
        let begin = self.blocks.range(prefix, end).next();
        let begin = begin.map(|(first, _)| first.as_ref());
        let mut left = Fold::new(0, self.blocks.base);
        left.push(TOP, TreeHash::leaf(&[], &RowHash::EMPTY_KEY));
        // Without a prefix the leftmost block is there, and has the leaf of the empty key.
        if begin != Some(&[]) {
            self.fold_rows(&mut left, prefix, begin.or(end))?;
            fold.push(TOP, left.finish());
        }
        for (first, block) in self.blocks.range(prefix, end) {
            let next = self.blocks.next(first).map(Bytes::as_ref);
            let is_whole = end.is_none_or(|end| next.is_some_and(|next| next <= end));
            let hash = if is_whole {
                block.hash
            } else {
                let mut part = Fold::new(0, self.blocks.base);
                self.fold_rows(&mut part, first, end)?;
                part.finish()
            };
            fold.push(block.level, hash);
        }
        let top = fold.finish();
        Ok(self.levels().root(&top, prefix))
    }

    fn fold_rows(
        &self,
        fold: &mut Fold<TreeHash>,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), R::Error> {
        self.rows.rows(from, to, &mut |key, row| {
            fold.push(self.levels().of(key), TreeHash::leaf(key, row));
            true
        })
    }

    // Returns the keys whose leaves show whether `key` has a row.
    fn shown_for(&self, key: &[u8]) -> Result<Vec<Bytes>, R::Error> {
        let first = self.blocks.first_of(key);
        let end = self.blocks.next(&first);
        let (mut before, mut after) = (first.clone(), end.cloned());
        let mut is_there = false;
        let to = end.map(Bytes::as_ref);
        self.rows.rows(&first, to, &mut |row_key, _row| {
            is_there |= row_key == key;
            if row_key < key {
                before = Bytes::copy_from_slice(row_key);
            } else if row_key > key {
                after = Some(Bytes::copy_from_slice(row_key));
            }
            row_key < key
        })?;
        Ok(if is_there {
            vec![Bytes::copy_from_slice(key)]
        } else {
            [before].into_iter().chain(after).collect()
        })
    }

    // Returns the block that begins at `first`, with the leaves that are shown.
    fn prune(&self, first: &Bytes, is_shown: &impl Fn(&[u8]) -> bool) -> Result<Pruned, R::Error> {
        let mut fold = Fold::new(0, self.blocks.base);
        let levels = self.levels();
        let mut push = |key: &[u8], row: &RowHash| {
            let leaf = if is_shown(key) {
                Pruned::leaf(key, row)
            } else {
                Pruned::cut(TreeHash::leaf(key, row))
            };
            fold.push(levels.of(key), leaf);
            true
        };
        let to = self.blocks.next(first).map(Bytes::as_ref);
        self.leaves(first, to, &mut push)?;
        Ok(fold.finish())
    }

    pub(super) fn levels(&self) -> &Levels {
        &self.blocks.levels
    }

    /// Returns the node of `level` from `from` (inclusive) to `to` (exclusive); `None` when the
    /// rows there are not one node that begins at `from`. It may have rows from `to` on, if no
    /// block begins there.
    pub(super) fn node(
        &self,
        level: u8,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Option<TreeHash>, R::Error> {
        let mut node = None;
        self.each(level, from, to, &mut |key, _level, hash| {
            node = (key == from).then_some(hash);
            node.is_some()
        })?;
        Ok(node)
    }

    /// Returns where the node of `level` that begins at `key` ends (exclusive; `None` at the end of
    /// the tree), and the level of its children but for nodes with a single child, which are passed
    /// over. `None` if no node of `level` begins at `key`.
    pub(super) fn extent(
        &self,
        level: u8,
        key: &[u8],
    ) -> Result<Option<(Option<Bytes>, u8)>, R::Error> {
        if level == 0 {
            return Ok(None);
        }
        let first = self.blocks.first_of(key);
        let mut end = self.blocks.next(&first).cloned();
        if level >= self.blocks.base {
            if self.blocks.get(key).is_none_or(|block| block.level < level) {
                return Ok(None);
            }
            let mut below = None;
            end = None;
            for (next, block) in self.blocks.range(key, None).skip(1) {
                if block.level >= level {
                    end = Some(next.clone());
                    break;
                }
                below = below.max(Some(block.level));
            }
            if let Some(below) = below {
                return Ok(Some((end, below)));
            }
        }
        // The rows of one block.
        let (mut is_first, mut is_there, mut below) = (true, false, 0);
        let to = end.clone();
        self.each(0, key, to.as_deref(), &mut |row_key, row_level, _leaf| {
            if is_first {
                (is_first, is_there) = (false, row_key == key && row_level >= level);
                return is_there;
            }
            if row_level >= level {
                end = Some(Bytes::copy_from_slice(row_key));
                return false;
            }
            below = below.max(row_level);
            true
        })?;
        Ok(is_there.then_some((end, below)))
    }

    /// Returns the lowest level, of `below` and those down to the level of the blocks, that has at most
    /// `nodes_max` nodes from `from` to `to`, where blocks begin; `below` if none has so few.
    pub(super) fn lowest(&self, below: u8, from: &[u8], to: Option<&[u8]>, nodes_max: usize) -> u8 {
        let mut lowest = below;
        for level in (self.blocks.base..below).rev() {
            let begin = self.blocks.range(from, to).skip(1);
            let nodes = begin.filter(|(_, block)| block.level >= level);
            // The first node begins at `from`, whatever the level of that block.
            if nodes.take(nodes_max).count() >= nodes_max {
                break;
            }
            lowest = level;
        }
        lowest
    }

    /// Gives `node` the nodes of level `at` that the rows from `from` to `to` make, in key order,
    /// with their first keys and the levels of these, until it returns false. The first node may
    /// lack rows before `from`. From the level of the blocks on, `from` and `to` are where blocks
    /// begin.
    pub(super) fn each(
        &self,
        at: u8,
        from: &[u8],
        to: Option<&[u8]>,
        node: &mut dyn FnMut(&[u8], u8, TreeHash) -> bool,
    ) -> Result<(), R::Error> {
        if at >= self.blocks.base {
            let mut nodes = Nodes::new(self.blocks.base, at);
            for (key, block) in self.blocks.range(from, to) {
                if !nodes.push(key, block.level, block.hash, node) {
                    return Ok(());
                }
            }
            nodes.finish(node);
            return Ok(());
        }
        let mut nodes = Nodes::new(0, at);
        let mut wanted = true;
        self.leaves(from, to, &mut |key, row| {
            let (level, leaf) = (self.levels().of(key), TreeHash::leaf(key, row));
            wanted = nodes.push(key, level, leaf, node);
            wanted
        })?;
        if wanted {
            nodes.finish(node);
        }
        Ok(())
    }

    /// Like [`Rows::rows`], and begins with the leaf of the empty key if `from` is empty.
    pub(super) fn leaves(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        leaf: &mut dyn FnMut(&[u8], &RowHash) -> bool,
    ) -> Result<(), R::Error> {
        if from.is_empty() && !leaf(&[], &RowHash::EMPTY_KEY) {
            return Ok(());
        }
        self.rows.rows(from, to, leaf)
    }
}

/// Returns the first key after all that begin with `prefix`; `None` if none comes after.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    let last = end.last_mut()?;
    *last = last.saturating_add(1);
    Some(end)
}

// Makes nodes of level `at` of their descendants of level `base`, in key order.
struct Nodes {
    base: u8,
    at: u8,
    open: Option<(Bytes, u8, Fold<TreeHash>)>,
}

type Visit<'a> = dyn FnMut(&[u8], u8, TreeHash) -> bool + 'a;

impl Nodes {
    fn new(base: u8, at: u8) -> Self {
        Self {
            base,
            at,
            open: None,
        }
    }

    // Returns what `node` does, if a node has ended.
    fn push(&mut self, key: &[u8], level: u8, hash: TreeHash, node: &mut Visit<'_>) -> bool {
        if self.at == self.base {
            return node(key, level, hash);
        }
        if level >= self.at && !self.finish(node) {
            return false;
        }
        let (base, at) = (self.base, self.at);
        let begin = || (Bytes::copy_from_slice(key), level, Fold::new(base, at));
        let (_, _, fold) = self.open.get_or_insert_with(begin);
        fold.push(level, hash);
        true
    }

    fn finish(&mut self, node: &mut Visit<'_>) -> bool {
        let Some((key, level, fold)) = self.open.take() else {
            return true;
        };
        node(&key, level, fold.finish())
    }
}
