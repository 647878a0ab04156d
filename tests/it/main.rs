//! Promises that no single module keeps alone.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a test may stop at the first surprise, and says what it saw"
)]

mod acts;
mod causes;
#[cfg(feature = "cli")]
mod cli;
mod consumers;
mod crowd;
mod faults;
mod fork;
mod golden;
mod guarantees;
#[cfg(feature = "hooks")]
mod hooks;
mod hostile;
mod ingest;
#[cfg(feature = "cli")]
mod kill;
mod laws;
mod membership;
#[cfg(feature = "net")]
mod mesh;
mod model;
mod node;
mod past;
mod portable;
mod random;
mod removal;
mod sim;
#[cfg(feature = "api")]
mod socket;
mod store;
mod tidy;
mod watch;
mod watch_clocks;
mod watch_edge;
mod watch_oracle;
mod watch_select;
mod watch_time;
