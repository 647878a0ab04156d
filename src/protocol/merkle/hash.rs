//! The hashes of the tree, and the levels of keys.

use std::fmt;

use data_encoding::HEXLOWER as HEX;

use crate::id::StoreId;

/// The level of the top node.
pub(super) const TOP: u8 = 13;
/// The highest level of a key.
pub(super) const LEVEL_MAX: u8 = 12;

/// Hash of the row of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RowHash(pub [u8; 32]);

/// Hash of a leaf or of a node of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TreeHash(pub [u8; 32]);

/// Hash of all rows of a store, or of those whose keys have a prefix. Printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TreeRoot(pub [u8; 32]);

/// The levels of the keys of a store.
#[derive(Debug, Clone)]
pub struct Levels {
    store: StoreId,
    key: [u8; 32],
}

impl RowHash {
    /// The row of the empty key, which is the first leaf of every tree.
    pub(super) const EMPTY_KEY: Self = Self([0; 32]);

    /// Returns the hash of `row`, as `heads_row` encodes it.
    pub fn of(row: &[u8]) -> Self {
        Self(keyed(ROW, row))
    }
}

impl TreeHash {
    /// Returns the leaf of `key` with the row of hash `row`.
    pub fn leaf(key: &[u8], row: &RowHash) -> Self {
        let mut short = [0; LEAF_BYTES_SHORT];
        let (hash, rest) = short.split_at_mut(32);
        if let Some(end) = rest.get_mut(..key.len()) {
            hash.copy_from_slice(&row.0);
            end.copy_from_slice(key);
            let bytes = key.len().saturating_add(32);
            return Self(keyed(LEAF, short.get(..bytes).unwrap_or_default()));
        }
        let mut hasher = blake3::Hasher::new_keyed(LEAF);
        hasher.update(&row.0).update(key);
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns the hash over two neighbours of one level.
    pub(super) fn pair(left: &Self, right: &Self) -> Self {
        let mut both = [0; 64];
        let (first, second) = both.split_at_mut(32);
        first.copy_from_slice(&left.0);
        second.copy_from_slice(&right.0);
        Self(keyed(PAIR, &both))
    }

    /// Returns the node of `level` whose children have `inner` as the hash over them.
    pub(super) fn node(level: u8, inner: &Self) -> Self {
        let mut node = [level; 33];
        if let Some(hash) = node.last_chunk_mut::<32>() {
            *hash = inner.0;
        }
        Self(keyed(NODE, &node))
    }
}

impl Levels {
    /// Makes the levels of the keys of `store`.
    pub fn new(store: StoreId) -> Self {
        let key = blake3::derive_key("lattice 2026 tree level v1", &store.0);
        Self { store, key }
    }

    /// Returns the level of `key`; that of the top for the empty key.
    pub fn of(&self, key: &[u8]) -> u8 {
        if key.is_empty() {
            return TOP;
        }
        let hash = keyed(&self.key, key);
        let zeros = hash
            .first_chunk::<8>()
            .map_or(0, |first| u64::from_be_bytes(*first).leading_zeros());
        let digits = zeros.checked_div(4).unwrap_or_default();
        u8::try_from(digits).unwrap_or(LEVEL_MAX).min(LEVEL_MAX)
    }

    /// Returns the root of the tree with the node `top`, of the rows whose keys begin with
    /// `prefix`.
    pub(super) fn root(&self, top: &TreeHash, prefix: &[u8]) -> TreeRoot {
        let mut hasher = blake3::Hasher::new_keyed(ROOT);
        hasher.update(&self.store.0).update(&top.0).update(prefix);
        TreeRoot(*hasher.finalize().as_bytes())
    }
}

macro_rules! printed {
    ($($name:ident),*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEX.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let [a, b, c, d, ..] = self.0;
                write!(f, "{}({a:02x}{b:02x}{c:02x}{d:02x})", stringify!($name))
            }
        })*
    };
}
printed!(RowHash, TreeHash, TreeRoot);

fn keyed(key: &[u8; 32], input: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, input).as_bytes()
}

const ROW: &[u8; 32] = b"lattice 2026 tree v1: row       ";
const LEAF: &[u8; 32] = b"lattice 2026 tree v1: leaf      ";
const PAIR: &[u8; 32] = b"lattice 2026 tree v1: pair      ";
const NODE: &[u8; 32] = b"lattice 2026 tree v1: node      ";
const ROOT: &[u8; 32] = b"lattice 2026 tree v1: root      ";
// Bytes of a leaf up to which it is hashed in one call.
const LEAF_BYTES_SHORT: usize = 128;
