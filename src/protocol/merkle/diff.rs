//! Diff: finds the keys whose rows differ between the tree of this node and that of a peer.
//!
//! The peer is asked for the children of nodes that are not the same here, from the top down. Every
//! answer must have the hash that the node above promised, and the shape that its keys imply; the
//! leaves bind the keys. So a peer can only describe the tree of its root. Each node that is asked
//! for leads to a difference, or stands before one. A peer whose root is that of an invented tree
//! makes this node ask until `differences_max`, and learns nothing but keys that it named itself.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;

use crate::protocol::merkle::{
    Answer, Ask, Child, Children, FreshTree, Leaf, Levels, RowHash, Rows, TreeHash, TreeRoot,
    ask::{ANSWER_BYTES_MAX, ASK_NODES_MAX},
    fold::Fold,
    fresh_tree::prefix_end,
    hash::TOP,
};

/// A comparison that goes on. The caller sends what [`Diff::ask`] returns to the peer, and gives
/// the answer to [`Diff::take`], until there is nothing to ask.
#[derive(Debug)]
pub struct Diff {
    levels: Levels,
    // Nodes of the peer that have other rows here, in reverse key order. Up to `WIDE_NODES_MAX` of them
    // the highest are asked for first, which takes a round trip a level; beyond, the first in key order,
    // whose children come before all others. So they are not many more than `WIDE_NODES_MAX`, and at most
    // `ANSWER_BYTES_MAX` a level.
    nodes: Vec<Node>,
    found: Differences,
    differences_max: usize,
    // Only keys that begin with this are compared.
    prefix: Bytes,
    // Exclusive; `None` for the end of the tree.
    prefix_end: Option<Bytes>,
}

/// The differences of two trees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Keys with other rows, in key order.
    pub keys: Vec<Difference>,
    /// Ranges (first key, inclusive; end, exclusive; `None` for the end of the tree) in which the
    /// rows differ, and of which a node is too large to be compared key by key.
    pub ranges: Vec<(Bytes, Option<Bytes>)>,
    /// True when there may be more differences than were asked for.
    pub more: bool,
}

/// A key that does not have the same row on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// The node that has a row of it.
    pub side: Side,
    /// Hash of the peer's row; `None` if it has none.
    pub there: Option<RowHash>,
}

/// The side that has a row of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This node only.
    Here,
    /// The peer only.
    There,
    /// Both have one; the rows differ.
    Both,
}

/// Why a comparison ends without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError<E> {
    /// The peer does not describe a tree of the root that it gave.
    #[error("the peer's answer does not fit its root: {what}")]
    Dishonest {
        /// The fault, for people.
        what: &'static str,
    },
    /// The rows of this node cannot be read.
    #[error("the rows of this node cannot be read")]
    Rows(E),
}

#[derive(Debug)]
struct Node {
    level: u8,
    key: Bytes,
    // Exclusive; `None` for the end of the tree.
    end: Option<Bytes>,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    Root(TreeRoot),
    Hash(TreeHash),
}

impl Diff {
    /// Begins to compare the tree `here` with that of a peer that has the root `there`, for at most
    /// `differences_max` differences. There is nothing to ask where the roots are equal.
    pub fn new<R: Rows>(here: &FreshTree<'_, R>, there: TreeRoot, differences_max: usize) -> Self {
        Self::of_prefix(here, there, Bytes::new(), differences_max)
    }

    /// Like [`new`](Self::new), and compares only the keys that begin with `prefix`. `there` is the
    /// root of the peer's whole tree all the same.
    pub fn of_prefix<R: Rows>(
        here: &FreshTree<'_, R>,
        there: TreeRoot,
        prefix: Bytes,
        differences_max: usize,
    ) -> Self {
        let top = Node {
            level: TOP,
            key: Bytes::new(),
            end: None,
            expected: Expected::Root(there),
        };
        Self {
            levels: here.levels().clone(),
            nodes: (here.root() != there).then_some(top).into_iter().collect(),
            found: Differences::default(),
            differences_max,
            prefix_end: prefix_end(&prefix).map(Bytes::from),
            prefix,
        }
    }

