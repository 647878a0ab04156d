//! Why bytes are not an entry that this version can apply.

use bytes::Bytes;

use crate::{id::Author, limits::KEY_BYTES_MAX};

/// Why bytes are not an entry that this version can apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not the shape the schema says.
    #[error("malformed entry: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A newer version, field or op: the entry waits until this node is updated.
    #[error("the entry was written by a newer version: {what}")]
    NeedsNewer {
        /// What this version does not know.
        what: &'static str,
    },
    /// A key of no bytes.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes; this one is empty")]
    KeyEmpty,
    /// A key above the limit.
    #[error("a key has at most {bytes_max} bytes; this one has {bytes}")]
    KeyTooLong {
        /// What it has.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// A value above the limit.
    #[error("a value has at most {bytes_max} bytes; this one has {bytes}")]
    ValueTooLong {
        /// What it has.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// More ops than an entry may have.
    #[error("an entry has at most {ops_max} ops; this one has {ops}")]
    TooManyOps {
        /// What it has.
        ops: usize,
        /// What is allowed.
        ops_max: usize,
    },
    /// More bytes than an entry may have.
    #[error("an entry has at most {bytes_max} bytes of ops; this one has {bytes}")]
    OpsTooLong {
        /// What it has.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// More parents than an entry may cite.
    #[error("an entry cites at most {parents_max} parents; this one would cite {parents}")]
    TooManyParents {
        /// What it has.
        parents: usize,
        /// What is allowed.
        parents_max: usize,
    },
    /// One key twice in an entry.
    #[error("an entry names each key at most once; {key:?} comes twice")]
    KeyTwice {
        /// The key.
        key: Bytes,
    },
    /// The signature does not verify.
    #[error("the signature does not verify for author {author}")]
    BadSignature {
        /// Who is said to have signed.
        author: Author,
    },
}

pub(crate) const fn malformed(what: &'static str) -> EntryError {
    EntryError::Malformed { what }
}
