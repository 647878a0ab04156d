//! One run of a hook: performs the action for its changes, writes the answer, and decides how the
//! changes are answered.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    hooks::{
        HooksError,
        action::Action,
        answer,
        backoff::backoff,
        change_line::{self, Named, RunId},
        command::{Captured, Command, End, Job, Ran},
        hook::{Hook, HookError, Mode},
        record::{Outcome, RunRecord},
    },
    id::Author,
    limits::{HOOK_ANSWER_BYTES_MAX, HOOK_DEPTH_MAX, HOOK_OUTPUT_BYTES_MAX, OPS_MAX},
    node::{Node, NodeInfo},
    protocol::{
        change::Change,
        consumer::{ChangeId, ChangeRef, cause_of},
        entry::Op,
        membership::reserved::is_reserved,
    },
    store::{ReadError, Store, Write, WriteError},
};

/// A hook with its store and its action, ready to run.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) name: String,
    pub(super) hook: Hook,
    pub(super) store: Store,
    // The root store: it has the names of nodes.
    root: Store,
    // Data directory of the node, for `LATTICE_DATA`.
    data_dir: PathBuf,
    action: Action,
}

/// A run that has ended.
#[derive(Debug)]
#[must_use]
pub(super) struct Performed {
    pub(super) verdict: Verdict,
    pub(super) record: RunRecord,
}

/// The decision about all changes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// Acknowledge the changes.
    Done,
    /// Give the changes back; they are due again after this time.
    Again(Duration),
    /// Make the changes dead letters.
    Dead,
}

/// A failed run, with the reason for people.
enum Failed {
    /// Another attempt may succeed. Counts towards `attempts`.
    Run(String),
    /// No attempt can succeed.
    ForGood(String),
    /// The node cannot read or write now. The run is not at fault, so attempts are not limited.
    Node(String),
}

impl Work {
    pub(super) fn new(
        name: &str,
        hook: Hook,
        store: Store,
        node: &Node,
    ) -> Result<Self, HooksError> {
        let data_dir = node.data_dir().to_owned();
        let action = match &hook.http {
            Some(url) => Action::post(url, hook.secret(), hook.ca_file.as_deref())?,
            None => {
                let dir = data_dir.join(hook.dir.as_deref().unwrap_or(&data_dir));
                Action::Run(Command::new(&hook.run, &dir).ok_or(HookError::Action)?)
            }
        };
        Ok(Self {
            name: name.to_owned(),
            hook,
            store,
            root: node.root(),
            data_dir,
            action,
        })
    }

    /// Performs the action for `changes`, writes the answer, and decides how the changes are
    /// answered.
    ///
    /// Dropping the call ends the action. A run that writes may then have written its answer
    /// already; the next attempt finds that entry and does not run the command again.
    pub(super) async fn perform(&self, changes: &[Arc<Change>], attempt: u32) -> Performed {
        self.assert_can_run(changes);
        assert!(attempt >= 1, "attempts count from 1");
        let run = self.run_id(changes);
        let began = Instant::now();
        let mut record = self.record(changes, run, attempt);
        let done = self.attempt(changes, run, attempt, &mut record).await;
        record.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = self.judge(done, run, attempt, &mut record);
        Performed { verdict, record }
    }

    /// Runs the hook with `LATTICE_DRY_RUN=1` if it writes, and does not run it otherwise. Returns
    /// the record and the ops that would have been written.
    pub(super) async fn rehearse(&self, changes: &[Arc<Change>]) -> (RunRecord, Vec<Op>) {
        self.assert_can_run(changes);
        let run = self.run_id(changes);
        let mut record = self.record(changes, run, 1);
        let mut ops = Vec::new();
        if self.hook.writes {
            let mut variables = self.variables(changes, run, 1);
            variables.push(("LATTICE_DRY_RUN", "1".into()));
            match self.act(changes, run, variables, &mut record).await {
                Ok(answered) => ops = answered,
                Err(Failed::Run(what) | Failed::ForGood(what) | Failed::Node(what)) => {
                    record.outcome = Outcome::Failed;
                    record.what = what;
                    return (record, ops);
                }
            }
        }
        record.outcome = Outcome::WouldRun;
        (record, ops)
    }

