//! Installing a base of a peer, in place of entries that this node does not have and can never get.
//!
//! ```text
//! rows of the new beginnings durable -> manifest renamed -> rows in place -> files of entries removed
//!                                       commit point        -> state built from the base and the tail
//! ```
//! Before the commit point nothing has changed. After it, opening the store does the steps that are left
//! ([`finish`]). The order of a pruning does not do here: the logs must not be written between the two
//! renames, because entries that come before the anchors would be appended where the ones after them go.

use std::sync::Arc;

use crate::{
    bus::StateReset,
    id::Author,
    log::{Begins, CannotInstall, InstallCause, InstallPlan, LogError, Logs},
    protocol::anchor::Anchor,
    state::{Base, State, StateError},
    store::{
        OpenError, StoreConfig, WriteError,
        shared::base_dir,
        writer::{health::Health, writer::Writer},
    },
};

/// Why the base of a peer was not installed. Nothing has changed, unless the store is poisoned: then opening
/// it again ends the installation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The root store has all its entries everywhere.
    #[error("the root store takes no base: its log has all entries")]
    Root,
    /// The end of this node's own log is gone, and it may have had entries that the base does not have.
    #[error("the end of this node's own log is gone: `lattice repair` first")]
    OwnLogCut,
    /// The logs here do not go on from it.
    #[error(transparent)]
    Cannot(#[from] CannotInstall),
    /// The store takes no writes now.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The new beginnings of the logs could not be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The base could not be put in place, or the state not built from it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// The terms of an installation.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct InstallTerms {
    /// This node, unless it is known to have written nothing that no peer has.
    pub(in crate::store) keeps: Option<Author>,
    /// Why the base is installed.
    pub(in crate::store) cause: InstallCause,
}

impl Writer {
    /// Checks that a base with these anchors could be installed now.
    ///
    /// # Errors
    /// `InstallError`.
    pub(super) fn check_install(
        &mut self,
        anchors: &[(Author, Anchor)],
        terms: InstallTerms,
    ) -> Result<(), InstallError> {
        self.plan(anchors, terms, true).map(drop)
    }

    /// Installs `base`, and builds the state from it and the entries after its anchors. Watches get a gap
    /// and the state.
    ///
    /// # Errors
    /// `InstallError`.
    pub(super) fn install(&mut self, base: Base, terms: InstallTerms) -> Result<(), InstallError> {
        // Other entries may count now.
        self.recount();
        let hash = base.manifest().hash();
        let plan = self.plan(&base.manifest().anchors, terms, false)?;
        if let Err(error) = self.logs.prepare_install(&plan, &hash) {
            // If it stays, the next opening removes it: the base is not in place.
            drop(self.logs.forget_install(&hash));
            return Err(error.into());
        }
        let has_voids = plan.has_voids();
        self.commit_base(base, &hash)?;
        match self.logs.install(plan, &hash) {
            Ok((pruning, removed)) => {
                tracing::info!(store = %self.config.id, ?pruning, "a base of a peer is installed");
                if let Err(error) = removed {
                    tracing::warn!(%error, "files of a log are removed at the next opening");
                }
            }
            Err(error) => return Err(self.poison(&error.to_string()).into()),
        }
        for branch in self.logs.reader().all() {
            self.marks.cap(&branch);
        }
        let log = self.logs.reader().clone();
        self.mending.forget_before(|author| log.begin(author));
        let reason = match terms.cause {
            InstallCause::Lacking => {
                "older entries were removed at all members: the state is that of a base"
            }
            InstallCause::Chosen => {
                "the state of another member was chosen in place of that of this node"
            }
        };
        self.gap = Some(reason.into());
        self.rebuild();
        self.counted_by = self.membership.standings();
        if let Some(error) = self.health.state_error().cloned() {
            // A branch that is begun now could be taken for one that was set aside.
            if has_voids {
                return Err(self.poison(&error.to_string()).into());
            }
            return Err(error.into());
        }
        if let Err(reason) = self.forget_install_of(&hash) {
            return Err(self.poison(&reason).into());
        }
        Ok(())
    }

    // The old state file must not come back. The error, in words: opening the store again ends this.
    fn forget_install_of(&self, base: &[u8; 32]) -> Result<(), String> {
        let synced = self.config.disk.sync_dir(&self.config.dir);
        synced.map_err(|error| error.to_string())?;
        let forgotten = self.logs.forget_install_of(base);
        forgotten.map_err(|error| error.to_string())
    }

    /// Publishes the gap of an installation, once the state is that of the base.
    pub(super) fn publish_gap(&mut self) {
        if let Some(reason) = self.gap.take() {
            let reset = StateReset::Lost(reason);
            self.bus.publish_reset(&reset, self.published());
        }
    }

    fn plan(
        &mut self,
        anchors: &[(Author, Anchor)],
        terms: InstallTerms,
        is_trial: bool,
    ) -> Result<InstallPlan, InstallError> {
        if self.config.root {
            return Err(InstallError::Root);
        }
        self.health.check_writable()?;
        if !self.cuts.is_empty() {
            return Err(InstallError::OwnLogCut);
        }
        let arrived_ms = self.clock.now_ms().max(self.arrived_ms);
        let InstallTerms { keeps, cause } = terms;
        let planned = self
            .logs
            .plan_install(anchors, keeps, arrived_ms, cause, is_trial)?;
        if !is_trial {
            self.arrived_ms = arrived_ms;
        }
        Ok(planned?)
    }

    // Makes `base` the newest one. If it is not, what was prepared is taken back.
    fn commit_base(&mut self, base: Base, hash: &[u8; 32]) -> Result<(), InstallError> {
        let (disk, dir) = (Arc::clone(&self.config.disk), base_dir(&self.config.dir));
        let number = base.manifest().number;
        // Logs begin with the entries after it, so no older one is needed.
        let error = match base.commit(disk.as_ref(), &dir, None) {
            Ok(bases) => {
                self.base.show(bases);
                return Ok(());
            }
            Err(error) => error,
        };
        let is_there = Base::is_there(disk.as_ref(), &dir, number);
        if matches!(is_there, Ok(false)) && self.logs.forget_install(hash).is_ok() {
            return Err(error.into());
        }
        Err(self.poison(&error.to_string()).into())
    }

    /// The files are not in the order that the next opening makes: nothing is written before that.
    pub(super) fn poison(&mut self, reason: &str) -> WriteError {
        tracing::error!(store = %self.config.id, reason, "entries were not removed to the end");
        let reason = reason.to_owned();
        drop(self.health.set(Health::Poisoned {
            reason: reason.clone(),
        }));
        WriteError::Poisoned { reason }
    }
}

/// Ends an installation or a pruning that was interrupted behind its commit point, and forgets one that was
/// before it. Called before logs and state are opened.
///
/// # Errors
/// The file system refuses.
pub(super) fn finish(config: &StoreConfig, newest: Option<&Base>) -> Result<(), OpenError> {
    let (disk, dir) = (config.disk.as_ref(), config.dir.join("logs"));
    let state = config.dir.join("state.db");
    let discard = || -> Result<(), OpenError> {
        State::discard(disk, &state)?;
        // It must not come back.
        disk.sync_dir(&config.dir).map_err(StateError::from)?;
        Ok(())
    };
    Logs::finish_prune(disk, &dir, discard)?;
    let hash = newest.map(|base| base.manifest().hash());
    if Begins::adopt(disk, &dir, hash.as_ref(), discard)? {
        tracing::warn!(store = %config.id, "the installation of a base went on");
    }
    Ok(())
}
