//! The JSON objects of `consumer`, by the rules of [`output::object`](crate::cli::output::object).

use lattice::{hooks::GapLine, wire::api};
use serde::Serialize;

use crate::cli::output::{
    event::Change,
    object::{Entry, Key, not_empty},
};

/// A change taken by `next`: the fields of `watch --json`, and the id to answer with.
#[derive(Serialize)]
pub(super) struct Delivery<'a> {
    #[serde(flatten)]
    content: Content<'a>,
    /// Id that `ack`, `nack`, `term` and `extend` take. The part before the point is the same in
    /// every attempt.
    delivery: &'a str,
    /// Number of the attempt; the first one is 1.
    attempt: u32,
}

/// The content of a delivery.
#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Change(Box<Change<'a>>),
    /// `gap`: history is missing, and the state follows; keys that are not in it no longer exist.
    Gap(GapLine<'a>),
}

impl<'a> Delivery<'a> {
    /// Converts a delivery and its `change`.
    pub(super) fn new(delivery: &'a api::Delivery, change: &'a api::Change) -> Self {
        Self {
            content: match &change.gap {
                Some(api::Gap { reason, reach_ms }) => {
                    Content::Gap(GapLine::new(reason, *reach_ms, change.arrived_ms))
                }
                None => Content::Change(Box::new(Change::new(change, None))),
            },
            delivery: &delivery.id,
            attempt: delivery.attempt,
        }
    }
}

/// The status of a consumer, printed by `list`, `show` and the commands that change it.
#[derive(Serialize)]
pub(super) struct Status {
    consumer: String,
    /// `running`, `paused`, `waiting`, `stopped`.
    state: String,
    /// Why it waits or is stopped; absent in other states.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Prefixes of its keys; empty for all keys.
    prefixes: Vec<Key>,
    /// Entries of the store that it has not read yet, matching or not.
    backlog_entries: u64,
    /// Changes that were read and are not finished yet.
    outstanding: u64,
    /// Outstanding changes that are delivered and not answered.
    in_flight: u64,
    /// Changes acknowledged since it was created.
    acked: u64,
    /// Redeliveries since it was created.
    redelivered: u64,
    /// Number of dead letters.
    dead: u64,
    /// When a change was last taken or answered; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ms: Option<u64>,
    created_ms: u64,
    /// Cursor of its position; absent before anything was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    ack_wait_ms: u64,
    /// Absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_deliver: Option<u32>,
    max_in_flight: u32,
    backoff_ms: Vec<u64>,
    /// `stop`, `state`.
    on_gap: String,
    /// Gaps since it was created.
    gaps: u64,
    /// Why a taker gets no change now: `paused`, `full`, `busy`, `empty`; absent if it gets one.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<String>,
    /// Next time at which an outstanding change comes again or is taken back; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_due_ms: Option<u64>,
    /// When the first entry arrived that it may still need; only in `list`, and absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds_since_ms: Option<u64>,
    /// Bytes of the logs from that entry on; only in `list`, and absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds_bytes: Option<u64>,
    /// The first outstanding changes, oldest first; not in `list`, and absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Outstanding>,
}

/// An outstanding change.
#[derive(Serialize)]
struct Outstanding {
    /// Id of the last attempt.
    delivery: String,
    /// Number of the last attempt; 0 before the first one.
    attempt: u32,
    kind: String,
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    entry: Entry,
    /// `taken` by a stream, `taken_by_id`, `waiting`, or `behind` an earlier change of its key or a gap.
    state: String,
    /// When it is taken back, or comes again; absent for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_ms: Option<u64>,
}

impl From<&api::OutstandingChange> for Outstanding {
    fn from(change: &api::OutstandingChange) -> Self {
        Self {
            delivery: change.delivery.clone(),
            attempt: change.attempt,
            kind: change.kind.clone(),
            key: Key::new(&change.key),
            entry: Entry::from(&change.entry.clone().unwrap_or_default()),
            state: change.state.clone(),
            due_ms: Some(change.due_ms).filter(|ms| *ms > 0),
        }
    }
}

impl Status {
    /// Converts a status of the API.
    pub(super) fn new(status: &api::ConsumerStatus) -> Self {
        Self {
            consumer: status.consumer.clone(),
            state: status.state.clone(),
            reason: not_empty(&status.reason),
            prefixes: status.prefixes.iter().map(|key| Key::new(key)).collect(),
            backlog_entries: status.backlog_entries,
            outstanding: status.outstanding,
            in_flight: status.in_flight,
            acked: status.acked,
            redelivered: status.redelivered,
            dead: status.dead,
            last_seen_ms: Some(status.last_seen_ms).filter(|ms| *ms > 0),
            created_ms: status.created_ms,
            position: not_empty(&status.position),
            ack_wait_ms: status.ack_wait_ms,
            max_deliver: Some(status.max_deliver).filter(|times| *times > 0),
            max_in_flight: status.max_in_flight,
            backoff_ms: status.backoff_ms.clone(),
            on_gap: status.on_gap.clone(),
            gaps: status.gaps,
            idle: not_empty(&status.idle),
            next_due_ms: Some(status.next_due_ms).filter(|ms| *ms > 0),
            holds_since_ms: Some(status.holds_since_ms).filter(|ms| *ms > 0),
            holds_bytes: Some(status.holds_bytes).filter(|_| status.holds_since_ms > 0),
            changes: status.changes.iter().map(Outstanding::from).collect(),
        }
    }
}

/// The answer given to a delivery.
#[derive(Serialize)]
pub(super) struct Answered<'a> {
    /// `acked`, `nacked`, `dead`, `extended`.
    pub(super) r#type: &'static str,
    pub(super) delivery: &'a str,
}

/// A consumer that was deleted.
#[derive(Serialize)]
pub(super) struct Deleted<'a> {
    /// `consumer_deleted`.
    pub(super) r#type: &'static str,
    pub(super) consumer: &'a str,
}

/// A dead letter, printed by `dead`.
#[derive(Serialize)]
pub(super) struct DeadLetter {
    /// Number of the letter, unique in its consumer.
    number: u64,
    #[serde(flatten)]
    key: Key,
    /// Kind of the change.
    kind: String,
    #[serde(flatten)]
    entry: Entry,
    op_index: u32,
    /// Id of its last delivery.
    delivery: String,
    attempts: u32,
    /// `max_deliver`, `terminated`, `unreadable`, `pruned`.
    reason: String,
    died_ms: u64,
}

impl DeadLetter {
    /// Converts a dead letter of the API.
    pub(super) fn new(letter: &api::DeadLetter) -> Self {
        Self {
            number: letter.number,
            key: Key::new(&letter.key),
            kind: letter.kind.clone(),
            entry: Entry::from(&letter.entry.clone().unwrap_or_default()),
            op_index: letter.op_index,
            delivery: letter.delivery.clone(),
            attempts: letter.attempts,
            reason: letter.reason.clone(),
            died_ms: letter.died_ms,
        }
    }
}

/// The result of an action on dead letters.
#[derive(Serialize)]
pub(super) struct DeadActed {
    /// `dead_retried`, `dead_skipped`.
    pub(super) r#type: String,
    pub(super) count: u64,
}