    // Rules 1 and 4 of engine.rs. `Hook::check` refuses a hook that writes in batches.
    fn assert_can_run(&self, changes: &[Arc<Change>]) {
        let changes_max = match self.hook.writes {
            true => 1,
            false => self.hook.changes_max(),
        };
        assert!(
            (1..=changes_max).contains(&changes.len()),
            "a run has 1 to {changes_max} changes, this one has {}",
            changes.len()
        );
    }

    fn run_id(&self, changes: &[Arc<Change>]) -> RunId {
        let mut named: Vec<_> = changes.iter().map(|it| Named::from(&**it)).collect();
        // After a gap, everything is done again: no receiver may take it for something it has done.
        let first = changes.first().filter(|first| first.gap_number > 0);
        let id = first.map(|first| ChangeId::of(&ChangeRef::from(&**first)));
        if let (Some(first), Some(id)) = (first, &id) {
            named.push(Named {
                key: &id.0,
                ..Named::from(&**first)
            });
        }
        RunId::of(&self.name, named)
    }

    async fn attempt(
        &self,
        changes: &[Arc<Change>],
        run: RunId,
        attempt: u32,
        record: &mut RunRecord,
    ) -> Result<(), Failed> {
        let variables = self.variables(changes, run, attempt);
        let Some(first) = changes.first().filter(|_| self.hook.writes) else {
            return self.act(changes, run, variables, record).await.map(drop);
        };
        let cause = cause_of(&self.name, first);
        if cause.depth > HOOK_DEPTH_MAX {
            return Err(Failed::ForGood(format!(
                "hook not run for {}: the change is the last of {HOOK_DEPTH_MAX} or more writes by \
                hooks, each caused by the one before, which looks like a loop",
                String::from_utf8_lossy(&first.key).escape_debug()
            )));
        }
        // An earlier attempt wrote, and the node stopped before the change was acknowledged.
        if let Some((_seq, entry)) = self.store.caused(&cause).await? {
            record.wrote = Some(entry.to_string());
            record.what = "an earlier attempt has written the answer".to_owned();
            return Ok(());
        }
        let ops = self.act(changes, run, variables, record).await?;
        if ops.is_empty() {
            return Ok(());
        }
        assert!(ops.len() <= OPS_MAX, "a longer answer is refused");
        let write = Write {
            ops,
            atomic: true,
            condition: None,
            cause: None,
        };
        let entry = match self.store.write(write.caused_by(cause)).await {
            Ok(Some(written)) => {
                record.ops = Some(written.op_count as usize);
                written.entry
            }
            // No entry names the cause: after a crash before the acknowledgement, the hook runs again,
            // as after a crash before its answer.
            Ok(None) => {
                record.what = "the keys that the answer deletes have no value".to_owned();
                return Ok(());
            }
            Err(WriteError::AlreadyCaused { entry, .. }) => {
                record.what = "an earlier attempt has written the answer".to_owned();
                entry
            }
            Err(error) => return Err(error.into()),
        };
        record.wrote = Some(entry.to_string());
        Ok(())
    }

    // Returns the name of a node; `None` if it is not known or cannot be read.
    async fn name_of(&self, node: &Author) -> Option<String> {
        let item = self.root.get(&NodeInfo::key(node)).await.ok()??;
        let name = NodeInfo::decode(&item.value)?.name;
        (!name.is_empty()).then_some(name)
    }

