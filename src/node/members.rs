//! The members of the node's mesh: who they are, who is removed, who is away for long.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    id::Author,
    node::{error::OpenError, node::Node},
    protocol::{
        entry::Op,
        membership::{
            Members, MembershipError,
            invite::InviteError,
            role::{Act, Tips, TooManyTips, role_key},
        },
    },
    store::{ReadError, Write, WriteError},
};

/// Why the members stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The rules of membership say no.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The invite is worth nothing.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// Not a member, or not any more.
    #[error("node {node} is not a member")]
    NotAMember {
        /// Which.
        node: Author,
    },
    /// An author has forked more often than a removal can say.
    #[error(transparent)]
    TooManyTips(#[from] TooManyTips),
    /// It could not be written into the root store.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The root store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no randomness, or the node's own files cannot be written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Node {
    /// Returns who is a member now.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.root().members().borrow())
    }

    /// Returns what tells who is a member. It ends when the node joins another mesh.
    pub fn watch_members(&self) -> watch::Receiver<Arc<Members>> {
        self.root().members()
    }

    /// Ends the membership of `node` for ever. Of its entries those count that are here now.
    /// Durable on return.
    ///
    /// # Errors
    /// `Membership`: the rules say no. `TooManyTips`, `Write`.
    pub async fn remove(&self, node: &Author) -> Result<(), MeshError> {
        self.members().may_remove(&self.id(), node)?;
        let mut tips = Vec::new();
        for store in self.open_stores() {
            let frontier = store.frontier();
            tips.extend(frontier.tips(node).iter().map(|tip| (store.id(), *tip)));
        }
        let removal = Act::Remove(Tips::new(tips)?).encode();
        self.root().write_own(put(role_key(node), removal)).await?;
        for store in self.open_stores() {
            store.reconsider().await;
        }
        Ok(())
    }

    /// True when `node` is said to be away for long.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn is_dormant(&self, node: &Author) -> Result<bool, ReadError> {
        let key = format!("/nodes/{node}/status");
        let status = self.root().get(key.as_bytes()).await?;
        Ok(status.is_some_and(|item| item.value.as_ref() == b"dormant"))
    }

    /// Says of `node` that it is not waited for, or that it is again. Durable on return.
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

/// A write of one key into the root store.
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
