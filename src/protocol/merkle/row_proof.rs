//! Row proof: shows that a key has a row in the tree of a root, or that it has none; or all rows of
//! a range of keys.
//!
//! A proof is the tree of a root in which all parts that do not matter are cut down to their hash.
//! For a key with a row it shows one leaf, that of the key. For a key without one it shows the leaf
//! before and the leaf after, with nothing between them; or the last leaf of the tree. For a range
//! it shows the leaf before, all leaves of the range, and the leaf after. As the hashes bind the
//! whole shape, neighbours in the proof are neighbours in the tree.
//!
//! ```text
//! proof   version u8 (1), then a part
//! part    0, hash 32                           cut down
//!         1, left part, right part             a pair
//!         2, part                              a node, with its children; at most 13 in a row
//!         3, key length u16, key, row hash 32  a leaf
//! ```
//! Numbers are little-endian. A part that is not cut down shows a leaf.
//!
//! A proof is as true as its root: the reader must know who vouches for the root, and for which
//! position. It proves the bytes of a row; a value that is only in the log has its hash there.

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::{
    limits::KEY_BYTES_MAX,
    protocol::merkle::{Levels, RowHash, TreeHash, TreeRoot, fold::Part, hash::TOP},
};

/// Shows that a key has a row, or none, or all rows of a range, to a reader who has the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProof(Vec<Step>);

// A part of a proof without the parts inside, which follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Hash(TreeHash),
    Pair,
    // This many nodes, each the only child of the one before.
    Nodes(u8),
    Leaf { key: Bytes, row: RowHash },
}

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProofError {
    /// No node made the bytes, or they were changed.
    #[error("this is not a proof of a row: {what}")]
    Malformed {
        /// The fault, for people.
        what: &'static str,
    },
    /// The bytes have a format that this version does not read.
    #[error("the proof has format {version}; this version reads format {VERSION}")]
    Version {
        /// First byte of the proof.
        version: u8,
    },
    /// The tree of the proof has another root: another state, another store, or a forgery.
    #[error("the proof does not belong to this root")]
    OtherRoot,
    /// The proof belongs to the root, and is about other keys.
    #[error("the proof does not show whether this key has a row")]
    OtherKey,
    /// The key has another row under this root, or has none.
    #[error("under this root the key has a different row, or none")]
    OtherRow,
}

/// Checks that under `root` the key `key` has the bytes `row`, as `heads_row` encodes them; or that
/// it has no row, for `None`.
///
/// # Errors
/// The proof does not show that.
pub fn verify(
    levels: &Levels,
    root: &TreeRoot,
    key: &[u8],
    row: Option<&[u8]>,
    proof: &RowProof,
) -> Result<(), RowProofError> {
    if levels.root(&proof.top()?, &[]) != *root {
        return Err(RowProofError::OtherRoot);
    }
    match (proof.shown(key)?, row) {
        (Some(shown), Some(row)) if *shown == RowHash::of(row) => Ok(()),
        (None, None) => Ok(()),
        (Some(_), _) | (None, Some(_)) => Err(RowProofError::OtherRow),
    }
}

/// Checks that under `root` the keys from `from` (inclusive) to `to` (exclusive; `None` for all
/// that follow) have these rows, and that no other key there has one. `rows` are in key order.
///
/// # Errors
/// The proof does not show that.
pub fn verify_range<'a>(
    levels: &Levels,
    root: &TreeRoot,
    (from, to): (&[u8], Option<&[u8]>),
    rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    proof: &RowProof,
) -> Result<(), RowProofError> {
    if levels.root(&proof.top()?, &[]) != *root {
        return Err(RowProofError::OtherRoot);
    }
    let mut rows = rows.into_iter();
    // True while all leaves since one before the range are shown.
    let mut is_whole = false;
    for step in &proof.0 {
        match step {
            Step::Leaf { key, .. } if key.is_empty() || *key < from => is_whole = true,
            Step::Leaf { key, .. } if to.is_some_and(|to| to <= *key) => break,
            Step::Leaf { .. } if !is_whole => return Err(RowProofError::OtherKey),
            Step::Leaf { key, row } => match rows.next() {
                Some((next, bytes)) if next == key && RowHash::of(bytes) == *row => {}
                Some(_) | None => return Err(RowProofError::OtherRow),
            },
            Step::Hash(_) => is_whole = false,
            Step::Pair | Step::Nodes(_) => {}
        }
    }
    match (is_whole, rows.next()) {
        (true, None) => Ok(()),
        (true, Some(_)) => Err(RowProofError::OtherRow),
        (false, _) => Err(RowProofError::OtherKey),
    }
}

