//! The JSON objects of `hook`; the rules of `cli::object` hold.

use lattice::wire::api;
use serde::Serialize;

use crate::cli::output::object::{Key, Value, not_empty};

/// How a hook is, from `list`, and what adds or changes it.
#[derive(Serialize)]
pub(super) struct Status {
    hook: String,
    /// `running`, `paused`, `waiting`, `stopped`, `trouble`; `off`: no node runs it.
    state: String,
    /// Of waiting, stopped and trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// False: it was taken out of hooks.toml by hand, and `remove` forgets the rest.
    in_file: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    /// Empty for a hook that posts.
    run: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// `each`, `latest`, `batch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// Runs now.
    running: u64,
    /// Runs since the node started that succeeded, and that failed.
    done: u64,
    failed: u64,
    /// Changes without a run because a newer one of their key was known.
    skipped: u64,
    /// Entries of the store that were not read, matching or not.
    backlog_entries: u64,
    /// Changes that were read and are not finished.
    outstanding: u64,
    /// Dead letters.
    dead: u64,
    /// Why runs wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    slowed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Run>,
}

impl Status {
    /// Makes it from an answer.
    pub(super) fn new(status: &api::HookStatus) -> Self {
        let consumer = status.consumer.clone().unwrap_or_default();
        let hook = status.definition.as_ref();
        Self {
            hook: status.hook.clone(),
            state: status.state.clone(),
            reason: not_empty(&status.reason),
            in_file: hook.is_some(),
            on: hook.map(|hook| hook.on.clone()),
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
            slowed: not_empty(&status.slowed),
            last: status.last.as_ref().map(Run::new),
        }
    }
}

/// A run, from `logs`.
#[derive(Serialize)]
pub(crate) struct Run {
    /// When it began.
    at_ms: u64,
    /// What LATTICE_RUN_ID was.
    run: String,
    attempt: u32,
    /// 1, but for batches; kind, key and entry are of the first one.
    changes: u32,
    kind: String,
    #[serde(flatten)]
    key: Key,
    entry: String,
    /// `done`, `failed`; `dead`: failed, and not tried again.
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    took_ms: u64,
    /// How long the next attempt waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_ms: Option<u64>,
    /// The beginning of it, and how much there was.
    stdout: String,
    stdout_bytes: u64,
    stderr: String,
    stderr_bytes: u64,
    /// The entry that holds what it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrote: Option<String>,
    /// Puts and deletes in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<u32>,
}

impl Run {
    /// Makes it from an answer.
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

/// A run of `test`.
#[derive(Serialize)]
pub(super) struct Test {
    /// `outcome` is `would_run` where nothing went wrong in a dry run.
    #[serde(flatten)]
    run: Run,
    /// The command, or POST and the URL.
    action: Vec<String>,
    /// What it would have written.
    would_write: Vec<Op>,
}

impl Test {
    /// Makes it from an answer, of which `run` is the run.
    pub(super) fn new(test: &api::HookTest, run: &api::HookRun) -> Self {
        Self {
            run: Run::new(run),
            action: test.action.clone(),
            would_write: test.ops.iter().map(Op::new).collect(),
        }
    }
}

/// A put or a delete, as `batch --format json` reads it.
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

/// A hook that is no more.
#[derive(Serialize)]
pub(super) struct Removed<'a> {
    /// `removed`.
    pub(super) r#type: &'static str,
    pub(super) hook: &'a str,
}
