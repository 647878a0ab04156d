//! The JSON objects of `watch --json`; the rules of `object` hold.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lattice::wire::api;
use serde::Serialize;

use crate::cli::object::{Entry, Key, Value, hex};

/// A line of `watch --json`; `type` is the first field.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Event {
    /// `put`, `delete`, `expire`, `retract`.
    Change(Box<Change>),
    /// `damaged`.
    Damaged(Damaged),
    /// `caught_up`, `progress`, `gap`.
    Mark(Mark),
}

/// A change of a key.
#[derive(Serialize)]
pub(crate) struct Change {
    r#type: String,
    #[serde(flatten)]
    key: Key,
    /// Of a put only, and not with `--keys-only`.
    #[serde(flatten)]
    value: Value,
    /// What made the change; of an expiry, the entry that expired.
    #[serde(flatten)]
    entry: Entry,
    /// Index of this change in its entry.
    op_index: u32,
    op_count: u32,
    /// True for a batch that is delivered whole.
    atomic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    /// All heads of the key now, the winner first.
    heads: Vec<String>,
    conflict: bool,
    /// The winner before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    /// `local`, `remote`, `replay`, `initial`.
    origin: String,
    /// When it arrived in this node's log; absent in the state at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived_ms: Option<u64>,
    /// True when something newer was known already.
    late: bool,
    /// Only with `--cursors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Only with `--proof`: the entry as its author signed it, in base64. Null: `proof_missing`
    /// says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_missing: Option<String>,
}

impl Change {
    /// Makes it from an event of the API.
    pub(crate) fn new(change: &api::Change, cursor: Option<&str>) -> Self {
        let is_proven = !change.proof.is_empty();
        let is_missing = !change.proof_missing.is_empty();
        let encode = |bytes| BASE64_STANDARD.encode(bytes);
        Self {
            r#type: change.kind.clone(),
            key: Key::new(&change.key),
            value: Value::new(change.value.as_deref()),
            entry: Entry::from(&change.entry.clone().unwrap_or_default()),
            op_index: change.op_index,
            op_count: change.op_count,
            atomic: change.atomic,
            expires_ms: change.expires_ms,
            heads: change.heads.iter().map(|head| hex(&head.id)).collect(),
            conflict: change.conflict,
            previous: change.previous.as_ref().map(|entry| hex(&entry.id)),
            origin: change.origin.clone(),
            arrived_ms: Some(change.arrived_ms).filter(|ms| *ms > 0),
            late: change.late,
            cursor: cursor.map(str::to_owned),
            proof: (is_proven || is_missing).then(|| is_proven.then(|| encode(&change.proof))),
            proof_missing: is_missing.then(|| change.proof_missing.clone()),
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