impl RowProof {
    /// Returns the bytes of the proof.
    ///
    /// # Panics
    /// Never: a key has at most `KEY_BYTES_MAX` bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for step in &self.0 {
            match step {
                Step::Hash(hash) => {
                    bytes.put_u8(HASH);
                    bytes.put_slice(&hash.0);
                }
                Step::Pair => bytes.put_u8(PAIR),
                Step::Nodes(count) => bytes.put_bytes(NODE, usize::from(*count)),
                Step::Leaf { key, row } => {
                    bytes.put_u8(LEAF);
                    bytes.put_u16_le(u16::try_from(key.len()).expect("keys are short"));
                    bytes.put_slice(key);
                    bytes.put_slice(&row.0);
                }
            }
        }
        bytes
    }

    /// Returns the proof of the bytes. Whether it shows anything is for [`verify`] to decide.
    ///
    /// # Errors
    /// `Malformed`, `Version`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RowProofError> {
        if bytes.len() > ROW_PROOF_BYTES_MAX {
            return Err(malformed("it is too long"));
        }
        let version = bytes.try_get_u8().map_err(|_cut| CUT)?;
        if version != VERSION {
            return Err(RowProofError::Version { version });
        }
        let mut steps = Vec::new();
        // Parts that are still to come.
        let mut due = 1_usize;
        while due > 0 {
            // A pair takes more memory than bytes, so the bytes of its parts must be there.
            if due.saturating_mul(PART_BYTES_MIN) > bytes.len() {
                return Err(CUT);
            }
            let step = Step::decode(&mut bytes)?;
            due = match &step {
                Step::Hash(_) | Step::Leaf { .. } => due.saturating_sub(1),
                Step::Pair => due.saturating_add(1),
                Step::Nodes(_) => due,
            };
            steps.push(step);
        }
        if !bytes.is_empty() {
            return Err(malformed("something follows it"));
        }
        Ok(Self(steps))
    }

    // Returns the hash of the top node.
    fn top(&self) -> Result<TreeHash, RowProofError> {
        // From the last part to the first: the parts inside a part come before it. A part that is
        // cut down has no level.
        let mut made: Vec<(Option<u8>, TreeHash)> = Vec::new();
        for step in self.0.iter().rev() {
            let part = match step {
                Step::Hash(hash) => (None, *hash),
                Step::Leaf { key, row } => (Some(0), TreeHash::leaf(key, row)),
                Step::Pair => {
                    let (left, right) = made.pop().zip(made.pop()).ok_or(CUT)?;
                    let level = match (left.0, right.0) {
                        (Some(level), None) | (None, Some(level)) => level,
                        (Some(level), Some(other)) if level == other => level,
                        (Some(_), Some(_)) => return Err(malformed("a pair has two levels")),
                        (None, None) => return Err(malformed("a pair shows no leaf")),
                    };
                    (Some(level), TreeHash::pair(&left.1, &right.1))
                }
                Step::Nodes(count) => {
                    let (level, mut hash) = made.pop().ok_or(CUT)?;
                    let mut level = level.ok_or(malformed("a node shows no leaf"))?;
                    for _ in 0..*count {
                        level = level.saturating_add(1);
                        hash = TreeHash::node(level, &hash);
                    }
                    (Some(level), hash)
                }
            };
            made.push(part);
        }
        match made.as_slice() {
            [(Some(TOP), top)] => Ok(*top),
            _other => Err(malformed("its top is not that of a tree")),
        }
    }

    // Returns the row that the proof shows for `key`; `None` if it shows that there is none.
    fn shown(&self, key: &[u8]) -> Result<Option<&RowHash>, RowProofError> {
        // Key of the leaf to the left; `None` where a part is cut down there.
        let mut before: Option<&[u8]> = None;
        for step in &self.0 {
            match step {
                Step::Leaf { key: shown, row } => {
                    if shown == key {
                        return Ok(Some(row));
                    }
                    if before.is_some_and(|before| before < key) && key < shown {
                        return Ok(None);
                    }
                    before = Some(shown);
                }
                Step::Hash(_) => before = None,
                Step::Pair | Step::Nodes(_) => {}
            }
        }
        // After the last leaf of the tree.
        if before.is_some_and(|before| before < key) {
            Ok(None)
        } else {
            Err(RowProofError::OtherKey)
        }
    }
}

