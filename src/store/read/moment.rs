//! A moment: the logs of a store, and the state that they make, at one point between two groups of
//! writes. A backup reads it while the store goes on.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::{Author, Seq},
    log::{BranchWalk, merge::Span},
    pace::Pace,
    protocol::merkle::TreeRoot,
    state::View,
    store::{ReadError, Store, writer::command::Command},
};

/// The logs of a store and its state at one moment.
///
/// As long as it lives, the state file cannot reuse the room of rows that are written over.
#[derive(Debug)]
pub struct Moment {
    view: Arc<View>,
    spans: Vec<Span>,
    store: Store,
}

/// The entries of one branch of an author.
#[derive(Debug)]
pub struct MomentBranch {
    /// Author of the branch.
    pub author: Author,
    walk: BranchWalk,
    // Inclusive.
    through: Seq,
    is_done: bool,
}

impl Store {
    /// Returns the store as it is between two groups of writes: all entries in the logs, those that do
    /// not count among them, and the state that they make.
    ///
    /// # Errors
    /// `Pruned`: the logs do not have all entries any more. `Closed`.
    pub async fn moment(&self) -> Result<Moment, ReadError> {
        let asked = self.queue.ask(Command::Moment).await;
        let (view, log) = asked.map_err(|_stopped| ReadError::Closed)?;
        if let Some(pruned) = self.shared.log.pruned() {
            return Err(ReadError::Pruned(pruned));
        }
        Ok(Moment {
            view,
            spans: log,
            store: self.clone(),
        })
    }
}

impl Moment {
    /// Returns the number of keys in the state, deleted ones too.
    pub fn keys(&self) -> u64 {
        self.view.keys
    }

    /// Returns the root of the state; `None` while it lacks entries that could not be read.
    ///
    /// # Errors
    /// `State`: the state is damaged.
    pub async fn state_root(&self) -> Result<Option<TreeRoot>, ReadError> {
        if self.view.lacks {
            return Ok(None);
        }
        let turn = Arc::clone(&self.store.shared.tree_turn).lock_owned().await;
        let view = Arc::clone(&self.view);
        let looking = tokio::task::spawn_blocking(move || {
            let root = view.root();
            drop(turn);
            root
        });
        let root = looking.await.map_err(|_panic| ReadError::Closed)?;
        Ok(Some(root?))
    }

    /// Returns the branches, by author and then in the order in which they began here. The state is
    /// let go.
    pub fn into_branches(self) -> impl Iterator<Item = MomentBranch> + Send {
        self.spans.into_iter().map(|span| MomentBranch {
            author: span.branch.author,
            walk: span.branch.walk(span.after.saturating_add(1)),
            through: span.through,
            is_done: false,
        })
    }
}

impl MomentBranch {
    /// Returns the next entries, as they are in the log, each with the time at which it arrived, ms
    /// since 1970; about `bytes_max` bytes, at least one entry; none at the end.
    ///
    /// Reads files: not for an event loop.
    ///
    /// # Errors
    /// `Damaged`: an entry cannot be read. `Io`.
    pub fn next_entries(&mut self, bytes_max: usize) -> Result<Vec<(Bytes, u64)>, ReadError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut pace = Pace::start();
        while bytes < bytes_max && !self.is_done {
            pace.step();
            let record = self.walk.next_record()?;
            let record = record.filter(|record| record.header.seq <= self.through);
            let Some(record) = record else {
                self.is_done = true;
                break;
            };
            self.is_done = record.header.seq == self.through;
            bytes += record.payload.len();
            entries.push((record.payload, record.header.arrived_ms));
        }
        Ok(entries)
    }
}
