//! Tending: what is due in the history of all stores, without anybody asking.

use crate::{
    node::{Final, HistoryError, HistoryPolicy, Node, Pruned},
    protocol::membership::role::Role,
    store::Store,
};

/// Work that was due in the history of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tended {
    /// Entries that this node made final. `None`: there were too few for an act, or the node is not an
    /// admin.
    pub made: Option<Final>,
    /// Final entries that were removed from the logs here; `None` when the policy keeps them.
    pub pruned: Option<Pruned>,
}

impl Node {
    /// Makes final, and removes, what is due in all stores that are shared with the mesh, but for the root
    /// store. To be called again and again; a call that finds nothing due reads a few frames of each log.
    /// An error in one store is logged, and shown by [`outlook`](Self::outlook).
    ///
    /// Where several admins run, the best ranked one makes entries final. The others wait for it, and do so
    /// if no act has come for 20 minutes for each admin that ranks better.
    pub async fn tend_history(&self, policy: &HistoryPolicy) {
        let root = self.root().id();
        for store in self.shared_stores() {
            if store.id() == root {
                continue;
            }
            match self.tend(&store, policy).await {
                Ok(Tended { made, pruned }) => {
                    if let Some(made) = made {
                        let (number, bytes) = (made.number, made.bytes);
                        tracing::info!(store = %store.id(), number, bytes, "entries are final");
                    }
                    if let Some(pruned) = pruned {
                        let act = pruned.act;
                        tracing::info!(store = %store.id(), act, "final entries were removed");
                    }
                }
                // Usual while members are away, or acts on their way.
                Err(
                    error @ (HistoryError::AckMissing(_)
                    | HistoryError::NothingFinal
                    | HistoryError::NotYet(_)),
                ) => {
                    tracing::debug!(store = %store.id(), %error, "history does not end yet");
                }
                Err(error) => {
                    tracing::warn!(store = %store.id(), %error, "history cannot be ended");
                }
            }
        }
    }

    /// Makes final, and removes, what is due in one store.
    ///
    /// # Errors
    /// Those of [`make_final`](Self::make_final) and [`prune`](Self::prune); what was made final stays so.
    pub async fn tend(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
    ) -> Result<Tended, HistoryError> {
        let mut tended = Tended::default();
        if self.members().role(&self.id()) == Some(Role::Admin) {
            tended.made = match self.make_final(store, policy, false).await {
                // Those of earlier acts may go all the same.
                Err(HistoryError::AckMissing(_)) => None,
                made => made?,
            };
        }
        tended.pruned = match self.prune(store, policy, false).await {
            Err(HistoryError::NothingFinal) => None,
            pruned => pruned?,
        };
        Ok(tended)
    }
}
