//! `bench`: measures a node on this machine, and its disk for comparison.
//!
//! A bench works in a temporary directory (`scratch`). It puts keys and values (`load`), measures
//! the calls (`samples`) and prints figures (`report`). The disk and redb alone (`baseline`) are
//! measured in turns with the store, so that the ratios also hold on a busy machine.

mod baseline;
mod bench;
mod bootstrap;
mod client;
mod consume;
mod diff;
mod error;
mod fanout;
mod gossip;
mod heal;
mod hooks;
mod load;
mod memory;
mod open;
mod past;
mod prune;
mod put;
mod redis;
mod replay;
mod report;
mod root;
mod samples;
mod scratch;
mod setup;
mod sync;
mod watch;

pub(crate) use bench::Bench;
