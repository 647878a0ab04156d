//! The JSON objects of `compare`, by the rules of [`object`](super::object).

use lattice::wire::api;
use serde::Serialize;

use crate::cli::output::object::{Entry, Key, hex};

/// The result of a comparison. Objects for ranges and keys follow it.
#[derive(Serialize)]
pub(crate) struct Compared {
    r#type: &'static str,
    /// The other node.
    node: String,
    equal: bool,
    root_here: String,
    root_there: String,
    /// Number of the entries that make the states.
    entries_here: u64,
    entries_there: u64,
    /// True if both states are made of the same entries. If they are not equal, one of them is wrong.
    same_entries: bool,
    round_trips: u32,
    bytes: u64,
}

impl Compared {
    /// Converts the first part of an answer.
    pub(crate) fn new(node: &[u8], reply: &api::CompareReply) -> Self {
        let here = reply.here.clone().unwrap_or_default();
        let there = reply.there.clone().unwrap_or_default();
        Self {
            r#type: "compared",
            node: hex(node),
            equal: reply.equal,
            root_here: hex(&here.root),
            root_there: hex(&there.root),
            entries_here: here.entries,
            entries_there: there.entries,
            same_entries: reply.same_entries,
            round_trips: reply.round_trips,
            bytes: reply.bytes,
        }
    }
}

/// A range of keys that differs and is too large to be compared key by key.
#[derive(Serialize)]
pub(crate) struct Range {
    r#type: &'static str,
    from: Key,
    /// Exclusive; null for the end of the store.
    to: Option<Key>,
}

impl Range {
    /// Converts a range.
    pub(crate) fn new(range: &api::KeyRange) -> Self {
        Self {
            r#type: "range",
            from: Key::new(&range.from),
            to: range.to.as_deref().map(Key::new),
        }
    }
}

/// A key that differs.
#[derive(Serialize)]
pub(crate) struct Difference {
    r#type: &'static str,
    #[serde(flatten)]
    key: Key,
    /// Heads on this node, the winner first; empty if the key was never written here.
    here: Vec<Head>,
    /// Heads on the other node; null if they are too many.
    there: Option<Vec<Head>>,
}

/// A head of one side.
#[derive(Serialize)]
struct Head {
    kind: String,
    #[serde(flatten)]
    entry: Entry,
}

impl Difference {
    /// Converts a difference.
    pub(crate) fn new(difference: &api::KeyDifference) -> Self {
        let heads = |heads: &[api::Head]| -> Vec<Head> {
            let head = |head: &api::Head| Head {
                kind: head.kind.clone(),
                entry: Entry::from(&head.entry.clone().unwrap_or_default()),
            };
            heads.iter().map(head).collect()
        };
        Self {
            r#type: "key",
            key: Key::new(&difference.key),
            here: heads(&difference.here),
            there: (!difference.there_is_long).then(|| heads(&difference.there)),
        }
    }
}
