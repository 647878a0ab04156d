//! The command line: the real binary, in directories of its own.

mod consumer;
mod damage;
mod errors;
mod fork;
mod guarantees;
mod harness;
mod help;
mod lifecycle;
mod lines;
mod mesh;
mod metrics;
mod mounts;
mod output;
mod shell;
mod watch;
