//! Bases: the rows of a state in files that never change, the same bytes on every node that has the
//! same entries.
//!
//! A state file is a cache: it is written in place, and built again from the log when it is lost. Where
//! the log begins later, the entries before are gone; then the rows that they made must last. So they
//! are written to a base before the entries are removed: sorted records in part files ([`part`]), named
//! by a manifest ([`manifest`]). Each is checked by its hash before it is used. The next base shares
//! the parts in which nothing has changed ([`builder`]).
//!
//! A peer that lacks the entries that were removed here gets the parts instead ([`outgoing`],
//! [`incoming`]).

mod base;
mod builder;
mod chunk;
#[cfg(test)]
mod fuzz;
mod incoming;
mod manifest;
mod outgoing;
mod part;
mod parts_check;
mod record;
#[cfg(test)]
mod tests;

pub use base::{Base, Bases};
pub(crate) use builder::{BaseBuilder, Body};
pub use incoming::{Incoming, IncomingError, Progress};
pub use manifest::{BaseManifest, ManifestError};
pub use outgoing::OutgoingPart;
pub use parts_check::PartsCheck;
pub(crate) use record::{RecordKey, RecordKind};
