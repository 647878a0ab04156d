//! An entry: the signed unit of a log, from bytes to a verified value.

pub mod cause;
mod entry;
mod error;
pub mod op;
#[cfg(test)]
pub(crate) mod tests;

pub use entry::{Entry, Header, Order, Parent, SignedEntry, VerifiedEntry, sign};
pub use error::EntryError;
pub use op::{Op, check_key};
