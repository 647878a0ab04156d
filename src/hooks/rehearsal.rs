//! What a hook does, or would do, with changes that have happened.

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

/// A hook that goes through history, one run after the other, without moving its place in it.
#[derive(Debug)]
pub struct Rehearsal {
    work: Work,
    // Ends where history ends now.
    watch: Option<Watch>,
    dry: bool,
    // Of the next run.
    changes: Vec<Arc<Change>>,
}

/// A run of a rehearsal.
#[derive(Debug)]
pub struct Rehearsed {
    /// What it did; `outcome` is `would_run` where it did nothing.
    pub record: RunRecord,
    /// What it would have written, and did not.
    pub ops: Vec<Op>,
}

impl Rehearsal {
    pub(super) fn new(work: Work, start: Start, dry: bool) -> Self {
        let watch = work.store.watch_with(WatchOptions {
            prefixes: vec![Bytes::copy_from_slice(work.hook.on.as_bytes())],
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

    /// Returns the hook.
    pub fn hook(&self) -> &Hook {
        &self.work.hook
    }

    /// Makes the next run, once; `None`: that was all. Dry, nothing is run but what writes, which is
    /// told so by LATTICE_DRY_RUN=1, and nothing is written.
    ///
    /// # Errors
    /// `Watch`, `HistoryGone`; there is no next run then.
    pub async fn next(&mut self) -> Result<Option<Rehearsed>, HooksError> {
        while let Some(watch) = &mut self.watch {
            match watch.next().await.transpose()? {
                Some(WatchEvent::Change(change)) => self.take(change),
                Some(WatchEvent::Progress) => {}
                Some(WatchEvent::Gap { reason } | WatchEvent::Damaged { what: reason, .. }) => {
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
