//! The state: heads per key, derived from the log, kept in a redb file.
//!
//! Rows that changed recently live in memory only (the log has them). A flusher thread writes them
//! to the file in one durable transaction, about once a second. So a put costs the state no IO, and
//! the file is never ahead of the log. Damage of the file is found when it is read; then the file
//! is built again from the log.
//!
//! `pages` and `checked_file` also serve the redb files of floors above, which find damage the same
//! way.

mod ahead;
mod base;
mod checked_file;
mod cited;
mod error;
mod facts;
mod filter;
mod flush;
mod flushed;
mod fold;
mod guarded;
mod load;
mod mark;
pub(crate) mod pages;
pub mod row;
mod shared_tree;
mod stage;
mod state;
mod stored;
mod sums;
mod tables;
#[cfg(test)]
mod tests;
mod view;
mod view_tree;

pub use base::{
    Base, BaseManifest, Bases, Incoming, IncomingError, ManifestError, OutgoingPart, PartsCheck,
    Progress,
};
pub(crate) use checked_file::CheckedFile;
pub use error::StateError;
pub(crate) use fold::{Fold, Staging};
pub use load::check_rows;
pub use mark::StateMark;
pub use stage::Staged;
pub use state::{State, StateReader};
pub use stored::Stored;
pub use view::{Expiring, View};
pub use view_tree::ProvenRows;
