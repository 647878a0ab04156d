//! The JSON objects of `watch --json`; the rules of `object` hold.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lattice::{hooks::ChangeLine, wire::api};
use serde::Serialize;

use crate::cli::output::object::{Entry, Key};

/// A line of `watch --json`; `type` is the first field.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Event<'a> {
    /// `put`, `delete`, `expire`, `retract`.
    Change(Box<Change<'a>>),
    /// `damaged`.
    Damaged(Damaged),
    /// `caught_up`, `progress`, `gap`.
    Mark(Mark),
}

/// A change of a key.
#[derive(Serialize)]
pub(crate) struct Change<'a> {
    #[serde(flatten)]
    line: ChangeLine<'a>,
    /// Only with `--cursors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Only with `--proof`: the entry as its author signed it, in base64. Null: `proof_missing`
    /// says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_missing: Option<&'a str>,
}

impl<'a> Change<'a> {
    /// Makes it from an event of the API.
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

/// A live key whose value cannot be read, in the state at the start.
#[derive(Serialize)]
pub(crate) struct Damaged {
    r#type: &'static str,
    #[serde(flatten)]
    key: Key,
    /// The winner.
    #[serde(flatten)]
    entry: Entry,
    /// What is damaged, and where.
    what: String,
}

impl Damaged {
    /// Makes it from an event of the API.
    pub(crate) fn new(damaged: &api::DamagedValue) -> Self {
        Self {
            r#type: "damaged",
            key: Key::new(&damaged.key),
            entry: Entry::from(&damaged.entry.clone().unwrap_or_default()),
            what: damaged.what.clone(),
        }
    }
}

/// Something that a watch says about itself.
#[derive(Serialize)]
pub(crate) struct Mark {
    /// `caught_up`: the state, or the replay, is complete. `progress`: nothing was missed up to
    /// here. `gap`: history is gone, forget keys that are not named before the next `caught_up`.
    pub(crate) r#type: &'static str,
    /// Of a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The node's clock, of a progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) now_ms: Option<u64>,
    /// Where to go on from, with `--after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}
