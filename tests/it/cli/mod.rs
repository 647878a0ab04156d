//! The command line: the real binary, in directories of its own.

mod consumer;
mod damage;
mod errors;
mod fork;
mod guarantees;
mod harness;
mod help;
mod hook;
mod hook_kill;
mod identity;
mod lifecycle;
mod lines;
mod mesh;
mod metrics;
mod mounts;
mod output;
mod pages;
mod private;
mod proof;
mod reload;
mod service;
mod shell;
mod travel;
mod wait;
mod watch;