    // Performs the action. Returns the ops of the answer; no ops if the hook does not write.
    async fn act(
        &self,
        changes: &[Arc<Change>],
        run: RunId,
        variables: Vec<(&'static str, OsString)>,
        record: &mut RunRecord,
    ) -> Result<Vec<Op>, Failed> {
        let mut stdin = Vec::new();
        for change in changes {
            let name = self.name_of(&change.entry.author).await;
            stdin.extend(change_line::line(change, name));
        }
        let job = Job {
            variables,
            stdin,
            timeout: self.hook.timeout.0,
            stdout_bytes_max: match self.hook.writes {
                true => HOOK_ANSWER_BYTES_MAX,
                false => HOOK_OUTPUT_BYTES_MAX,
            },
            stderr_bytes_max: HOOK_OUTPUT_BYTES_MAX,
        };
        let ran = self.action.perform(job, run, self.store.now_ms()).await;
        let Ran {
            end,
            stdout,
            stderr,
        } = ran;
        (record.stdout, record.stdout_bytes) = text(&stdout);
        (record.stderr, record.stderr_bytes) = text(&stderr);
        if !end.is_success() {
            return Err(match end.is_final() {
                true => Failed::ForGood(end.to_string()),
                false => Failed::Run(end.to_string()),
            });
        }
        if !self.hook.writes {
            return Ok(Vec::new());
        }
        if stdout.is_cut() {
            let total = stdout.total;
            return Err(Failed::Run(format!(
                "the command printed {total} bytes, more than an entry holds; nothing was written"
            )));
        }
        answer::parse(&stdout.bytes, self.store.now_ms()).map_err(Failed::Run)
    }

    fn judge(
        &self,
        done: Result<(), Failed>,
        run: RunId,
        attempt: u32,
        record: &mut RunRecord,
    ) -> Verdict {
        let (what, is_last) = match done {
            Ok(()) => {
                record.outcome = Outcome::Done;
                return Verdict::Done;
            }
            Err(Failed::Run(what)) => (what, attempt >= self.hook.attempts),
            Err(Failed::ForGood(what)) => (what, true),
            Err(Failed::Node(what)) => (what, false),
        };
        record.what = what;
        if is_last {
            record.outcome = Outcome::Dead;
            return Verdict::Dead;
        }
        record.outcome = Outcome::Failed;
        let delay = backoff(&self.hook.backoff, attempt, run);
        record.retry_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        Verdict::Again(delay)
    }

    fn record(&self, changes: &[Arc<Change>], run: RunId, attempt: u32) -> RunRecord {
        let mut record = RunRecord {
            at_ms: self.store.now_ms(),
            run: run.to_string(),
            attempt,
            changes: changes.len(),
            ..RunRecord::default()
        };
        if let Some(first) = changes.first() {
            let (key, key_base64) = change_line::text_or_base64(&first.key);
            record.key = key.map(str::to_owned);
            record.key_base64 = key_base64;
            record.kind = first.kind.name().to_owned();
            record.entry = first.entry.id.to_string();
        }
        record
    }

    fn variables(
        &self,
        changes: &[Arc<Change>],
        run: RunId,
        attempt: u32,
    ) -> Vec<(&'static str, OsString)> {
        let mut variables = match changes {
            [change] if self.hook.mode != Mode::Batch => {
                change_line::variables(run, attempt, (&**change).into())
            }
            // The keys of a batch are only on stdin.
            _batch => vec![
                ("LATTICE_RUN_ID", run.to_string().into()),
                ("LATTICE_ATTEMPT", attempt.to_string().into()),
            ],
        };
        // A hook on reserved keys that names no store: they are found without one, too, and puts of the
        // command belong to the data store.
        let store = match self.hook.store.is_empty() && is_reserved(&self.hook.prefix()) {
            true => String::new(),
            false => self.store.id().to_string(),
        };
        variables.extend([
            ("LATTICE_HOOK", OsString::from(&self.name)),
            ("LATTICE_CHANGES", changes.len().to_string().into()),
            // With these variables, `lattice get` in the command reads from this node and store.
            ("LATTICE_DATA", self.data_dir.clone().into()),
            ("LATTICE_STORE", store.into()),
        ]);
        variables
    }
}

impl End {
    /// Returns true if another attempt would end like this one.
    fn is_final(&self) -> bool {
        match self {
            // Timeout, too early, too many requests: the server asks for a later attempt.
            Self::Answered {
                status: 408 | 425 | 429,
            } => false,
            // The server has understood the request and refuses it.
            Self::Answered { status: 400..=499 } => true,
            _other => false,
        }
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self::Node(format!("the store cannot be read: {error}"))
    }
}

impl From<WriteError> for Failed {
    fn from(error: WriteError) -> Self {
        let what = format!("the answer was not written: {error}");
        match error {
            WriteError::Empty
            | WriteError::Entry(_)
            | WriteError::Reserved { .. }
            | WriteError::PreconditionFailed { .. } => Self::Run(what),
            _the_node => Self::Node(what),
        }
    }
}

// Returns the text for the log, which is shorter than an answer may be, and the length of the
// output.
fn text(captured: &Captured) -> (String, u64) {
    let shown = captured.bytes.len().min(HOOK_OUTPUT_BYTES_MAX);
    let text = String::from_utf8_lossy(&captured.bytes[..shown]).into_owned();
    (text, captured.total)
}
