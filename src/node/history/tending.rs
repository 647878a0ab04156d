//! Tending: what is due in the history of all stores, without anybody asking.

use std::{collections::BTreeMap, mem, time::Duration};

use crate::{
    id::StoreId,
    node::{
        Final, HistoryError, HistoryPolicy, HistorySummary, Node, Pruned,
        history::{dormancy::Patience, summary::awaited},
    },
    protocol::{finality::Looks, membership::role::Role},
    store::{ReadError, Store},
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

/// Ends history from look to look, and remembers what the looks before have shown.
#[derive(Debug, Default)]
pub struct Tending {
    patience: Patience,
    looked: BTreeMap<StoreId, Looked>,
    // Time since the last look at members.
    waited: Duration,
}

#[derive(Debug, Default)]
struct Looked {
    looks: Looks,
    // The last error, so that it is logged once.
    error: Option<String>,
}

impl Tending {
    /// Makes final, and removes, what is due in all stores that are shared with the mesh, but for the root
    /// store; marks members as dormant that make no progress, and as active that are back. To be called
    /// every few seconds; `elapsed` is the time since the call before. A store of which the logs have not
    /// changed much is looked at every ten minutes.
    ///
    /// Where several admins run, the best ranked one makes entries final. The others wait for it, and do so
    /// if no act has come for 20 minutes for each admin that ranks better. An error in one store is logged,
    /// and shown by [`Node::outlook`]. Cancel-safe: a dropped call may still do what it has begun.
    pub async fn look(&mut self, node: &Node, elapsed: Duration) {
        let root = node.root().id();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let mut stores = node.shared_stores();
        stores.retain(|store| store.id() != root);
        self.looked
            .retain(|id, _| stores.iter().any(|store| store.id() == *id));
        for store in stores {
            let looked = self.looked.entry(store.id()).or_default();
            if !looked.looks.is_due(elapsed_ms, store.log_bytes()) {
                continue;
            }
            let mut summary = HistorySummary::default();
            let tended = self.tend(node, &store, &mut summary).await;
            let error = match tended {
                Ok(Tended { made, pruned }) => {
                    if let Some(made) = made {
                        let (number, bytes) = (made.number, made.bytes);
                        tracing::info!(store = %store.id(), number, bytes, "entries are final");
                    }
                    if let Some(pruned) = pruned {
                        let act = pruned.act;
                        tracing::info!(store = %store.id(), act, "final entries were removed");
                    }
                    None
                }
                // Usual while members are away, or acts on their way.
                Err(
                    HistoryError::AckMissing(_)
                    | HistoryError::NothingFinal
                    | HistoryError::NotYet(_),
                ) => None,
                Err(error) => Some(error.to_string()),
            };
            summary.measure(&store, &store.finality().last());
            let (members, id) = (node.members(), store.id());
            let acts = members.anchors_acts(&id);
            summary.through_ms = acts
                .map(|placed| placed.act.through_ms())
                .max()
                .unwrap_or(0);
            summary.trouble.clone_from(&error);
            node.note_history(store.id(), summary);
            let looked = self.looked.entry(store.id()).or_default();
            // Not again because of other numbers in it.
            let words = |error: &Option<String>| -> Option<String> {
                let letters = error.as_ref()?.chars();
                Some(letters.filter(|it| !it.is_ascii_digit()).collect())
            };
            let is_new = words(&looked.error) != words(&error);
            if let Some(error) = error.as_ref().filter(|_| is_new) {
                tracing::warn!(store = %store.id(), error, "history cannot be ended");
            }
            looked.looks.looked(&id, store.log_bytes());
            looked.error = error;
        }
        self.waited = self.waited.saturating_add(elapsed);
        if self.waited < WAITED {
            return;
        }
        let waited = mem::take(&mut self.waited);
        if let Err(error) = self.patience.look(node, waited).await {
            tracing::debug!(%error, "members are waited for as before");
        }
    }

    async fn tend(
        &mut self,
        node: &Node,
        store: &Store,
        summary: &mut HistorySummary,
    ) -> Result<Tended, HistoryError> {
        self.patience.forget(&store.id());
        let policy = node.history_policy(&store.id()).await?;
        let facts = node.facts(store, &policy, false).await?;
        self.patience.note(&node.id(), store, &facts);
        let (root, log) = (node.root(), store.clone());
        let looking =
            tokio::task::spawn_blocking(move || facts.grounds().watermark(log.log(), root.log()));
        let watermark = looking.await.map_err(|_panic| HistoryError::Panicked)?;
        summary.awaited = awaited(&watermark.map_err(ReadError::from)?);
        node.tend(store, &policy).await
    }
}

impl Node {
    /// Makes final, and removes, what is due in one store.
    ///
    /// # Errors
    /// Those of [`make_final`](Self::make_final) and [`prune`](Self::prune); what was made final stays so.
    pub async fn tend(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
    ) -> Result<Tended, HistoryError> {
        let (mut tended, mut failed) = (Tended::default(), None);
        if self.members().role(&self.id()) == Some(Role::Admin) {
            tended.made = match self.make_final(store, policy, false).await {
                // Those of earlier acts may go all the same.
                Err(HistoryError::AckMissing(_)) => None,
                Err(error) => {
                    failed = Some(error);
                    None
                }
                Ok(made) => made,
            };
        }
        tended.pruned = match self.prune(store, policy, false).await {
            Err(HistoryError::NothingFinal) => None,
            Err(error) => return Err(failed.unwrap_or(error)),
            Ok(pruned) => pruned,
        };
        match failed {
            Some(error) => Err(error),
            None => Ok(tended),
        }
    }
}

// Members are looked at this often.
const WAITED: Duration = Duration::from_secs(60);
