//! Lattice: a pub/sub node with watch streams on a replicated key-value store that needs no
//! server.
//!
//! # How an entry flows
//! bytes -> `SignedEntry` -> `VerifiedEntry` -> log -> state -> bus -> watchers, and from there to
//! peers. Local and remote entries meet in `store/writer/intake.rs`.
//!
//! # Floors
//! A module names only modules of floors below its own; `tests/it/repository` keeps it so.
//!
//! ```text
//! 7  daemon                          wires node, net, hooks and api; signals; ordered shutdown
//! 6  api                             gRPC on the local socket, server and client
//! 5  net                             peers: who is let in, sync sessions, gossip
//!    hooks                           commands and posts that run when a key changes
//! 4  node                            identity, data directory and its lock, the stores
//! 3  store                           the handle and its single writer; reads, watches, consumers
//! 2  clock  log  state  bus          wall clock; files of entries; heads in redb; channels
//! 1  protocol  disk  pace            the rules, pure; the file operations, injectable; turns
//! 0  id  limits  wire                names; maxima; generated messages
//! ```
//! Nothing in `protocol` reads a clock, a file, a socket, or a random source.
//!
//! # What is promised
//! A put that returned survives power loss. State is a pure function of the set of applied
//! entries. A watch is lossless or says so. Nobody is let in who is not a member. Damage is found
//! before its data is served. Memory is bounded.
//!
//! # Units
//! Times are milliseconds since 1970 (UTC), sizes are bytes, places in a log count from 1.

#![expect(
    clippy::module_inception,
    reason = "mod.rs only lists a folder; its main type is in the file of the same name"
)]

#[cfg(feature = "api")]
pub mod api;
pub mod bus;
pub mod clock;
#[cfg(feature = "api")]
pub mod daemon;
pub mod disk;
#[cfg(feature = "hooks")]
pub mod hooks;
pub mod id;
pub mod limits;
pub mod log;
#[cfg(feature = "net")]
pub mod net;
pub mod node;
mod pace;
pub mod protocol;
pub mod state;
pub mod store;
pub mod wire;

pub use node::{Node, NodeConfig};
pub use store::{Store, Watch, WatchEvent, WatchOptions};
