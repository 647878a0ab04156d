//! The JSON objects of `retention` and `prune`, by the rules of [`object`](super::object).

use lattice::wire::api::{self, held_history::Reason};
use serde::Serialize;

use crate::cli::output::object::{hex, uuid};

/// How much of a store's history is final, printed by `retention` and `prune --dry-run`.
#[derive(Serialize)]
pub(crate) struct Retention {
    store: String,
    /// Name of the store on this node.
    name: String,
    /// Number of the newest act that made entries final; null before the first one.
    act: Option<u64>,
    /// Time of that act by its admin's clock, in ms since 1970.
    through_ms: Option<u64>,
    /// Bytes of the logs here.
    log_bytes: u64,
    /// About how many of them are not final.
    open_bytes: u64,
    /// About how many of those could become final now.
    ready_bytes: u64,
    held: Vec<Held>,
    /// Members that are waited for, and of which no ack is known.
    silent: Vec<String>,
    /// Members that are not waited for.
    dormant: Vec<String>,
    /// Keys and bytes of the rows in place of removed entries.
    base_keys: u64,
    base_bytes: u64,
    /// Why final entries cannot be removed here yet.
    kept: Vec<String>,
    /// Bytes of the logs that `prune` would remove now.
    removable_bytes: u64,
    /// Consumers that have not got all final entries.
    consumers: Vec<ConsumerHold>,
    policy: Policy,
}

/// A consumer that keeps final entries which it has not got.
#[derive(Serialize)]
struct ConsumerHold {
    consumer: String,
    /// When the first of them arrived here, in ms since 1970.
    since_ms: u64,
    /// Bytes of the logs from there on.
    bytes: u64,
}

/// How much of a store's history is kept, printed by `retention` and `retention set`. Times in ms.
#[derive(Serialize)]
pub(crate) struct Policy {
    age_ms: u64,
    size_bytes: u64,
    hold_ms: u64,
    final_after_ms: u64,
    final_bytes: u64,
    dormant_after_ms: u64,
    dormant_bytes: u64,
}

impl Policy {
    /// Converts an answer of the API.
    pub(crate) fn new(policy: &api::HistoryPolicy) -> Self {
        Self {
            age_ms: policy.age_ms(),
            size_bytes: policy.bytes(),
            hold_ms: policy.hold_ms(),
            final_after_ms: policy.final_after_ms(),
            final_bytes: policy.final_bytes(),
            dormant_after_ms: policy.dormant_after_ms(),
            dormant_bytes: policy.dormant_bytes(),
        }
    }
}

/// A log of which not all can become final.
#[derive(Serialize)]
struct Held {
    author: String,
    /// Its last entry that is final or can become so; 0 for none.
    after: u64,
    /// Its last entry here.
    through: u64,
    /// `members`, `grant`, `not_granted`, `fork`, `young` or `not_signed`.
    reason: &'static str,
    /// Members whose acks are missing, for `members` and `grant`.
    nodes: Vec<String>,
}

/// Entries that were removed, printed by `prune`.
#[derive(Serialize)]
pub(crate) struct Pruned {
    r#type: &'static str,
    store: String,
    /// Name of the store on this node.
    name: String,
    /// Number of the act by which this node made entries final now. Null: there were none, or the node is
    /// not an admin.
    made_final: Option<u64>,
    /// Number of the act whose entries were removed; null: no final entries were in the logs.
    act: Option<u64>,
    bytes_before: u64,
    bytes_after: u64,
}

impl Retention {
    /// Converts an answer of the API.
    pub(crate) fn new(reply: &api::RetentionReply) -> Self {
        let info = reply.info.clone().unwrap_or_default();
        let held = reply.held.iter().map(|held| Held {
            author: hex(&held.author),
            after: held.after,
            through: held.through,
            reason: word(held),
            nodes: held.nodes.iter().map(|node| hex(node)).collect(),
        });
        let consumers = reply.consumers.iter().map(|held| ConsumerHold {
            consumer: held.consumer.clone(),
            since_ms: held.since_ms,
            bytes: held.bytes,
        });
        Self {
            store: uuid(&info.id),
            name: info.name,
            act: (reply.act > 0).then_some(reply.act),
            through_ms: (reply.act > 0).then_some(reply.through_ms),
            log_bytes: reply.log_bytes,
            open_bytes: reply.open_bytes,
            ready_bytes: reply.ready_bytes,
            held: held.collect(),
            silent: reply.silent.iter().map(|node| hex(node)).collect(),
            dormant: reply.dormant.iter().map(|node| hex(node)).collect(),
            base_keys: reply.base_keys,
            base_bytes: reply.base_bytes,
            kept: reply.kept.clone(),
            removable_bytes: reply.removable_bytes,
            consumers: consumers.collect(),
            policy: Policy::new(&reply.policy.unwrap_or_default()),
        }
    }
}

impl Pruned {
    /// Converts an answer of the API.
    pub(crate) fn new(reply: &api::PruneReply) -> Self {
        let info = reply.info.clone().unwrap_or_default();
        Self {
            r#type: "pruned",
            store: uuid(&info.id),
            name: info.name,
            made_final: (reply.made_final > 0).then_some(reply.made_final),
            act: (reply.act > 0).then_some(reply.act),
            bytes_before: reply.bytes_before,
            bytes_after: reply.bytes_after,
        }
    }
}

/// Returns why entries of a log cannot become final yet, for people. `name` is that of a node.
pub(crate) fn reason(held: &api::HeldHistory, name: impl Fn(&[u8]) -> String) -> String {
    let nodes = || {
        let nodes: Vec<String> = held.nodes.iter().map(|node| name(node)).collect();
        nodes.join(", ")
    };
    match held.reason() {
        Reason::Members => format!("not on disk yet, or not acknowledged, at {}", nodes()),
        Reason::Grant => format!("its author's admission is not acknowledged by {}", nodes()),
        Reason::NotGranted => "its author was never admitted".to_owned(),
        Reason::Fork => "its author has forked its log and not closed the fork".to_owned(),
        Reason::Young => "younger than a day".to_owned(),
        Reason::NotSigned => "no later entry verifies by itself".to_owned(),
        Reason::Unspecified => "for a reason that this version does not know".to_owned(),
    }
}

fn word(held: &api::HeldHistory) -> &'static str {
    match held.reason() {
        Reason::Members => "members",
        Reason::Grant => "grant",
        Reason::NotGranted => "not_granted",
        Reason::Fork => "fork",
        Reason::Young => "young",
        Reason::NotSigned => "not_signed",
        Reason::Unspecified => "other",
    }
}
