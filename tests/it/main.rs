//! Tests of the promises that no single module keeps alone. Each folder is a family of them.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a test may stop at the first surprise, and says what it saw"
)]

#[cfg(feature = "api")]
mod api;
#[cfg(feature = "cli")]
mod cli;
mod consumers;
mod entries;
mod faults;
mod fuzz;
mod guarantees;
#[cfg(feature = "hooks")]
mod hooks;
#[cfg(feature = "net")]
mod mesh;
mod repository;
mod sim;
mod store;
mod support;
mod watch;
