//! Roots of the state, by which nodes compare what they have.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    protocol::{
        membership::{ActsHash, Members},
        merkle::TreeRoot,
    },
    state::View,
    store::{ReadError, StateRoot, Store, state_root::SettledRoot},
};

impl Store {
    /// Returns the root of the keys that begin with `prefix`; of all keys for an empty one. Equal
    /// on two nodes exactly when these keys have the same heads on both.
    ///
    /// Reads the rows that have changed since the last root, and all rows for the first one after a
    /// start. Roots and proofs of a store are computed one after the other.
    ///
    /// # Errors
    /// `ReadError`; `Damaged` while the state lacks entries that could not be read.
    pub async fn root(&self, prefix: &[u8]) -> Result<StateRoot, ReadError> {
        let prefix = Bytes::copy_from_slice(prefix);
        self.look(move |view, members| {
            let root = view.with_tree(|tree| {
                if prefix.is_empty() {
                    Ok(tree.root())
                } else {
                    tree.prefix_root(&prefix)
                }
            })?;
            state_root(view, members, root)
        })
        .await
    }

    /// Returns whether the state has no heads any more that acts take. Soon after such an act it has.
    pub fn is_swept(&self) -> bool {
        self.shared.state.view().is_swept
    }

    /// Waits until it has none, at most this long.
    pub(crate) async fn until_swept(&self, at_most: Duration) {
        let swept = async {
            while !self.is_swept() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // The caller goes on in any case.
        drop(tokio::time::timeout(at_most, swept).await);
    }

    /// Computes the root of all keys for other nodes, and keeps it for `settled_root`. Returns `None`
    /// if acts take heads that are still there, or if the state was built again meanwhile: the root may be that of a state which the writer was
    /// about to correct, for example because other members count.
    ///
    /// # Errors
    /// `ReadError`, as for `root`.
    pub async fn settle_root(&self) -> Result<Option<StateRoot>, ReadError> {
        let settled = self.look(|view, members| {
            if !view.is_swept {
                return Ok(None);
            }
            let root = state_root(view, members, view.root()?)?;
            let (mark, members) = (view.mark(), Arc::clone(members));
            Ok(Some(SettledRoot {
                root,
                mark,
                members,
            }))
        });
        let Some(settled) = settled.await? else {
            return Ok(None);
        };
        // The writer corrects a state in the turn in which it shows it. So it is done when it answers.
        self.missing().await.map_err(|_stopped| ReadError::Closed)?;
        let view = self.shared.state.view();
        if !view.is_in_file_of(&settled.mark) || !view.has_collections_of(&settled.mark) {
            return Ok(None);
        }
        let root = settled.root.clone();
        let kept = self.shared.settled.lock();
        *kept.unwrap_or_else(PoisonError::into_inner) = Some(settled);
        Ok(Some(root))
    }

    /// Returns the root that `settle_root` has computed last, if it is that of the state which reads
    /// see now.
    pub fn settled_root(&self) -> Option<StateRoot> {
        let settled = self.shared.settled.lock();
        let settled = settled.unwrap_or_else(PoisonError::into_inner).clone()?;
        let has_members = Arc::ptr_eq(&settled.members, &self.shared.members.borrow());
        let view = self.shared.state.view();
        let is_current = has_members && view.has_mark(&settled.mark);
        is_current.then_some(settled.root)
    }

    /// Returns a number that rises each time the state may have changed.
    pub fn state_version(&self) -> u64 {
        self.shared.state.view().version
    }

    /// Calls `work` with the newest view and the members, on a thread that may wait, once no other root
    /// or proof of the store is computed. If the state is damaged, rebuilds it once and calls `work`
    /// again.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl Fn(&View, &Arc<Members>) -> Result<T, ReadError> + Send + Sync + 'static,
    ) -> Result<T, ReadError> {
        let work = Arc::new(work);
        let mut is_rebuilt = false;
        loop {
            let turn = Arc::clone(&self.shared.tree_turn).lock_owned().await;
            let members = Arc::clone(&self.shared.members.borrow());
            let view = self.shared.state.view();
            let version = view.version;
            let looking = Arc::clone(&work);
            // The thread keeps the turn even if the caller goes away.
            let looking = tokio::task::spawn_blocking(move || {
                let looked = looking(&view, &members);
                drop(turn);
                looked
            });
            match looking.await.map_err(|_panic| ReadError::Closed)? {
                Err(ReadError::State { .. }) if !is_rebuilt => self.rebuild(version).await?,
                done => return done,
            }
            is_rebuilt = true;
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Returns `root`, which is that of `view`, with the entries and the acts that make the state.
///
/// # Errors
/// `Damaged`: the view lacks entries.
pub(super) fn state_root(
    view: &View,
    members: &Members,
    root: TreeRoot,
) -> Result<StateRoot, ReadError> {
    if view.lacks {
        return Err(ReadError::Damaged {
            what: "the state lacks entries that could not be read, so it has no root; \
                   `lattice verify` lists them, and a sync with a peer that has them brings them back"
                .to_owned(),
        });
    }
    // The state of a root store depends on the acts that count in it, as the view has them.
    let acts = match &view.counting {
        Some(counting) => ActsHash::of(&counting.acts, &counting.authorized),
        None => ActsHash::of(members.counting(), members.authorized()),
    };
    Ok(StateRoot {
        root,
        frontier: Arc::clone(&view.frontier),
        acts,
    })
}