    /// Returns the next question; `None` at the end.
    pub fn ask(&self) -> Option<Ask> {
        let (level, asked) = self.next();
        let asked = asked.iter().filter_map(|index| self.nodes.get(*index));
        let keys: Vec<Bytes> = asked.map(|node| node.key.clone()).collect();
        (!keys.is_empty()).then_some(Ask { level, keys })
    }

    /// Takes the answer to the last question. `here` is the tree of this node; every call gets the
    /// tree of the same rows.
    ///
    /// # Errors
    /// The peer is dishonest, or the rows of this node cannot be read: the comparison is of no use
    /// any more.
    pub fn take<R: Rows>(
        &mut self,
        here: &FreshTree<'_, R>,
        answer: Answer,
    ) -> Result<(), DiffError<R::Error>> {
        let (_level, asked) = self.next();
        let Answer(answers) = answer;
        if answers.is_empty() || answers.len() > asked.len() {
            return Err(dishonest("it has no answer, or more than were asked for"));
        }
        let bytes = answers.iter().map(Children::bytes);
        if bytes.fold(0, usize::saturating_add) > ANSWER_BYTES_MAX {
            return Err(dishonest("it is too long"));
        }
        let mut answers: BTreeMap<usize, Children> = asked.into_iter().zip(answers).collect();
        // The children of a node take its place in the list.
        for (index, node) in mem::take(&mut self.nodes).into_iter().enumerate() {
            let Some(children) = answers.remove(&index) else {
                self.nodes.push(node);
                continue;
            };
            self.check(&node, &children)?;
            match children {
                Children::Nodes { level, nodes } => self.descend(here, &node, level, &nodes)?,
                Children::Leaves(leaves) => self.compare(here, &node, &leaves)?,
                Children::TooMany | Children::NoNode => {
                    self.found.ranges.push((node.key.clone(), node.end.clone()));
                }
            }
        }
        if self.is_full() && !self.nodes.is_empty() {
            self.nodes.clear();
            self.found.more = true;
        }
        Ok(())
    }

    /// Returns the differences, once there is nothing more to ask.
    pub fn finish(mut self) -> Differences {
        let mut found = mem::take(&mut self.found);
        found.more |= !self.nodes.is_empty();
        found.keys.sort_by(|a, b| a.key.cmp(&b.key));
        found.ranges.sort();
        found
    }

    // Returns the places in `nodes` of those that are asked for next, in key order, and their level.
    fn next(&self) -> (u8, Vec<usize>) {
        let from_last = || self.nodes.iter().enumerate().rev();
        if self.nodes.len() > WIDE_NODES_MAX {
            let level = self.nodes.last().map_or(0, |node| node.level);
            let next = from_last().take_while(|(_, node)| node.level == level);
            return (
                level,
                next.map(|(index, _)| index).take(ASK_NODES_MAX).collect(),
            );
        }
        let level = self.nodes.iter().map(|node| node.level).max();
        let level = level.unwrap_or_default();
        let next = from_last().filter(|(_, node)| node.level == level);
        (
            level,
            next.map(|(index, _)| index).take(ASK_NODES_MAX).collect(),
        )
    }

