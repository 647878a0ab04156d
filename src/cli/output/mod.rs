//! Prints text for people and JSON objects for programs.

pub(super) mod compared;
pub(super) mod event;
pub(super) mod graph;
pub(super) mod health;
pub(super) mod json;
pub(super) mod object;
pub(super) mod print;
pub(super) mod proven;
pub(super) mod retention;
pub(super) mod tsv;
