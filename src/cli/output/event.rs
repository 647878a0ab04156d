//! The JSON objects of `watch --json`, by the rules of [`object`](super::object).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lattice::{hooks::ChangeLine, wire::api};
use serde::Serialize;

use crate::cli::output::object::{Entry, Key};

/// A line of `watch --json`. Every line has a `type`.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Event<'a> {
    /// `put`, `delete`, `expire`, `retract`.
    Change(Box<Change<'a>>),
    /// `damaged`.
    Damaged(Damaged),
    /// `caught_up`, `progress`, `gap`.
    Marker(Marker),
}

/// A change of a key.
#[derive(Serialize)]
pub(crate) struct Change<'a> {
    #[serde(flatten)]
    line: ChangeLine<'a>,
    /// Cursor after the change; only with `--cursors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// The entry as its author signed it, in base64; only with `--proof`. If it is null,
    /// `proof_missing` gives the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_missing: Option<&'a str>,
}

impl<'a> Change<'a> {
    /// Converts a change of the API.
    pub(crate) fn new(change: &'a api::Change, cursor: Option<String>) -> Self {
        let is_proven = !change.proof.is_empty();
        let is_missing = !change.proof_missing.is_empty();
        let encode = |bytes| BASE64_STANDARD.encode(bytes);
        Self {
            line: ChangeLine::from(change),
            cursor,
            proof: (is_proven || is_missing).then(|| is_proven.then(|| encode(&change.proof))),
            proof_missing: is_missing.then_some(change.proof_missing.as_str()),
        }
    }
}

/// A key of the initial state whose value cannot be read.
#[derive(Serialize)]
pub(crate) struct Damaged {
    r#type: &'static str,
    #[serde(flatten)]
    key: Key,
    /// The winning entry of the key.
    #[serde(flatten)]
    entry: Entry,
    /// The damage and its place, for people.
    what: String,
}

impl Damaged {
    /// Converts an event of the API.
    pub(crate) fn new(damaged: &api::DamagedValue) -> Self {
        Self {
            r#type: "damaged",
            key: Key::new(&damaged.key),
            entry: Entry::from(&damaged.entry.clone().unwrap_or_default()),
            what: damaged.what.clone(),
        }
    }
}

/// An event about the watch itself.
#[derive(Serialize)]
pub(crate) struct Marker {
    /// `caught_up`: the state, or the replay, is complete. `progress`: every matching change before
    /// this event was printed. `gap`: history is missing and the state follows; keys not named
    /// before the next `caught_up` no longer exist.
    pub(crate) r#type: &'static str,
    /// Why history is missing; only in a `gap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Greatest stamp of an entry that was removed from the logs, which have all entries stamped later;
    /// only in a `gap` for that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reach_ms: Option<u64>,
    /// The node's clock; only in a `progress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) now_ms: Option<u64>,
    /// Root of the watched keys at this position; only with `--hash`, and only while no change is on
    /// its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
    /// Position after this event, for `--after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}
