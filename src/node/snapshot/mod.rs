//! Snapshots: a backup of the node's stores in one file, made while the node runs.
//!
//! [`create`] writes one, [`mod@file`] reads and checks one, with no node, and [`restore`] makes a data
//! directory of it. The form of the file is in `protocol::snapshot`.

mod create;
mod error;
mod file;
mod restore;

pub use create::{SnapshotOptions, SnapshotStream};
pub use error::{CreateError, FileError, RestoreError};
pub use file::{read_manifest, read_snapshot};
pub use restore::{Identity, RestoreOptions, Restored};
