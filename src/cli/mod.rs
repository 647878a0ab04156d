//! The command line: reads arguments, runs a command and prints its result.
//!
//! ```text
//! arguments (args) -> a client of the node (session) -> calls of the API (command)
//!                  -> text for people (screens), or JSON for programs (output) -> an exit code (exit)
//! ```
//!
//! Every command uses the client of the API, even when the store is opened in this process. So
//! people and programs take the same path and see the same data.

mod args;
mod bench;
mod command;
mod completion;
mod dispatch;
mod exit;
mod global;
mod groups;
mod input;
mod output;
mod pages;
mod place;
mod reconnect;
mod run;
mod screens;
mod sd_notify;
mod secrets;
mod session;
mod shell;
mod signals;

pub(crate) use run::run;
