//! Prints text for people and JSON objects for programs.

pub(super) mod compared;
pub(super) mod event;
pub(super) mod form;
pub(super) mod full_screen;
pub(super) mod graph;
pub(super) mod health;
pub(super) mod ink;
pub(super) mod json;
pub(super) mod object;
pub(super) mod print;
pub(super) mod proven;
pub(super) mod retention;
pub(super) mod screen;
pub(super) mod stderr;
pub(super) mod styled;
pub(super) mod table;
pub(super) mod template;
pub(super) mod tsv;
pub(super) mod vocabulary;
pub(super) mod width;
