//! Wishes for the base of a peer, though no entries are lacking: the user has chosen the state of the peer, or
//! no act that counts bears the base here.

use std::sync::{Arc, PoisonError};

use crate::{
    id::Author,
    log::InstallCause,
    protocol::sync::BaseWish,
    store::{Shared, Store},
};

/// The choice of a member whose state this store takes at the next sync with it. It ends when this is
/// dropped.
#[derive(Debug)]
pub struct StateChoice(Arc<Shared>);

impl Store {
    /// Takes the state of `node` in place of that here, at the next sync with it: its base, whatever admins
    /// say of it, and the entries after it. Where more entries of another author were removed here than at
    /// `node`, the rest of that author's log is given up here too, and comes again from peers that have it.
    /// If that author is this node, the base is refused. One choice at a time; the newest one holds.
    #[must_use]
    pub fn choose_state_of(&self, node: Author) -> StateChoice {
        *self.shared.lock_chosen() = Some(node);
        StateChoice(Arc::clone(&self.shared))
    }

    /// Returns when the base of `node` is to be asked for in a sync with it.
    pub fn base_wish(&self, node: &Author) -> BaseWish {
        match self.install_cause(node) {
            InstallCause::Lacking => BaseWish::IfLacking,
            InstallCause::Unborne => BaseWish::Rather,
            InstallCause::Chosen => BaseWish::Only,
        }
    }

    /// Returns why a base of `node` would be installed.
    pub(super) fn install_cause(&self, node: &Author) -> InstallCause {
        if *self.shared.lock_chosen() == Some(*node) {
            return InstallCause::Chosen;
        }
        if self.shared.root || self.shared.anyone || self.shared.log.begins().is_empty() {
            return InstallCause::Lacking;
        }
        let members = Arc::clone(&self.shared.members.borrow());
        let mut borne = self
            .shared
            .borne
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match borne.look(members, &self.shared.id, self.collected()) {
            true => InstallCause::Lacking,
            false => InstallCause::Unborne,
        }
    }
}

impl Shared {
    fn lock_chosen(&self) -> std::sync::MutexGuard<'_, Option<Author>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StateChoice {
    fn drop(&mut self) {
        *self.0.lock_chosen() = None;
    }
}
