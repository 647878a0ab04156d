//! A change as a hook sees it: the JSON line on its stdin, and its environment variables.

use std::{ffi::OsString, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER as HEX;
use serde::Serialize;

#[cfg(feature = "api")]
use crate::wire::api;
use crate::{
    clock::instant_text,
    protocol::change::{Change, Kind},
};

/// The name of a change, which is equal on every node and at every attempt.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Id of the entry that made the change.
    pub entry: &'a [u8; 32],
    /// Kind of the change: `put`, `delete`, `expire`, `retract` or `gap`.
    pub kind: &'a str,
    /// Key of the change; empty for a gap.
    pub key: &'a [u8],
}

/// The id of a run: equal at every attempt and after every restart, so a command can use it as a
/// key for idempotent work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(pub(super) [u8; 16]);

impl RunId {
    /// Returns the id of a run of `hook`: a hash of the hook's name and of the entry, kind and key
    /// of each change.
    pub fn of<'a>(hook: &str, changes: impl IntoIterator<Item = Named<'a>>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 hook run id v1");
        hasher.update(hook.as_bytes()).update(b"\0");
        for Named { entry, kind, key } in changes {
            hasher
                .update(entry)
                .update(kind.as_bytes())
                .update(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_le_bytes())
                .update(key);
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEX.encode(&self.0))
    }
}

/// The JSON object of a change, as a hook reads it on stdin and as `watch --json`, `on` and
/// `consumer next --json` print it. New fields may be added; existing fields do not change.
#[derive(Debug, Serialize)]
pub struct ChangeLine<'a> {
    r#type: &'a str,
    /// `None`: the key is not UTF-8; `key_base64` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    /// Present only for a put, and only if values were requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// Entry that made the change; for an expiry, the entry that expired.
    entry: String,
    author: String,
    seq: u64,
    wall_ms: u64,
    counter: u32,
    /// Index of the op in its entry.
    op_index: u32,
    op_count: u32,
    /// True for a batch that is delivered whole.
    atomic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    /// All heads of the key after this change, the winner first.
    heads: Vec<String>,
    conflict: bool,
    /// Winner of the key before this change.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    /// `local`, `remote`, `replay` or `initial`.
    origin: &'a str,
    /// Time at which the entry arrived in this node's log; absent in the initial state of a watch,
    /// and in the state after a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived_ms: Option<u64>,
    /// True if a newer entry of the key was already known.
    late: bool,
    /// Fields beside those above, as `watch --json` has them; set for a hook only.
    #[serde(skip_serializing_if = "Option::is_none")]
    author_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wall_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived_time: Option<String>,
}

impl<'a> From<&'a Change> for ChangeLine<'a> {
    fn from(change: &'a Change) -> Self {
        let entry = &change.entry;
        let (key, key_base64) = text_or_base64(&change.key);
        let value = change.value.as_deref().map(text_or_base64);
        let (value, value_base64) = value.unwrap_or_default();
        let heads = change.heads.as_slice().iter().rev();
        Self {
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
            heads: heads.map(|head| head.id.to_string()).collect(),
            conflict: change.is_conflict(),
            previous: change.previous.map(|entry| entry.id.to_string()),
            origin: change.origin.name(),
            arrived_ms: Some(change.arrived_ms).filter(|ms| *ms > 0),
            late: change.late,
            author_name: None,
            wall_time: None,
            expires_time: None,
            arrived_time: None,
        }
    }
}

