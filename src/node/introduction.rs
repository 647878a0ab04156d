//! The keys in the root store that describe this node and its stores.

use std::{collections::BTreeSet, sync::PoisonError};

use bytes::Bytes;

use crate::{
    id::{Author, StoreId},
    node::{
        error::OpenError,
        info::{NodeInfo, machine_name},
        node::{Node, Root},
    },
    protocol::{
        entry::Op,
        membership::{genesis::Genesis, role::Role},
    },
    store::{ReadError, Write, WriteError},
};

impl Node {
    /// Returns the info of `node`; `None` if there is none that can be read as such.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn info(&self, node: &Author) -> Result<Option<NodeInfo>, ReadError> {
        let info = self.root().get(&NodeInfo::key(node)).await?;
        Ok(info.and_then(|item| NodeInfo::decode(&item.value)))
    }

    /// Returns the info by which this node introduces itself: the name that was chosen, else the one
    /// that it has, else that of the machine.
    ///
    /// # Errors
    /// `Read`.
    pub async fn own_info(&self) -> Result<NodeInfo, OpenError> {
        let chosen = {
            let name = self.0.name.lock();
            name.unwrap_or_else(PoisonError::into_inner).clone()
        };
        let name = match chosen {
            Some(chosen) => chosen,
            None => match self.info(&self.id()).await? {
                Some(known) => known.name,
                None => machine_name(),
            },
        };
        Ok(NodeInfo::of_this_program(&name))
    }

    /// Writes the keys in the root store that describe this node and its stores, if they are
    /// missing or describe another version or name. Does nothing while this node is not a member of
    /// the root store's mesh, or may not write.
    ///
    /// # Errors
    /// `Write`, `Read`, `Io`, `Unusable`.
    pub async fn introduce(&self) -> Result<(), OpenError> {
        self.introduce_if(true).await
    }

    // Like `introduce`, before anybody was asked whether the clock is right: what a node with other
    // members has written before is not written again.
    pub(super) async fn introduce_at_start(&self) -> Result<(), OpenError> {
        let is_alone = self.members().others(self.id()).next().is_none();
        self.introduce_if(is_alone).await
    }

    // Writes another name or version only if `is_changed_too`.
    async fn introduce_if(&self, is_changed_too: bool) -> Result<(), OpenError> {
        let Root { store, genesis, .. } = self.root_and_genesis();
        let own = self.id();
        if self.members().role(&own).is_none() {
            return Ok(());
        }
        let mut ops = Vec::new();
        let info = self.own_info().await?;
        let known = self.info(&own).await?;
        if known.is_none() || (is_changed_too && known.as_ref() != Some(&info)) {
            ops.push(put(NodeInfo::key(&own), info.encode()));
        }
        let mut wanted = vec![
            put(genesis.key(), genesis.encode()),
            put(format!("/nodes/{own}/status").into(), "active".into()),
        ];
        // The name of another's store counts from its founder or an admin only.
        let may_list = |genesis: &Genesis| {
            genesis.creator == own || self.members().role(&own) == Some(Role::Admin)
        };
        let shared = self.stores().into_iter();
        let shared: BTreeSet<StoreId> = shared
            .filter(|info| !info.root && !info.data && !info.private)
            .map(|info| info.id)
            .collect();
        let rows = self.0.meta.stores()?;
        let rows = rows.iter().filter(|row| shared.contains(&row.id));
        for row in rows.filter(|row| may_list(&row.genesis)) {
            wanted.extend(listing(&row.name, &row.genesis).ops);
        }
        for op in wanted {
            // A key that was deleted has a head: a store that was deleted is not listed again.
            if store.heads(op.key()).await?.is_empty() {
                ops.push(op);
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        let written = store.write_own(Write {
            ops,
            atomic: true,
            condition: None,
            cause: None,
        });
        match written.await {
            // After a cut of the own log they are written at the first start after `repair`, which
            // needs an open node. A reader, a removed member and a node with a spent key may not write
            // them.
            Ok(_)
            | Err(
                WriteError::OwnLogCut { .. }
                | WriteError::Restored
                | WriteError::Reader
                | WriteError::Removed
                | WriteError::KeySpent
                | WriteError::OwnFork { .. }
                | WriteError::OwnLogVoid { .. }
                | WriteError::OwnLogBehind { .. }
                | WriteError::FarAhead { .. },
            ) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the root-store key of the name of a store. It is deleted with the store.
pub(super) fn name_key(store: &StoreId) -> Bytes {
    format!("/stores/{store}/name").into()
}

/// Returns the write that lists a store in the root store.
pub(super) fn listing(name: &str, genesis: &Genesis) -> Write {
    let name = Bytes::copy_from_slice(name.as_bytes());
    about_store(genesis, put(name_key(&genesis.store()), name))
}

/// Returns the write that takes a store off the list in the root store.
pub(super) fn delisting(genesis: &Genesis) -> Write {
    let key = name_key(&genesis.store());
    about_store(genesis, Op::Delete { key })
}

// The founder's op counts because the genesis is in the same entry.
fn about_store(genesis: &Genesis, op: Op) -> Write {
    Write {
        ops: vec![put(genesis.key(), genesis.encode()), op],
        atomic: true,
        condition: None,
        cause: None,
    }
}

fn put(key: Bytes, value: Bytes) -> Op {
    Op::Put {
        key,
        value,
        expires_ms: None,
    }
}
