//! Questions about the nodes of a tree, and their answers.

use bytes::Bytes;

use crate::protocol::merkle::{FreshTree, RowHash, Rows, TreeHash};

/// Asks for the children of some nodes of one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Level of the nodes.
    pub level: u8,
    /// First keys of the nodes, ascending; at most `ASK_NODES_MAX`.
    pub keys: Vec<Bytes>,
}

/// Answers an [`Ask`]: the children of its first nodes, at least of one if it has any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer(pub Vec<Children>);

/// The children of a node. Where nodes have a single child, those of the first node below that has
/// several; the leaf, where there is one only. Where the nodes further below are few, these: so the first
/// answer leaves out the levels at the top of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Children {
    /// Nodes, in key order.
    Nodes {
        /// Their level, above 0.
        level: u8,
        /// The nodes.
        nodes: Vec<Child>,
    },
    /// Leaves, in key order.
    Leaves(Vec<Leaf>),
    /// They take more than `ANSWER_BYTES_MAX`.
    TooMany,
    /// The tree has no node of that level that begins at that key.
    NoNode,
}

/// A child of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its first key. Its hash does not cover it, the leaf of this key does.
    pub key: Bytes,
    /// Its hash.
    pub hash: TreeHash,
}

/// A leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The key.
    pub key: Bytes,
    /// Hash of its row.
    pub row: RowHash,
}

impl Children {
    /// Returns the rough number of bytes that they take.
    pub fn bytes(&self) -> usize {
        let bytes: &mut dyn Iterator<Item = usize> = match self {
            Self::Nodes { nodes, .. } => &mut nodes.iter().map(|child| child_bytes(&child.key)),
            Self::Leaves(leaves) => &mut leaves.iter().map(|leaf| child_bytes(&leaf.key)),
            Self::TooMany | Self::NoNode => return 0,
        };
        bytes.fold(0, usize::saturating_add)
    }
}

impl<R: Rows> FreshTree<'_, R> {
    /// Answers a question of a peer.
    ///
    /// It takes as long as reading the rows of the nodes that are asked for: of a block each at
    /// most, and of all blocks once. At most `ANSWER_BYTES_MAX` are kept, and twice that for a
    /// moment.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn answer(&self, ask: &Ask) -> Result<Answer, R::Error> {
        let mut answer = Answer::default();
        let mut bytes = 0_usize;
        let mut before: Option<&Bytes> = None;
        let nodes_max = FEW_NODES_MAX.checked_div(ask.keys.len()).unwrap_or(0);
        for key in ask.keys.iter().take(ASK_NODES_MAX) {
            if before.is_some_and(|before| before >= key) {
                break;
            }
            before = Some(key);
            let children = self.children(ask.level, key, nodes_max)?;
            bytes = bytes.saturating_add(children.bytes());
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
            answer.0.push(children);
        }
        Ok(answer)
    }

    fn children(&self, level: u8, key: &[u8], nodes_max: usize) -> Result<Children, R::Error> {
        let Some((end, below)) = self.extent(level, key)? else {
            return Ok(Children::NoNode);
        };
        let end = end.as_deref();
        let mut bytes = 0_usize;
        let mut fits = |key: &[u8]| {
            bytes = bytes.saturating_add(child_bytes(key));
            bytes <= ANSWER_BYTES_MAX
        };
        let children = if below == 0 {
            let mut leaves = Vec::new();
            self.leaves(key, end, &mut |key, row| {
                let fits = fits(key);
                let key = Bytes::copy_from_slice(key);
                leaves.push(Leaf { key, row: *row });
                fits
            })?;
            Children::Leaves(leaves)
        } else {
            let below = self.lowest(below, key, end, nodes_max);
            let mut nodes = Vec::new();
            self.each(below, key, end, &mut |key, _level, hash| {
                let fits = fits(key);
                let key = Bytes::copy_from_slice(key);
                nodes.push(Child { key, hash });
                fits
            })?;
            Children::Nodes {
                level: below,
                nodes,
            }
        };
        Ok(if bytes > ANSWER_BYTES_MAX {
            Children::TooMany
        } else {
            children
        })
    }
}

fn child_bytes(key: &[u8]) -> usize {
    key.len().saturating_add(CHILD_BYTES)
}

// Bytes of a child besides its key, in memory.
const CHILD_BYTES: usize = 64;
/// Nodes that are asked for at a time: enough that few round trips find some hundred differences.
pub const ASK_NODES_MAX: usize = 64;
// Nodes of an answer that leaves out levels. They take as many bytes as those of the levels that it leaves out,
// where about ten keys differ.
const FEW_NODES_MAX: usize = 256;
/// Bytes of an answer, about. A node has 16 children on average, and one in a thousand has 100:
/// they fit with 2 KiB of key each. The children of a larger node are not compared one by one.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
