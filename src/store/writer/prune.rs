//! Pruning: entries that the state has are removed from the logs.
//!
//! From then on a state is built from the base and the rest of the logs. So the base comes first.

use crate::{
    id::{Author, Seq},
    log::{CannotPrune, LogDamage, LogError, PrunePlan, Pruning},
    protocol::{
        finality::NoRoom,
        frontier::{Frontier, FrontierTip},
    },
    state::{Base, Bases, StateError},
    store::{WriteError, shared::base_dir, writer::writer::Writer},
};

/// Why entries were not removed from the logs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// Another base has become the newest one meanwhile, or it lacks some of the entries.
    #[error("the base of the store has changed meanwhile; try again")]
    OtherBase,
    /// The disk has no room for the base.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Writer {
    /// Makes `base` the newest one. The one at whose anchors the logs begin is kept for reads of the past.
    ///
    /// # Errors
    /// The store takes no writes now; the disk fails, and the base before stays the newest one.
    pub(super) fn fold_into(&self, base: Base) -> Result<(), PruneError> {
        self.health.check_writable()?;
        let (disk, dir) = (self.config.disk.as_ref(), base_dir(&self.config.dir));
        let Bases { newest, beginning } = self.base.all();
        // It may be that of a beginning to come.
        let beginning = beginning.filter(|beginning| self.has_removed(beginning));
        // Without another one, later bases can be made of it if `base` turns out to be no good.
        let is_last = beginning.is_none() && !self.logs.reader().begins().is_empty();
        let beginning = match newest.filter(|newest| is_last || self.is_beginning(newest)) {
            Some(newest) => {
                newest.keep(disk, &dir)?;
                Some(newest)
            }
            None => beginning,
        };
        self.base.show(base.commit(disk, &dir, beginning)?);
        Ok(())
    }

    /// Makes `base` the older one, from which the past is read once the logs begin at its anchors.
    ///
    /// # Errors
    /// The store takes no writes now, or there is no newest base; the disk fails.
    pub(super) fn begin_at(&self, base: Base) -> Result<(), PruneError> {
        self.health.check_writable()?;
        let (disk, dir) = (self.config.disk.as_ref(), base_dir(&self.config.dir));
        let newest = self.base.newest().ok_or(PruneError::OtherBase)?;
        self.base.show(base.commit_beginning(disk, &dir, newest)?);
        Ok(())
    }

    // Whether the logs begin at the anchors of `base`.
    fn is_beginning(&self, base: &Base) -> bool {
        let begins = self.logs.reader().begins().into_iter();
        let begins: Frontier = begins
            .map(|(author, begin)| (author, begin.anchor.tip()))
            .collect();
        !begins.is_empty() && begins == base.manifest().frontier()
    }

    // Whether `base` has all entries that were removed from the logs.
    fn has_removed(&self, base: &Base) -> bool {
        let frontier = base.manifest().frontier();
        let begins = self.logs.reader().begins();
        let mut begins = begins.iter();
        begins.all(|(author, begin)| frontier.seq(author) >= begin.anchor.seq)
    }

    // The older base is needed no more if the newest one is that of the beginning.
    fn forget_beginning(&self) {
        let mut bases = self.base.all();
        let is_needed = bases.beginning.as_ref().is_some_and(|beginning| {
            let is_newest = bases
                .newest
                .as_ref()
                .is_some_and(|newest| self.is_beginning(newest));
            self.is_beginning(beginning) && !is_newest
        });
        if bases.beginning.is_none() || is_needed {
            return;
        }
        bases.beginning = None;
        let dir = base_dir(&self.config.dir);
        if let Err(error) = bases.discard_others(self.config.disk.as_ref(), &dir, None) {
            tracing::warn!(%error, "files of an earlier base are removed later");
        }
        self.base.show(bases);
    }

    /// Removes the entries at and before `anchors` from the logs, once the state file has all of them. The
    /// newest base must have their rows.
    ///
    /// # Errors
    /// `PruneError`.
    pub(super) fn prune(&mut self, anchors: &Frontier) -> Result<Pruning, PruneError> {
        if self.config.root {
            return Err(PruneError::Root);
        }
        // Other entries may count now.
        self.recount();
        self.health.check_writable()?;
        self.check_whole(anchors)?;
        let log = self.logs.reader();
        let is_void = |author: &_, tip| self.membership.is_void(author, tip, log);
        let plan = self.logs.plan_prune(anchors, is_void)??;
        for (author, anchor) in plan.anchors().iter() {
            self.check_applied(&author, anchor)?;
        }
        self.flush_all()?;
        let (pruning, removed) = self.logs.prune(&plan)?;
        for branch in self.logs.reader().all() {
            self.marks.cap(&branch);
        }
        if plan.has_voids()
            && let Err(reason) = self.leave_voids(&plan)
        {
            return Err(self.poison(&reason).into());
        }
        removed?;
        self.forget_beginning();
        Ok(pruning)
    }

    // Sets void branches aside. The state file has their ends, so it is built again. The error, in words:
    // opening the store again ends this, and a branch that is begun before could be taken for one of them.
    fn leave_voids(&mut self, plan: &PrunePlan) -> Result<(), String> {
        let aside = self.logs.set_voids_aside(plan);
        aside.map_err(|error| error.to_string())?;
        self.rebuild();
        self.counted_by = self.membership.standings();
        if let Some(error) = self.health.state_error() {
            return Err(error.to_string());
        }
        // The old state file must not come back.
        let synced = self.config.disk.sync_dir(&self.config.dir);
        synced.map_err(|error| error.to_string())?;
        let forgotten = self.logs.forget_voids(plan);
        forgotten.map_err(|error| error.to_string())
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

    /// Checks that the entry of `author` at `anchor`, and what it leads back to, is in the state.
    ///
    /// # Errors
    /// `NotApplied`, `Log`.
    pub(super) fn check_applied(
        &self,
        author: &Author,
        anchor: FrontierTip,
    ) -> Result<(), PruneError> {
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
