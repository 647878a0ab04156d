//! The stores of a node: finding one by name, making one, and opening one that another node made.
//!
//! Which of the listed stores are opened is decided by `protocol::shared_stores`.

use std::{collections::BTreeMap, sync::PoisonError};

use crate::{
    id::StoreId,
    node::{
        error::StoreError,
        identity,
        introduction::{delisting, listing, name_key},
        meta,
        node::{Node, StoreInfo},
        private,
        store_name::check_name,
        unopened::Unopened,
    },
    protocol::membership::{genesis::Genesis, reserved::is_reserved, role::Role},
    store::{Authority, Store},
};

impl Node {
    /// Returns the store `name`, as [`store`](Self::store) does, for something about the keys or
    /// prefixes `keys`. If the name is empty and all of them are reserved, it is the root store.
    ///
    /// # Errors
    /// `Unknown`; `TwoStores`: the name is empty and only some are reserved.
    pub fn store_of_keys(
        &self,
        name: &str,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Store, StoreError> {
        if !name.is_empty() {
            return self.store(name);
        }
        let (mut in_root, mut in_data) = (false, false);
        for key in keys {
            match is_reserved(key.as_ref()) {
                true => in_root = true,
                false => in_data = true,
            }
        }
        match (in_root, in_data) {
            (true, true) => Err(StoreError::TwoStores),
            (true, false) => Ok(self.root()),
            (false, _) => Ok(self.data()),
        }
    }

    /// Returns a store by its name here or its UUID. An empty name is the data store.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn store(&self, name: &str) -> Result<Store, StoreError> {
        if name.is_empty() {
            return Ok(self.data());
        }
        let id = name.parse::<StoreId>().ok();
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let found = stores
            .values()
            .find(|(info, _)| Some(info.id) == id || info.name == name);
        let found = found.map(|(_, store)| store.clone());
        drop(stores);
        found.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> StoreError {
        let stores = self.stores();
        let known: Vec<String> = stores.into_iter().map(|info| info.name).collect();
        StoreError::Unknown {
            name: name.chars().take(80).collect(),
            known: known.join(", "),
        }
    }

    /// Returns all stores, the root store first, then the data store, then by name.
    pub fn stores(&self) -> Vec<StoreInfo> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let mut infos: Vec<_> = stores.values().map(|(info, _)| info.clone()).collect();
        infos.sort_by(|a, b| {
            let by_kind = (b.root, b.data).cmp(&(a.root, a.data));
            by_kind.then_with(|| a.name.cmp(&b.name))
        });
        infos
    }

    /// Makes a store. On return it is durable and listed in the root store. If it cannot be listed,
    /// it is removed again.
    ///
    /// # Errors
    /// `NameInvalid`, `NameReserved`, `NameTaken`, `Open`, `Write`.
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

    // Removes a store here, with its files.
    async fn drop_store(&self, id: &StoreId) -> Result<(), StoreError> {
        let removed = {
            let mut stores = self
                .0
                .stores
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            stores.remove(id)
        };
        self.0.meta.change(&[], &[*id])?;
        let Some((_info, store)) = removed else {
            return Ok(());
        };
        if let Err(error) = store.close().await {
            tracing::warn!(store = %id, %error, "a deleted store did not close cleanly");
        }
        self.delete_files(id);
        Ok(())
    }

    /// Renames a store, here and for all members; a private one only here. A member on which the name
    /// is taken keeps its own. Durable on return.
    ///
    /// # Errors
    /// `Unknown`, `Root`, `Data`, `NameInvalid`, `NameReserved`, `NameTaken`, `NotFounder`, `Open`, `Write`.
    pub async fn rename_store(&self, store: &StoreId, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let (info, row) = self.own_row(store)?;
        let _one_at_a_time = self.0.opening.lock().await;
        self.check_free(name)?;
        if !info.private {
            self.check_entitled(&row)?;
            self.root().write_own(listing(name, &row.genesis)).await?;
        }
        self.call_store(&info, name)
    }

    /// Deletes a store with its files, here and on all members; a private one only here. A member that
    /// is offline deletes it when it learns of it. Durable on return. Nothing takes it back.
    ///
    /// # Errors
    /// `Unknown`, `Root`, `Data`, `NotFounder`, `Open`, `Write`.
    pub async fn delete_store(&self, store: &StoreId) -> Result<(), StoreError> {
        let (info, row) = self.own_row(store)?;
        let _one_at_a_time = self.0.opening.lock().await;
        if !info.private {
            self.check_entitled(&row)?;
            self.root().write_own(delisting(&row.genesis)).await?;
        }
        self.drop_store(store).await
    }