    // Checks that a node of the hash that is expected has these children.
    fn check<E>(&self, node: &Node, children: &Children) -> Result<(), DiffError<E>> {
        let leaf = |leaf: &Leaf| (leaf.key.clone(), TreeHash::leaf(&leaf.key, &leaf.row));
        let (level, children): (u8, Vec<(Bytes, TreeHash)>) = match children {
            Children::Nodes { level: 0, .. } => return Err(dishonest("a node has the level 0")),
            Children::Nodes { level, nodes } => {
                let nodes = nodes.iter().map(|child| (child.key.clone(), child.hash));
                (*level, nodes.collect())
            }
            Children::Leaves(leaves) => (0, leaves.iter().map(leaf).collect()),
            Children::TooMany => return Ok(()),
            Children::NoNode => return Err(dishonest("it has no node that it announced")),
        };
        if level >= node.level {
            return Err(dishonest("children are not below their node"));
        }
        if children.is_empty() {
            return Err(dishonest("a node has no children"));
        }
        let mut fold = Fold::new(level, node.level);
        let mut before: Option<Bytes> = None;
        for (key, hash) in children {
            let of_key = self.levels.of(&key);
            let fits = match &before {
                None => key == node.key,
                Some(before) => *before < key && (level..node.level).contains(&of_key),
            };
            if !fits || node.end.as_ref().is_some_and(|end| *end <= key) {
                return Err(dishonest("children are not those that their keys imply"));
            }
            fold.push(if before.is_none() { TOP } else { of_key }, hash);
            before = Some(key);
        }
        let hash = fold.finish();
        let is_expected = match &node.expected {
            Expected::Root(root) => self.levels.root(&hash, &[]) == *root,
            Expected::Hash(expected) => hash == *expected,
        };
        if is_expected {
            Ok(())
        } else {
            Err(dishonest("children do not have the hash of their node"))
        }
    }

    // Notes the children that are not the same here, so that they are asked for.
    fn descend<R: Rows>(
        &mut self,
        here: &FreshTree<'_, R>,
        node: &Node,
        level: u8,
        children: &[Child],
    ) -> Result<(), DiffError<R::Error>> {
        let ends = children.iter().skip(1).map(|next| Some(&next.key));
        let ends = ends.chain([node.end.as_ref()]);
        let both: Vec<_> = children.iter().zip(ends).collect();
        for (child, end) in both.into_iter().rev() {
            if !self.is_meant(&child.key, end) {
                continue;
            }
            let own = here.node(level, &child.key, end.map(Bytes::as_ref));
            if own.map_err(DiffError::Rows)? != Some(child.hash) {
                self.nodes.push(Node {
                    level,
                    key: child.key.clone(),
                    end: end.cloned(),
                    expected: Expected::Hash(child.hash),
                });
            }
        }
        Ok(())
    }

    // Notes the leaves that are not the same here.
    fn compare<R: Rows>(
        &mut self,
        here: &FreshTree<'_, R>,
        node: &Node,
        leaves: &[Leaf],
    ) -> Result<(), DiffError<R::Error>> {
        let mut there = leaves.iter().peekable();
        let end = node.end.as_deref();
        let visited = here.each(0, &node.key, end, &mut |key, _level, hash| {
            while let Some(leaf) = there.next_if(|leaf| leaf.key < key) {
                self.note(&leaf.key, Side::There, Some(leaf.row));
            }
            match there.next_if(|leaf| leaf.key == key) {
                Some(leaf) if TreeHash::leaf(key, &leaf.row) == hash => {}
                Some(other) => self.note(key, Side::Both, Some(other.row)),
                None => self.note(key, Side::Here, None),
            }
            !self.found.more
        });
        visited.map_err(DiffError::Rows)?;
        for leaf in there {
            self.note(&leaf.key, Side::There, Some(leaf.row));
        }
        Ok(())
    }

    // Returns whether a node from `key` to `end` may have keys that are compared.
    fn is_meant(&self, key: &Bytes, end: Option<&Bytes>) -> bool {
        let begins = self.prefix_end.as_ref().is_none_or(|last| key < last);
        begins && end.is_none_or(|end| self.prefix < end)
    }

    fn note(&mut self, key: &[u8], side: Side, there: Option<RowHash>) {
        if !key.starts_with(&self.prefix) {
            return;
        }
        if self.is_full() {
            self.found.more = true;
            return;
        }
        self.found.keys.push(Difference {
            key: Bytes::copy_from_slice(key),
            side,
            there,
        });
    }

    fn is_full(&self) -> bool {
        let found = self.found.keys.len();
        found.saturating_add(self.found.ranges.len()) >= self.differences_max
    }
}

fn dishonest<E>(what: &'static str) -> DiffError<E> {
    DiffError::Dishonest { what }
}

// Nodes up to which those of a level are asked for before those below: as many as some hundred
// differences have.
const WIDE_NODES_MAX: usize = 1024;
