//! `snapshot`: makes, lists, checks and restores backups.

mod as_puts;
mod check;
mod create;
mod object;
mod restore;
mod snapshot;

pub(crate) use snapshot::Snapshot;
