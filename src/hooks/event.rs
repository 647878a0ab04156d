//! A change as a hook sees it: the JSON line on its stdin, and the variables around it.

use std::{ffi::OsString, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER as HEX;
use serde::Serialize;

use crate::protocol::{
    change::Change,
    consumer::{ChangeId, ChangeRef},
};

/// Names what a run is about: the same at every attempt, after every restart. A key for idempotent
/// work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId([u8; 16]);

impl RunId {
    /// Returns the id of a run of `hook` for these changes: a hash of its name, and of entry, key
    /// and kind of each.
    pub fn of<'a>(hook: &str, changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 hook run id v1");
        hasher.update(hook.as_bytes()).update(b"\0");
        for change in changes {
            hasher.update(&ChangeId::of(&ChangeRef::from(change)).0);
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }

    /// Returns a number that spreads retries, from 0 to 1 and the same at every call.
    pub(super) fn jitter(&self, attempt: u32) -> f64 {
        let hash = blake3::hash(&[&self.0[..], &attempt.to_be_bytes()].concat());
        f64::from(hash.as_bytes()[0]) / 255.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEX.encode(&self.0))
    }
}

/// A line of stdin: what `lattice watch --json` prints of a change.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    entry: String,
    author: String,
    seq: u64,
    wall_ms: u64,
    counter: u32,
    op_index: u32,
    op_count: u32,
    atomic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    heads: Vec<String>,
    conflict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    origin: &'static str,
    arrived_ms: u64,
    late: bool,
}

/// Returns a change as one line, its newline included.
pub(super) fn line(change: &Change) -> Vec<u8> {
    let (key, key_base64) = text_or_base64(&change.key);
    let (value, value_base64) = match &change.value {
        Some(value) => text_or_base64(value),
        None => (None, None),
    };
    let entry = &change.entry;
    let line = Line {
        r#type: change.kind.name(),
        key,
        key_base64,
        value,
        value_base64,
        entry: entry.id.to_string(),
        author: entry.author.to_string(),
        seq: entry.seq,
        wall_ms: entry.hlc.wall_ms,
        counter: entry.hlc.counter,
        op_index: change.op_index,
        op_count: change.op_count,
        atomic: change.atomic,
        expires_ms: change.expires_ms,
        heads: change
            .heads
            .as_slice()
            .iter()
            .rev()
            .map(|head| head.id.to_string())
            .collect(),
        conflict: change.is_conflict(),
        previous: change.previous.map(|entry| entry.id.to_string()),
        origin: change.origin.name(),
        arrived_ms: change.arrived_ms,
        late: change.late,
    };
    let mut json = serde_json::to_vec(&line).expect("strings and numbers have a JSON form");
    json.push(b'\n');
    json
}

/// Returns bytes as text, or as base64 where they are no UTF-8: one of the two.
pub(super) fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_binary) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// Returns what a variable can hold of a key: as it is, or as base64 where it is no text or has a
/// NUL in it, under another name.
pub(super) fn key_variable(key: &[u8]) -> (&'static str, OsString) {
    match str::from_utf8(key) {
        Ok(text) if !text.contains('\0') => ("LATTICE_KEY", text.into()),
        _binary => ("LATTICE_KEY_BASE64", BASE64_STANDARD.encode(key).into()),
    }
}
