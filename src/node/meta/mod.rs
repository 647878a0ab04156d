//! `meta.db`: the stores of the node, its root store, its author, notes about peers and a count of
//! starts.
//!
//! The file says which store is the root store, so a wrong answer would swap the mesh that a node
//! belongs to. Every block and every row has a check. A file that fails one is kept under another
//! name and built again from the logs, or opening the node fails.

mod meta;
mod rebuild;
mod row;

pub(super) use meta::Meta;
pub(super) use row::Row;