impl Step {
    fn decode(bytes: &mut &[u8]) -> Result<Self, RowProofError> {
        match bytes.try_get_u8().map_err(|_cut| CUT)? {
            HASH => Ok(Self::Hash(TreeHash(take(bytes)?))),
            PAIR => Ok(Self::Pair),
            NODE => {
                let more = bytes.iter().take_while(|byte| **byte == NODE).count();
                *bytes = bytes.get(more..).unwrap_or_default();
                let count = u8::try_from(more.saturating_add(1)).unwrap_or(u8::MAX);
                if count > TOP {
                    return Err(malformed("a node is above the top of a tree"));
                }
                Ok(Self::Nodes(count))
            }
            LEAF => {
                let length = usize::from(bytes.try_get_u16_le().map_err(|_cut| CUT)?);
                if length > KEY_BYTES_MAX {
                    return Err(malformed("a key is too long"));
                }
                let (key, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
                *bytes = rest;
                Ok(Self::Leaf {
                    key: Bytes::copy_from_slice(key),
                    row: RowHash(take(bytes)?),
                })
            }
            _other => Err(malformed("a part is of an unknown kind")),
        }
    }
}

/// A part of a tree while a proof is made of it.
#[derive(Debug)]
pub(super) struct Pruned {
    hash: TreeHash,
    // `None` while it shows no leaf.
    steps: Option<Vec<Step>>,
}

impl Pruned {
    /// Cuts a part down to its hash.
    pub(super) fn cut(hash: TreeHash) -> Self {
        Self { hash, steps: None }
    }

    /// Shows a leaf.
    pub(super) fn leaf(key: &[u8], row: &RowHash) -> Self {
        let hash = TreeHash::leaf(key, row);
        let (key, row) = (Bytes::copy_from_slice(key), *row);
        Self {
            hash,
            steps: Some(vec![Step::Leaf { key, row }]),
        }
    }

    /// Returns the proof that shows the leaves of this tree.
    pub(super) fn proof(self) -> RowProof {
        RowProof(self.into_steps())
    }

    fn into_steps(self) -> Vec<Step> {
        self.steps.unwrap_or_else(|| vec![Step::Hash(self.hash)])
    }
}

impl Part for Pruned {
    fn pair(left: Self, right: Self) -> Self {
        let hash = TreeHash::pair(&left.hash, &right.hash);
        if left.steps.is_none() && right.steps.is_none() {
            return Self::cut(hash);
        }
        let mut steps = vec![Step::Pair];
        steps.append(&mut left.into_steps());
        steps.append(&mut right.into_steps());
        Self {
            hash,
            steps: Some(steps),
        }
    }

    fn node(level: u8, inner: Self) -> Self {
        let hash = TreeHash::node(level, &inner.hash);
        let steps = inner.steps.map(|mut inside| {
            match inside.first_mut() {
                Some(Step::Nodes(count)) => *count = count.saturating_add(1),
                _other => inside.insert(0, Step::Nodes(1)),
            }
            inside
        });
        Self { hash, steps }
    }
}

fn take(bytes: &mut &[u8]) -> Result<[u8; 32], RowProofError> {
    let (taken, rest) = bytes.split_first_chunk::<32>().ok_or(CUT)?;
    *bytes = rest;
    Ok(*taken)
}

const fn malformed(what: &'static str) -> RowProofError {
    RowProofError::Malformed { what }
}

const CUT: RowProofError = malformed("it was cut");
const VERSION: u8 = 1;
const HASH: u8 = 0;
const PAIR: u8 = 1;
const NODE: u8 = 2;
const LEAF: u8 = 3;
// Fewest bytes of a part: of a hash.
const PART_BYTES_MIN: usize = 33;
/// Bytes of a proof. One of a single key has at most 8 KiB of keys and 4 KiB of hashes, in a tree
/// of 2^40 rows; one of a range has 20,000 short keys. Decoded it takes up to 9 times as much. A
/// longer proof is refused.
pub const ROW_PROOF_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(ROW_PROOF_BYTES_MAX >= 3 * KEY_BYTES_MAX);
