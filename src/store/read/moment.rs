//! A moment: the logs of a store, and the state that they make, at one point between two groups of
//! writes. A backup reads it while the store goes on.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::{Author, Seq},
    log::{Branch, BranchWalk, Pruned, merge::Span},
    pace::Pace,
    protocol::{merkle::TreeRoot, snapshot::BranchBegin},
    state::{Base, Bases, View},
    store::{OfferedBase, ReadError, Store, writer::command::Command},
};

/// The logs of a store and its state at one moment.
///
/// As long as it lives, the state file cannot reuse the room of rows that are written over.
#[derive(Debug)]
pub struct Moment {
    view: Arc<View>,
    spans: Vec<Span>,
    base: Option<Arc<Base>>,
    store: Store,
}

/// The entries of one branch of an author.
#[derive(Debug)]
pub struct MomentBranch {
    /// Author of the branch.
    pub author: Author,
    /// The place from which on it has its entries; `None` if it has all of them. One branch of an author at
    /// most has such a place, the first that is returned.
    pub begin: Option<BranchBegin>,
    walk: BranchWalk,
    // Inclusive.
    through: Seq,
    is_done: bool,
}

impl Store {
    /// Returns the store as it is between two groups of writes: all entries in the logs, those that do
    /// not count among them, and the state that they make. Where the logs begin late, a base has the
    /// state of what was before.
    ///
    /// # Errors
    /// `Pruned`: entries were removed, and the base with their state is damaged or missing. `Closed`.
    pub async fn moment(&self) -> Result<Moment, ReadError> {
        let asked = self.queue.ask(Command::Moment).await;
        let (view, spans, bases) = asked.map_err(|_stopped| ReadError::Closed)?;
        let base = base_below(&spans, bases).map_err(ReadError::Pruned)?;
        Ok(Moment {
            view,
            spans,
            base,
            store: self.clone(),
        })
    }
}

// Returns the base from which a state can be built with the entries of `spans`, the oldest one: it has
// the fewest entries that the logs have, too. `None` if the logs have all entries.
fn base_below(spans: &[Span], bases: Bases) -> Result<Option<Arc<Base>>, Pruned> {
    let begins = spans.iter().filter_map(|span| {
        let begin = span.branch.begin?;
        Some((span.branch.author, begin))
    });
    let begins: Vec<_> = begins.collect();
    let Some(pruned) = Pruned::of(begins.iter().copied()) else {
        return Ok(None);
    };
    let goes_on = |base: &Arc<Base>| {
        let has_removed = begins.iter().all(|(author, begin)| {
            let anchor = base.manifest().anchor(author);
            anchor.is_some_and(|anchor| anchor.seq > begin.anchor.seq || *anchor == begin.anchor)
        });
        let mut anchors = base.manifest().anchors.iter();
        // The logs go on from it. They do not where the end of one was lost.
        has_removed
            && anchors.all(|(author, anchor)| {
                let of_author = |span: &&Span| span.branch.author == *author;
                let mut spans = spans.iter().filter(of_author);
                spans.any(|span| span.through >= anchor.seq)
            })
    };
    let oldest_first = [bases.beginning, bases.newest];
    let base = oldest_first.into_iter().flatten().find(goes_on);
    base.map(Some).ok_or(pruned)
}

impl Moment {
    /// Returns the number of keys in the state, deleted ones too.
    pub fn keys(&self) -> u64 {
        self.view.keys
    }

    /// Returns the root of the state; `None` while it lacks entries that could not be read, or has heads
    /// that acts take.
    ///
    /// # Errors
    /// `State`: the state is damaged.
    pub async fn state_root(&self) -> Result<Option<TreeRoot>, ReadError> {
        if self.view.lacks || !self.view.is_swept {
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

    /// Returns the state of the entries before those that the branches have; `None` if they have all.
    pub fn base(&self) -> Option<OfferedBase> {
        self.base.clone().map(OfferedBase)
    }

    /// Returns the branches, by author; of each author one that begins late first, and then in the order in
    /// which they began here. The state is let go.
    pub fn into_branches(self) -> impl Iterator<Item = MomentBranch> + Send {
        let mut spans = self.spans;
        spans.sort_by_key(|span| (span.branch.author, span.branch.begin.is_none()));
        spans.into_iter().map(|span| {
            let Branch {
                author,
                begin,
                first,
                forked_from,
                ..
            } = *span.branch;
            MomentBranch {
                author,
                begin: begin.map(|begin| BranchBegin {
                    anchor: begin.anchor,
                    arrived_ms: begin.arrived_ms,
                    first,
                    forked_from,
                }),
                walk: span.branch.walk(span.after.saturating_add(1)),
                through: span.through,
                is_done: span.through <= span.after,
            }
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
