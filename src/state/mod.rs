//! The state: heads per key, derived from the log, kept in a redb file.
//!
//! Rows that changed recently live in memory only (the log has them). A flusher thread writes them
//! to the file in one durable transaction, about once a second. So a put costs the state no IO, and
//! the file is never ahead of the log. Damage of the file is found when the damaged part is read;
//! the file is then built again from the log.

mod error;
mod filter;
mod flush;
pub(crate) mod pages;
pub mod row;
mod state;
mod stored;
mod tables;
#[cfg(test)]
mod tests;
mod view;

pub use error::StateError;
pub use state::{Staged, State, StateReader};
pub use stored::Stored;
pub use view::{ActsInPlace, View};
