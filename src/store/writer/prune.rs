//! Pruning: entries that the state has are removed from the logs.
//!
//! From then on a state is built from the base and the rest of the logs. So the base comes first.

use crate::{
    id::{Author, Seq},
    log::{CannotPrune, LogDamage, LogError, Pruning},
    protocol::frontier::{Frontier, FrontierTip},
    state::{Base, StateError},
    store::{WriteError, shared::base_dir, writer::writer::Writer},
};

/// Why entries were not removed from the logs.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Members and stores follow from the acts in the log of the root store.
    #[error("the log of the root store keeps all its entries")]
    Root,
    /// The log has a part that cannot be read, or the state lacks entries that could not be read.
    #[error("entries are missing that a peer can give back: {what}")]
    Lacks {
        /// The damage, in words.
        what: String,
    },
    /// The entry is in the log and not in the state: it does not count.
    #[error("entry {seq} of {} is not in the state", author.short())]
    NotApplied {
        /// Author of the entry.
        author: Author,
        /// Seq of the entry.
        seq: Seq,
    },
    /// The log does not allow it.
    #[error(transparent)]
    Cannot(#[from] CannotPrune),
    /// The store takes no writes now.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The state or the base could not be written. Nothing was removed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The logs could not be changed. What was begun is finished or undone at the next opening.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another base has become the newest one meanwhile.
    #[error("the base of the store has changed meanwhile; try again")]
    OtherBase,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Writer {
    /// Makes `base` the newest one.
    ///
    /// # Errors
    /// The store takes no writes now; the disk fails, and the base before stays the newest one.
    pub(super) fn fold_into(&self, base: Base) -> Result<(), PruneError> {
        self.health.check_writable()?;
        Ok(self.take_base(base)?)
    }

    /// Makes `base`, which has the rows of all entries at and before `anchors`, the newest one; `None` when
    /// the newest one has them. Then removes these entries from the logs, once the state file has all of
    /// them, too.
    ///
    /// # Errors
    /// `PruneError`.
    pub(super) fn prune(
        &mut self,
        anchors: &Frontier,
        base: Option<Base>,
    ) -> Result<Pruning, PruneError> {
        if self.config.root {
            return Err(PruneError::Root);
        }
        // Other entries may count now.
        self.recount();
        self.health.check_writable()?;
        self.check_whole(anchors)?;
        let begins = self.logs.plan_prune(anchors)??;
        for (author, anchor) in begins.anchors().iter() {
            self.check_applied(&author, anchor)?;
        }
        if let Some(base) = base {
            self.take_base(base)?;
        }
        self.flush_all()?;
        let pruning = self.logs.prune(begins);
        // Also where not all files could be removed.
        for branch in self.logs.reader().all() {
            self.marks.cap(&branch);
        }
        Ok(pruning?)
    }

    fn take_base(&self, base: Base) -> Result<(), StateError> {
        let dir = base_dir(&self.config.dir);
        let base = base.commit(self.config.disk.as_ref(), &dir)?;
        self.base.show(Some(base));
        Ok(())
    }

    fn check_whole(&self, anchors: &Frontier) -> Result<(), PruneError> {
        let lacks = |what: String| Err(PruneError::Lacks { what });
        if self.state.staged().lacks {
            return lacks("the state was built without them".to_owned());
        }
        let is_meant = |author: &Author| !anchors.tips(author).is_empty();
        let mut damage = self.mending.damage().iter();
        if let Some(found) = damage.find(|found: &&LogDamage| is_meant(&found.author)) {
            return lacks(found.to_string());
        }
        match self.cuts.iter().find(|cut| is_meant(&cut.author)) {
            Some(cut) => lacks(format!("the end of {} is gone", cut.file)),
            None => Ok(()),
        }
    }

    fn check_applied(&self, author: &Author, anchor: FrontierTip) -> Result<(), PruneError> {
        let log = self.logs.reader();
        for tip in self.state.staged().frontier.tips(author) {
            if *tip == anchor || log.leads(author, anchor, *tip)? == Some(true) {
                return Ok(());
            }
        }
        let (author, seq) = (*author, anchor.seq);
        Err(PruneError::NotApplied { author, seq })
    }
}
