//! Roots of the state, by which nodes compare what they have, and proofs of keys.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    protocol::{
        entry::check_key,
        frontier::Frontier,
        merkle::{RowProof, TreeRoot},
    },
    state::View,
    store::{ReadError, Store},
};

/// The state after a set of entries, in one hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRoot {
    /// Root over the rows of all keys, or of those with a prefix. A key with a tombstone has a row.
    pub root: TreeRoot,
    /// The entries that make the state, together with the members that count.
    pub frontier: Arc<Frontier>,
}

/// A proof that a key has a row in a state, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKey {
    /// The state, with the root over the rows of all keys.
    pub state: StateRoot,
    /// The row of the key, as `heads_row` decodes it; `None` if it was never written.
    pub row: Option<Bytes>,
    /// The proof, for [`verify`](crate::protocol::merkle::verify).
    pub proof: RowProof,
}

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
        self.look(move |view| {
            let root = view.with_tree(|tree| {
                if prefix.is_empty() {
                    Ok(tree.root())
                } else {
                    tree.prefix_root(&prefix)
                }
            })?;
            state_root(view, root)
        })
        .await
    }

    /// Returns the row of `key` with a proof of it, or a proof that it has none.
    ///
    /// # Errors
    /// `ReadError`, as for `root`.
    pub async fn prove(&self, key: &[u8]) -> Result<ProvenKey, ReadError> {
        check_key(key).map_err(ReadError::Key)?;
        let key = Bytes::copy_from_slice(key);
        self.look(move |view| {
            let (root, row, proof) = view.prove(&key)?;
            Ok(ProvenKey {
                state: state_root(view, root)?,
                row: row.map(Bytes::from),
                proof,
            })
        })
        .await
    }

    // Calls `work` with the newest view, on a thread that may wait. If the state is damaged,
    // rebuilds it once and calls `work` again.
    async fn look<T: Send + 'static>(
        &self,
        work: impl Fn(&View) -> Result<T, ReadError> + Send + Sync + 'static,
    ) -> Result<T, ReadError> {
        let work = Arc::new(work);
        let mut is_rebuilt = false;
        loop {
            let turn = Arc::clone(&self.shared.tree_turn).lock_owned().await;
            let view = self.shared.state.view();
            let version = view.version;
            let looking = Arc::clone(&work);
            // The thread keeps the turn even if the caller goes away.
            let looking = tokio::task::spawn_blocking(move || {
                let looked = looking(&view);
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

fn state_root(view: &View, root: TreeRoot) -> Result<StateRoot, ReadError> {
    if view.lacks {
        return Err(ReadError::Damaged {
            what: "the state lacks entries that could not be read, so it has no root; \
                   `lattice verify` lists them, and a sync with a peer that has them brings them back"
                .to_owned(),
        });
    }
    Ok(StateRoot {
        root,
        frontier: Arc::clone(&view.frontier),
    })
}
