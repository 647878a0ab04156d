//! Why bytes are not an entry that this version can apply.

use bytes::Bytes;

use crate::{id::Author, limits::KEY_BYTES_MAX};

/// Why bytes are not an entry that this version can apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The bytes do not follow the schema.
    #[error("malformed entry: {what}")]
    Malformed {
        /// Rule that is broken.
        what: &'static str,
    },
    /// A newer version, field or op: the entry waits until this node is updated.
    #[error("the entry was written by a newer version: {what}")]
    NeedsNewer {
        /// Part that this version does not know.
        what: &'static str,
    },
    /// An empty key.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes; this one is empty")]
    KeyEmpty,
    /// A key above the limit.
    #[error("a key has at most {bytes_max} bytes; this one has {bytes}")]
    KeyTooLong {
        /// Number it has.
        bytes: usize,
        /// Number allowed.
        bytes_max: usize,
    },
    /// A value above the limit.
    #[error("a value has at most {bytes_max} bytes; this one has {bytes}")]
    ValueTooLong {
        /// Number it has.
        bytes: usize,
        /// Number allowed.
        bytes_max: usize,
    },
    /// More ops than an entry may have.
    #[error("an entry has at most {ops_max} ops; this one has {ops}")]
    TooManyOps {
        /// Number it has.
        ops: usize,
        /// Number allowed.
        ops_max: usize,
    },
    /// More bytes than an entry may have.
    #[error("an entry has at most {bytes_max} bytes of ops; this one has {bytes}")]
    OpsTooLong {
        /// Number it has.
        bytes: usize,
        /// Number allowed.
        bytes_max: usize,
    },
    /// More parents than an entry may cite.
    #[error("an entry cites at most {parents_max} parents; this one would cite {parents}")]
    TooManyParents {
        /// Number it has.
        parents: usize,
        /// Number allowed.
        parents_max: usize,
    },
    /// One key twice in an entry.
    #[error(
        "an entry names each key at most once; {:?} comes twice",
        String::from_utf8_lossy(key)
    )]
    KeyTwice {
        /// Key that comes twice.
        key: Bytes,
    },
    /// The signature does not verify.
    #[error("the signature does not verify for author {author}")]
    BadSignature {
        /// Author that the entry names.
        author: Author,
    },
}

pub(crate) const fn malformed(what: &'static str) -> EntryError {
    EntryError::Malformed { what }
}
