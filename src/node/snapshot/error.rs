//! The errors of making, reading and restoring a snapshot.

use std::{io, path::PathBuf};

use crate::{
    id::{Author, Seq},
    log::LogError,
    node::error::{OpenError, StoreError},
    protocol::snapshot::SnapshotError,
    state::IncomingError,
    store::{ReadError, WriteError},
};

/// Why a snapshot could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is no such store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's own keys or its list of stores cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A store cannot be read: a part of it is damaged, or entries were removed and the base with their
    /// state is damaged or missing.
    #[error("store {name} cannot be copied")]
    Read {
        /// Name of the store.
        name: String,
        /// Error of the store.
        source: ReadError,
    },
}

/// Why a snapshot file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system returned an error.
    #[error("cannot read {}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// The file is no snapshot, or not as it was written.
    #[error("{} cannot be used: {source}", path.display())]
    Unusable {
        /// Path of the file.
        path: PathBuf,
        /// The reason.
        source: SnapshotError,
    },
}

/// Why a snapshot was not restored. The directory is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The directory has a node.
    #[error("there is a node in {} already; a snapshot is restored into a directory without one", data_dir.display())]
    NotEmpty {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The snapshot cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The snapshot has no key, and the caller has given none.
    #[error("the snapshot has no key of node {node}")]
    NoKey {
        /// The node that made the snapshot.
        node: Author,
    },
    /// The key is that of another node.
    #[error("the key belongs to node {}, and node {} made the snapshot", found.short(), expected.short())]
    OtherKey {
        /// The node that made the snapshot.
        expected: Author,
        /// The node whose key was given.
        found: Author,
    },
    /// A branch of a log does not begin where a log can fork. No node made such a file.
    #[error("a branch of {} in the snapshot begins at entry {seq}, which follows nothing or is there twice", author.short())]
    Branch {
        /// Author of the branch.
        author: Author,
        /// Seq of its first entry.
        seq: Seq,
    },
    /// The state of removed entries cannot be written, or is malformed.
    #[error("cannot take the state of entries that were removed")]
    Base(#[from] IncomingError),
    /// A file of the new node cannot be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// A log of the new node cannot be written.
    #[error("cannot write the logs of the new node")]
    Log(#[from] LogError),
    /// The new node cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The state of the new node cannot be read.
    #[error("cannot read the new node")]
    Read(#[from] ReadError),
    /// The new node cannot be closed.
    #[error("cannot close the new node")]
    Write(#[from] WriteError),
}
