//! Snapshots: the stores of a node in one file, as a backup.
//!
//! A file is a sequence of blocks ([`block`]). It has every entry of the logs as it was signed, in the
//! order of the logs; where first entries were removed from these, the state that they made comes before
//! the rest. It ends with a manifest ([`manifest`]): what the file should have in it, its
//! hash, and the signature of the node that made it. [`check`] reads the blocks in order and lets
//! nothing through that is not authentic. So a file is checked with nothing else at hand, and one that
//! was cut has no manifest.

pub mod block;
pub mod check;
mod error;
pub mod manifest;
#[cfg(test)]
mod tests;

pub use block::{Block, BlockHead, SnapshotWriter};
pub use check::{BranchBegin, Checked, SnapshotChecker, SnapshotStore};
pub use error::SnapshotError;
pub use manifest::{Contents, Manifest};
