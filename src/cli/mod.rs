//! The command line: one file per group of commands.
//!
//! arguments (`args`) -> the node that runs, or be it (`session`) -> one call of the API -> lines
//! for people or for programs (`output`, `object`) -> an exit code (`exit`).
//!
//! Everything goes through the client of the API, also when the store is opened in this process:
//! there is one way in, and what a person sees is what a program gets.

mod args;
mod bench;
mod command;
mod dispatch;
mod exit;
mod global;
mod input;
mod output;
mod place;
mod reconnect;
mod run;
mod sd_notify;
mod session;
mod shell;
mod signals;

pub(crate) use run::run;
