//! The guarantees to readers, over histories recorded from real daemons: three nodes of a mesh write,
//! are killed, stopped, paused, cut off and started again, while readers move between them with a
//! cursor, takers share a consumer, and a hook writes.
//!
//! The record has the form of the histories in one process, and the same checker judges it.

mod histories;
mod lan;
mod node;
mod reader;
mod taker;
mod wire;
mod writer;
