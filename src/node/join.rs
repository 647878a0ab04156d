//! Joining: another mesh's root store replaces this node's own.

use std::{fs, sync::PoisonError};

use bytes::Bytes;

use crate::{
    id::StoreId,
    node::{
        data_dir::{META, STORES_DIR},
        error::OpenError,
        meta,
        node::{Node, Root, StoreInfo},
    },
    protocol::membership::genesis::Genesis,
    store::{Authority, List, Store},
};

/// Fate of the root store that a node had before it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormerRoot {
    /// It was deleted: it had only the keys that the node wrote about itself.
    Dropped,
    /// It is the root store of that mesh already: the join that made it so was cut, or the data
    /// of a member was given to a new node.
    Same,
    /// It is an ordinary store now.
    Kept {
        /// Name of that store.
        name: String,
    },
}

impl Node {
    /// Makes the store of `genesis` the root store of this node. It is empty until a sync fills it.
    /// All other stores are opened again: from now on the new root store names their writers.
    /// Durable on return.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn adopt_root(&self, genesis: Genesis) -> Result<FormerRoot, OpenError> {
        let Root { store: former, .. } = self.root_and_genesis();
        if genesis.store() == former.id() {
            return Ok(FormerRoot::Same);
        }
        let row = self.former_row(former.id())?;
        let judged = former.frontier();
        let untouched = self.is_untouched(&former).await?;
        let id = genesis.store();
        let authority = Authority::Root {
            creator: genesis.creator,
        };
        let inner = &*self.0;
        // A store of this node may be the root store of that mesh: it was the root store before an
        // earlier join. One log must not have two writers.
        if let Some(open) = self.open_store(&id) {
            open.close().await?;
        }
        let store = inner.open_store(id, authority).await?;
        former.close().await?;
        // An entry that was acknowledged since keeps the store.
        let untouched = untouched && former.frontier() == judged;
        let new = meta::Row {
            id,
            name: "root".to_owned(),
            root: true,
            genesis,
        };
        let name = format!("root-{}", &former.id().to_string()[..8]);
        if untouched {
            inner.meta.change(&[new], Some(&former.id()))?;
        } else {
            let kept = meta::Row {
                name: name.clone(),
                root: false,
                ..row.clone()
            };
            inner.meta.change(&[new, kept], None)?;
        }
        let members = store.members();
        {
            let mut root = inner.root.write().unwrap_or_else(PoisonError::into_inner);
            *root = Root {
                store: store.clone(),
                genesis,
            };
            let mut stores = inner.stores.write().unwrap_or_else(PoisonError::into_inner);
            stores.remove(&former.id());
            let info = StoreInfo {
                id,
                name: "root".to_owned(),
                root: true,
            };
            stores.insert(id, (info, store));
        }
        // From now on the new root store names the writers of the other stores.
        self.reopen_stores(&members).await?;
        if untouched {
            let dir = inner.config.data_dir.join(STORES_DIR);
            let dir = dir.join(former.id().to_string());
            if let Err(error) = fs::remove_dir_all(&dir) {
                tracing::warn!(%error, "the files of the former root store were not removed");
            }
            return Ok(FormerRoot::Dropped);
        }
        let store = inner.open_store(former.id(), Authority::Of(members));
        let store = store.await?;
        let info = StoreInfo {
            id: former.id(),
            name: name.clone(),
            root: false,
        };
        let mut stores = inner.stores.write().unwrap_or_else(PoisonError::into_inner);
        stores.insert(former.id(), (info, store));
        Ok(FormerRoot::Kept { name })
    }

    fn former_row(&self, id: StoreId) -> Result<meta::Row, OpenError> {
        let rows = self.0.meta.stores()?;
        rows.into_iter()
            .find(|row| row.id == id)
            .ok_or_else(|| OpenError::Unusable {
                path: self.0.config.data_dir.join(META),
                what: "it does not name the root store".to_owned(),
            })
    }

    async fn reopen_stores(
        &self,
        members: &tokio::sync::watch::Receiver<
            std::sync::Arc<crate::protocol::membership::Members>,
        >,
    ) -> Result<(), OpenError> {
        let inner = &*self.0;
        for info in self.stores().into_iter().filter(|info| !info.root) {
            if let Some(store) = self.open_store(&info.id) {
                store.close().await?;
            }
            let authority = Authority::Of(members.clone());
            let store = inner.open_store(info.id, authority);
            let store = store.await?;
            let mut stores = inner.stores.write().unwrap_or_else(PoisonError::into_inner);
            stores.insert(info.id, (info, store));
        }
        Ok(())
    }

    // True when `root` never had keys but those that the node wrote about itself.
    async fn is_untouched(&self, root: &Store) -> Result<bool, OpenError> {
        let only_own = self.stores().len() == 1 && root.frontier().authors() == 1;
        let keys = root.list(List {
            prefix: Bytes::new(),
            limit: Some(64),
            keys_only: true,
        });
        let own = [
            format!("/nodes/{}/", self.id()),
            format!("/stores/{}/", root.id()),
        ];
        let about_itself = |key: &[u8]| own.iter().any(|own| key.starts_with(own.as_bytes()));
        // Deleted keys count, too: their history would be lost.
        let live = keys.await?;
        let ever = root.status().await.keys;
        Ok(only_own
            && u64::try_from(live.len()).unwrap_or(u64::MAX) == ever
            && live.iter().all(|item| about_itself(&item.key)))
    }
}
