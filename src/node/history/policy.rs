//! Policy: how much history of each store is kept, as the mesh has it.

use crate::{
    id::StoreId,
    node::{HistoryError, HistoryPolicy, Node},
    protocol::{entry::Op, membership::role::Role},
    store::{ReadError, Store, Write},
};

impl Node {
    /// Returns how much history of `store` is kept, and for how long: as an admin or the founder of the
    /// store has set it, else the default.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn history_policy(&self, store: &StoreId) -> Result<HistoryPolicy, ReadError> {
        let set = self.root().get(&HistoryPolicy::key(store)).await?;
        Ok(set.map_or_else(HistoryPolicy::default, |set| {
            HistoryPolicy::decode(&set.value)
        }))
    }

    /// Sets how much history of `store` all nodes keep, and for how long. Values below
    /// `DORMANT_AFTER_MS_MIN` and `DORMANT_BYTES_MIN` are raised. Durable on return; nodes follow it once
    /// they have the entry.
    ///
    /// # Errors
    /// `Root`, `Private`; `NotAdmin`; `Write`.
    pub async fn set_history_policy(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
    ) -> Result<(), HistoryError> {
        self.check_shared(store)?;
        let role = self.members().role(&self.id());
        if role != Some(Role::Admin) {
            return Err(HistoryError::NotAdmin { role });
        }
        let put = Op::Put {
            key: HistoryPolicy::key(&store.id()),
            value: policy.raised().encode(),
            expires_ms: None,
        };
        let write = Write {
            ops: vec![put],
            atomic: false,
            condition: None,
            cause: None,
        };
        self.root().write_own(write).await?;
        Ok(())
    }

    /// # Errors
    /// `Root`, `Private`: acts are not about this store.
    pub(super) fn check_shared(&self, store: &Store) -> Result<(), HistoryError> {
        if store.id() == self.root().id() {
            return Err(HistoryError::Root);
        }
        match self.shared_store(&store.id()) {
            Some(_shared) => Ok(()),
            None => Err(HistoryError::Private),
        }
    }
}