/// Makes the line from the API message of a change, on the client's end.
#[cfg(feature = "api")]
impl<'a> From<&'a api::Change> for ChangeLine<'a> {
    fn from(change: &'a api::Change) -> Self {
        let entry = change.entry.as_ref();
        let hex = |id: Option<&[u8]>| id.map(|id| HEX.encode(id)).unwrap_or_default();
        let (key, key_base64) = text_or_base64(&change.key);
        let value = change.value.as_deref().map(text_or_base64);
        let (value, value_base64) = value.unwrap_or_default();
        let previous = change.previous.as_ref();
        Self {
            r#type: &change.kind,
            key,
            key_base64,
            value,
            value_base64,
            entry: hex(entry.map(|entry| &entry.id[..])),
            author: hex(entry.map(|entry| &entry.author[..])),
            seq: entry.map_or(0, |entry| entry.seq),
            wall_ms: entry.map_or(0, |entry| entry.wall_ms),
            counter: entry.map_or(0, |entry| entry.counter),
            op_index: change.op_index,
            op_count: change.op_count,
            atomic: change.atomic,
            expires_ms: change.expires_ms,
            heads: change
                .heads
                .iter()
                .map(|head| HEX.encode(&head.id))
                .collect(),
            conflict: change.conflict,
            previous: previous.map(|entry| HEX.encode(&entry.id)),
            origin: &change.origin,
            arrived_ms: Some(change.arrived_ms).filter(|ms| *ms > 0),
            late: change.late,
            author_name: None,
            wall_time: None,
            expires_time: None,
            arrived_time: None,
        }
    }
}

/// The JSON object of a gap, as a hook reads it on stdin and as `consumer next --json` prints it.
/// New fields may be added; existing fields do not change.
#[derive(Debug, Serialize)]
pub struct GapLine<'a> {
    /// `gap`.
    r#type: &'static str,
    /// Which history is missing, and why.
    reason: &'a str,
    /// Greatest stamp of an entry that was removed: the logs have all entries stamped later. `None`: the
    /// gap has another reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reach_ms: Option<u64>,
    /// Time at which the consumer came to the gap, ms since 1970.
    arrived_ms: u64,
    /// The same as texts; set for a hook only.
    #[serde(skip_serializing_if = "Option::is_none")]
    reach_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived_time: Option<String>,
}

impl<'a> GapLine<'a> {
    /// Makes the line of a gap.
    pub fn new(reason: &'a str, reach_ms: Option<u64>, arrived_ms: u64) -> Self {
        Self {
            r#type: Kind::Gap.name(),
            reason,
            reach_ms,
            arrived_ms,
            reach_time: None,
            arrived_time: None,
        }
    }
}

/// Returns a change as one line, including the newline, with texts of its times. `author_name`: the name of the
/// node that wrote its entry.
pub(super) fn line(change: &Change, author_name: Option<String>) -> Vec<u8> {
    let json = match &change.gap {
        Some(gap) => serde_json::to_vec(&GapLine {
            reach_time: gap.reach_ms.and_then(instant_text),
            arrived_time: instant_text(change.arrived_ms),
            ..GapLine::new(&gap.reason, gap.reach_ms, change.arrived_ms)
        }),
        None => serde_json::to_vec(&ChangeLine {
            author_name,
            wall_time: instant_text(change.entry.hlc.wall_ms),
            expires_time: change.expires_ms.and_then(instant_text),
            arrived_time: instant_text(change.arrived_ms),
            ..ChangeLine::from(change)
        }),
    };
    let mut json = json.expect("strings and numbers have a JSON form");
    json.push(b'\n');
    json
}

/// Returns bytes as text if they are UTF-8, otherwise as base64. Exactly one of the two is `Some`.
pub(super) fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_binary) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// Returns the environment variables of a run on one change.
///
/// `LATTICE_KEY` is the unchanged key. A key that is not UTF-8 or contains a NUL is in
/// `LATTICE_KEY_BASE64` instead.
pub fn variables(run: RunId, attempt: u32, change: Named<'_>) -> Vec<(&'static str, OsString)> {
    let key = match str::from_utf8(change.key) {
        Ok(text) if !text.contains('\0') => ("LATTICE_KEY", text.into()),
        _binary => (
            "LATTICE_KEY_BASE64",
            BASE64_STANDARD.encode(change.key).into(),
        ),
    };
    vec![
        ("LATTICE_RUN_ID", run.to_string().into()),
        ("LATTICE_ATTEMPT", attempt.to_string().into()),
        ("LATTICE_KIND", change.kind.into()),
        ("LATTICE_ENTRY", HEX.encode(change.entry).into()),
        key,
    ]
}

impl<'a> From<&'a Change> for Named<'a> {
    fn from(change: &'a Change) -> Self {
        Self {
            entry: &change.entry.id.0,
            kind: change.kind.name(),
            key: &change.key,
        }
    }
}
