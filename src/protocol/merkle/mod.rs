//! A hash tree over the rows of a store: one root for a whole state, the same on every node.
//!
//! Two nodes with one root have the same rows. Where roots differ, [`Diff`] finds the keys that
//! differ by asking for few nodes. A [`RowProof`] shows to anybody who has a root that a key has a
//! row, or that it has none, or that a list of rows is complete.
//!
//! # Shape
//! A key's *level* is the number of hex digits 0 with which a hash of the key begins, at most 12.
//! So one key in 16 has level 1 or more, one in 256 level 2 or more. A node of level `l` begins at
//! each key of level `l` or more and ends before the next one; the leftmost node of each level
//! begins at the empty key, which no row has. The children of a node are the nodes one level below
//! in its range, and leaves at level 0. The single node of level 13 is the top.
//!
//! So the shape follows from the set of keys alone: the order of writes leaves no trace, a new
//! value changes no shape, and a new or removed key changes a path. Nodes are in key order, so a
//! range of keys is a few nodes, and absence is shown by two neighbours.
//!
//! # Hashes
//! BLAKE3 in its keyed mode, with a key for each purpose: 32 ASCII bytes, "lattice 2026 tree v1: "
//! and the name below, filled with spaces. So no hash of one kind is one of another kind.
//!
//! ```text
//! row     row of the key, as in `heads_row`; 32 zero bytes for the empty key
//! leaf    row hash 32, key
//! pair    left 32, right 32
//! node    level u8, hash over the children 32
//! root    store id 16, hash of the top node 32, prefix
//! level   key; here BLAKE3's key is derived, in the context "lattice 2026 tree level v1", from
//!         the store id
//! ```
//! The hash over the children of a node is the only child's hash, or pairs them as RFC 6962 does:
//! the left part is the largest power of two that leaves something for the right part. So a proof
//! has a few hashes for each node, not all its children.
//!
//! The tree of the keys that begin with a prefix has only these rows, and its root names the
//! prefix. It is comparable between nodes that keep these keys only.
//!
//! # Cost
//! A stream of rows is folded in one pass with a few hundred hashes in memory ([`StreamRoot`]). A
//! [`Tree`] keeps nodes of one level (*blocks*, of 256 rows on average) and reads the rows of a
//! block again when one of them has changed. A writer can choose keys by their level: that makes a
//! block large, or the level of the blocks higher; a refresh then reads more rows, and nothing else
//! changes. For this reason the level depends on the store.
//!
//! # Sources
//! Auvolat and Taïani, *Merkle Search Trees* (2019), have the levels by hash. Gustafson's *okra*
//! (2023) has the empty key, and nodes that are named by level and first key. The pairs are those
//! of RFC 6962, section 2.1. The key of the level and one hash for each kind of input are ours.

mod ask;
mod blocks;
mod diff;
mod fold;
mod fresh_tree;
mod hash;
mod row_proof;
mod rows;
#[cfg(test)]
mod tests;
mod tree;

pub use ask::{ANSWER_BYTES_MAX, ASK_NODES_MAX, Answer, Ask, Child, Children, Leaf};
pub use diff::{Diff, DiffError, Difference, Differences, Side};
pub use fold::StreamRoot;
pub use fresh_tree::{FreshTree, prefix_end};
pub use hash::{Levels, RowHash, TreeHash, TreeRoot};
pub use row_proof::{ROW_PROOF_BYTES_MAX, RowProof, RowProofError, verify, verify_range};
pub use rows::Rows;
pub use tree::Tree;
