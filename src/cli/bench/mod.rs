//! `bench`: how fast a node is on this machine, next to how fast its disk is.
//!
//! scratch (a directory of its own) -> load (callers, keys, values) -> samples -> report.
//! What the disk and redb can do is measured in turns with what the store does (`baseline`), so
//! that the ratios hold on a machine that is busy with other things too.

mod baseline;
mod bench;
mod consume;
mod error;
mod fanout;
mod gossip;
mod hooks;
mod load;
mod memory;
mod open;
mod put;
mod replay;
mod report;
mod samples;
mod scratch;
mod setup;
mod sync;
mod watch;

pub(crate) use bench::Bench;
