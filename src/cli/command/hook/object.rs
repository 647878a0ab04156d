//! The JSON objects of `hook`, by the rules of [`output::object`](crate::cli::output::object).

use lattice::wire::api;
use serde::Serialize;

use crate::cli::output::object::{Key, Value, not_empty};

/// The status of a hook, printed by `list` and the commands that change it.
#[derive(Serialize)]
pub(super) struct Status {
    hook: String,
    /// `running`, `paused`, `waiting`, `stopped` or `trouble`; `off` if no node runs it.
    state: String,
    /// Why it waits, is stopped or in trouble; absent in other states.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// False if it was removed from hooks.toml by hand; `remove` then deletes its position and log.
    in_file: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    /// The prefix, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_base64: Option<String>,
    /// Command and arguments; empty for a hook that posts.
    run: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// `each`, `latest`, `batch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// Number of runs at this moment.
    running: u64,
    /// Runs that succeeded since the node started.
    done: u64,
    /// Runs that failed since the node started.
    failed: u64,
    /// Changes that were not run, because a newer one of their key was known.
    skipped: u64,
    /// Entries of the store that it has not read yet, matching or not.
    backlog_entries: u64,
    /// Changes that were read and are not finished yet.
    outstanding: u64,
    /// Number of dead letters.
    dead: u64,
    /// `stop` or `state`; absent if it has no consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_gap: Option<String>,
    /// Why runs wait; absent if they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    slowed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Run>,
}

impl Status {
    /// Converts a status of the API.
    pub(super) fn new(status: &api::HookStatus) -> Self {
        let consumer = status.consumer.clone().unwrap_or_default();
        let hook = status.definition.as_ref();
        Self {
            hook: status.hook.clone(),
            state: status.state.clone(),
            reason: not_empty(&status.reason),
            in_file: hook.is_some(),
            on: hook
                .filter(|hook| hook.on_base64.is_empty())
                .map(|hook| hook.on.clone()),
            on_base64: hook.and_then(|hook| not_empty(&hook.on_base64)),
            run: hook.map(|hook| hook.run.clone()).unwrap_or_default(),
            http: hook.and_then(|hook| not_empty(&hook.http)),
            mode: hook.map(|hook| hook.mode.clone()),
            running: status.running,
            done: status.done,
            failed: status.failed,
            skipped: status.skipped,
            backlog_entries: consumer.backlog_entries,
            outstanding: consumer.outstanding,
            dead: consumer.dead,
            on_gap: not_empty(&consumer.on_gap),
            slowed: not_empty(&status.slowed),
            last: status.last.as_ref().map(Run::new),
        }
    }
}

/// A run, printed by `logs` and `on`.
#[derive(Serialize)]
pub(crate) struct Run {
    /// When the run began.
    at_ms: u64,
    /// Value of LATTICE_RUN_ID.
    run: String,
    attempt: u32,
    /// Number of changes: 1, or more in a batch. Kind, key and entry are those of the first one.
    changes: u32,
    kind: String,
    #[serde(flatten)]
    key: Key,
    entry: String,
    /// `done`; `failed`; or `dead`: failed, and not tried again.
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    took_ms: u64,
    /// Time until the next attempt; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_ms: Option<u64>,
    /// Beginning of stdout.
    stdout: String,
    /// Bytes of the whole stdout.
    stdout_bytes: u64,
    /// Beginning of stderr.
    stderr: String,
    /// Bytes of the whole stderr.
    stderr_bytes: u64,
    /// Id of the entry that the run wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrote: Option<String>,
    /// Number of puts and deletes in that entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<u32>,
}

impl Run {
    /// Converts a run of the API.
    pub(crate) fn new(run: &api::HookRun) -> Self {
        Self {
            at_ms: run.at_ms,
            run: run.run.clone(),
            attempt: run.attempt,
            changes: run.changes,
            kind: run.kind.clone(),
            key: Key::new(&run.key),
            entry: run.entry.clone(),
            outcome: run.outcome.clone(),
            what: not_empty(&run.what),
            took_ms: run.took_ms,
            retry_ms: run.retry_ms,
            stdout: run.stdout.clone(),
            stdout_bytes: run.stdout_bytes,
            stderr: run.stderr.clone(),
            stderr_bytes: run.stderr_bytes,
            wrote: not_empty(&run.wrote),
            ops: Some(run.ops).filter(|_| !run.wrote.is_empty()),
        }
    }
}

/// A run, printed by `test`.
#[derive(Serialize)]
pub(super) struct Test {
    /// The run; in a dry run without errors, its `outcome` is `would_run`.
    #[serde(flatten)]
    run: Run,
    /// The command and its arguments, or POST and the URL.
    action: Vec<String>,
    /// Puts and deletes that a dry run would have written.
    would_write: Vec<Op>,
}

impl Test {
    /// Converts a test and its `run`.
    pub(super) fn new(test: &api::HookTest, run: &api::HookRun) -> Self {
        Self {
            run: Run::new(run),
            action: test.action.clone(),
            would_write: test.ops.iter().map(Op::new).collect(),
        }
    }
}

/// A put or a delete, in the format of `batch --format json`.
#[derive(Serialize)]
struct Op {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    value: Value,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

impl Op {
    fn new(op: &api::Op) -> Self {
        Self {
            key: Key::new(&op.key),
            value: Value::new((!op.delete).then_some(&op.value)),
            delete: op.delete,
            ttl_ms: op.ttl_ms,
        }
    }
}

/// A hook that was removed.
#[derive(Serialize)]
pub(super) struct Removed<'a> {
    /// `hook_removed`.
    pub(super) r#type: &'static str,
    pub(super) hook: &'a str,
}
