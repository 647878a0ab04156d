//! The commands: a file for each, or a folder for a group.

pub(super) mod batch;
pub(super) mod conflicts;
pub(super) mod consumer;
pub(super) mod delete;
pub(super) mod demo;
pub(super) mod diff;
pub(super) mod get;
pub(super) mod history;
pub(super) mod hook;
pub(super) mod join;
pub(super) mod leave;
pub(super) mod log;
pub(super) mod man;
pub(super) mod on;
pub(super) mod peer;
pub(super) mod put;
pub(super) mod put_stream;
pub(super) mod repair;
pub(super) mod service;
pub(super) mod status;
pub(super) mod store;
pub(super) mod up;
pub(super) mod verify;
pub(super) mod verify_lines;
pub(super) mod wait;
pub(super) mod watch;
