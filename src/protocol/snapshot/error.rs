//! The errors of reading a snapshot.

/// Why a file cannot be used as a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It begins otherwise than a snapshot does.
    #[error("it is not a snapshot of Lattice")]
    NotASnapshot,
    /// Another version of Lattice made it.
    #[error("it has snapshot format {version}; this Lattice reads format {expected}")]
    Version {
        /// Version in the file.
        version: u8,
        /// Version that this build reads.
        expected: u8,
    },
    /// The file ends before the manifest does: its copy, or the making of it, was cut off.
    #[error("it is cut: it ends after {bytes} bytes, without the manifest")]
    Cut {
        /// Length of the file.
        bytes: u64,
    },
    /// A part of the file is not as it was written.
    #[error("it is damaged at byte {offset}: {what}")]
    Damaged {
        /// Offset of the damaged block in the file.
        offset: u64,
        /// The failed check, as a clause.
        what: String,
    },
}
