//! Lines that `put --stdin` reads: key, value and notes between tabs, each with its escapes.

use std::fmt::Write as _;

use lattice::wire::api;

use crate::cli::output::print::escape;

/// Returns the line of a key and its value, without a newline.
pub(crate) fn put(key: &[u8], value: &[u8], expires_ms: Option<u64>) -> String {
    let mut line = format!("{}\t{}", escape(key), escape(value));
    if let Some(ms) = expires_ms {
        write!(line, "\texpires_ms={ms}").expect("a string takes every write");
    }
    line
}

/// Returns the line of a key that was deleted.
pub(crate) fn delete(key: &[u8]) -> String {
    format!("{}\t\tdeleted", escape(key))
}

/// Returns the line of a key that `list` prints; the number of heads is a note.
pub(crate) fn item(item: &api::Item) -> String {
    let mut line = put(&item.key, &item.value, item.expires_ms);
    if item.heads > 1 {
        write!(line, "\theads={}", item.heads).expect("a string takes every write");
    }
    line
}
