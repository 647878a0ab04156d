//! The command line: the real binary, in directories of its own.

mod consumer;
mod damage;
mod errors;
mod fork;
mod harness;
mod help;
mod hook;
mod hook_kill;
mod lifecycle;
mod lines;
mod mesh;
mod mounts;
mod output;
mod shell;
mod watch;
