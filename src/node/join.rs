//! Joining: another mesh's root store and data store replace this node's own.

use std::{collections::BTreeMap, fs, sync::PoisonError};

use bytes::Bytes;

use crate::{
    id::StoreId,
    node::{
        error::OpenError,
        meta,
        node::{Node, Root, StoreInfo},
        private,
        store_name::{DATA, former_name},
    },
    protocol::membership::genesis::Genesis,
    store::{Authority, List, Store, WriteError},
};

/// Fate of the data of a node that joins: the stores that belonged to its former mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnData {
    /// They stay on this node, and no other node gets them.
    #[default]
    Private,
    /// They become stores of the mesh: all members get them.
    Shared,
    /// They are deleted.
    Discarded,
}

/// Fate of the root store and the data store that a node had before it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormerRoot {
    /// Both were deleted: they had only the keys that the node wrote about itself.
    Dropped,
    /// It is the root store of that mesh already: the join that made it so was cut, or the data
    /// of a member was given to a new node.
    Same,
    /// The former data store is an ordinary store now; the former root store if that had no entries.
    Kept {
        /// Name of that store.
        name: String,
        /// Name of the former root store if it is kept, too.
        root: Option<String>,
        /// True if no other node gets them.
        private: bool,
    },
    /// It was deleted with all that it had, as the caller wished.
    Discarded {
        /// Number of stores that were deleted.
        stores: usize,
    },
}

impl Node {
    /// Makes the store of `genesis` the root store of this node, and the data store that belongs to it
    /// the data store. Both are empty until a sync fills them. All other stores are opened again. `data`
    /// is the fate of the former root store, its data store and the stores that it listed. A root store
    /// that is untouched and lists no store is deleted in any case, and so is a data store without
    /// entries. Durable on return.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn adopt_root(
        &self,
        genesis: Genesis,
        data: OwnData,
    ) -> Result<FormerRoot, OpenError> {
        let Root {
            store: former,
            data: former_data,
            ..
        } = self.root_and_genesis();
        if genesis.store() == former.id() {
            return Ok(FormerRoot::Same);
        }
        let _one_at_a_time = self.0.opening.lock().await;
        self.keep_name().await?;
        let judged = former.frontier();
        let untouched = self.is_untouched(&former).await?;
        let inner = &*self.0;
        let disk = inner.config.disk.as_ref();
        let rows = inner.meta.stores()?;
        // A store of this node may be the root store of that mesh: it was the root store before an
        // earlier join. One log must not have two writers.
        if let Some(open) = self.open_store(&genesis.store()) {
            open.close().await?;
        }
        let authority = Authority::Root {
            creator: genesis.creator,
        };
        let store = inner
            .opener()
            .open_shared(genesis.store(), authority)
            .await?;
        former.close().await?;
        former_data.close().await?;
        // An entry that was acknowledged since keeps the store.
        let root_goes = untouched && former.frontier() == judged;
        let data_goes = former_data.frontier().authors() == 0;
        let shared = self.shared_stores();
        // A store of this node may be a store of that mesh: see above.
        let new_ids = [genesis.store(), genesis.data().store()];
        let mine = shared.iter().map(Store::id);
        let mine: Vec<StoreId> = mine.filter(|id| !new_ids.contains(id)).collect();
        let deleted = match data {
            OwnData::Discarded => mine.clone(),
            OwnData::Private | OwnData::Shared => {
                let untouched = [(root_goes, &former), (data_goes, &former_data)];
                let untouched = untouched.into_iter().filter(|(goes, _store)| *goes);
                untouched.map(|(_goes, store)| store.id()).collect()
            }
        };
        if data == OwnData::Private {
            // Nothing changes by the marks while the store that they name is the root store.
            for id in mine.iter().filter(|id| !deleted.contains(id)) {
                private::mark(disk, &inner.opener().dir(id), &former.id())?;
            }
        }
        let is_free = |name: &str| rows.iter().all(|row| row.name != name);
        let name = former_name("root", &former.id(), is_free);
        let data_name = former_name(DATA, &former_data.id(), is_free);
        let new = meta::Row {
            id: genesis.store(),
            name: "root".to_owned(),
            root: true,
            genesis,
        };
        let mut kept = vec![meta::Row::of_data(&genesis)];
        for mut row in rows {
            if deleted.contains(&row.id) || row.id == new.id || row.id == kept[0].id {
                continue;
            }
            if row.root {
                row.name.clone_from(&name);
                row.root = false;
            } else if row.id == former_data.id() {
                row.name.clone_from(&data_name);
            }
            kept.push(row);
        }
        let written: Vec<_> = kept.iter().chain([&new]).cloned().collect();
        inner.meta.change(&written, &deleted)?;
        for row in &kept {
            let dir = inner.opener().dir(&row.id);
            if private::root_of(disk, &dir, &row.id)? == Some(genesis.store()) {
                private::unmark(disk, &dir)?;
            }
        }
        private::unmark(disk, &inner.opener().dir(&genesis.store()))?;
        self.open_again(store, genesis, kept).await?;
        for id in &deleted {
            self.delete_files(id);
        }
        Ok(match (data_goes, root_goes) {
            (true, true) => FormerRoot::Dropped,
            _some if data == OwnData::Discarded => FormerRoot::Discarded {
                stores: deleted.len(),
            },
            (false, root_goes) => FormerRoot::Kept {
                name: data_name,
                root: (!root_goes).then_some(name),
                private: data == OwnData::Private,
            },
            (true, false) => FormerRoot::Kept {
                name,
                root: None,
                private: data == OwnData::Private,
            },
        })
    }

    // Keeps the name that this node has in its root store: it introduces itself by it to the next.
    async fn keep_name(&self) -> Result<(), OpenError> {
        let known = self.info(&self.id()).await?;
        let mut name = self.0.name.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_none() {
            *name = known.map(|known| known.name);
        }
        Ok(())
    }

    // Opens the stores of `rows` again, under the root store `store`. From now on it names the
    // writers of those that are not private.
    async fn open_again(
        &self,
        store: Store,
        genesis: Genesis,
        rows: Vec<meta::Row>,
    ) -> Result<(), OpenError> {
        let inner = &*self.0;
        for open in self.open_stores() {
            match open.close().await {
                // The former root store and its data store, and the new root store if it was here.
                Ok(()) | Err(WriteError::Closed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let info = StoreInfo {
            id: store.id(),
            name: "root".to_owned(),
            root: true,
            data: false,
            private: false,
        };
        let mut stores = BTreeMap::from([(store.id(), (info, store.clone()))]);
        let opened = inner.opener().open_others(rows, &store, &mut stores).await;
        // Without its data store the node stays closed.
        if let Some(new) = Root::of(store, genesis, &stores) {
            let mut root = inner.root.write().unwrap_or_else(PoisonError::into_inner);
            *root = new;
            let mut all = inner.stores.write().unwrap_or_else(PoisonError::into_inner);
            *all = stores;
        }
        opened
    }

    // Deletes the files of a store that has no row any more.
    pub(super) fn delete_files(&self, id: &StoreId) {
        if let Err(error) = fs::remove_dir_all(self.0.opener().dir(id)) {
            tracing::warn!(store = %id, %error, "the files of a deleted store were not removed");
        }
    }

    // True when `root` never had keys but those that the node wrote about itself, and lists no store.
    async fn is_untouched(&self, root: &Store) -> Result<bool, OpenError> {
        let others = self.stores().into_iter();
        let mut others = others.filter(|info| !info.root && !info.data && !info.private);
        let only_own = others.next().is_none() && root.frontier().authors() == 1;
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
