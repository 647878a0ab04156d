//! Reads user input: names, times, flags, lines, and answers to questions.

pub(super) mod action_flags;
pub(super) mod author;
pub(super) mod confirm;
pub(super) mod escape;
pub(super) mod key;
pub(super) mod keys;
pub(super) mod lines;
pub(super) mod net_flags;
pub(crate) mod passphrase;
pub(super) mod prompt;
pub(super) mod shell_words;
pub(super) mod size;
pub(super) mod time;
