//! The state: heads per key, derived from the log, kept in a redb file.
//!
//! Rows that changed in the last moments live in memory only (the log has them); a flusher
//! thread writes them to the file in one durable transaction, a few times a second. So a write
//! costs the state no IO, and the file is never ahead of the log. Damage of the file is found
//! when it is read, and mended by building it again from the log.

mod error;
mod filter;
mod flush;
pub(crate) mod pages;
pub mod row;
mod state;
mod stored;
mod tables;
mod view;

pub use error::StateError;
pub use state::{Staged, State, StateReader};
pub use stored::Stored;
pub use view::{ActsInPlace, View};
