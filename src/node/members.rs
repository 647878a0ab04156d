//! The members of the node's mesh: reading, removing, and marking one as dormant.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    id::Author,
    node::{error::OpenError, node::Node},
    protocol::{
        entry::Op,
        membership::{
            Departure, Members, MembershipError,
            invite::InviteError,
            role::{Act, Tips, TooManyTips, role_key},
        },
    },
    store::{ReadError, Store, Write, WriteError},
};

/// Why an operation on the members of the mesh failed.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The rules of membership refuse it.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The invite cannot be redeemed.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The node is not a member, or not any more.
    #[error("node {node} is not a member")]
    NotAMember {
        /// Key of the node.
        node: Author,
    },
    /// The author has more forks than a removal can name.
    #[error(transparent)]
    TooManyTips(#[from] TooManyTips),
    /// The root store could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The root store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The random source failed, or a file of the node cannot be written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Node {
    /// Returns the members as of now.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.root().members().borrow())
    }

    /// Returns a receiver of the members, now and after each change. It is closed when the node
    /// joins another mesh.
    pub fn watch_members(&self) -> watch::Receiver<Arc<Members>> {
        self.root().members()
    }

    /// Removes `node` for ever. The entries of it that are here now go on counting; later ones
    /// never do. In a store in which its key is spent all that is here counts again. Durable on return.
    ///
    /// # Errors
    /// `Membership`: the rules refuse it. `TooManyTips`, `Write`.
    pub async fn remove(&self, node: &Author) -> Result<(), MeshError> {
        self.members().may_remove(&self.id(), node)?;
        let mut tips = Vec::new();
        for store in self.open_stores() {
            for frontier in [store.frontier(), store.spent()] {
                tips.extend(frontier.tips(node).iter().map(|tip| (store.id(), *tip)));
            }
        }
        let stores = self.open_stores();
        let stores = stores.iter().map(Store::id);
        let removal = Act::Remove(Tips::naming(stores, tips)?).encode();
        self.root().write_own(put(role_key(node), removal)).await?;
        for store in self.open_stores() {
            store.reconsider().await;
        }
        Ok(())
    }

    /// Removes once more each node that has left, or that was removed before a store was here, if this
    /// node is an admin that outranks it: see [`Members::departures`]. Durable on return. Does nothing
    /// when there is nothing to add.
    ///
    /// # Errors
    /// `TooManyTips`, `Write`.
    pub async fn confirm_departures(&self) -> Result<(), MeshError> {
        let stores = self.open_stores();
        let ids = stores.iter().map(Store::id).collect();
        for departure in self.members().departures(&self.id(), &ids) {
            let Departure {
                node,
                stores: named,
                mut tips,
            } = departure;
            let root = self.root().id();
            for store in &stores {
                let id = store.id();
                if id == root || named.contains(&id) {
                    let frontier = store.frontier();
                    tips.extend(frontier.tips(&node).iter().map(|tip| (id, *tip)));
                }
            }
            let removal = Act::Remove(Tips::naming(named, tips)?).encode();
            self.root().write_own(put(role_key(&node), removal)).await?;
        }
        Ok(())
    }

    /// True when `node` is marked as dormant: away for long, and not waited for.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn is_dormant(&self, node: &Author) -> Result<bool, ReadError> {
        let key = format!("/nodes/{node}/status");
        let status = self.root().get(key.as_bytes()).await?;
        Ok(status.is_some_and(|item| item.value.as_ref() == b"dormant"))
    }

    /// Marks `node` as dormant or as active. A dormant node is not waited for. Durable on return.
    ///
    /// # Errors
    /// `NotAMember`, `Write`.
    pub async fn set_dormant(&self, node: &Author, dormant: bool) -> Result<(), MeshError> {
        if self.members().role(node).is_none() {
            return Err(MeshError::NotAMember { node: *node });
        }
        let status = if dormant { "dormant" } else { "active" };
        let key = Bytes::from(format!("/nodes/{node}/status"));
        self.root().write_own(put(key, status.into())).await?;
        Ok(())
    }
}

/// Returns a write of one key that does not expire.
pub(super) fn put(key: Bytes, value: Bytes) -> Write {
    let op = Op::Put {
        key,
        value,
        expires_ms: None,
    };
    Write {
        ops: vec![op],
        atomic: false,
        condition: None,
        cause: None,
    }
}
