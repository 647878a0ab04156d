//! A rehearsal: runs a hook, or shows what it would run, on past changes.

use std::{mem, sync::Arc};

use bytes::Bytes;
use tokio_stream::StreamExt as _;

use crate::{
    hooks::{
        HooksError,
        hook::{Hook, Mode},
        record::RunRecord,
        run::{Performed, Work},
    },
    limits::HOOK_BATCH_BYTES,
    protocol::{change::Change, entry::Op},
    store::{Start, Watch, WatchEvent, WatchOptions},
};

/// Replays history for a hook, one run after the other. The hook's consumer is not involved, so its
/// position does not move.
#[derive(Debug)]
pub struct Rehearsal {
    work: Work,
    // `None` once history has been replayed up to now, and after an error.
    watch: Option<Watch>,
    // True: nothing is written, and only hooks that write are run.
    dry: bool,
    // Changes of the next run.
    changes: Vec<Arc<Change>>,
}

/// A run of a rehearsal.
#[derive(Debug)]
#[must_use]
pub struct Rehearsed {
    /// Record of the run; its outcome is `would_run` if a dry run did not fail.
    pub record: RunRecord,
    /// Ops that a dry run would have written.
    pub ops: Vec<Op>,
}

impl Rehearsal {
    pub(super) fn new(work: Work, start: Start, dry: bool) -> Self {
        let watch = work.store.watch_with(WatchOptions {
            prefixes: vec![work.hook.prefix()],
            start,
            ..WatchOptions::default()
        });
        Self {
            work,
            watch: Some(watch),
            dry,
            changes: Vec::new(),
        }
    }

    /// Returns the definition of the hook.
    pub fn hook(&self) -> &Hook {
        &self.work.hook
    }

    /// Performs the next run, one attempt. Returns `None` at the end of history.
    ///
    /// A dry rehearsal runs only hooks that write, with `LATTICE_DRY_RUN=1` in the environment, and
    /// writes nothing.
    ///
    /// # Errors
    /// `Watch`, `HistoryGone`. After an error the rehearsal has ended.
    pub async fn next(&mut self) -> Result<Option<Rehearsed>, HooksError> {
        while let Some(watch) = &mut self.watch {
            match watch.next().await.transpose()? {
                Some(WatchEvent::Change(change)) => self.take(change),
                Some(WatchEvent::Progress) => {}
                Some(WatchEvent::Gap { reason, .. } | WatchEvent::Damaged { what: reason, .. }) => {
                    self.watch = None;
                    self.changes.clear();
                    let name = self.work.name.clone();
                    return Err(HooksError::HistoryGone { name, reason });
                }
                Some(WatchEvent::CaughtUp) | None => self.watch = None,
            }
            if self.is_full() {
                break;
            }
        }
        if self.changes.is_empty() {
            return Ok(None);
        }
        let changes = mem::take(&mut self.changes);
        Ok(Some(if self.dry {
            let (record, ops) = self.work.rehearse(&changes).await;
            Rehearsed { record, ops }
        } else {
            let Performed { record, .. } = self.work.perform(&changes, 1).await;
            let ops = Vec::new();
            Rehearsed { record, ops }
        }))
    }

    fn take(&mut self, change: Arc<Change>) {
        let hook = &self.work.hook;
        let is_newest = || {
            let winner = change.heads.winner();
            winner.is_none_or(|head| head.id == change.entry.id)
        };
        if hook.wants(change.kind, &change.key) && (hook.mode != Mode::Latest || is_newest()) {
            self.changes.push(change);
        }
    }

    fn is_full(&self) -> bool {
        let bytes = |change: &Arc<Change>| change.value.as_ref().map_or(0, Bytes::len);
        let held: usize = self.changes.iter().map(bytes).sum();
        self.changes.len() >= self.work.hook.changes_max() || held >= HOOK_BATCH_BYTES
    }
}
