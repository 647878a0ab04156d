//! Hooks: real commands that run when a key changes, and requests to real servers.

mod gaps;
mod hostile;
mod modes;
mod posts;
mod runs;
mod setup;
mod table;
mod writes;
