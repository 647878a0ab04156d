//! The JSON objects of `root`, `get --prove` and `verify --proof`, by the rules of
//! [`object`](super::object).

use lattice::{
    light::{Proven, ProvenRow, Subject},
    protocol::{
        frontier::Frontier,
        heads::{Content, Head, Value},
    },
    wire::api,
};
use serde::Serialize;

use crate::cli::output::object::{self, Key, Prefix, hex, uuid};

/// The root of a store, printed by `root`.
#[derive(Serialize)]
pub(crate) struct Root {
    root: String,
    store: String,
    /// Name of the store on this node.
    name: String,
    /// Absent for the root of all keys.
    #[serde(flatten)]
    prefix: Option<Prefix>,
    /// Number of entries that make the state, and hash of their tips.
    entries: u64,
    frontier: String,
    /// Hash of the acts that count.
    acts: String,
    /// Other members whose last signed state is this one; empty with a prefix.
    signed_by: Vec<String>,
    /// Number of members, this node among them.
    members: u32,
}

impl Root {
    /// Converts an answer of the API.
    pub(crate) fn new(reply: &api::RootReply, prefix: &[u8]) -> Self {
        let info = reply.info.clone().unwrap_or_default();
        Self {
            root: hex(&reply.root),
            store: uuid(&info.id),
            name: info.name,
            prefix: (!prefix.is_empty()).then(|| Prefix::new(prefix)),
            entries: reply.entries,
            frontier: hex(&reply.frontier),
            acts: hex(&reply.acts),
            signed_by: reply.signed_by.iter().map(|node| hex(node)).collect(),
            members: reply.members,
        }
    }
}

/// A proof that was checked. One object for each row follows it.
#[derive(Serialize)]
pub(crate) struct Checked {
    r#type: &'static str,
    store: String,
    root: String,
    /// The key, or the prefix, that the proof is about.
    #[serde(flatten)]
    key: Option<Key>,
    #[serde(flatten)]
    prefix: Option<Prefix>,
    /// Number of the rows that follow; tombstones have rows, too.
    rows: usize,
    signed_by: Vec<Signer>,
}

impl Checked {
    /// Converts a proof.
    pub(crate) fn new(proven: &Proven) -> Self {
        let (key, prefix) = match &proven.subject {
            Subject::Key(key) => (Some(Key::new(key)), None),
            Subject::Prefix(prefix) => (None, Some(Prefix::new(prefix))),
        };
        let signers = proven.signers.iter().map(|signer| Signer {
            node: hex(&signer.node.0),
            entries: entries(&signer.frontier),
        });
        Self {
            r#type: "proved",
            store: proven.store.to_string(),
            root: proven.root.to_string(),
            key,
            prefix,
            rows: proven.rows.len(),
            signed_by: signers.collect(),
        }
    }
}

/// A node that has signed the root of a proof.
#[derive(Serialize)]
struct Signer {
    node: String,
    /// Number of entries that make the state.
    entries: u64,
}

/// A proven row.
#[derive(Serialize)]
pub(crate) struct Row {
    r#type: &'static str,
    #[serde(flatten)]
    key: Key,
    /// `put` or `delete`.
    kind: &'static str,
    #[serde(flatten)]
    value: object::Value,
    /// BLAKE3 hash of a value that the proof does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    entry: String,
    author: String,
    seq: u64,
    wall_ms: u64,
    counter: u32,
    /// All heads of the key, the winner first: several in a conflict.
    heads: Vec<String>,
}

impl Row {
    /// Converts a row; `head` is its winner.
    pub(crate) fn new(row: &ProvenRow, head: &Head) -> Self {
        let hash = hash_of(row, head);
        let heads = row.heads.as_slice().iter().rev();
        Self {
            r#type: "row",
            key: Key::new(&row.key),
            kind: kind(head),
            value: object::Value::new(row.value.as_deref()),
            value_hash: hash.map(|hash| hex(hash)),
            expires_ms: head.expires_ms(),
            entry: hex(&head.id.0),
            author: hex(&head.author.0),
            seq: head.seq,
            wall_ms: head.hlc.wall_ms,
            counter: head.hlc.counter,
            heads: heads.map(|head| hex(&head.id.0)).collect(),
        }
    }
}

fn kind(head: &Head) -> &'static str {
    match head.content {
        Content::Value { .. } => "put",
        Content::Tombstone => "delete",
    }
}

/// Returns the hash of the winning value `head` if the proof does not have the value.
pub(crate) fn hash_of<'a>(row: &ProvenRow, head: &'a Head) -> Option<&'a [u8; 32]> {
    match &head.content {
        Content::Value {
            value: Value::InLog { hash, .. },
            ..
        } if row.value.is_none() => Some(hash),
        _other => None,
    }
}

/// Returns the number of entries that a frontier names.
pub(crate) fn entries(frontier: &Frontier) -> u64 {
    frontier.entries_beyond(&Frontier::default())
}
