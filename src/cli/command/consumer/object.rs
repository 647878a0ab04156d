//! The JSON objects of `consumer`; the rules of `cli::object` hold.

use lattice::wire::api;
use serde::Serialize;

use crate::cli::output::{
    event::Change,
    object::{Entry, Key, not_empty},
};

/// A change that was taken, from `next`: a line of `watch --json`, and what to answer with.
#[derive(Serialize)]
pub(super) struct Delivery<'a> {
    #[serde(flatten)]
    change: Change<'a>,
    /// What `ack`, `nack`, `term` and `extend` take. The part before the point is the same at every
    /// attempt.
    delivery: &'a str,
    /// 1 the first time.
    attempt: u32,
}

impl<'a> Delivery<'a> {
    /// Makes it from an answer, of which `change` is the change.
    pub(super) fn new(delivery: &'a api::Delivery, change: &'a api::Change) -> Self {
        Self {
            change: Change::new(change, None),
            delivery: &delivery.id,
            attempt: delivery.attempt,
        }
    }
}

/// How a consumer is, from `list`, `show`, and what changes it.
#[derive(Serialize)]
pub(super) struct Status {
    consumer: String,
    /// `running`, `paused`, `waiting`, `stopped`.
    state: String,
    /// Of waiting and stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// None: all keys.
    prefixes: Vec<Key>,
    /// Entries of the store that were not read, matching or not.
    backlog_entries: u64,
    /// Changes that were read and are not finished.
    outstanding: u64,
    /// Those of them that are with takers.
    in_flight: u64,
    /// Ever.
    acked: u64,
    /// Attempts after the first one of a change, ever.
    redelivered: u64,
    /// Dead letters.
    dead: u64,
    /// When a change was last taken or answered; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ms: Option<u64>,
    created_ms: u64,
    /// A cursor; absent: nothing was read yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    ack_wait_ms: u64,
    /// Absent: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_deliver: Option<u32>,
    max_in_flight: u32,
    backoff_ms: Vec<u64>,
}

impl Status {
    /// Makes it from an answer.
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
        }
    }
}

/// What became of a change that was taken.
#[derive(Serialize)]
pub(super) struct Answered<'a> {
    /// `acked`, `nacked`, `dead`, `extended`.
    pub(super) r#type: &'static str,
    pub(super) delivery: &'a str,
}

/// A consumer that is no more.
#[derive(Serialize)]
pub(super) struct Deleted<'a> {
    /// `deleted`.
    pub(super) r#type: &'static str,
    pub(super) consumer: &'a str,
}

/// A change that is given out no more, from `dead`.
#[derive(Serialize)]
pub(super) struct DeadLetter {
    /// Names it in the consumer.
    number: u64,
    #[serde(flatten)]
    key: Key,
    /// As of the change.
    kind: String,
    #[serde(flatten)]
    entry: Entry,
    op_index: u32,
    /// The id of its last delivery.
    delivery: String,
    attempts: u32,
    /// `max_deliver`, `terminated`, `unreadable`.
    reason: String,
    died_ms: u64,
}

impl DeadLetter {
    /// Makes it from an answer.
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

/// What was done to dead letters.
#[derive(Serialize)]
pub(super) struct DeadActed {
    /// `retried`, `skipped`.
    pub(super) r#type: &'static str,
    pub(super) count: u64,
}
