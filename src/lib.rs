//! Lattice: a pub/sub node with watch streams on a replicated key-value store.

pub mod id;
pub mod limits;
pub mod protocol;
pub mod wire;
