//! The stores of a node: finding one by name, making one, and opening one that another node made.
//!
//! Which of the listed stores are opened is decided by `protocol::shared_stores`.

use std::{fs, sync::PoisonError};

use crate::{
    id::StoreId,
    node::{
        data_dir::STORES_DIR,
        error::StoreError,
        identity,
        introduction::listing,
        meta,
        node::{Node, StoreInfo},
        store_name::check_name,
        unopened::Unopened,
    },
    protocol::membership::genesis::Genesis,
    store::{Authority, Store},
};

impl Node {
    /// Returns a store by its name here or its UUID. An empty name is the root store.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn store(&self, name: &str) -> Result<Store, StoreError> {
        if name.is_empty() {
            return Ok(self.root());
        }
        let id = name.parse::<StoreId>().ok();
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let found = stores
            .values()
            .find(|(info, _)| Some(info.id) == id || info.name == name);
        found
            .map(|(_, store)| store.clone())
            .ok_or_else(|| StoreError::Unknown {
                name: name.chars().take(80).collect(),
                known: stores
                    .values()
                    .map(|(info, _)| info.name.clone())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Returns all stores, the root store first, then by name.
    pub fn stores(&self) -> Vec<StoreInfo> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let mut infos: Vec<_> = stores.values().map(|(info, _)| info.clone()).collect();
        infos.sort_by(|a, b| b.root.cmp(&a.root).then_with(|| a.name.cmp(&b.name)));
        infos
    }

    /// Makes a store. On return it is durable and listed in the root store. If it cannot be listed,
    /// it is removed again.
    ///
    /// # Errors
    /// `NameInvalid`, `NameTaken`, `Open`, `Write`.
    pub async fn create_store(&self, name: &str) -> Result<StoreInfo, StoreError> {
        check_name(name)?;
        let genesis = Genesis {
            creator: self.id(),
            nonce: identity::random()?,
        };
        let info = {
            let _one_at_a_time = self.0.opening.lock().await;
            self.check_free(name)?;
            self.add_store(name, genesis).await?
        };
        let listed = self.root().write_own(listing(name, &genesis)).await;
        if let Err(error) = listed {
            self.drop_store(&info.id).await?;
            return Err(error.into());
        }
        Ok(info)
    }

    // Removes a store that nobody knows of yet, with its files.
    async fn drop_store(&self, id: &StoreId) -> Result<(), StoreError> {
        let removed = {
            let mut stores = self
                .0
                .stores
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            stores.remove(id)
        };
        self.0.meta.change(&[], Some(id))?;
        let Some((_info, store)) = removed else {
            return Ok(());
        };
        let closed = store.close().await;
        let dir = self.0.config.data_dir.join(STORES_DIR).join(id.to_string());
        let deleted = fs::remove_dir_all(dir).map_err(|error| error.to_string());
        if let Err(error) = closed.map_err(|error| error.to_string()).and(deleted) {
            tracing::warn!(%error, "the files of a store that could not be listed were not removed");
        }
        Ok(())
    }

    /// Opens a store that another node made and listed in the root store. If its name is taken or
    /// not allowed here, it is called `store-` and the first eight digits of its id, or more of them
    /// if that name is taken, too. Returns the store as it is if it is open already.
    ///
    /// # Errors
    /// `Open`.
    pub async fn open_shared(&self, name: &str, genesis: Genesis) -> Result<StoreInfo, StoreError> {
        let id = genesis.store();
        let _one_at_a_time = self.0.opening.lock().await;
        if let Some(open) = self.stores().into_iter().find(|store| store.id == id) {
            return Ok(open);
        }
        let free = |name: &str| check_name(name).and_then(|()| self.check_free(name));
        if free(name).is_ok() {
            return self.add_store(name, genesis).await;
        }
        let digits = id.to_string();
        let names = (8..=digits.len()).map(|length| format!("store-{}", &digits[..length]));
        let name = names.into_iter().find(|name| free(name).is_ok());
        // The whole id is in the last one. If that is taken, the error says so.
        let name = name.unwrap_or_else(|| format!("store-{digits}"));
        self.add_store(&name, genesis).await
    }

    /// Returns how many listed stores are not open here, as of the last look at the list.
    pub fn unopened(&self) -> Unopened {
        let unopened = self.0.unopened.lock();
        unopened.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how many listed stores are not open here.
    #[cfg(feature = "net")]
    pub(crate) fn set_unopened(&self, unopened: Unopened) {
        let noted = self.0.unopened.lock();
        *noted.unwrap_or_else(PoisonError::into_inner) = unopened;
    }

    async fn add_store(&self, name: &str, genesis: Genesis) -> Result<StoreInfo, StoreError> {
        let id = genesis.store();
        let authority = Authority::Of(self.root().members());
        let store = self.0.open_store(id, authority).await?;
        let info = StoreInfo {
            id,
            name: name.to_owned(),
            root: false,
        };
        let mut stores = self
            .0
            .stores
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((taken, _)) = stores.values().find(|(taken, _)| taken.name == name) {
            return Err(StoreError::NameTaken {
                name: name.to_owned(),
                id: taken.id,
            });
        }
        self.0.meta.add(&meta::Row {
            id,
            name: name.to_owned(),
            root: false,
            genesis,
        })?;
        stores.insert(id, (info.clone(), store));
        Ok(info)
    }

    /// Returns all stores, open, the root store first.
    pub fn open_stores(&self) -> Vec<Store> {
        let infos = self.stores();
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let open = infos.iter().filter_map(|info| stores.get(&info.id));
        open.map(|(_, store)| store.clone()).collect()
    }

    /// Returns the store with `id`. `None` if it is not open here.
    pub fn open_store(&self, id: &StoreId) -> Option<Store> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.get(id).map(|(_, store)| store.clone())
    }

    fn check_free(&self, name: &str) -> Result<(), StoreError> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        match stores.values().find(|(taken, _)| taken.name == name) {
            Some((taken, _)) => Err(StoreError::NameTaken {
                name: name.to_owned(),
                id: taken.id,
            }),
            None => Ok(()),
        }
    }
}
