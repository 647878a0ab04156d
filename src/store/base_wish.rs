//! The wish for the base of a peer though no entries are lacking: the user has chosen the state of the peer.

use std::sync::{Arc, PoisonError};

use crate::{
    id::Author,
    log::InstallCause,
    protocol::{
        finality::{CollectionsHash, is_borne},
        sync::BaseWish,
    },
    store::{Shared, Store},
};

/// The choice of a member whose state this store takes at the next sync with it. It ends when this is
/// dropped.
#[derive(Debug)]
pub struct StateChoice(Arc<Shared>, Author);

impl Store {
    /// Takes the state of `node` in place of that here, at the next sync with it: its base, whatever admins
    /// say of it, and the entries after it. Where more entries of another author were removed here than at
    /// `node`, the rest of that author's log is given up here too, and comes again from peers that have it.
    /// If that author is this node, the base is refused. One choice at a time; the newest one holds.
    #[must_use]
    pub fn choose_state_of(&self, node: Author) -> StateChoice {
        *self.shared.lock_chosen() = Some(node);
        StateChoice(Arc::clone(&self.shared), node)
    }

    /// Returns when the base of `node` is to be asked for in a sync with it.
    pub fn base_wish(&self, node: &Author) -> BaseWish {
        match self.install_cause(node) {
            InstallCause::Lacking => BaseWish::IfLacking,
            InstallCause::Chosen => BaseWish::Only,
        }
    }

    /// Returns why a base of `node` would be installed.
    pub(super) fn install_cause(&self, node: &Author) -> InstallCause {
        match *self.shared.lock_chosen() == Some(*node) {
            true => InstallCause::Chosen,
            false => InstallCause::Lacking,
        }
    }

    /// Returns whether acts that count bear a base with the effect of `collected`. Long work with many acts.
    pub(super) fn bears(&self, collected: CollectionsHash) -> bool {
        let members = Arc::clone(&self.shared.members.borrow());
        let acts = members.anchors_acts(&self.shared.id).map(Arc::as_ref);
        is_borne(&[collected].into(), acts)
    }
}

impl Shared {
    fn lock_chosen(&self) -> std::sync::MutexGuard<'_, Option<Author>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StateChoice {
    fn drop(&mut self) {
        let mut chosen = self.0.lock_chosen();
        // Another one may be chosen since.
        if *chosen == Some(self.1) {
            *chosen = None;
        }
    }
}