    /// Makes a private store one of the mesh: all members get it. Durable on return.
    ///
    /// # Errors
    /// `Unknown`, `Root`, `Data`, `NotPrivate`, `NotFounder`, `Open`, `Write`.
    pub async fn share_store(&self, store: &StoreId) -> Result<(), StoreError> {
        let (info, row) = self.own_row(store)?;
        if !info.private {
            return Err(StoreError::NotPrivate { name: info.name });
        }
        self.check_entitled(&row)?;
        let _one_at_a_time = self.0.opening.lock().await;
        let (disk, dir) = (self.0.config.disk.as_ref(), self.0.opener().dir(store));
        let under = private::root_of(disk, &dir, store)?;
        // The line comes last: the net carries a store when it sees the line. After a crash in between
        // `introduce` writes it.
        private::unmark(disk, &dir)?;
        self.reopen(row.clone()).await?;
        let root = self.root();
        let listed = root.write_own(listing(&info.name, &row.genesis)).await;
        if let Err(error) = listed {
            private::mark(disk, &dir, &under.unwrap_or(*store))?;
            self.reopen(row).await?;
            return Err(error.into());
        }
        Ok(())
    }

    // Closes a store that is not the root store, and opens it as its directory says now.
    async fn reopen(&self, row: meta::Row) -> Result<(), StoreError> {
        if let Some(open) = self.open_store(&row.id) {
            open.close().await?;
        }
        // A private store asks its former root store for the members.
        let mut opened = {
            let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
            stores.clone()
        };
        let opener = self.0.opener();
        opener
            .open_others(vec![row.clone()], &self.root(), &mut opened)
            .await?;
        let mut stores = self
            .0
            .stores
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        stores.extend(opened.remove_entry(&row.id));
        Ok(())
    }

    /// Follows the list in the root store: renames stores that are called otherwise there, and
    /// deletes those that were taken off it. `names` has the names in the list.
    ///
    /// # Errors
    /// `Open`, `Read`.
    pub async fn follow_list(&self, names: &BTreeMap<StoreId, String>) -> Result<(), StoreError> {
        let shared = self.stores().into_iter();
        // No line in the list counts for the data store.
        for info in shared.filter(|info| !info.root && !info.data && !info.private) {
            match names.get(&info.id) {
                Some(name) if *name == info.name => {}
                Some(name) => {
                    let _one_at_a_time = self.0.opening.lock().await;
                    if check_name(name).is_ok() && self.check_free(name).is_ok() {
                        self.call_store(&info, name)?;
                    }
                }
                None => {
                    let heads = self.root().heads(&name_key(&info.id)).await?;
                    if heads.iter().any(|head| head.wins && head.value.is_none()) {
                        let _one_at_a_time = self.0.opening.lock().await;
                        tracing::info!(store = %info.id, name = info.name, "a store was deleted");
                        self.drop_store(&info.id).await?;
                    }
                }
            }
        }
        Ok(())
    }

    // Returns a store of this node that is neither the root store nor the data store.
    fn own_row(&self, store: &StoreId) -> Result<(StoreInfo, meta::Row), StoreError> {
        let info = self.stores().into_iter().find(|info| info.id == *store);
        let row = self
            .0
            .meta
            .stores()?
            .into_iter()
            .find(|row| row.id == *store);
        match info.zip(row) {
            Some((info, _)) if info.root => Err(StoreError::Root),
            Some((info, _)) if info.data => Err(StoreError::Data),
            Some(found) => Ok(found),
            None => Err(self.unknown(&store.to_string())),
        }
    }

    fn check_entitled(&self, row: &meta::Row) -> Result<(), StoreError> {
        let own = self.id();
        let is_admin = self.members().role(&own) == Some(Role::Admin);
        if is_admin || row.genesis.creator == own {
            return Ok(());
        }
        Err(StoreError::NotFounder {
            name: row.name.clone(),
            founder: row.genesis.creator,
        })
    }

    // Calls a store `name` here.
    fn call_store(&self, info: &StoreInfo, name: &str) -> Result<(), StoreError> {
        let (_, row) = self.own_row(&info.id)?;
        let name = name.to_owned();
        self.0.meta.add(&meta::Row {
            name: name.clone(),
            ..row
        })?;
        let mut stores = self
            .0
            .stores
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((info, _)) = stores.get_mut(&info.id) {
            info.name = name;
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
        let store = self.0.opener().open_shared(id, authority).await?;
        let info = StoreInfo {
            id,
            name: name.to_owned(),
            root: false,
            data: false,
            private: false,
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
        self.open_stores_where(|_info| true)
    }

    /// Returns the stores that belong to the mesh, open, the root store first: all but private ones.
    pub fn shared_stores(&self) -> Vec<Store> {
        self.open_stores_where(|info| !info.private)
    }

    fn open_stores_where(&self, is_meant: impl Fn(&StoreInfo) -> bool) -> Vec<Store> {
        let infos = self.stores();
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let meant = infos.iter().filter(|info| is_meant(info));
        let open = meant.filter_map(|info| stores.get(&info.id));
        open.map(|(_, store)| store.clone()).collect()
    }

    /// Returns the store with `id` if it belongs to the mesh. `None` if it is private, or not here.
    pub fn shared_store(&self, id: &StoreId) -> Option<Store> {
        let stores = self.0.stores.read().unwrap_or_else(PoisonError::into_inner);
        let shared = stores.get(id).filter(|(info, _)| !info.private);
        shared.map(|(_, store)| store.clone())
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
