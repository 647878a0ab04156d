//! Lattice: a pub/sub node with watch streams on a replicated key-value store.

#[cfg(feature = "api")]
pub mod api;
pub mod clock;
#[cfg(feature = "api")]
pub mod daemon;
pub mod id;
pub mod limits;
pub mod node;
pub mod protocol;
pub mod store;
pub mod wire;
